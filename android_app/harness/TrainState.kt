package org.sparserec.harness

import java.nio.ByteBuffer
import java.nio.ByteOrder.LITTLE_ENDIAN
import java.nio.FloatBuffer

/**
 * Everything that a run changes, and all that a checkpoint holds.
 *
 * Steps `[0, step)` are done and gave [losses]; [sampled] are the rows S of the window, at most
 * [maxSampled], and [sums] their gradients so far.
 *
 * @param moments the optimizer's numbers of each of the table's entries, float32 (nnz,) each
 * @param dense dense parameters and the optimizer's numbers of them, float32 (P,) each; empty where
 *   there are none
 */
class TrainState(
    val table: PackedTable,
    steps: Int,
    maxSampled: Int,
    private val optimizer: Optimizer = Optimizer.SGD,
    val moments: List<ByteBuffer> = emptyList(),
    val dense: List<ByteBuffer> = emptyList(),
) {
    var step = 0
    val losses = FloatArray(steps)
    val sampled = SampledRows(table.numRows, maxSampled)
    val sums = GradientSums(maxSampled, table.dim)

    /** The tensors of a checkpoint: docs/formats.md section 6. */
    fun tensors(): List<NamedTensor> {
        val rows = bytes(sampled.size)
        for (place in 0 until sampled.size) rows.putInt(4 * place, sampled[place])
        val losses = bytes(step)
        for (k in 0 until step) losses.putFloat(4 * k, this.losses[k])
        val numSampled = sampled.size.toLong()
        val shape = listOf(numSampled, table.dim.toLong())
        return table.tensors() + optimizerTensors() + listOf(
            NamedTensor("sampled_rows", DType.I32, listOf(numSampled), rows),
            NamedTensor("accumulators", DType.F32, shape, denseSums()),
            NamedTensor("losses", DType.F32, listOf(step.toLong()), losses),
        )
    }

    private fun optimizerTensors(): List<NamedTensor> {
        val names = optimizer.states.map { "state_$it" }
        return (names + denseNames(optimizer)).zip(moments + dense) { name, data ->
            NamedTensor(name, DType.F32, listOf(data.capacity() / 4L), data)
        }
    }

    /** (|S|, d), zero where no batch has had the row. */
    private fun denseSums(): ByteBuffer {
        val dense = bytes(Math.multiplyExact(sampled.size, table.dim))
        val floats = dense.asFloatBuffer()
        for (place in 0 until sampled.size) {
            if (!sums.has(place)) continue
            floats.position(place * table.dim)
            floats.put(sums.chunk(place), sums.start(place), table.dim)
        }
        return dense
    }

    private fun bytes(numbers: Int): ByteBuffer =
        ByteBuffer.allocateDirect(Math.multiplyExact(4, numbers)).order(LITTLE_ENDIAN)

    companion object {
        private fun denseNames(optimizer: Optimizer) =
            listOf("dense") + optimizer.states.map { "dense_$it" }

        /** The state before the first step of a run of [steps] steps on [bundle]. */
        fun begin(bundle: Bundle, steps: Int, maxSampled: Int): TrainState {
            val table = bundle.table()
            val optimizer = bundle.manifest.training.optimizer
            fun zerosFor(size: Int) = optimizer.states.map { zeros(Math.multiplyExact(4, size)) }
            val dense = bundle.dense()?.let { listOf(it) + zerosFor(bundle.manifest.denseSize) }
            val moments = zerosFor(table.nnz)
            return TrainState(table, steps, maxSampled, optimizer, moments, dense.orEmpty())
        }

        /** Reads what [tensors] wrote into the state of a run of [steps] steps. */
        fun read(
            path: String,
            file: Safetensors,
            manifest: Manifest,
            steps: Int,
            maxSampled: Int,
        ): TrainState {
            val optimizer = manifest.training.optimizer
            val state = TrainState(
                PackedTable.read(path, file, manifest),
                steps,
                maxSampled,
                optimizer,
                optimizer.states.map {
                    file.map("state_$it", DType.F32, manifest.nnz, writable = true)
                },
                denseNames(optimizer).filter { manifest.denseSize > 0 }
                    .map { file.floats(it, manifest.denseSize) },
            )
            val losses = file.vector("losses", DType.F32).asFloatBuffer()
            val rows = file.vector("sampled_rows", DType.I32).asIntBuffer()
            val numSampled = rows.capacity()
            val sums = file.map("accumulators", DType.F32, numSampled, manifest.dim).asFloatBuffer()
            val fits = losses.capacity() <= steps &&
                numSampled <= maxSampled &&
                (0 until numSampled).all { rows.get(it) in 0 until manifest.numRows } &&
                (1 until numSampled).all { rows.get(it - 1) < rows.get(it) }
            if (!fits) throw HarnessError("$path: not a state of this run", "remove it")
            state.step = losses.capacity()
            losses.get(state.losses, 0, state.step)
            for (place in 0 until numSampled) state.sampled.add(rows.get(place))
            state.sampled.seal()
            state.readSums(sums)
            return state
        }

        /** A row of zeros is one that no batch has had. */
        private fun TrainState.readSums(dense: FloatBuffer) {
            val row = FloatArray(table.dim)
            for (place in 0 until sampled.size) {
                dense.get(row)
                if (row.any { it != 0f }) sums.add(place, row, 0)
            }
        }
    }
}
