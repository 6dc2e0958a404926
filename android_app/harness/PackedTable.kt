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
    /** (nnz,) columns as unsigned bytes. */
    val cols: ByteBuffer,
    private val valBytes: ByteBuffer,
) {
    /** (N + 1,) where each row's entries begin. */
    val rowPtr: IntBuffer = rowPtrBytes.asIntBuffer()

    /** (nnz,) values, changed by training. */
    val vals: FloatBuffer = valBytes.asFloatBuffer()

    val numRows: Int get() = rowPtr.capacity() - 1

    val nnz: Int get() = vals.capacity()

    fun start(row: Int): Int = rowPtr.get(row)

    fun end(row: Int): Int = rowPtr.get(row + 1)

    fun col(entry: Int): Int = cols.get(entry).toInt() and 0xff

    /** The tensors as in `table.safetensors`. */
    fun tensors(): List<NamedTensor> = listOf(
        NamedTensor("row_ptr", DType.I32, listOf(numRows + 1L), rowPtrBytes),
        NamedTensor("cols", DType.U8, listOf(nnz.toLong()), cols),
        NamedTensor("vals", DType.F32, listOf(nnz.toLong()), valBytes),
    )

    /** The report's `table_sha256`. */
    fun sha256(): String = sha256(listOf(rowPtrBytes, cols, valBytes))

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
