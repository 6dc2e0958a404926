package org.sparserec.harness

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Test
import java.nio.ByteBuffer
import java.nio.ByteOrder.LITTLE_ENDIAN
import kotlin.random.Random

class CandidatesTest {
    private val random = Random(1)

    /** Whole numbers: sums are exact in any order, and many are equal. */
    private fun row(dim: Int): Map<Int, Float> = (0 until dim).filter { random.nextInt(4) == 0 }
        .associateWith { (random.nextInt(5) - 2).toFloat() }

    @Test
    fun `they are the first of a stable sort by products`() {
        val (numUsers, numItems, dim) = listOf(3, 700, 250)
        val rows = List(numUsers + numItems) { row(if (it % 3 == 0) dim else 16) }
        val seen = (0 until numItems).filter { random.nextInt(5) == 0 }
        val interactions = interactions(
            numUsers,
            log = listOf(0 to 5, 1 to 0).filter { it.second !in seen },
            later = emptyList(),
            seen = seen.flatMap { item -> (0 until numUsers).map { it to item } },
        )
        for (count in listOf(1, 80, numItems)) {
            val items = IntArray(count)
            // Together, and each alone, where there is room for all and where there is for one.
            for ((most, some) in listOf(numUsers to numUsers, numUsers to 1, 1 to 1)) {
                val candidates = Candidates(
                    manifest(numUsers, numItems, dim),
                    table(dim, *rows.toTypedArray()),
                    interactions,
                    most,
                    count,
                )
                for (first in 0 until numUsers step some) {
                    candidates.find(intArrayOf(9, 0, 1, 2), 1 + first, some)
                    for (user in first until first + some) {
                        val size = candidates.copy(user - first, items)
                        val found = items.take(size)
                        assertEquals(best(rows, interactions, user, count), found, "user $user")
                    }
                }
            }
        }
    }

    /** By sorting all of [user]'s scores. */
    private fun best(
        rows: List<Map<Int, Float>>,
        interactions: Interactions,
        user: Int,
        count: Int,
    ): List<Int> {
        val numUsers = interactions.log.numUsers
        fun score(item: Int) = rows[user].entries
            .sumOf { (col, value) -> 1.0 * value * (rows[numUsers + item][col] ?: 0f) }
        return (0 until rows.size - numUsers).filterNot { interactions.isKnown(user, it) }
            .sortedByDescending { score(it) }
            .take(count)
            .sorted()
    }

    @Test
    fun `rows are read as they are stored`() {
        val values = ByteBuffer.allocateDirect(4).order(LITTLE_ENDIAN)
        for (value in listOf(3, -2, 127, 1)) values.put(value.toByte())
        values.flip()
        val scales = floats(9f, 0.5f, 2f)
        val table =
            PackedTable(8, ints(0, 1, 3, 4), bytes(0, 2, 7, 1), values, Precision.INT8, scales)
        val ptr = IntArray(3)
        val cols = ByteArray(16)
        val read = FloatArray(16)
        table.readRows(1, 2, ptr, cols, read)
        assertEquals(listOf(0, 2, 3), ptr.toList())
        assertEquals(listOf(2, 7, 1), cols.take(3).map { it.toInt() })
        assertEquals(listOf(-1f, 63.5f, 2f), read.take(3))
    }
}
