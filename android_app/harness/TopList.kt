package org.sparserec.harness

/** The best [capacity] items of a user: by value, then the smaller item. */
class TopList(private val capacity: Int) {
    private val values = FloatArray(capacity)
    private val items = IntArray(capacity)

    var size = 0
        private set

    /** What a value must exceed for an item greater than all that are here to be added. */
    val least: Float get() = if (size < capacity) Float.NEGATIVE_INFINITY else values[size - 1]

    fun item(rank: Int): Int = items[rank]

    fun clear() {
        size = 0
    }

    /** Puts the items, ascending, into the beginning of [to]. */
    fun copySorted(to: IntArray) {
        items.copyInto(to, 0, 0, size)
        to.sort(0, size)
    }

    fun add(value: Float, item: Int) {
        if (size == capacity && !isBetter(value, item, size - 1)) return
        if (size < capacity) size++
        var rank = size - 1
        while (rank > 0 && isBetter(value, item, rank - 1)) {
            values[rank] = values[rank - 1]
            items[rank] = items[rank - 1]
            rank--
        }
        values[rank] = value
        items[rank] = item
    }

    private fun isBetter(value: Float, item: Int, rank: Int): Boolean =
        value > values[rank] || value == values[rank] && item < items[rank]
}
