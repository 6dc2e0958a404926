package org.sparserec.harness

import java.nio.FloatBuffer
import java.nio.LongBuffer

/**
 * What a run repeats instead of training, to compare SparseRec's step with a dense table's
 * (docs/formats.md section 7). Each needs the [program] in the bundle.
 */
enum class Workload(val program: String) {
    /** A batch's loss from the packed table, without a backward. */
    SPARSE_FORWARD("forward"),

    /** A training step with all that belongs to it, mask updates too. */
    SPARSE_STEP("step"),

    /** A batch's loss from the dense table. */
    DENSE_FORWARD("dense_forward"),

    /** Forward, a gradient of the whole table and SGD over all of it, in one program. */
    DENSE_STEP("dense_step"),

    /** ExecuTorch's TrainingModule and SGD on the dense table. */
    TRAINING_MODULE("training"),
    ;

    val label = name.lowercase()
}

/** A program that has the dense table in it and is told only which rows a batch has. */
interface DenseProgram : AutoCloseable {
    /** (3B,) of the next step. */
    val rows: LongBuffer

    /** Runs; returns the loss. */
    fun step(): Float
}

/** A [Workload] on a bundle; all of them see the same batches. */
interface Work : AutoCloseable {
    /** Draws the batch of this step and does the work on it. Returns the loss. */
    fun step(step: Int): Float

    companion object {
        fun load(workload: Workload, bundle: Bundle, steps: Int, threads: Int): Work {
            if (workload.program !in bundle.manifest.programs) {
                throw HarnessError(
                    "workload: ${workload.label} needs the program ${workload.program}, which " +
                        "this bundle does not have",
                    "use a bundle that `sparserec sparse-vs-dense` made",
                )
            }
            val sampler = Sampler(bundle.interactions(), bundle.manifest)
            return when (workload) {
                Workload.SPARSE_FORWARD -> SparseForward(bundle, sampler, threads)
                Workload.SPARSE_STEP -> SparseStep(bundle, sampler, steps, threads)
                else -> Dense(loadDense(bundle, workload.program, threads), sampler)
            }
        }
    }
}

private class SparseForward(bundle: Bundle, private val sampler: Sampler, threads: Int) : Work {
    private val program = ForwardProgram.load(bundle, threads)
    private val table = bundle.table()
    private val batch = Batch(program, table)
    private val none = SampledRows(table.numRows, 1).apply { seal() }
    private val unused = FloatBuffer.allocate(0)

    init {
        for (b in 0 until bundle.manifest.training.batchSize) program.weight.put(b, 1f)
    }

    override fun step(step: Int): Float {
        sampler.batch(step, batch.tile.rowOf, program.batchSize)
        batch.tile.lead(batch.tile.slots)
        batch.gather(none)
        return program.gradients(unused)
    }

    override fun close() = program.close()
}

private class SparseStep(bundle: Bundle, sampler: Sampler, steps: Int, threads: Int) : Work {
    private val state = TrainState.begin(bundle, steps, sampler.sampledSize)
    private val programs = ExecuTorch.load(bundle, threads, state.dense)
    private val trainer = Trainer(
        bundle.manifest,
        programs.stepProgram,
        sampler,
        state,
        Metrics(steps),
        bundle.graph(),
    )

    override fun step(step: Int): Float = trainer.step()

    override fun close() = programs.close()
}

private class Dense(private val program: DenseProgram, private val sampler: Sampler) : Work {
    private val slots = IntArray(program.rows.capacity())

    override fun step(step: Int): Float {
        sampler.batch(step, slots, slots.size / 3)
        for (k in slots.indices) program.rows.put(k, slots[k].toLong())
        return program.step()
    }

    override fun close() = program.close()
}
