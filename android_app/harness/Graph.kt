package org.sparserec.harness

import java.nio.IntBuffer

/** Each row's neighbours, ascending: `graph.safetensors` (docs/formats.md section 1.6). */
class Graph(private val ptr: IntBuffer, private val rows: IntBuffer) {
    val numRows: Int get() = ptr.capacity() - 1

    fun degree(row: Int): Int = ptr.get(row + 1) - ptr.get(row)

    /** The neighbour of [row] at [index], from 0. */
    fun neighbour(row: Int, index: Int): Int = rows.get(start(row) + index)

    /** The place of the first of [row]'s neighbours among those of all rows. */
    fun start(row: Int): Int = ptr.get(row)

    /** The row at a place among the neighbours of all rows. */
    fun rowAt(place: Int): Int = rows.get(place)

    private fun joins(row: Int, other: Int): Boolean {
        var low = ptr.get(row)
        var high = ptr.get(row + 1)
        while (low < high) {
            val middle = (low + high) ushr 1
            if (rows.get(middle) < other) low = middle + 1 else high = middle
        }
        return low < ptr.get(row + 1) && rows.get(low) == other
    }

    companion object {
        fun read(path: String, file: Safetensors, manifest: Manifest): Graph {
            val ptr = file.map("graph_ptr", DType.I32, manifest.numRows + 1).asIntBuffer()
            val rows = file.vector("graph_rows", DType.I32).asIntBuffer()
            fun fail(problem: String): Nothing = throw HarnessError("$path: $problem", EXPORT_AGAIN)
            if (ptr.get(0) != 0 || ptr.get(manifest.numRows) != rows.capacity()) {
                fail("graph_ptr: must run from 0 to ${rows.capacity()}")
            }
            for (row in 0 until manifest.numRows) {
                val start = ptr.get(row)
                val end = ptr.get(row + 1)
                if (start > end || end > rows.capacity()) fail("graph_ptr: falls at row $row")
                val others = if (row < manifest.numUsers) {
                    manifest.numUsers until manifest.numRows
                } else {
                    0 until manifest.numUsers
                }
                for (place in start until end) {
                    val ascending = place == start || rows.get(place - 1) < rows.get(place)
                    if (!ascending || rows.get(place) !in others) {
                        fail("graph_rows: row $row is not strictly ascending in $others")
                    }
                }
            }
            val graph = Graph(ptr, rows)
            for (row in 0 until manifest.numRows) {
                for (index in 0 until graph.degree(row)) {
                    val other = graph.neighbour(row, index)
                    if (!graph.joins(other, row)) {
                        fail("graph_rows: row $row has $other, which has no way back")
                    }
                }
            }
            return graph
        }
    }
}
