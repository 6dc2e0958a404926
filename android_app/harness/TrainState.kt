package org.sparserec.harness

import java.nio.ByteBuffer
import java.nio.ByteOrder.LITTLE_ENDIAN

/**
 * Everything that a run changes, and all that a checkpoint holds.
 *
 * Steps `[0, step)` are done and gave [losses]; [sampled] are the rows S of the window, ascending,
 * and [sums] (|S|, d) their gradients so far.
 */
class TrainState(val table: PackedTable, steps: Int, maxSampled: Int) {
    var step = 0
    var sampled = IntArray(0)
        private set
    val losses = FloatArray(steps)
    private val sumBytes: ByteBuffer = ByteBuffer
        .allocateDirect(Math.multiplyExact(maxSampled, table.dim * Float.SIZE_BYTES))
        .order(LITTLE_ENDIAN)
    val sums = sumBytes.asFloatBuffer()

    /** Begins a window: [rows] become the sampled rows, their sums are zero. */
    fun beginWindow(rows: IntArray) {
        sampled = rows
        for (k in 0 until rows.size * table.dim) sums.put(k, 0f)
    }

    /** The tensors of a checkpoint: docs/formats.md section 6. */
    fun tensors(): List<NamedTensor> {
        val rows = bytes(sampled.size)
        sampled.forEachIndexed { k, row -> rows.putInt(4 * k, row) }
        val losses = bytes(step)
        for (k in 0 until step) losses.putFloat(4 * k, this.losses[k])
        val sums = sumBytes.duplicate()
        sums.limit(sampled.size * table.dim * Float.SIZE_BYTES)
        val numSampled = sampled.size.toLong()
        val shape = listOf(numSampled, table.dim.toLong())
        return table.tensors() + listOf(
            NamedTensor("sampled_rows", DType.I32, listOf(numSampled), rows),
            NamedTensor("accumulators", DType.F32, shape, sums.slice()),
            NamedTensor("losses", DType.F32, listOf(step.toLong()), losses),
        )
    }

    private fun bytes(numbers: Int): ByteBuffer =
        ByteBuffer.allocateDirect(4 * numbers).order(LITTLE_ENDIAN)

    companion object {
        /** Reads what [tensors] wrote into the state of a run of [steps] steps. */
        fun read(
            path: String,
            file: Safetensors,
            manifest: Manifest,
            steps: Int,
            maxSampled: Int,
        ): TrainState {
            val state = TrainState(PackedTable.read(path, file, manifest), steps, maxSampled)
            val losses = file.vector("losses", DType.F32).asFloatBuffer()
            val rows = file.vector("sampled_rows", DType.I32).asIntBuffer()
            val numSampled = rows.capacity()
            val sums = file.map("accumulators", DType.F32, numSampled, manifest.dim).asFloatBuffer()
            val sampled = IntArray(numSampled) { rows.get(it) }
            val fits = losses.capacity() <= steps &&
                numSampled <= maxSampled &&
                sampled.all { it in 0 until manifest.numRows } &&
                (1 until numSampled).all { sampled[it - 1] < sampled[it] }
            if (!fits) throw HarnessError("$path: not a state of this run", "remove it")
            state.step = losses.capacity()
            losses.get(state.losses, 0, state.step)
            state.sampled = sampled
            state.sums.duplicate().put(sums)
            return state
        }
    }
}
