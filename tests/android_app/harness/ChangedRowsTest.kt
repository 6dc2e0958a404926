package org.sparserec.harness

import org.junit.jupiter.api.Assertions.assertArrayEquals
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.nio.ByteBuffer
import java.nio.file.Files
import java.nio.file.Path
import kotlin.random.Random

/** Tables worked by hand; one user more comes, so that the items' rows move. */
class ChangedRowsTest {
    @TempDir
    lateinit var directory: Path

    private fun write(name: String, vararg tensors: NamedTensor): Path =
        directory.resolve(name).also { path ->
            Safetensors.write(path, tensors.toList()) { emptyMap() }
        }

    private fun table(name: String, pointers: ByteBuffer, cols: ByteBuffer, vals: ByteBuffer) =
        write(
            name,
            tensor("row_ptr", DType.I32, pointers),
            tensor("cols", DType.U8, cols),
            tensor("vals", DType.F32, vals),
        )

    private fun tensor(name: String, dtype: DType, data: ByteBuffer) =
        NamedTensor(name, dtype, listOf(data.capacity().toLong() / dtype.bytes), data)

    /** Two users and an item. */
    private val base by lazy {
        table("base", ints(0, 2, 3, 5), bytes(0, 3, 1, 2, 4), floats(1f, 2f, 3f, 4f, 5f))
    }

    /** The second user has another row, a third one comes, and the item stays as it is. */
    private val result by lazy {
        table(
            "result",
            ints(0, 2, 4, 5, 7),
            bytes(0, 3, 5, 6, 7, 2, 4),
            floats(1f, 2f, 6f, 7f, 8f, 4f, 5f),
        )
    }

    private fun delta(
        rows: ByteBuffer = ints(1, 2),
        sizes: ByteBuffer = ints(2, 1),
        vals: ByteBuffer = floats(6f, 7f, 8f),
    ): Path {
        val start = Safetensors.open(result).dataStart.toInt()
        val header = bytes(*IntArray(start) { Files.readAllBytes(result)[it].toInt() })
        return write(
            "delta",
            tensor("header", DType.U8, header),
            tensor("row_ptr.rows", DType.I32, rows),
            tensor("row_ptr.sizes", DType.I32, sizes),
            tensor("cols", DType.U8, bytes(5, 6, 7)),
            tensor("vals", DType.F32, vals),
        )
    }

    private fun made(delta: Path, size: Long = Files.size(result)): Path {
        val to = directory.resolve("made")
        Files.deleteIfExists(to)
        ChangedRows("table.safetensors", base, delta, 2 to 3).write(to, size)
        return to
    }

    @Test
    fun `rows come from the base or from the delta, and items move`() {
        assertArrayEquals(Files.readAllBytes(result), Files.readAllBytes(made(delta())))
    }

    @Test
    fun `what does not fit is an error that names it`() {
        fails("row_ptr.rows: are not ascending") { delta(rows = ints(2, 1)) }
        fails("row_ptr.rows: are not ascending") { delta(rows = ints(1, 4)) }
        fails("row_ptr.rows: are not ascending") { delta(rows = ints(-1, 2)) }
        fails("row_ptr.rows: are not ascending") { delta(sizes = ints(2, -1)) }
        fails("row_ptr.rows: are not ascending") { delta(sizes = ints(3)) }
        fails("row_ptr.rows: row 2 is new and not told") { delta(rows = ints(0, 1)) }
        fails("tensor vals: 2 elements, not 3") { delta(vals = floats(6f, 7f)) }
        val error = assertThrows(HarnessError::class.java) { made(delta(), 1L shl 40) }
        assertTrue("cannot come of" in error.message!!, error.message)
    }

    private fun fails(message: String, delta: () -> Path) {
        val error = assertThrows(HarnessError::class.java) { made(delta()) }
        assertTrue(message in error.message!!, error.message)
    }

    @Test
    fun `no damage is anything but an error or another file of the same size`() {
        val whole = Files.readAllBytes(delta())
        val size = Files.size(result)
        val random = Random(5)
        repeat(DAMAGES) {
            val isCut = random.nextInt(4) == 0
            val data = whole.copyOf(if (isCut) random.nextInt(whole.size) else whole.size)
            if (data.isNotEmpty()) {
                val place = random.nextInt(data.size)
                data[place] = (data[place].toInt() xor (1 shl random.nextInt(8))).toByte()
            }
            val path = Files.write(directory.resolve("damaged"), data)
            try {
                assertEquals(size, Files.size(made(path, size)))
            } catch (error: HarnessError) {
                assertTrue("damaged" in error.message!! || "base" in error.message!!, error.message)
            }
        }
    }

    private companion object {
        const val DAMAGES = 300
    }
}
