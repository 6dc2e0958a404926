package org.sparserec.harness

/**
 * One training step after the other: docs/formats.md section 2. The programs do the arithmetic;
 * this gathers rows into the tile, picks entries and writes them back.
 */
class Trainer(
    private val manifest: Manifest,
    private val program: StepProgram,
    private val sampler: Sampler,
    private val state: TrainState,
    private val metrics: Metrics,
) {
    private val dim = manifest.dim
    private val slots = 3 * program.batchSize
    private val table = state.table
    private val schedule = Schedule(manifest.training)

    /** (3B,) the table's row in each slot, -1 for padding. */
    private val rowOf = IntArray(slots) { -1 }

    /** (3B,) the first slot with the same row, -1 for padding. */
    private val leaderOf = IntArray(slots)

    /** (3B,) for leaders: place of their row among the sampled rows, or negative. */
    private val sampledPlace = IntArray(slots)

    /** The leaders, one per distinct row, in slot order. */
    private val leaders = IntArray(slots)
    private var numLeaders = 0

    /** (N,) the leader of a row while a tile is assembled, otherwise -1. */
    private val leaderOfRow = IntArray(manifest.numRows) { -1 }

    /** Places of the tile that are not zero. */
    private val filled = IntArray(slots * dim)
    private var numFilled = 0

    private val gradients = FloatArray(slots * dim)
    private val chunk = program.values.capacity()
    private val updated = FloatArray(chunk)
    private val chunkEntries = IntArray(chunk)
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
        program.gradients(gradients)
        program.update(updated)
    }

    /** Does one step and, where a window ends, the mask update. Returns the loss. */
    fun step(): Float {
        val start = System.nanoTime()
        if (schedule.beginsAt(state.step)) {
            state.beginWindow(sampler.sampledRows(schedule.windowOf(state.step)))
        }
        assemble(state.step)
        val assembled = System.nanoTime()
        val loss = program.gradients(gradients)
        val differentiated = System.nanoTime()
        if (!loss.isFinite()) {
            throw HarnessError(
                "the loss of step ${state.step} is $loss: vals in table.safetensors or " +
                    "training.learning_rate in manifest.json are too large",
                "export with a smaller learning rate",
            )
        }
        updateNs = 0
        sumSlots()
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
        exchange(table, state.sampled, state.sums, fraction, manifest.floor)
        metrics.exchange.add(System.nanoTime() - start)
    }

    /** Draws the batch and gathers its rows, their masks and their sampled flags into the tile. */
    private fun assemble(step: Int) {
        clearTile()
        sampler.triples(step, rowOf)
        numLeaders = 0
        for (slot in 0 until slots) {
            val row = rowOf[slot]
            if (row < 0) {
                leaderOf[slot] = -1
                continue
            }
            if (leaderOfRow[row] < 0) {
                leaderOfRow[row] = slot
                leaders[numLeaders++] = slot
                sampledPlace[slot] = state.sampled.binarySearch(row)
            }
            leaderOf[slot] = leaderOfRow[row]
            fill(slot, row)
        }
        for (k in 0 until numLeaders) leaderOfRow[rowOf[leaders[k]]] = -1
    }

    private fun clearTile() {
        for (k in 0 until numFilled) {
            program.rows.put(filled[k], 0f)
            program.mask.put(filled[k], 0f)
        }
        numFilled = 0
    }

    private fun fill(slot: Int, row: Int) {
        for (entry in table.start(row) until table.end(row)) {
            val place = slot * dim + table.col(entry)
            program.rows.put(place, table.vals.get(entry))
            program.mask.put(place, 1f)
            filled[numFilled++] = place
        }
        program.sampled.put(slot, if (sampledPlace[leaderOf[slot]] >= 0) 1f else 0f)
    }

    /** A row's gradient is the sum over its slots, in slot order; it ends in the leader's line. */
    private fun sumSlots() {
        for (slot in 0 until slots) {
            val leader = leaderOf[slot]
            if (leader < 0 || leader == slot) continue
            val to = leader * dim
            val from = slot * dim
            for (col in 0 until dim) gradients[to + col] += gradients[from + col]
        }
    }

    /** Updates the active entries of each distinct row, chunk by chunk. */
    private fun updateEntries() {
        var count = 0
        for (k in 0 until numLeaders) {
            val leader = leaders[k]
            val row = rowOf[leader]
            for (entry in table.start(row) until table.end(row)) {
                program.values.put(count, table.vals.get(entry))
                program.gradient.put(count, gradients[leader * dim + table.col(entry)])
                chunkEntries[count++] = entry
                if (count == chunk) {
                    updateChunk(count)
                    count = 0
                }
            }
        }
        if (count > 0) updateChunk(count)
    }

    private fun updateChunk(count: Int) {
        for (k in count until chunk) {
            program.values.put(k, 0f)
            program.gradient.put(k, 0f)
        }
        val start = System.nanoTime()
        program.update(updated)
        updateNs += System.nanoTime() - start
        for (k in 0 until count) table.vals.put(chunkEntries[k], updated[k])
    }

    /** Adds the whole gradient row of every sampled row to its sum. */
    private fun accumulate() {
        for (k in 0 until numLeaders) {
            val place = sampledPlace[leaders[k]]
            if (place < 0) continue
            val from = leaders[k] * dim
            val to = place * dim
            for (col in 0 until dim) {
                state.sums.put(to + col, state.sums.get(to + col) + gradients[from + col])
            }
        }
    }
}
