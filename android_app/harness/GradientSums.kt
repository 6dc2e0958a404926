package org.sparserec.harness

/**
 * The gradient rows of a window, summed, for those sampled rows that a batch has had: the
 * accumulators of docs/formats.md section 5. All others are zero and take no memory, so this grows
 * with what a window touches and not with the table.
 *
 * @param maxSampled most sampled rows, which are named by their place among them
 */
class GradientSums(private val maxSampled: Int, private val dim: Int) {
    /** The line of a place in [values], or -1. */
    private val lineOf = IntArray(maxSampled) { -1 }

    /** The place of each line. */
    private var placeOf = IntArray(FIRST_LINES)
    private var lines = 0

    /** (lines, d): where [start] says that a row begins. */
    var values = FloatArray(FIRST_LINES * dim)
        private set

    /** Where the sums of [place] begin in [values], or negative if all are zero. */
    fun start(place: Int): Int = lineOf[place] * dim

    fun clear() {
        for (line in 0 until lines) lineOf[placeOf[line]] = -1
        lines = 0
    }

    /** Adds `gradients[from ..< from + d]` to the sums of [place]. */
    fun add(place: Int, gradients: FloatArray, from: Int) {
        if (lineOf[place] < 0) begin(place)
        val to = start(place)
        val values = values
        for (col in 0 until dim) values[to + col] += gradients[from + col]
    }

    /** Gives [place] a line of zeros. */
    private fun begin(place: Int) {
        if (lines == placeOf.size) {
            placeOf = placeOf.copyOf(2 * lines)
            values = values.copyOf(Math.multiplyExact(2 * lines, dim))
        }
        values.fill(0f, lines * dim, (lines + 1) * dim)
        placeOf[lines] = place
        lineOf[place] = lines++
    }

    private companion object {
        const val FIRST_LINES = 256
    }
}
