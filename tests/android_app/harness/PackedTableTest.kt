package org.sparserec.harness

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import org.junit.jupiter.params.ParameterizedTest
import org.junit.jupiter.params.provider.CsvSource
import org.junit.jupiter.params.provider.ValueSource
import java.nio.file.Path
import java.security.MessageDigest

class PackedTableTest {
    @TempDir
    lateinit var directory: Path

    @Test
    fun `the hash is over the three tensors' bytes`() {
        val table = table(4, mapOf(0 to 1f, 2 to 2f), mapOf(1 to 3f))
        val bytes = listOf(0, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0, 2, 1) + // row_ptr, cols
            listOf(0, 0, 0x80, 0x3f, 0, 0, 0, 0x40, 0, 0, 0x40, 0x40) // vals
        val digest = MessageDigest.getInstance("SHA-256")
            .digest(ByteArray(bytes.size) { bytes[it].toByte() })
        assertEquals(digest.joinToString("") { "%02x".format(it) }, table.sha256())
    }

    @ParameterizedTest
    @ValueSource(floats = [Float.NaN, Float.NEGATIVE_INFINITY])
    fun `a value that is no number is refused`(value: Float) {
        val path = directory.resolve("table.safetensors")
        val tensors = table(4, mapOf(0 to 1f), mapOf(1 to 2f, 3 to value)).tensors()
        Safetensors.write(path, tensors) { emptyMap() }
        val error = assertThrows(HarnessError::class.java) {
            PackedTable.read("$path", Safetensors.open(path), manifest(1, 1, 4, nnz = 3))
        }
        assertTrue("table.safetensors: vals: $value in row 1" in error.message!!, error.message)
    }

    @ParameterizedTest
    @CsvSource(
        "0 2 3, 0 2 1, ''",
        "1 2 3, 0 2 1, row_ptr: must run from 0 to 3",
        "0 2 2, 0 2 1, row_ptr: must run from 0 to 3",
        "0 4 3, 0 2 1, row_ptr: falls at row",
        "0 -1 3, 0 2 1, row_ptr: falls at row 0",
        "0 2 3, 2 2 1, cols: row 0 is not strictly ascending below 4",
        "0 2 3, 0 2 4, cols: row 1 is not strictly ascending below 4",
    )
    fun `a table that is not one is refused`(rowPtr: String, cols: String, problem: String) {
        fun numbers(text: String) = text.split(' ').map { it.toInt() }.toIntArray()
        val path = directory.resolve("table.safetensors")
        val tensors = listOf(
            NamedTensor("row_ptr", DType.I32, listOf(3), ints(*numbers(rowPtr))),
            NamedTensor("cols", DType.U8, listOf(3), bytes(*numbers(cols))),
            NamedTensor("vals", DType.F32, listOf(3), floats(1f, 2f, 3f)),
        )
        Safetensors.write(path, tensors) { emptyMap() }
        val read = { PackedTable.read("$path", Safetensors.open(path), manifest(1, 1, 4, nnz = 3)) }
        if (problem.isEmpty()) {
            assertEquals(listOf(mapOf(0 to 1f, 2 to 2f), mapOf(1 to 3f)), rows(read()))
        } else {
            val error = assertThrows(HarnessError::class.java) { read() }
            assertTrue(problem in error.message!!, error.message)
        }
    }
}
