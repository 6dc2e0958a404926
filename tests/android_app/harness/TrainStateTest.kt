package org.sparserec.harness

import org.junit.jupiter.api.Assertions.assertArrayEquals
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.nio.ByteBuffer
import java.nio.file.Path

class TrainStateTest {
    @TempDir
    lateinit var directory: Path

    private val manifest = manifest(1, 2, 2, nnz = 4)

    private fun saved(): Path {
        val table = table(2, mapOf(0 to 1f), mapOf(0 to 2f, 1 to 3f), mapOf(1 to 4f))
        val state = TrainState(table, steps = 5, maxSampled = 3)
        for (row in listOf(2, 0)) state.sampled.add(row)
        state.sampled.seal()
        state.sums.add(1, floatArrayOf(1f, 1.5f), 0)
        repeat(3) { state.losses[state.step++] = 0.1f * it }
        val path = directory.resolve("gen.safetensors")
        Safetensors.write(path, state.tensors()) { emptyMap() }
        return path
    }

    private fun read(path: Path, steps: Int, maxSampled: Int) =
        TrainState.read("$path", Safetensors.open(path), manifest, steps, maxSampled)

    @Test
    fun `what is saved is read, for a run that may be longer`() {
        val state = read(saved(), steps = 9, maxSampled = 3)
        assertEquals(3, state.step)
        assertArrayEquals(floatArrayOf(0f, 0.1f, 0.2f), state.losses.copyOf(3))
        assertEquals(listOf(0, -1, 1), List(3) { state.sampled.place(it) })
        assertEquals(listOf(0, 2), List(state.sampled.size) { state.sampled[it] })
        assertFalse(state.sums.has(0)) // nothing was added
        val start = state.sums.start(1)
        assertEquals(listOf(1f, 1.5f), state.sums.chunk(1).slice(start until start + 2))
        val expected = listOf(mapOf(0 to 1f), mapOf(0 to 2f, 1 to 3f), mapOf(1 to 4f))
        assertEquals(expected, rows(state.table))
    }

    @Test
    fun `an optimizer's numbers and dense parameters are saved too`() {
        val training = training(optimizer = Optimizer.ADAM)
        val manifest = manifest(1, 2, 2, nnz = 4, training = training, denseSize = 3)
        val table = table(2, mapOf(0 to 1f), mapOf(0 to 2f, 1 to 3f), mapOf(1 to 4f))
        val moments = listOf(floats(1f, 2f, 3f, 4f), floats(5f, 6f, 7f, 8f))
        val dense = listOf(floats(9f, 10f, 11f), floats(12f, 13f, 14f), floats(15f, 16f, 17f))
        val state = TrainState(table, 5, 3, Optimizer.ADAM, moments, dense)
        val path = directory.resolve("gen.safetensors")
        Safetensors.write(path, state.tensors()) { emptyMap() }
        val read = TrainState.read("$path", Safetensors.open(path), manifest, 5, 3)
        fun numbers(of: List<ByteBuffer>) =
            of.map { b -> List(b.capacity() / 4) { b.getFloat(4 * it) } }
        assertEquals(numbers(moments), numbers(read.moments))
        assertEquals(numbers(dense), numbers(read.dense))
    }

    @Test
    fun `a state of another run is refused`() {
        assertThrows(HarnessError::class.java) { read(saved(), steps = 2, maxSampled = 3) }
        assertThrows(HarnessError::class.java) { read(saved(), steps = 5, maxSampled = 1) }
    }
}
