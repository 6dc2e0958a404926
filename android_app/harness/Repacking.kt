package org.sparserec.harness

import java.nio.ByteBuffer

/**
 * Takes entries out of a table and puts as many new ones in, all in one pass over it. What else has
 * a number for each entry, as optimizer state has, moves along. All numbers of a new entry are 0, but
 * for [averaged], where it is the mean of its row's: docs/formats.md section 5.
 *
 * The table is rewritten in place from the front. Where more was put in than taken out so far, the
 * writing is ahead of the reading, so what it would run over is read before, into a window. Entries
 * are moved in blocks through arrays: a single access to a mapped buffer costs several times more.
 *
 * @param states float32 (nnz,) each, what moves along
 * @param averaged float32 (nnz,), moves along too
 */
class Repacking(
    private val table: PackedTable,
    states: List<ByteBuffer> = emptyList(),
    private val averaged: ByteBuffer? = null,
) {
    private val cols = Column(table.cols, 1)
    private val means = averaged?.let { Column(it, Float.SIZE_BYTES) }
    private val columns = (listOf(table.valBytes) + states)
        .map { Column(it, if (table.nnz == 0) 0 else it.capacity() / table.nnz) }
        .plus(listOfNotNull(means, cols))
        .toTypedArray()

    /** Of each entry to drop: its row, and which of the table's entries it is. */
    private var droppedRows = IntArray(0)
    private var dropped = IntArray(0)

    /** Of each entry to grow: its row, its column, and the entry before which it comes. */
    private var grownRows = IntArray(0)
    private var grownCols = ByteArray(0)
    private var grownPlaces = IntArray(0)
    private var grownMeans = FloatArray(0)

    /** Of the row that grew last: where its entries end, the place reached, and its mean. */
    private var growing = -1
    private var growingEnd = 0
    private var growingPlace = 0
    private var growingMean = 0f

    /** Of a block of rows: where they end, and by how much they grow. */
    private val rowEnds = table.rowPtr.duplicate()
    private val ends = IntArray(BLOCK)
    private val changes = IntArray(BLOCK)

    private var numDropped = 0
    private var numGrown = 0

    /** The window holds entries `[windowStart, windowEnd)` as they were. */
    private var windowStart = 0
    private var windowEnd = 0

    /** The next entry to read. */
    private var next = 0

    /** What is written next goes to the place [outStart] and on. */
    private var outStart = 0
    private var outSize = 0

    /** Begins a change by [count] entries. */
    fun begin(count: Int) {
        if (dropped.size < count) {
            droppedRows = IntArray(count)
            dropped = IntArray(count)
            grownRows = IntArray(count)
            grownCols = ByteArray(count)
            grownPlaces = IntArray(count)
            if (averaged != null) grownMeans = FloatArray(count)
        }
        numDropped = 0
        numGrown = 0
        growing = -1
    }

    /** The [k]-th entry of [row], from 0, shall go; they come in ascending order. */
    fun drop(row: Int, k: Int) {
        droppedRows[numDropped] = row
        dropped[numDropped++] = table.start(row) + k
    }

    /** ([row], [col]), which is not there, shall be there as zero; they come in ascending order. */
    fun grow(row: Int, col: Int) {
        if (row != growing) {
            growing = row
            growingEnd = table.end(row)
            growingPlace = table.start(row)
            if (averaged != null) growingMean = meanOf(averaged, row)
        }
        while (growingPlace < growingEnd && table.col(growingPlace) < col) growingPlace++
        grownPlaces[numGrown] = growingPlace
        if (averaged != null) grownMeans[numGrown] = growingMean
        grownRows[numGrown] = row
        grownCols[numGrown++] = col.toByte()
    }

    private fun meanOf(numbers: ByteBuffer, row: Int): Float {
        val start = table.start(row)
        val end = table.end(row)
        var sum = 0.0
        for (place in start until end) sum += numbers.getFloat(place * Float.SIZE_BYTES)
        return if (end == start) 0f else (sum / (end - start)).toFloat()
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
            append(grows)
        }
        flush()
    }

    private fun copyUpTo(end: Int) {
        while (next < end) {
            if (next == windowEnd) fill(next + 1)
            val count = minOf(end - next, windowEnd - next, BLOCK - outSize)
            for (column in columns) column.pass(next - windowStart, outSize, count)
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

    private fun append(grown: Int) {
        for (column in columns) column.appendZero(outSize)
        means?.set(outSize, grownMeans[grown])
        cols.set(outSize++, grownCols[grown])
        if (outSize == BLOCK) flush()
    }

    private fun flush() {
        if (windowEnd < outStart + outSize) fill(outStart + outSize)
        for (column in columns) column.write(outStart, outSize)
        outStart += outSize
        outSize = 0
    }

    /** Reads on, to [needed] at least; what is still to come stays in the window. */
    private fun fill(needed: Int) {
        val end = minOf(table.nnz, maxOf(needed, windowEnd + BLOCK))
        for (column in columns) column.read(next, windowStart, windowEnd, end)
        windowStart = next
        windowEnd = end
    }

    /** Shifts the pointers by what went and came before them, a block at a time. */
    private fun movePointers() {
        var drops = 0
        var grows = 0
        var shift = 0
        var first = 0
        while (first < table.numRows) {
            val end = minOf(table.numRows, first + BLOCK)
            changes.fill(0)
            while (grows < numGrown && grownRows[grows] < end) changes[grownRows[grows++] - first]++
            while (drops < numDropped && droppedRows[drops] < end) {
                changes[droppedRows[drops++] - first]--
            }
            rowEnds.position(first + 1)
            rowEnds.get(ends, 0, end - first)
            for (k in 0 until end - first) {
                shift += changes[k]
                ends[k] += shift
            }
            rowEnds.position(first + 1)
            rowEnds.put(ends, 0, end - first)
            first = end
        }
    }

    /** One of the numbers that every entry has, [width] bytes each. */
    private class Column(buffer: ByteBuffer, private val width: Int) {
        private val buffer = buffer.duplicate()
        private var window = ByteArray(2 * BLOCK * width)
        private val out = ByteArray(BLOCK * width)

        /** Takes [count] of the window from [from] on to what is written, from [to] on. */
        fun pass(from: Int, to: Int, count: Int) =
            System.arraycopy(window, from * width, out, to * width, count * width)

        fun appendZero(to: Int) = out.fill(0, to * width, (to + 1) * width)

        fun set(to: Int, value: Byte) {
            out[to] = value
        }

        fun set(to: Int, value: Float) {
            val bits = value.toRawBits()
            for (k in 0 until Float.SIZE_BYTES) {
                out[to * Float.SIZE_BYTES + k] = (bits ushr k * Byte.SIZE_BITS).toByte()
            }
        }

        fun write(to: Int, count: Int) {
            buffer.position(to * width)
            buffer.put(out, 0, count * width)
        }

        /** Moves the window, which is [start] to [end], so that it is [next] to [newEnd]. */
        fun read(next: Int, start: Int, end: Int, newEnd: Int) {
            val kept = end - next
            if ((newEnd - next) * width > window.size) {
                window = window.copyOf(2 * (newEnd - next) * width)
            }
            System.arraycopy(window, (next - start) * width, window, 0, kept * width)
            buffer.position(end * width)
            buffer.get(window, kept * width, (newEnd - end) * width)
        }
    }

    private companion object {
        /** Entries moved at once. */
        const val BLOCK = 4096
    }
}
