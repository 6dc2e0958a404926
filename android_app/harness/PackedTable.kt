package org.sparserec.harness

import java.nio.ByteBuffer
import java.nio.FloatBuffer
import java.nio.IntBuffer
import java.nio.ShortBuffer
import kotlin.math.abs
import kotlin.math.floor

/**
 * The packed embedding table: only active entries are stored (docs/formats.md section 1.1).
 *
 * Row r's entries are `[start(r), end(r))`, columns ascending. The little-endian bytes stay where
 * they are, in a private mapping as a rule, and are changed in place. Values are decoded and encoded
 * by whole rows, as [precision] says.
 */
class PackedTable(
    val dim: Int,
    private val rowPtrBytes: ByteBuffer,
    /** (nnz,) columns as unsigned bytes. */
    val cols: ByteBuffer,
    /** (nnz,) values as they are stored. */
    val valBytes: ByteBuffer,
    val precision: Precision = Precision.FLOAT32,
    private val scaleBytes: ByteBuffer? = null,
) {
    /** (N + 1,) where each row's entries begin. */
    val rowPtr: IntBuffer = rowPtrBytes.asIntBuffer()

    private val floats: FloatBuffer = valBytes.asFloatBuffer()
    private val floatBits: IntBuffer = valBytes.asIntBuffer()

    /** The same as [cols] and [floats], with positions, which runs are read from. */
    private val colsRun: ByteBuffer = cols.duplicate()
    private val floatsRun: FloatBuffer = floats.duplicate()
    private val halves: ShortBuffer = valBytes.asShortBuffer()
    private val scales: FloatBuffer? = scaleBytes?.asFloatBuffer()

    /** Values of one row. */
    private val decoded = FloatArray(dim)

    val numRows: Int get() = rowPtr.capacity() - 1

    val nnz: Int = cols.capacity()

    fun start(row: Int): Int = rowPtr.get(row)

    fun end(row: Int): Int = rowPtr.get(row + 1)

    fun col(entry: Int): Int = cols.get(entry).toInt() and 0xff

    /** Reads [size] values of [row] from [start] on into [to] from [at] on. */
    fun read(row: Int, start: Int, size: Int, to: FloatArray, at: Int) = when (precision) {
        Precision.FLOAT32 -> for (k in 0 until size) to[at + k] = floats.get(start + k)
        Precision.FLOAT16 -> for (k in 0 until size) to[at + k] = Half.decode(halves.get(start + k))
        Precision.INT8 -> {
            val scale = scales!!.get(row)
            for (k in 0 until size) to[at + k] = valBytes.get(start + k) * scale
        }
    }

    /** Adds the columns of the entries [at], [count] of them, to [to]. */
    fun addCols(at: IntArray, count: Int, to: IntArray) {
        for (k in 0 until count) to[k] += col(at[k])
    }

    /** Reads the values of the entries [at], [count] of them, into [to]; not of int8, as [scatter]. */
    fun gather(at: IntArray, count: Int, to: FloatArray) {
        if (precision == Precision.FLOAT32) {
            for (k in 0 until count) to[k] = floats.get(at[k])
        } else {
            for (k in 0 until count) to[k] = Half.decode(halves.get(at[k]))
        }
    }

    /**
     * Reads the bits of the absolute values, which are ordered as these are, of [row] from [start]
     * on into [to].
     */
    fun readMagnitudes(row: Int, start: Int, size: Int, to: IntArray) {
        if (precision == Precision.FLOAT32) {
            for (k in 0 until size) to[k] = floatBits.get(start + k) and Int.MAX_VALUE
        } else {
            read(row, start, size, decoded, 0)
            for (k in 0 until size) to[k] = decoded[k].toRawBits() and Int.MAX_VALUE
        }
    }

    /**
     * Reads the entries of [count] rows from [first] on: where each row's begin, from 0, into [ptr]
     * (count + 1), and their columns and values.
     */
    fun readRows(first: Int, count: Int, ptr: IntArray, cols: ByteArray, values: FloatArray) {
        val start = start(first)
        for (k in 0..count) ptr[k] = rowPtr.get(first + k) - start
        colsRun.position(start)
        colsRun.get(cols, 0, ptr[count])
        if (precision == Precision.FLOAT32) {
            floatsRun.position(start)
            floatsRun.get(values, 0, ptr[count])
        } else {
            for (k in 0 until count) {
                read(first + k, start + ptr[k], ptr[k + 1] - ptr[k], values, ptr[k])
            }
        }
    }

    /**
     * Writes the [size] values of [row], which begin at [start], from [from] at [at] on. What is
     * rounded is rounded by draws of [noise] (`Draws.base`).
     */
    fun write(row: Int, start: Int, size: Int, from: FloatArray, at: Int, noise: Long) =
        when (precision) {
            Precision.FLOAT32 -> for (k in 0 until size) floats.put(start + k, from[at + k])
            Precision.FLOAT16 ->
                for (k in 0 until size) halves.put(start + k, Half.encode(from[at + k]))
            Precision.INT8 -> quantise(row, start, size, from, at, noise)
        }

    /** Rounds up or down by chance, so that small updates are right on average. */
    private fun quantise(row: Int, start: Int, size: Int, from: FloatArray, at: Int, noise: Long) {
        var largest = 0f
        for (k in 0 until size) largest = maxOf(largest, abs(from[at + k]))
        val scale = largest / MAX_INT8
        scales!!.put(row, scale)
        for (k in 0 until size) {
            val draw = Draws.draw(noise, row.toLong() * dim + col(start + k))
            val steps = if (scale > 0) from[at + k].toDouble() / scale else 0.0
            val rounded = floor(steps + Draws.unit(draw)).toInt().coerceIn(-MAX_INT8, MAX_INT8)
            valBytes.put(start + k, if (scale > 0) rounded.toByte() else 0)
        }
    }

    /**
     * Writes the values of the entries [at], [count] of them, each a row's as [write] does; not for
     * int8, whose rows are wholes: they have scales.
     */
    fun scatter(at: IntArray, count: Int, from: FloatArray) {
        if (precision == Precision.FLOAT32) {
            for (k in 0 until count) floats.put(at[k], from[k])
        } else {
            for (k in 0 until count) halves.put(at[k], Half.encode(from[k]))
        }
    }

    /** Has the entries `[start, end)` brought near; the result keeps that from being left out. */
    fun touch(start: Int, end: Int): Int {
        val last = nnz - 1
        val width = precision.dtype.bytes
        return col(minOf(start, last)) + valBytes.get(minOf(start, last) * width) +
            valBytes.get(minOf(end, last) * width)
    }

    /** The tensors as in `table.safetensors`. */
    fun tensors(): List<NamedTensor> {
        val scales = scaleBytes?.let { NamedTensor("scales", DType.F32, listOf(1L * numRows), it) }
        return listOfNotNull(
            NamedTensor("row_ptr", DType.I32, listOf(numRows + 1L), rowPtrBytes),
            NamedTensor("cols", DType.U8, listOf(nnz.toLong()), cols),
            NamedTensor("vals", precision.dtype, listOf(nnz.toLong()), valBytes),
            scales,
        )
    }

    /** The report's `table_sha256`. */
    fun sha256(): String = sha256(tensors().map { it.data })

    companion object {
        private const val MAX_INT8 = 127

        /** Maps a table from a bundle or a checkpoint and checks it against [manifest]. */
        fun read(file: String, tensors: Safetensors, manifest: Manifest): PackedTable {
            val rows = manifest.numRows
            val precision = manifest.precision
            val table = PackedTable(
                manifest.dim,
                tensors.map("row_ptr", DType.I32, rows + 1, writable = true),
                tensors.map("cols", DType.U8, manifest.nnz, writable = true),
                tensors.map("vals", precision.dtype, manifest.nnz, writable = true),
                precision,
                if (precision == Precision.INT8) {
                    tensors.map("scales", DType.F32, rows, writable = true)
                } else {
                    null
                },
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
            val values = FloatArray(dim)
            for (row in 0 until numRows) {
                if (start(row) > end(row) || end(row) > nnz) fail("row_ptr: falls at row $row")
                for (entry in start(row) until end(row)) {
                    val ascending = entry == start(row) || col(entry - 1) < col(entry)
                    if (!ascending || col(entry) >= dim) {
                        fail("cols: row $row is not strictly ascending below $dim")
                    }
                }
                val size = end(row) - start(row)
                read(row, start(row), size, values, 0)
                for (k in 0 until size) {
                    if (!values[k].isFinite()) fail("vals: ${values[k]} in row $row")
                }
            }
        }
    }
}
