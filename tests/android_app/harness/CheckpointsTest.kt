package org.sparserec.harness

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.nio.file.Files
import java.nio.file.Path
import java.nio.file.StandardCopyOption.REPLACE_EXISTING

class CheckpointsTest {
    @TempDir
    lateinit var directory: Path

    private val manifest = manifest(1, 1, 2, nnz = 2)
    private val warnings = mutableListOf<String>()
    private val state =
        TrainState(table(2, mapOf(0 to 1f), mapOf(1 to 2f)), steps = 50, maxSampled = 1)

    private fun checkpoints(manifestSha256: String = "a") =
        Checkpoints(directory, manifest, manifestSha256) { warnings += it }

    private fun save(vararg steps: Int) {
        for (step in steps) {
            state.step = step
            state.table.valBytes.putFloat(0, step.toFloat())
            checkpoints().save(state)
        }
    }

    private fun files() = directory.toFile().list()!!.sorted()

    private fun newest() = checkpoints().newest(50, 1)

    @Test
    fun `the two newest are kept and the newest is read`() {
        save(10, 20, 30)
        assertEquals(listOf("gen-0000000020.safetensors", "gen-0000000030.safetensors"), files())
        val read = newest()!!
        assertEquals(30, read.step)
        assertEquals(30f, read.table.valBytes.getFloat(0))
        assertTrue(warnings.isEmpty())
    }

    @Test
    fun `any flipped bit sets a generation aside`() {
        save(10)
        val whole = Files.readAllBytes(directory.resolve("gen-0000000010.safetensors"))
        for (place in whole.indices) {
            warnings.clear()
            val data = whole.copyOf().also { it[place] = (it[place].toInt() xor 4).toByte() }
            Files.write(directory.resolve("gen-0000000020.safetensors"), data)
            Files.write(directory.resolve("gen-0000000010.safetensors"), whole)
            assertEquals(10, newest()!!.step)
            val aside = "gen-0000000020.safetensors.bad"
            assertEquals(listOf("gen-0000000010.safetensors", aside), files())
            assertTrue(aside in warnings.single())
        }
    }

    @Test
    fun `a cut generation is set aside, whatever is left of it`() {
        save(10, 20)
        val path = directory.resolve("gen-0000000020.safetensors")
        val whole = Files.readAllBytes(path)
        for (length in whole.indices) {
            Files.write(path, whole.copyOf(length))
            assertEquals(10, newest()!!.step)
        }
        assertEquals(whole.size, warnings.size)
    }

    @Test
    fun `a generation that cannot be read stays, and is an error`() {
        save(10, 20)
        val path = directory.resolve("gen-0000000020.safetensors")
        val away = Files.move(path, directory.resolve("away"))
        Files.createSymbolicLink(path, directory.resolve("storage that is not mounted"))
        val error = assertThrows(HarnessError::class.java) { newest() }
        assertTrue("$path: cannot be read" in error.message!!)
        assertTrue("run again; or give it up: fresh true" in error.message!!)
        Files.move(away, path, REPLACE_EXISTING)
        assertEquals(20, newest()!!.step)
        assertTrue(warnings.isEmpty())
    }

    @Test
    fun `without a whole generation there is none`() {
        assertNull(newest())
        save(10)
        Files.write(directory.resolve("gen-0000000010.safetensors"), ByteArray(0))
        assertNull(newest())
    }

    @Test
    fun `what a kill left half written is removed`() {
        save(10)
        Files.write(directory.resolve("gen-0000000020.safetensors.part"), ByteArray(9))
        assertEquals(10, newest()!!.step)
        assertEquals(listOf("gen-0000000010.safetensors"), files())
    }

    @Test
    fun `another bundle's state is not read`() {
        save(10)
        assertNull(checkpoints("b").newest(50, 1))
        assertTrue("manifest_sha256 is a, not b" in warnings.single())
    }

    @Test
    fun `a run shorter than its state is an error`() {
        save(10, 20)
        val error = assertThrows(HarnessError::class.java) { checkpoints().newest(15, 1) }
        assertTrue("give steps 20 or more, or fresh true" in error.message!!)
    }

    @Test
    fun `steps are held against the newest generation that counts`() {
        save(10, 20)
        val newer = directory.resolve("gen-0000000020.safetensors")
        Files.write(newer, Files.readAllBytes(newer).also { it[it.size - 1] = 9 })
        assertEquals(10, checkpoints().newest(15, 1)!!.step)
        assertTrue("gen-0000000020.safetensors.bad" in warnings.single())
        assertNull(checkpoints("another bundle").newest(5, 1))
    }
}
