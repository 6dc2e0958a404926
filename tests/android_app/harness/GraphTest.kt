package org.sparserec.harness

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import org.junit.jupiter.params.ParameterizedTest
import org.junit.jupiter.params.provider.CsvSource
import java.nio.file.Path

/** Two users, rows 0 and 1, and three items, rows 2 to 4. */
class GraphTest {
    @TempDir
    lateinit var directory: Path

    private fun read(ptr: String, rows: String, dtype: DType = DType.I32): Graph {
        val path = directory.resolve("graph.safetensors")
        fun vector(name: String, text: String): NamedTensor {
            val values = text.split(' ').filter { it.isNotEmpty() }.map { it.toInt() }
            val shape = listOf(values.size.toLong())
            return NamedTensor(name, dtype, shape, ints(*values.toIntArray()))
        }
        val tensors = listOf(vector("graph_ptr", ptr), vector("graph_rows", rows))
        Safetensors.write(path, tensors) { emptyMap() }
        return Graph.read(path.toString(), Safetensors.open(path), manifest(2, 3, 1))
    }

    @Test
    fun `neighbours are read, also none at all`() {
        val graph = read("0 2 3 4 4 6", "2 4 4 0 0 1")
        assertEquals(listOf(2, 1, 1, 0, 2), List(5) { graph.degree(it) })
        assertEquals(listOf(2, 4), List(2) { graph.neighbour(0, it) })
        assertEquals(0, read("0 0 0 0 0 0", "").degree(4))
    }

    @ParameterizedTest
    @CsvSource(
        "0 2 3 4 4, 2 4 4 0 0 1, graph_ptr: expected I32 [6]",
        "1 2 3 4 4 6, 2 4 4 0 0 1, graph_ptr: must run from 0 to 6",
        "0 2 3 4 4 5, 2 4 4 0 0 1, graph_ptr: must run from 0 to 6",
        "0 3 2 4 4 6, 2 3 4 0 0 1, graph_ptr: falls at row 1",
        "0 7 3 4 4 6, 2 4 4 0 0 1, graph_ptr: falls at row 0",
        "0 2 3 4 4 6, 4 2 4 0 0 1, graph_rows: row 0 is not strictly ascending in 2..4",
        "0 2 3 4 4 6, 2 2 4 0 0 1, graph_rows: row 0 is not strictly ascending in 2..4",
        "0 2 3 4 4 6, 1 4 4 0 0 1, graph_rows: row 0 is not strictly ascending in 2..4",
        "0 2 3 4 4 6, 2 5 4 0 0 1, graph_rows: row 0 is not strictly ascending in 2..4",
        "0 2 3 4 4 6, 2 4 -1 0 0 1, graph_rows: row 1 is not strictly ascending in 2..4",
        "0 2 3 4 4 6, 2 4 4 3 0 1, graph_rows: row 2 is not strictly ascending in 0..1",
        "0 2 3 4 5 6, 2 4 4 0 0 1, graph_rows: row 0 has 4; which has no way back",
    )
    fun `what is no graph is refused`(ptr: String, rows: String, problem: String) {
        val error = assertThrows(HarnessError::class.java) { read(ptr, rows) }
        val message = error.message!!
        assertTrue("graph.safetensors: " in message, message)
        assertTrue(problem.replace(';', ',') in message, message)
    }

    @Test
    fun `other numbers are refused`() {
        val error = assertThrows(HarnessError::class.java) {
            read("0 0 0 0 0 0", "", DType.F32)
        }
        assertTrue("graph_ptr: expected I32 [6]" in error.message!!, error.message)
    }
}
