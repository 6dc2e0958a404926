package org.sparserec.harness

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Test
import java.nio.FloatBuffer
import kotlin.math.PI
import kotlin.math.cos

class ExchangeTest {
    private fun example() = table(
        4,
        mapOf(0 to 0.5f, 1 to -0.1f, 2 to 0.3f), // sampled
        mapOf(3 to 0.01f), // not sampled: its weak entry stays
        mapOf(0 to 0.2f, 2 to -0.2f), // sampled
    )

    private val sampled = intArrayOf(0, 2)

    /** Active columns have large sums, to see that they are ignored. */
    private val sums = floatArrayOf(9f, 9f, 9f, -0.4f, 9f, 0.4f, 9f, 0.7f)

    @Test
    fun `the weakest go and the largest sums grow`() {
        val table = example()
        // 0.6 of 5 active entries: 3. Weakest: (0,1), then (2,0) before (2,2) by column, but row 2
        // must keep one; then (0,2). Sums: (2,3) 0.7, (0,3) before (2,1) by row, both 0.4.
        assertEquals(3, exchange(table, sampled, FloatBuffer.wrap(sums), 0.6, 1))
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
        assertEquals(2, exchange(table, sampled, FloatBuffer.wrap(sums), 0.59, 1))
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
        assertEquals(1, exchange(table, sampled, FloatBuffer.wrap(sums), 1.0, 2))
        assertEquals(mapOf(0 to 0.5f, 2 to 0.3f), rows(table)[0])
    }

    @Test
    fun `places without a gradient do not grow`() {
        val table = example()
        val few = FloatArray(8).also { it[5] = -1e-9f }
        assertEquals(1, exchange(table, sampled, FloatBuffer.wrap(few), 1.0, 1))
        assertEquals(mapOf(0 to 0.2f, 1 to 0f, 2 to -0.2f), rows(table)[2])
        assertEquals(0, exchange(table, sampled, FloatBuffer.wrap(FloatArray(8)), 1.0, 1))
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
