package org.sparserec.harness

import java.nio.ByteBuffer
import java.nio.FloatBuffer
import java.nio.IntBuffer

/**
 * The packed embedding table: only active entries are stored (docs/formats.md section 1.1).
 *
 * Row r's entries are `[start(r), end(r))`, columns ascending. The little-endian bytes stay where
 * they are, in a private mapping as a rule, and are changed in place.
 */
class PackedTable(
    val dim: Int,
    private val rowPtrBytes: ByteBuffer,
    private val colBytes: ByteBuffer,
    private val valBytes: ByteBuffer,
) {
    private val rowPtr: IntBuffer = rowPtrBytes.asIntBuffer()

    /** (nnz,) values, changed by training. */
    val vals: FloatBuffer = valBytes.asFloatBuffer()

    val numRows: Int get() = rowPtr.capacity() - 1

    val nnz: Int get() = vals.capacity()

    fun start(row: Int): Int = rowPtr.get(row)

    fun end(row: Int): Int = rowPtr.get(row + 1)

    fun col(entry: Int): Int = colBytes.get(entry).toInt() and 0xff

    /** The tensors as in `table.safetensors`. */
    fun tensors(): List<NamedTensor> = listOf(
        NamedTensor("row_ptr", DType.I32, listOf(numRows + 1L), rowPtrBytes),
        NamedTensor("cols", DType.U8, listOf(nnz.toLong()), colBytes),
        NamedTensor("vals", DType.F32, listOf(nnz.toLong()), valBytes),
    )

    /** The report's `table_sha256`. */
    fun sha256(): String = sha256(listOf(rowPtrBytes, colBytes, valBytes))

    /**
     * Removes the entries [dropped] (ascending places) and inserts as many zeros at ([rows],
     * [cols]) (ascending by row, then column; not there yet). Two passes in place: pack to the
     * front, then spread from the back.
     */
    fun exchange(dropped: IntArray, rows: IntArray, cols: IntArray) {
        if (dropped.isEmpty()) return
        pack(dropped)
        spread(rows, cols)
    }

    private fun pack(dropped: IntArray) {
        var write = dropped[0]
        var next = 0
        for (read in dropped[0] until nnz) {
            if (next < dropped.size && dropped[next] == read) next++ else move(read, write++)
        }
        next = 0
        for (row in 1..numRows) {
            while (next < dropped.size && dropped[next] < rowPtr.get(row)) next++
            rowPtr.put(row, rowPtr.get(row) - next)
        }
    }

    private fun spread(rows: IntArray, cols: IntArray) {
        var write = nnz
        var next = rows.size - 1
        var row = numRows - 1
        while (next >= 0) { // below the first grown entry everything is in place
            var read = end(row)
            rowPtr.put(row + 1, write)
            while (read > start(row) || next >= 0 && rows[next] == row) {
                val grows = next >= 0 && rows[next] == row
                if (grows && (read == start(row) || cols[next] > col(read - 1))) {
                    colBytes.put(--write, cols[next--].toByte())
                    vals.put(write, 0f)
                } else {
                    move(--read, --write)
                }
            }
            row--
        }
    }

    private fun move(from: Int, to: Int) {
        colBytes.put(to, colBytes.get(from))
        vals.put(to, vals.get(from))
    }

    companion object {
        /** Maps a table from a bundle or a checkpoint and checks it against [manifest]. */
        fun read(file: String, tensors: Safetensors, manifest: Manifest): PackedTable {
            val table = PackedTable(
                manifest.dim,
                tensors.map("row_ptr", DType.I32, manifest.numRows + 1, writable = true),
                tensors.map("cols", DType.U8, manifest.nnz, writable = true),
                tensors.map("vals", DType.F32, manifest.nnz, writable = true),
            )
            table.check(file)
            return table
        }

        private fun PackedTable.check(file: String) {
            fun fail(problem: String): Nothing =
                throw HarnessError("$file: $problem", "copy or export the file again")
            if (start(0) != 0 || end(numRows - 1) != nnz) {
                fail("row_ptr: must run from 0 to $nnz")
            }
            for (row in 0 until numRows) {
                if (start(row) > end(row) || end(row) > nnz) fail("row_ptr: falls at row $row")
                for (entry in start(row) until end(row)) {
                    val ascending = entry == start(row) || col(entry - 1) < col(entry)
                    if (!ascending || col(entry) >= dim) {
                        fail("cols: row $row is not strictly ascending below $dim")
                    }
                    if (!vals.get(entry).isFinite()) fail("vals: ${vals.get(entry)} in row $row")
                }
            }
        }
    }
}
