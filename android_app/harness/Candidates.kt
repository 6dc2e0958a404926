package org.sparserec.harness

/**
 * The items that may be a user's best where scores are inner products of rows: those with the
 * largest products over packed entries. No row is made dense, and nothing grows with the catalogue.
 *
 * The program's scores decide among them; both sums have the same terms in the same precision, and
 * there are several times more candidates than places.
 *
 * @param count of candidates at most
 */
class Candidates(
    private val manifest: Manifest,
    private val table: PackedTable,
    private val interactions: Interactions,
    count: Int,
) {
    private val found = TopList(count)
    private val user = FloatArray(WIDEST)
    private val rowPtr = IntArray(ROWS + 1)
    private val cols = ByteArray(ROWS * table.dim)
    private val values = FloatArray(ROWS * table.dim)

    /** (count,) items, ascending; the first [size] of them count. */
    val items = IntArray(count)
    val size: Int get() = found.size

    /** Finds the candidates of [of], which is no item that it has had. */
    fun find(of: Int) {
        found.clear()
        table.readRows(of, 1, rowPtr, cols, values)
        user.fill(0f)
        for (k in 0 until rowPtr[1]) user[cols[k].toInt() and BYTE] = values[k]
        var first = 0
        while (first < manifest.knownItems) {
            val some = minOf(ROWS, manifest.knownItems - first)
            table.readRows(manifest.numUsers + first, some, rowPtr, cols, values)
            score(of, first, some)
            first += some
        }
        found.copySorted(items)
    }

    /** Scores the [some] items from [first] on, whose rows have been read. */
    private fun score(of: Int, first: Int, some: Int) {
        var entry = 0
        var least = found.least
        for (k in 0 until some) {
            var score = 0f
            val end = rowPtr[k + 1]
            while (entry < end) {
                score += values[entry] * user[cols[entry].toInt() and BYTE]
                entry++
            }
            if (score > least && !interactions.isKnown(of, first + k)) {
                found.add(score, first + k)
                least = found.least
            }
        }
    }

    private companion object {
        /** Rows read together: few enough for the innermost cache. */
        const val ROWS = 128
        const val WIDEST = 256
        const val BYTE = 0xff
    }
}
