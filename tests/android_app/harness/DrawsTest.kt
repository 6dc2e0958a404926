package org.sparserec.harness

import kotlinx.serialization.json.Json
import kotlinx.serialization.json.int
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import java.io.File

class DrawsTest {
    @Test
    fun `draws equal the vectors that Python is tested against`() {
        val text = File(System.getProperty("vectors"), "draws.json").readText()
        val vectors = Json.parseToJsonElement(text).jsonArray.map { it.jsonObject }
        assertTrue(vectors.size > 50)
        for (vector in vectors) {
            fun int(name: String) = vector.getValue(name).jsonPrimitive.int
            fun text(name: String) = vector.getValue(name).jsonPrimitive.content
            val base = Draws.base(text("seed").toLong(), int("stream"), int("step"))
            val draw = Draws.draw(base, int("i").toLong())
            assertEquals(text("draw"), java.lang.Long.toUnsignedString(draw), vector.toString())
            assertEquals(int("bounded"), Draws.bounded(draw, int("n")), vector.toString())
        }
    }

    @Test
    fun `bounded covers its range and no more`() {
        assertEquals(0, Draws.bounded(0L, 7))
        assertEquals(6, Draws.bounded(-1L, 7))
        assertEquals(Int.MAX_VALUE - 1, Draws.bounded(-1L, Int.MAX_VALUE))
    }
}
