package org.sparserec.harness

import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonPrimitive
import kotlinx.serialization.json.long
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Test

class MeasurementsTest {
    @Test
    fun `percentiles of 0 to 1000 are known in closed form`() {
        val samples = Samples()
        (0L..1000L).shuffled(java.util.Random(3)).forEach { samples.add(it) }
        val summary = samples.summary()
        fun value(name: String) = summary.getValue(name).jsonPrimitive.long
        val names = listOf("minimum", "p50", "p90", "p95", "p99", "maximum")
        assertEquals(listOf(0L, 500L, 900L, 950L, 990L, 1000L), names.map { value(it) })
        assertEquals(250L, value("mad")) // distances from 500: 0, and twice 1 to 500
        assertEquals(1001L, value("count"))
        assertEquals(1001, summary.getValue("runs").jsonArray.size)
    }

    @Test
    fun `percentiles lie between neighbours`() {
        assertEquals(15L, Samples.percentile(longArrayOf(10, 20), 50))
        assertEquals(19L, Samples.percentile(longArrayOf(10, 20), 90))
        assertEquals(7L, Samples.percentile(longArrayOf(7), 99))
    }

    @Test
    fun `without samples there are no statistics`() {
        val summary = Samples().summary()
        assertEquals(JsonNull, summary["p50"])
        assertEquals(JsonNull, summary["mad"])
        assertEquals(0, summary.getValue("runs").jsonArray.size)
    }

    @Test
    fun `what is not readable is null`() {
        val lines = Lines(listOf("VmRSS:\t  12345 kB", "model name\t: Some CPU", "Odd: many kB"))
        assertEquals(12345L, lines.kb("VmRSS"))
        assertEquals("Some CPU", lines["model name"])
        assertNull(lines.kb("VmHWM"))
        assertNull(lines.kb("Odd"))
        assertNull(Lines.of("/no/such/file").kb("VmRSS"))
    }
}
