package org.sparserec.harness

import java.nio.FloatBuffer

/**
 * One training step after the other: docs/formats.md section 2. The programs do the arithmetic;
 * this gathers rows into the tile, picks entries and writes them back. A step allocates nothing of
 * its own.
 *
 * @param graph whose neighbours a step draws; null for a model without
 */
class Trainer(
    private val manifest: Manifest,
    private val program: StepProgram,
    private val sampler: Sampler,
    private val state: TrainState,
    private val metrics: Metrics,
    graph: Graph? = null,
) {
    private val dim = manifest.dim
    private val training = manifest.training
    private val schedule = Schedule(training)
    private val exchange = training.optimizer.states.indexOf("v").let { second ->
        val others = state.moments.filterIndexed { k, _ -> k != second }
        Exchange(state.table, manifest.floor, others, state.moments.getOrNull(second))
    }
    private val batch = Batch(program, state.table, state.moments.map { it.asFloatBuffer() })

    /** Slots of the batch itself, before those of neighbours. */
    private val given = 2 * program.batchSize +
        if (training.sharedNegatives > 0) training.sharedNegatives else program.batchSize
    private val neighbourhood = graph?.let {
        Neighbourhood(it, training.seed, Draws.NEIGHBOURS, program.slots, program.width)
    }

    /** (T, d), and the same as a buffer. */
    private val gradients = FloatArray(program.slots * dim)
    private val gradientsOut = FloatBuffer.wrap(gradients)

    /** (E,) of one call of `update`; the results also as buffers. */
    private val chunk = program.values.capacity()
    private val picked = FloatArray(chunk)
    private val updated = FloatArray(chunk)
    private val updatedOut = FloatBuffer.wrap(updated)
    private val updatedStates = Array(batch.states.size) { FloatArray(chunk) }
    private val updatedStatesOut = Array(batch.states.size) { FloatBuffer.wrap(updatedStates[it]) }
    private val programStates = program.states.toTypedArray()
    private val padding = FloatArray(chunk)

    /** Numbers of each input of `update` that are not padding. */
    private var filled = 0
    private var updateNs = 0L

    /** Keeps the accesses that only warm a cache from being left out. */
    private var touched = 0f

    init {
        if (training.batchSize > program.batchSize) {
            throw HarnessError(
                "manifest.json: training.batch_size: ${training.batchSize} is over " +
                    "${program.batchSize}, for which step.pte was exported",
                "export the bundle again",
            )
        }
        val fits = if (graph == null) given == program.slots else given <= program.slots
        if (!fits) {
            throw HarnessError(
                "manifest.json: programs: step.pte has ${program.slots} slots, a batch $given",
                "export the bundle again",
            )
        }
        for (b in 0 until training.batchSize) program.weight.put(b, 1f)
    }

    /** Runs both methods on the next batch and discards what they say. */
    fun warmUp() {
        assemble(state.step)
        program.gradients(gradientsOut)
        program.update(updatedOut, updatedStatesOut)
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
        check(loss)
        updateNs = 0
        program.keepDense()
        batch.sumSlots(gradients)
        updateEntries()
        batch.writeBack(Draws.base(training.seed, Draws.ROUNDING, state.step))
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

    private fun check(loss: Float) {
        if (loss.isFinite()) return
        throw HarnessError(
            "the loss of step ${state.step} is $loss: vals in table.safetensors or " +
                "training.learning_rate in manifest.json are too large",
            "export with a smaller learning rate",
        )
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
        val optimizer = training.optimizer
        program.setRate(optimizer.rate(training.learningRate, step), optimizer.correction(step))
        sampler.batch(step, batch.tile.rowOf, program.batchSize)
        if (neighbourhood == null) {
            batch.tile.lead(given)
        } else {
            neighbourhood.draw(step, batch.tile, given)
            neighbourhood.write(program.neighbours!!, program.readers)
        }
        batch.gather(state.sampled)
    }

    /** Updates the active entries of each distinct row, chunk by chunk, in the batch. */
    private fun updateEntries() {
        var first = 0
        while (first < batch.numEntries) { // a range with a step would be an object
            updateChunk(first, minOf(chunk, batch.numEntries - first))
            first += chunk
        }
    }

    /** Updates [count] of the batch's entries from [first] on. */
    private fun updateChunk(first: Int, count: Int) {
        for (k in 0 until count) picked[k] = gradients[batch.places[first + k]]
        fill(program.values, batch.values, first, count)
        fill(program.gradient, picked, 0, count)
        for (k in programStates.indices) fill(programStates[k], batch.states[k], first, count)
        filled = count
        val start = System.nanoTime()
        program.update(updatedOut, updatedStatesOut)
        updateNs += System.nanoTime() - start
        updated.copyInto(batch.values, first, 0, count)
        for (k in updatedStates.indices) {
            updatedStates[k].copyInto(batch.states[k], first, 0, count)
        }
    }

    /** Writes [count] numbers and, where the call before had more, padding. */
    private fun fill(input: FloatBuffer, from: FloatArray, first: Int, count: Int) {
        input.rewind()
        input.put(from, first, count)
        if (filled > count) input.put(padding, 0, filled - count)
    }

    /** Adds the whole gradient row of every sampled row to its sum. */
    private fun accumulate() {
        // Before any is changed: the accesses to those that are far away run side by side.
        for (k in 0 until batch.numSampled) {
            touched += state.sums.touch(batch.sampledPlace[batch.sampledNumbers[k]])
        }
        for (k in 0 until batch.numSampled) {
            val number = batch.sampledNumbers[k]
            val place = batch.sampledPlace[number]
            state.sums.add(place, gradients, batch.firstSlot[number] * dim)
        }
    }
}
