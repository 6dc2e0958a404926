package org.sparserec.harness

import java.nio.FloatBuffer

/**
 * One training step after the other: docs/formats.md section 2. The programs do the arithmetic;
 * this gathers rows into the tile, picks entries and writes them back. A step allocates nothing of
 * its own.
 */
class Trainer(
    private val manifest: Manifest,
    private val program: StepProgram,
    private val sampler: Sampler,
    private val state: TrainState,
    private val metrics: Metrics,
) {
    private val dim = manifest.dim
    private val table = state.table
    private val schedule = Schedule(manifest.training)
    private val exchange = Exchange(table, manifest.floor)
    private val batch = Batch(program, table)

    /** (3B, d), and the same as a buffer. */
    private val gradients = FloatArray(3 * program.batchSize * dim)
    private val gradientsOut = FloatBuffer.wrap(gradients)

    /** (E,) of one call of `update`; `updated` also as a buffer. */
    private val chunk = program.values.capacity()
    private val picked = FloatArray(chunk)
    private val updated = FloatArray(chunk)
    private val updatedOut = FloatBuffer.wrap(updated)
    private val padding = FloatArray(chunk)
    private var updateNs = 0L

    init {
        val batchSize = manifest.training.batchSize
        if (batchSize > program.batchSize) {
            throw HarnessError(
                "manifest.json: training.batch_size: $batchSize is over ${program.batchSize}, " +
                    "for which step.pte was exported",
                "export the bundle again",
            )
        }
        for (b in 0 until batchSize) program.weight.put(b, 1f)
        program.learningRate.put(0, manifest.training.learningRate)
    }

    /** Runs both methods on the next batch and discards what they say. */
    fun warmUp() {
        assemble(state.step)
        program.gradients(gradientsOut)
        program.update(updatedOut)
    }

    /** Does one step and, where a window ends, the mask update. Returns the loss. */
    fun step(): Float {
        val start = System.nanoTime()
        if (schedule.beginsAt(state.step)) {
            sampler.sampledRows(schedule.windowOf(state.step), state.sampled)
            state.sums.clear()
        }
        assemble(state.step)
        val assembled = System.nanoTime()
        val loss = program.gradients(gradientsOut)
        val differentiated = System.nanoTime()
        if (!loss.isFinite()) {
            throw HarnessError(
                "the loss of step ${state.step} is $loss: vals in table.safetensors or " +
                    "training.learning_rate in manifest.json are too large",
                "export with a smaller learning rate",
            )
        }
        updateNs = 0
        batch.sumSlots(gradients)
        updateEntries()
        accumulate()
        val written = System.nanoTime()
        state.losses[state.step++] = loss
        endWindow()
        metrics.assemble.add(assembled - start)
        metrics.gradients.add(differentiated - assembled)
        metrics.update.add(updateNs)
        metrics.writeBack.add(written - differentiated - updateNs)
        metrics.trainStep.add(System.nanoTime() - start)
        return loss
    }

    private fun endWindow() {
        val fraction = schedule.fractionAfter(state.step)
        if (fraction <= 0) return
        val start = System.nanoTime()
        exchange.exchange(state.sampled, state.sums, fraction)
        metrics.exchange.add(System.nanoTime() - start)
    }

    /** Draws the batch and gathers its rows, their masks and their sampled flags into the tile. */
    private fun assemble(step: Int) {
        sampler.triples(step, batch.rowOf)
        batch.gather(state.sampled)
    }

    /** Updates the active entries of each distinct row, chunk by chunk. */
    private fun updateEntries() {
        var first = 0
        while (first < batch.numEntries) { // a range with a step would be an object
            updateChunk(first, minOf(chunk, batch.numEntries - first))
            first += chunk
        }
        writeBack()
    }

    /** Updates [count] of the batch's entries from [first] on, in the batch. */
    private fun updateChunk(first: Int, count: Int) {
        for (k in 0 until count) picked[k] = gradients[batch.places[first + k]]
        program.values.rewind()
        program.values.put(batch.values, first, count)
        program.values.put(padding, 0, chunk - count)
        program.gradient.rewind()
        program.gradient.put(picked, 0, count)
        program.gradient.put(padding, 0, chunk - count)
        val start = System.nanoTime()
        program.update(updatedOut)
        updateNs += System.nanoTime() - start
        updated.copyInto(batch.values, first, 0, count)
    }

    /** Writes the batch's values into the table. */
    private fun writeBack() {
        batch.touchEntries()
        val vals = table.vals
        var entry = 0
        for (k in 0 until batch.numRows) {
            val start = batch.start[k]
            for (j in start until start + batch.size[k]) vals.put(j, batch.values[entry++])
        }
    }

    /** Adds the whole gradient row of every sampled row to its sum. */
    private fun accumulate() {
        for (k in 0 until batch.numRows) {
            val place = batch.sampledPlace[k]
            if (place >= 0) state.sums.add(place, gradients, batch.firstSlot[k] * dim)
        }
    }
}
