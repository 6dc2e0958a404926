package org.sparserec.harness

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import org.junit.jupiter.params.ParameterizedTest
import org.junit.jupiter.params.provider.CsvSource
import java.nio.file.Path

class InteractionsTest {
    @TempDir
    lateinit var directory: Path

    /** Two users, four items; user 0 has had item 1, user 1 item 2. */
    private fun read(log: List<Pair<Int, Int>>, later: List<Pair<Int, Int>>): Interactions {
        val path = directory.resolve("interactions.safetensors")
        fun vector(name: String, values: List<Int>) =
            NamedTensor(name, DType.I32, listOf(values.size.toLong()), ints(*values.toIntArray()))
        val tensors = listOf(
            vector("log_users", log.map { it.first }),
            vector("log_items", log.map { it.second }),
            vector("later_users", later.map { it.first }),
            vector("later_items", later.map { it.second }),
            vector("seen_ptr", listOf(0, 1, 2)),
            vector("seen_items", listOf(1, 2)),
        )
        Safetensors.write(path, tensors) { emptyMap() }
        return Interactions.read(Safetensors.open(path), manifest(2, 4, 1))
    }

    @Test
    fun `pairs are grouped by user`() {
        val read = read(log = listOf(1 to 3, 0 to 2, 1 to 0), later = listOf(0 to 3))
        val places = read.log.start(1) until read.log.end(1)
        assertEquals(listOf(0, 3), places.map { read.log.item(it) })
        assertTrue(read.later.contains(0, 3) && read.seen.contains(1, 2))
    }

    @ParameterizedTest
    @CsvSource(
        "0 0 0, 1 0, log_items: user 0 has item 0 twice",
        "0 1 1, 1 0, log_items: user 0 has item 1 twice",
        "0 2 3, 1 2, later_items: user 1 has item 2 twice",
        "0 2 3, 0 3, later_items: user 0 has item 3 twice",
        "0 2 3, 0 4, later_items: 4 at 0 is not in [0; 4)",
        "0 2 3, 2 0, later_users: 2 at 0 is not in [0; 2)",
    )
    fun `pairs that are not new are refused`(log: String, later: String, problem: String) {
        val (user, first, second) = log.split(' ').map { it.toInt() }
        val (laterUser, laterItem) = later.split(' ').map { it.toInt() }
        val error = assertThrows(HarnessError::class.java) {
            read(listOf(user to first, user to second), listOf(laterUser to laterItem))
        }
        val expected = "interactions.safetensors: ${problem.replace(';', ',')}"
        assertTrue(expected in error.message!!, error.message)
    }
}
