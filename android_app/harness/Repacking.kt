package org.sparserec.harness

/**
 * Takes entries out of a table and puts as many new ones in, all in one pass over it.
 *
 * The table is rewritten in place from the front. Where more was put in than taken out so far, the
 * writing is ahead of the reading, so what it would run over is read before, into a window. Entries
 * are moved in blocks through arrays: a single access to a mapped buffer costs several times more.
 */
class Repacking(private val table: PackedTable) {
    private val vals = table.vals.duplicate()
    private val cols = table.cols.duplicate()

    private var dropped = IntArray(0)

    /** Of each entry to grow: its row, its column, and the entry before which it comes. */
    private var grownRows = IntArray(0)
    private var grownCols = ByteArray(0)
    private var grownPlaces = IntArray(0)
    private var numDropped = 0
    private var numGrown = 0

    /** The window: entries `[windowStart, windowEnd)` as they were. */
    private var windowVals = FloatArray(2 * BLOCK)
    private var windowCols = ByteArray(2 * BLOCK)
    private var windowStart = 0
    private var windowEnd = 0

    /** The next entry to read. */
    private var next = 0

    /** What is written next, from the place [outStart] on. */
    private val outVals = FloatArray(BLOCK)
    private val outCols = ByteArray(BLOCK)
    private var outStart = 0
    private var outSize = 0

    /** Begins a change by [count] entries. */
    fun begin(count: Int) {
        if (dropped.size < count) {
            dropped = IntArray(count)
            grownRows = IntArray(count)
            grownCols = ByteArray(count)
            grownPlaces = IntArray(count)
        }
        numDropped = 0
        numGrown = 0
    }

    /** The entry at [place] shall go; they come in ascending order. */
    fun drop(place: Int) {
        dropped[numDropped++] = place
    }

    /** ([row], [col]), which is not there, shall be there as zero; they come in ascending order. */
    fun grow(row: Int, col: Int) {
        val end = table.end(row)
        var place = table.start(row)
        while (place < end && table.col(place) < col) place++
        grownPlaces[numGrown] = place
        grownRows[numGrown] = row
        grownCols[numGrown++] = col.toByte()
    }

    fun run() {
        check(numDropped == numGrown) { "$numDropped entries to drop, $numGrown to grow" }
        if (numDropped == 0) return
        moveEntries()
        movePointers()
    }

    private fun moveEntries() {
        next = minOf(dropped[0], grownPlaces[0])
        windowStart = next
        windowEnd = next
        outStart = next
        var drops = 0
        for (grows in 0..numGrown) {
            val place = if (grows < numGrown) grownPlaces[grows] else table.nnz
            while (drops < numDropped && dropped[drops] < place) {
                copyUpTo(dropped[drops++])
                skip()
            }
            if (grows == numGrown) break // as many went as came: the rest is in its place
            copyUpTo(place)
            append(grownCols[grows], 0f)
        }
        flush()
    }

    private fun copyUpTo(end: Int) {
        while (next < end) {
            if (next == windowEnd) fill(next + 1)
            val count = minOf(end - next, windowEnd - next, BLOCK - outSize)
            val from = next - windowStart
            System.arraycopy(windowVals, from, outVals, outSize, count)
            System.arraycopy(windowCols, from, outCols, outSize, count)
            next += count
            outSize += count
            if (outSize == BLOCK) flush()
        }
    }

    private fun skip() {
        if (++next > windowEnd) {
            windowStart = next
            windowEnd = next
        }
    }

    private fun append(col: Byte, value: Float) {
        outCols[outSize] = col
        outVals[outSize++] = value
        if (outSize == BLOCK) flush()
    }

    private fun flush() {
        if (windowEnd < outStart + outSize) fill(outStart + outSize)
        vals.position(outStart)
        vals.put(outVals, 0, outSize)
        cols.position(outStart)
        cols.put(outCols, 0, outSize)
        outStart += outSize
        outSize = 0
    }

    /** Reads on, to [needed] at least; what is still to come stays in the window. */
    private fun fill(needed: Int) {
        val end = minOf(table.nnz, maxOf(needed, windowEnd + BLOCK))
        val kept = windowEnd - next
        if (end - next > windowVals.size) {
            windowVals = windowVals.copyOf(2 * (end - next))
            windowCols = windowCols.copyOf(2 * (end - next))
        }
        System.arraycopy(windowVals, next - windowStart, windowVals, 0, kept)
        System.arraycopy(windowCols, next - windowStart, windowCols, 0, kept)
        vals.position(windowEnd)
        vals.get(windowVals, kept, end - windowEnd)
        cols.position(windowEnd)
        cols.get(windowCols, kept, end - windowEnd)
        windowStart = next
        windowEnd = end
    }

    private fun movePointers() {
        val rowPtr = table.rowPtr
        var drops = 0
        var grows = 0
        for (row in 0 until table.numRows) {
            val end = rowPtr.get(row + 1)
            while (drops < numDropped && dropped[drops] < end) drops++
            while (grows < numGrown && grownRows[grows] == row) grows++
            rowPtr.put(row + 1, end + grows - drops)
        }
    }

    private companion object {
        /** Entries moved at once. */
        const val BLOCK = 4096
    }
}
