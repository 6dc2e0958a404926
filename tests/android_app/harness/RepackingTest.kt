package org.sparserec.harness

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Test
import java.util.Random

class RepackingTest {
    private fun Repacking.change(
        table: PackedTable,
        dropped: List<Int>,
        grown: List<Pair<Int, Int>>,
    ) {
        begin(dropped.size)
        for (entry in dropped) {
            val row = (0 until table.numRows).first { table.end(it) > entry }
            drop(row, entry - table.start(row))
        }
        grown.forEach { (row, col) -> grow(row, col) }
        run()
    }

    @Test
    fun `entries go and come in place`() {
        val table = table(4, mapOf(0 to 1f, 2 to 2f), mapOf(1 to 3f), mapOf(0 to 4f, 3 to 5f))
        Repacking(table).change(table, listOf(0, 4), listOf(1 to 0, 1 to 3))
        val expected =
            listOf(mapOf(2 to 2f), mapOf(0 to 0f, 1 to 3f, 3 to 0f), mapOf(0 to 4f))
        assertEquals(expected, rows(table))
    }

    @Test
    fun `any change is what it is to sets of entries`() {
        val random = Random(2)
        repeat(300) {
            val dim = 1 + random.nextInt(9)
            val before = List(1 + random.nextInt(12)) {
                (0 until dim).filter { random.nextBoolean() }.associateWith { random.nextFloat() }
            }
            val table = table(dim, *before.toTypedArray())
            val active = before.flatMapIndexed { row, entries -> entries.keys.map { row to it } }
            val places = before.indices.flatMap { row -> (0 until dim).map { row to it } }
            val inactive = places - active.toSet()
            val count = random.nextInt(minOf(active.size, inactive.size) + 1)
            val order = compareBy<Pair<Int, Int>>({ it.first }, { it.second })
            val dropped = active.shuffled(random).take(count)
            val grown = inactive.shuffled(random).take(count).sortedWith(order)
            val moment = floats(*FloatArray(table.nnz) { 1f + it })
            val numbers = active.withIndex().associate { (k, place) -> place to 1f + k }
            val second = floats(*FloatArray(table.nnz) { 2f + 3 * it })
            val repacking = Repacking(table, listOf(moment), second)
            repacking.change(table, dropped.map { active.indexOf(it) }.sorted(), grown)
            val moved = rows(table).flatMapIndexed { row, of -> of.keys.map { row to it } }
            assertEquals(
                moved.map { if (it in grown) 0f else numbers.getValue(it) },
                List(table.nnz) { moment.getFloat(4 * it) },
            )
            val means = before.indices.associateWith { row ->
                val of = active.indices.filter { active[it].first == row }
                if (of.isEmpty()) 0f else of.map { 2.0 + 3 * it }.average().toFloat()
            }
            assertEquals(
                moved.map {
                    if (it in grown) means.getValue(it.first) else 2f + 3 * active.indexOf(it)
                },
                List(table.nnz) { second.getFloat(4 * it) },
            )
            val expected = before.mapIndexed { row, entries ->
                entries.filterKeys { row to it !in dropped } +
                    grown.filter { it.first == row }.associate { it.second to 0f }
            }
            assertEquals(expected, rows(table))
        }
    }

    @Test
    fun `a change far behind another is made where blocks have gone by`() {
        val rows = List(9000) { row -> (0 until 8 step 2).associateWith { row + it / 8f } }
        val expected = rows.map { it.toMutableMap() }
        val table = table(8, *rows.toTypedArray())
        val repacking = Repacking(table)
        // First 6,000 entries more, in front, than in the end: more than a block. Then the reverse.
        val front = List(6000) { it / 4 to it % 4 * 2 + 1 }
        repacking.change(table, List(6000) { 36_000 - 6000 + it }, front)
        for ((row, col) in front) expected[row][col] = 0f
        for (row in 7500 until 9000) expected[row].clear()
        assertEquals(expected, rows(table))
        repacking.change(table, List(6000) { it }, List(6000) { 7500 + it / 4 to it % 4 * 2 })
        for (row in 0 until 750) expected[row].clear()
        for (row in 7500 until 9000) for (col in 0 until 8 step 2) expected[row][col] = 0f
        assertEquals(expected, rows(table))
    }
}
