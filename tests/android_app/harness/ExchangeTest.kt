package org.sparserec.harness

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Test
import java.util.Random
import kotlin.math.PI
import kotlin.math.abs
import kotlin.math.cos
import kotlin.math.floor

class ExchangeTest {
    private fun example() = table(
        4,
        mapOf(0 to 0.5f, 1 to -0.1f, 2 to 0.3f), // sampled
        mapOf(3 to 0.01f), // not sampled: its weak entry stays
        mapOf(0 to 0.2f, 2 to -0.2f), // sampled
    )

    private val sampled = listOf(0, 2)

    /** Active columns have large sums, to see that they are ignored. */
    private val sums = floatArrayOf(9f, 9f, 9f, -0.4f, 9f, 0.4f, 9f, 0.7f)

    private fun exchange(
        table: PackedTable,
        sampled: List<Int>,
        sums: FloatArray,
        fraction: Double,
        keep: Int,
    ): Int {
        val state = TrainState(table, 1, sampled.size)
        sampled.forEach { state.sampled.add(it) }
        state.sampled.seal()
        for (place in sampled.indices) state.sums.add(place, sums, place * table.dim)
        return Exchange(table, keep).exchange(state.sampled, state.sums, fraction)
    }

    @Test
    fun `the weakest go and the largest sums grow`() {
        val table = example()
        // 0.6 of 5 active entries: 3. Weakest: (0,1), then (2,0) before (2,2) by column, but row 2
        // must keep one; then (0,2). Sums: (2,3) 0.7, (0,3) before (2,1) by row, both 0.4.
        assertEquals(3, exchange(table, sampled, sums, 0.6, 1))
        val expected = listOf(
            mapOf(0 to 0.5f, 3 to 0f),
            mapOf(3 to 0.01f),
            mapOf(1 to 0f, 2 to -0.2f, 3 to 0f),
        )
        assertEquals(expected, rows(table))
    }

    @Test
    fun `ties go to the first row and column, and the count is rounded down`() {
        val table = example()
        assertEquals(2, exchange(table, sampled, sums, 0.59, 1))
        val expected = listOf(
            mapOf(0 to 0.5f, 2 to 0.3f, 3 to 0f),
            mapOf(3 to 0.01f),
            mapOf(2 to -0.2f, 3 to 0f),
        )
        assertEquals(expected, rows(table))
    }

    @Test
    fun `the floor bounds what is dropped`() {
        val table = example()
        assertEquals(1, exchange(table, sampled, sums, 1.0, 2))
        assertEquals(mapOf(0 to 0.5f, 2 to 0.3f), rows(table)[0])
    }

    @Test
    fun `places without a gradient do not grow`() {
        val table = example()
        val few = FloatArray(8).also { it[5] = -1e-9f }
        assertEquals(1, exchange(table, sampled, few, 1.0, 1))
        assertEquals(mapOf(0 to 0.2f, 1 to 0f, 2 to -0.2f), rows(table)[2])
        assertEquals(0, exchange(table, sampled, FloatArray(8), 1.0, 1))
    }

    @Test
    fun `many exchanges of one table choose what sorting everything would`() {
        val random = Random(5)
        val dim = 9

        // Few distinct values, so that ties are everywhere; rows of any size, some below the floor.
        fun value() = (random.nextInt(13) - 6) / 4f
        val rows = List(300) {
            (0 until dim).filter { random.nextInt(3) == 0 }.associateWith { value() }
        }
        val table = table(dim, *rows.toTypedArray())
        val state = TrainState(table, 1, rows.size)
        val exchange = Exchange(table, 2)
        repeat(60) {
            // The scale jumps, so that the last exchange is no guide to the next.
            val scale = if (random.nextInt(4) == 0) 1e-6f else 1f + random.nextInt(2)
            for (k in 0 until table.nnz) {
                if (random.nextBoolean()) {
                    table.valBytes.putFloat(
                        4 * k,
                        value(),
                    )
                }
            }
            state.sampled.clear()
            rows.indices.filter { random.nextInt(5) > 0 }.forEach { state.sampled.add(it) }
            state.sampled.seal()
            state.sums.clear()
            val sums = List(state.sampled.size) { FloatArray(dim) { scale * value() } }
            val touched = sums.indices.filter { random.nextInt(4) > 0 }
            touched.forEach { state.sums.add(it, sums[it], 0) }
            val fraction = random.nextDouble() / 2
            val expected = rows(table).map { it.toMutableMap() }
            val sampled = List(state.sampled.size) { state.sampled[it] }
            val count = exchangeBySorting(
                expected,
                sampled,
                touched.associate { sampled[it] to sums[it] },
                fraction,
                2,
            )
            assertEquals(count, exchange.exchange(state.sampled, state.sums, fraction))
            assertEquals(expected, rows(table))
        }
    }

    /** docs/formats.md section 5 to the letter. */
    private fun exchangeBySorting(
        rows: List<MutableMap<Int, Float>>,
        sampled: List<Int>,
        sums: Map<Int, FloatArray>,
        fraction: Double,
        keep: Int,
    ): Int {
        val byRowAndCol = compareBy<Pair<Int, Int>>({ it.first }, { it.second })
        val grow = sums.flatMap { (row, sum) -> sum.indices.map { row to it } }
            .filter { (row, col) -> col !in rows[row] && sums.getValue(row)[col] != 0f }
            .sortedWith(byRowAndCol)
            .sortedByDescending { (row, col) -> abs(sums.getValue(row)[col]) }
        val left = sampled.associateWith { rows[it].size }.toMutableMap()
        val drop = sampled.flatMap { row -> rows[row].keys.map { row to it } }
            .sortedWith(byRowAndCol)
            .sortedBy { (row, col) -> abs(rows[row].getValue(col)) }
            .filter { (row, _) ->
                val goes = left.getValue(row) > keep
                if (goes) left[row] = left.getValue(row) - 1
                goes
            }
        val wanted = floor(fraction * sampled.sumOf { rows[it].size }).toInt()
        val count = minOf(wanted, grow.size, drop.size)
        drop.take(count).forEach { (row, col) -> rows[row].remove(col) }
        grow.take(count).forEach { (row, col) -> rows[row][col] = 0f }
        return count
    }

    @Test
    fun `the schedule falls along a cosine and stops`() {
        val schedule = Schedule(training(steps = 100, window = 10)) // fraction 0.2, stop 0.75
        assertEquals(0.1 * (1 + cos(PI * 10 / 75)), schedule.fractionAfter(10), 1e-15)
        assertEquals(0.1 * (1 + cos(PI * 70 / 75)), schedule.fractionAfter(70), 1e-15)
        assertEquals(0.0, schedule.fractionAfter(80))
        assertEquals(0.0, schedule.fractionAfter(9))
        val short = Schedule(training(steps = 100, window = 25)) // a window ends at the stop itself
        assertEquals(0.0, short.fractionAfter(75))
    }
}
