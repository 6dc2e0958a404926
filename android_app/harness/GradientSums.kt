package org.sparserec.harness

/**
 * The gradient rows of a window, summed, for those sampled rows that a batch has had: the
 * accumulators of docs/formats.md section 5. All others are zero and take no memory, so this grows
 * with what a window touches and not with the table; and by a chunk at a time, so that nothing is
 * copied to a larger place.
 *
 * @param maxSampled most sampled rows, which are named by their place among them
 */
class GradientSums(maxSampled: Int, private val dim: Int) {
    /** The line of a place, or -1. */
    private val lineOf = IntArray(maxSampled) { -1 }

    /** The place of each line. */
    private var placeOf = IntArray(CHUNK_LINES)
    private var lines = 0

    /** ([CHUNK_LINES], d) each; null where no window has needed it yet. */
    private val chunks = arrayOfNulls<FloatArray>((maxSampled + CHUNK_LINES - 1) / CHUNK_LINES)

    /** Whether a batch has had the row at [place]; otherwise its sums are zero and nowhere. */
    fun has(place: Int): Boolean = lineOf[place] >= 0

    /** Where the sums of [place], which [has] some, are: they begin at [start]. */
    fun chunk(place: Int): FloatArray = chunks[lineOf[place] ushr CHUNK_BITS]!!

    fun start(place: Int): Int = (lineOf[place] and CHUNK_LINES - 1) * dim

    fun clear() {
        for (line in 0 until lines) lineOf[placeOf[line]] = -1
        lines = 0
    }

    /** Adds `gradients[from ..< from + d]` to the sums of [place]. */
    fun add(place: Int, gradients: FloatArray, from: Int) {
        if (lineOf[place] < 0) return begin(place, gradients, from)
        val to = start(place)
        val values = chunk(place)
        for (col in 0 until dim) values[to + col] += gradients[from + col]
    }

    /** Has the sums of [place] brought near; the result keeps that from being left out. */
    fun touch(place: Int): Float {
        if (lineOf[place] < 0) return 0f
        val values = chunk(place)
        var seen = 0f
        var at = start(place)
        val end = at + dim
        while (at < end) {
            seen += values[at]
            at += CACHE_LINE
        }
        return seen
    }

    /** Gives [place] a line, which has these gradients. */
    private fun begin(place: Int, gradients: FloatArray, from: Int) {
        if (lines == placeOf.size) placeOf = placeOf.copyOf(2 * lines)
        val chunk = lines ushr CHUNK_BITS
        if (chunks[chunk] == null) chunks[chunk] = FloatArray(CHUNK_LINES * dim)
        placeOf[lines] = place
        lineOf[place] = lines++
        System.arraycopy(gradients, from, chunk(place), start(place), dim)
    }

    private companion object {
        const val CHUNK_BITS = 8
        const val CHUNK_LINES = 1 shl CHUNK_BITS

        /** Floats that come near together. */
        const val CACHE_LINE = 16
    }
}
