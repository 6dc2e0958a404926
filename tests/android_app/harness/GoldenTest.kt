package org.sparserec.harness

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.params.ParameterizedTest
import org.junit.jupiter.params.provider.ValueSource

class GoldenTest {
    private fun golden(losses: String): Golden {
        val json = """{"seed": 1, "steps": 2, "batch_size": 2, "losses": $losses, """ +
            """"tolerance": 1e-4}"""
        return Golden.parse("golden.json", json.toByteArray())
    }

    @Test
    fun `losses are judged by the largest difference`() {
        val golden = golden("[0.5, 0.25]")
        val passed = golden.judge(floatArrayOf(0.5f, 0.25005f), 2, training()) {}
        assertEquals("passed", passed.verdict)
        assertEquals(5e-5, passed.maxAbsError!!, 1e-7)
        assertEquals("failed", golden.judge(floatArrayOf(0.5002f, 0.25f), 2, training()) {}.verdict)
    }

    @ParameterizedTest
    @ValueSource(strings = ["NaN", "Infinity", "1e39", "\"0.5\"", "null"])
    fun `a loss that is no number is refused`(loss: String) {
        val error = assertThrows(HarnessError::class.java) { golden("[0.5, $loss]") }
        val expected = "golden.json: losses: expected a list of finite float32 numbers"
        assertTrue(expected in error.message!!, error.message)
    }
}
