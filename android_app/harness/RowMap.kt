package org.sparserec.harness

/**
 * From rows of the table to numbers, for at most [capacity] rows at once; open addressing with
 * linear probing. Nothing is allocated after the constructor.
 */
class RowMap(capacity: Int) {
    /** Rows plus one; 0 where there is none. */
    private val rows = IntArray((4 * capacity).takeHighestOneBit())
    private val numbers = IntArray(rows.size)
    private val shift = Int.SIZE_BITS - rows.size.countTrailingZeroBits()

    fun clear() = rows.fill(0)

    /** Where [row] is, or else where it would go. */
    fun find(row: Int): Int {
        var place = row * HASH ushr shift
        while (rows[place] != 0 && rows[place] != row + 1) place = place + 1 and rows.size - 1
        return place
    }

    /** The number at a place that [find] gave, or -1. */
    fun number(place: Int): Int = if (rows[place] == 0) -1 else numbers[place]

    /** Gives [row] a number, at the place that [find] gave for it. */
    fun put(place: Int, row: Int, number: Int) {
        rows[place] = row + 1
        numbers[place] = number
    }

    private companion object {
        /** 2^32 over the golden ratio, as in Knuth's multiplicative hashing. */
        const val HASH = -0x61c88647
    }
}
