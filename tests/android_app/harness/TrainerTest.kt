package org.sparserec.harness

import com.sun.management.ThreadMXBean
import org.junit.jupiter.api.Assertions.assertArrayEquals
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import java.lang.management.ManagementFactory
import java.nio.FloatBuffer

/**
 * Gives every slot a gradient that tells where it comes from, and records what it was asked. Each
 * of the optimizer's [numbers] grows by the gradient and its index.
 */
private class RecordingProgram(
    override val batchSize: Int,
    dim: Int,
    chunk: Int,
    numbers: Int = 0,
) : StepProgram {
    override val slots = 3 * batchSize
    override val width = 0
    override val neighbours: SlotLists? = null
    override val readers: SlotLists? = null
    override val rows: FloatBuffer = FloatBuffer.allocate(3 * batchSize * dim)
    override val mask: FloatBuffer = FloatBuffer.allocate(3 * batchSize * dim)
    override val sampled: FloatBuffer = FloatBuffer.allocate(3 * batchSize)
    override val weight: FloatBuffer = FloatBuffer.allocate(batchSize)
    override val values: FloatBuffer = FloatBuffer.allocate(chunk)
    override val gradient: FloatBuffer = FloatBuffer.allocate(chunk)
    override val states: List<FloatBuffer> = List(numbers) { FloatBuffer.allocate(chunk) }
    private var rate = 0f
    var loss = 0.5f
    var updates = 0

    override fun gradients(gradients: FloatBuffer): Float {
        for (k in 0 until gradients.capacity()) gradients.put(k, gradientAt(k))
        return loss
    }

    override fun setRate(rate: Float, correction: Float) {
        this.rate = rate
    }

    override fun keepDense() = Unit

    override fun update(updated: FloatBuffer, states: Array<FloatBuffer>) {
        updates++
        for (k in 0 until updated.capacity()) {
            updated.put(k, values.get(k) - rate * gradient.get(k))
            for (n in states.indices) {
                states[n].put(k, this.states[n].get(k) + gradient.get(k) + n)
            }
        }
    }

    fun gradientAt(place: Int): Float = 1f + place
}

class TrainerTest {
    private val dim = 3
    private val manifest = manifest(2, 2, dim, training = training(batchSize = 2, window = 100))
    private val interactions = interactions(2, log = listOf(0 to 0, 1 to 1))
    private val table =
        table(dim, mapOf(0 to 1f), mapOf(0 to 2f, 2 to 3f), mapOf(1 to 4f), mapOf(0 to 5f, 2 to 6f))
    private val before = rows(table)
    private val sampler = Sampler(interactions, manifest)
    private val state = TrainState(table, 100, sampler.sampledSize)
    private val program = RecordingProgram(batchSize = 3, dim = dim, chunk = 2)
    private val trainer = Trainer(manifest, program, sampler, state, Metrics())

    private val slots = IntArray(9) { -1 }.also { sampler.batch(0, it, 3) }

    /** Gradient of a row: the sum over the slots that hold it. */
    private fun gradient(row: Int, col: Int): Float = slots.indices
        .filter { slots[it] == row }
        .map { program.gradientAt(it * dim + col) }
        .sum()

    private fun sum(place: Int, col: Int): Float {
        val sums = state.sums
        return if (sums.has(place)) sums.chunk(place)[sums.start(place) + col] else 0f
    }

    @Test
    fun `the tile holds the batch's rows`() {
        trainer.step()
        for (slot in slots.indices) {
            val row = if (slots[slot] < 0) emptyMap() else before[slots[slot]]
            for (col in 0 until dim) {
                assertEquals(row[col] ?: 0f, program.rows.get(slot * dim + col))
                assertEquals(if (col in row) 1f else 0f, program.mask.get(slot * dim + col))
            }
            val isSampled = slots[slot] >= 0 && state.sampled.place(slots[slot]) >= 0
            assertEquals(if (isSampled) 1f else 0f, program.sampled.get(slot))
        }
        assertArrayEquals(floatArrayOf(1f, 1f, 0f), FloatArray(3) { program.weight.get(it) })
    }

