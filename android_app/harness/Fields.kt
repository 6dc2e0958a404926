package org.sparserec.harness

import kotlinx.serialization.SerializationException
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.doubleOrNull
import kotlinx.serialization.json.longOrNull

/** Reads typed fields of a JSON object. Errors name the file, the field and the expectation. */
class Fields private constructor(
    private val file: String,
    private val prefix: String,
    private val json: JsonObject,
) {
    val names: Set<String> get() = json.keys

    fun long(name: String, range: LongRange): Long {
        val value = number(name)?.longOrNull
        if (value == null || value !in range) {
            fail(name, "an integer in [${range.first}, ${range.last}]")
        }
        return value
    }

    fun int(name: String, range: IntRange): Int =
        long(name, range.first.toLong()..range.last.toLong()).toInt()

    /** A finite number in [[from], [to]]. */
    fun double(name: String, from: Double, to: Double): Double {
        val value = number(name)?.doubleOrNull
        if (value == null || value !in from..to) fail(name, "a number in [$from, $to]")
        return value
    }

    fun text(name: String): String = json[name]?.textOrNull() ?: fail(name, "a string")

    /** One of [choices], written as in `bpr-shared`; [default] where the field is absent. */
    fun <T : Enum<T>> choice(name: String, choices: Array<T>, default: T? = null): T {
        if (default != null && name !in names) return default
        val text = json[name]?.textOrNull()
        val words = choices.map { it.name.lowercase().replace('_', '-') }
        return choices.getOrNull(words.indexOf(text))
            ?: fail(name, "one of ${words.joinToString()}")
    }

    fun longs(name: String): List<Long> =
        array(name).map { it.numberOrNull()?.longOrNull ?: fail(name, "a list of integers") }

    fun floats(name: String): FloatArray = array(name)
        .map { it.numberOrNull()?.doubleOrNull?.toFloat()?.takeIf { value -> value.isFinite() } }
        .map { it ?: fail(name, "a list of finite float32 numbers") }
        .toFloatArray()

    fun texts(name: String): List<String> =
        array(name).map { it.textOrNull() ?: fail(name, "a list of strings") }

    /** Whether there is a field [name] that is not null. */
    fun has(name: String): Boolean = (json[name] ?: JsonNull) != JsonNull

    fun child(name: String): Fields =
        Fields(file, "$prefix$name.", json[name] as? JsonObject ?: fail(name, "an object"))

    fun children(name: String): List<Fields> = array(name).mapIndexed { index, element ->
        Fields(file, "$prefix$name[$index].", element as? JsonObject ?: fail(name, "objects"))
    }

    /** Every field as an object, in the file's order. */
    fun children(): Map<String, Fields> = names.associateWith { child(it) }

    fun fail(name: String, expected: String): Nothing = throw HarnessError(
        "$file: $prefix$name: expected $expected, found ${shown(json[name])}",
        EXPORT_AGAIN,
    )

    private fun array(name: String) = json[name] as? JsonArray ?: fail(name, "a list")

    private fun number(name: String) = json[name]?.numberOrNull()

    companion object {
        /** Our files nest eight deep. The parser recurses, so a hostile file could end the stack. */
        private const val MAX_DEPTH = 50

        /** Parses [bytes], which came from [file], as one JSON object. */
        fun parse(file: String, bytes: ByteArray): Fields {
            val text = String(bytes, Charsets.UTF_8)
            val element = try {
                if (depth(text) <= MAX_DEPTH) Json.parseToJsonElement(text) else null
            } catch (_: SerializationException) {
                null
            }
            val json = element as? JsonObject
                ?: throw HarnessError("$file: not a JSON object", EXPORT_AGAIN)
            return Fields(file, "", json)
        }

        /** How deep lists and objects nest. */
        private fun depth(text: String): Int {
            var depth = 0
            var deepest = 0
            var inString = false
            var k = 0
            while (k < text.length) {
                when (text[k++]) {
                    '"' -> inString = !inString
                    '\\' -> k++ // what is escaped is no quote
                    '[', '{' -> if (!inString) deepest = maxOf(deepest, ++depth)
                    ']', '}' -> if (!inString) depth--
                }
            }
            return deepest
        }

        private fun JsonElement.numberOrNull() =
            (this as? JsonPrimitive)?.takeUnless { it.isString }

        private fun JsonElement.textOrNull() =
            (this as? JsonPrimitive)?.takeIf { it.isString }?.content

        private fun shown(element: JsonElement?): String =
            if (element == null) "nothing" else element.toString().take(60)
    }
}
