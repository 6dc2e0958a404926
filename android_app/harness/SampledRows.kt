package org.sparserec.harness

/**
 * The rows S of a window, ascending, each with its place among them: docs/formats.md section 5.
 * Rows are added, then [seal] orders them. Nothing is allocated after the constructor.
 */
class SampledRows(private val numRows: Int, capacity: Int) {
    /** For every 32 rows of the table: a bit for each sampled one, and above, how many precede. */
    private val cells = LongArray((numRows + ROWS_PER_CELL - 1) / ROWS_PER_CELL)
    private val rows = IntArray(capacity)

    var size = 0
        private set

    /** The row at [place]. */
    operator fun get(place: Int): Int = rows[place]

    /** The place of [row], or -1. One access to memory, however many rows there are. */
    fun place(row: Int): Int {
        val cell = cells[row / ROWS_PER_CELL]
        val bit = 1 shl row
        val bits = cell.toInt()
        if (bits and bit == 0) return -1
        return (cell ushr ROWS_PER_CELL).toInt() + (bits and (bit - 1)).countOneBits()
    }

    fun clear() {
        cells.fill(0)
        size = 0
    }

    /**
     * Adds a row unless it is there; places are right after [seal]. No branch depends on whether it
     * is, which cannot be foretold.
     */
    fun add(row: Int) {
        val cell = row / ROWS_PER_CELL
        val bits = cells[cell].toInt()
        size += bits.inv() ushr row and 1 // a shift of an Int is by the last five bits of row
        cells[cell] = (bits or (1 shl row)).toLong() and LOW_HALF
    }

    fun seal() {
        var place = 0
        for (k in cells.indices) {
            var bits = cells[k].toInt()
            cells[k] = place.toLong() shl ROWS_PER_CELL or (bits.toLong() and LOW_HALF)
            while (bits != 0) {
                rows[place++] = k * ROWS_PER_CELL + bits.countTrailingZeroBits()
                bits = bits and (bits - 1)
            }
        }
    }

    private companion object {
        const val ROWS_PER_CELL = 32
        const val LOW_HALF = 0xffff_ffffL
    }
}