    @Test
    fun `the next tile has nothing left of the one before`() {
        trainer.step()
        repeat(20) {
            val entries = rows(table)
            trainer.step()
            sampler.batch(state.step - 1, slots, 3)
            val expected = slots.sumOf { if (it < 0) 0 else entries[it].size }
            assertEquals(expected, (0 until 9 * dim).count { program.mask.get(it) != 0f })
        }
    }

    @Test
    fun `active entries move by the gradients summed over slots`() {
        assertEquals(0.5f, trainer.step())
        val distinct = slots.filter { it >= 0 }.toSet()
        assertEquals((distinct.sumOf { before[it].size } + 1) / 2, program.updates)
        val expected = before.mapIndexed { row, entries ->
            entries.mapValues { (col, value) -> value - 0.5f * gradient(row, col) }
        }
        assertEquals(expected, rows(table))
    }

    @Test
    fun `the optimizer's numbers of touched entries go through the program`() {
        val training = training(batchSize = 2, window = 100, optimizer = Optimizer.ADAM)
        val manifest = manifest(2, 2, dim, training = training)
        val moments = List(2) { zeros(4 * table.nnz) }
        val state = TrainState(table, 100, sampler.sampledSize, Optimizer.ADAM, moments)
        val program = RecordingProgram(batchSize = 3, dim = dim, chunk = 2, numbers = 2)
        val trainer = Trainer(manifest, program, sampler, state, Metrics())
        repeat(2) { step ->
            val expected = List(2) { n -> List(table.nnz) { moments[n].getFloat(4 * it) } }
            trainer.step()
            sampler.batch(step, slots, 3)
            for (row in 0 until 4) {
                for (entry in table.start(row) until table.end(row)) {
                    for (n in 0..1) {
                        val grown = if (row in slots) gradient(row, table.col(entry)) + n else 0f
                        assertEquals(expected[n][entry] + grown, moments[n].getFloat(4 * entry))
                    }
                }
            }
        }
    }

    @Test
    fun `whole gradient rows of sampled rows add up over a window`() {
        trainer.step()
        val rows = List(state.sampled.size) { state.sampled[it] }
        val first = rows.associateWith { row -> List(dim) { gradient(row, it) } }
        trainer.step()
        sampler.batch(1, slots, 3)
        rows.forEachIndexed { place, row ->
            for (col in 0 until dim) {
                val expected = first.getValue(row)[col] + gradient(row, col)
                assertEquals(expected, sum(place, col))
            }
        }
    }

    @Test
    fun `a step allocates nothing, nor does an exchange`() {
        val training = training(steps = 4000, batchSize = 2, window = 5)
        val manifest = manifest(2, 2, dim, training = training)
        val state = TrainState(table, 4000, sampler.sampledSize)
        val metrics = Metrics(4000)
        val trainer = Trainer(manifest, program, Sampler(interactions, manifest), state, metrics)
        val threads = ManagementFactory.getThreadMXBean() as ThreadMXBean
        fun allocated() = threads.getThreadAllocatedBytes(Thread.currentThread().id)
        repeat(2000) { trainer.step() }
        val before = allocated()
        repeat(1000) { trainer.step() }
        val bytes = allocated() - before
        assertTrue(metrics.exchange.count > 500, "${metrics.exchange.count} exchanges")
        // The measurement itself takes some bytes; a step that took one object would take 16,000.
        assertTrue(bytes < 1000, "$bytes bytes in 1000 steps")
    }

    @Test
    fun `warming up changes nothing`() {
        trainer.warmUp()
        assertEquals(before, rows(table))
        assertEquals(0, state.step)
    }

    @Test
    fun `a loss that is no number ends the run and spoils nothing`() {
        program.loss = Float.NaN
        val error = assertThrows(HarnessError::class.java) { trainer.step() }
        assertTrue("step 0 is NaN: vals in table.safetensors" in error.message!!, error.message)
        assertEquals(before, rows(table))
    }
}
