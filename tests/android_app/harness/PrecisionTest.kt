package org.sparserec.harness

import org.junit.jupiter.api.Assertions.assertArrayEquals
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import java.nio.ByteBuffer
import java.nio.ByteOrder.LITTLE_ENDIAN
import java.util.Random
import kotlin.math.abs
import kotlin.math.pow

class PrecisionTest {
    /** IEEE 754's own words: sign, exponent, fraction. */
    private fun valueOf(half: Int): Double {
        val fraction = half and 0x3ff
        val exponent = half ushr 10 and 0x1f
        val sign = if (half and 0x8000 == 0) 1.0 else -1.0
        return when (exponent) {
            0 -> sign * fraction * 2.0.pow(-24)
            0x1f -> if (fraction == 0) sign * Double.POSITIVE_INFINITY else Double.NaN
            else -> sign * (1024 + fraction) * 2.0.pow(exponent - 25)
        }
    }

    @Test
    fun `every half is decoded, and encoded again if it is finite`() {
        for (half in 0..0xffff) {
            val decoded = Half.decode(half.toShort())
            assertEquals(valueOf(half), decoded.toDouble(), "$half")
            if (decoded.isFinite()) assertEquals(half.toShort(), Half.encode(decoded), "$half")
        }
    }

    @Test
    fun `a float becomes the nearest half, the even one of two`() {
        val random = Random(5)
        repeat(200_000) {
            val value = Float.fromBits(random.nextInt())
            val half = Half.encode(value)
            if (value.isNaN()) return@repeat assertTrue(Half.decode(half).isNaN())
            if (abs(value) > 65504) return@repeat assertEquals(65504f, abs(Half.decode(half)))
            val error = abs(Half.decode(half).toDouble() - value)
            for (other in listOf(half - 1, half + 1)) {
                val theirs = abs(valueOf(other and 0xffff) - value)
                val nearer = error < theirs || error == theirs && half.toInt() and 1 == 0
                assertTrue(nearer || theirs.isNaN(), "$value")
            }
        }
        assertEquals(0.toShort(), Half.encode(2f.pow(-25))) // halfway between 0 and the first
    }

    private val cols = bytes(0, 1, 3, 2)

    private fun table(precision: Precision, width: Int) = PackedTable(
        4,
        ints(0, 3, 4),
        cols,
        ByteBuffer.allocateDirect(4 * width).order(LITTLE_ENDIAN),
        precision,
        if (precision == Precision.INT8) floats(0f, 0f) else null,
    )

    @Test
    fun `halves are written and read`() {
        val table = table(Precision.FLOAT16, 2)
        table.write(0, 0, 3, floatArrayOf(9f, 1f, -2.5f, 1e9f), 1, noise = 0)
        assertEquals(mapOf(0 to 1f, 1 to -2.5f, 3 to 65504f), rows(table)[0])
        assertEquals("F16", table.tensors().single { it.name == "vals" }.dtype.name)
    }

    @Test
    fun `a row of bytes has its own scale and is right on average`() {
        val table = table(Precision.INT8, 1)
        val values = floatArrayOf(1.27f, -0.0033f, 0.5f)
        val sums = DoubleArray(3)
        val runs = 20_000
        for (step in 0 until runs) {
            table.write(0, 0, 3, values, 0, Draws.base(1, Draws.ROUNDING, step))
            rows(table)[0].values.forEachIndexed { k, value ->
                assertTrue(abs(value - values[k]) <= 0.01f * 1.0001f)
                sums[k] += value.toDouble()
            }
        }
        // To nearest, -0.0033 would be 0 always. The deviation of a mean is under 0.005 / sqrt(runs).
        for (k in 0..2) assertEquals(values[k].toDouble(), sums[k] / runs, 2e-4)
        table.write(0, 0, 3, FloatArray(3), 0, noise = 1)
        assertArrayEquals(FloatArray(3), rows(table)[0].values.toFloatArray())
    }
}
