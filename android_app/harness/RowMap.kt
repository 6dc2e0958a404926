package org.sparserec.harness

/**
 * From rows of the table to numbers, for at most [capacity] rows at once; open addressing with
 * linear probing. Nothing is allocated after the constructor.
 */
class RowMap(capacity: Int) {
    /** The row plus one in the upper half, its number in the lower; 0 where there is none. */
    private val cells = LongArray((4 * capacity).takeHighestOneBit())
    private val shift = Int.SIZE_BITS - cells.size.countTrailingZeroBits()

    fun clear() = cells.fill(0)

    /** Where [row] is, or else where it would go. */
    fun find(row: Int): Int {
        var place = row * HASH ushr shift
        while (cells[place] != 0L && (cells[place] ushr Int.SIZE_BITS).toInt() != row + 1) {
            place = place + 1 and cells.size - 1
        }
        return place
    }

    /** The number at a place that [find] gave, or -1. */
    fun number(place: Int): Int = if (cells[place] == 0L) -1 else cells[place].toInt()

    /** Gives [row] a number, at the place that [find] gave for it. */
    fun put(place: Int, row: Int, number: Int) {
        cells[place] = (row + 1).toLong() shl Int.SIZE_BITS or number.toLong()
    }

    private companion object {
        /** 2^32 over the golden ratio, as in Knuth's multiplicative hashing. */
        const val HASH = -0x61c88647
    }
}
