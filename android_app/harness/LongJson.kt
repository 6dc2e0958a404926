package org.sparserec.harness

import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import java.io.Writer

/** [count] numbers, each made when it is asked for: as objects, a long run's would fill the heap. */
fun jsonNumbers(count: Int, number: (Int) -> Number) = JsonArray(
    object : AbstractList<JsonElement>() {
        override val size = count

        override fun get(index: Int) = JsonPrimitive(number(index))
    },
)

/** Writes the text of [element] piece by piece: the whole of it would take as much memory again. */
fun Writer.write(element: JsonElement) {
    when (element) {
        is JsonObject -> writeAll('{', element.entries, '}') { (name, value) ->
            write("${JsonPrimitive(name)}:")
            write(value)
        }
        is JsonArray -> writeAll('[', element, ']') { write(it) }
        is JsonPrimitive -> write(element.toString())
    }
}

private inline fun <T> Writer.writeAll(
    first: Char,
    parts: Iterable<T>,
    last: Char,
    writePart: (T) -> Unit,
) {
    append(first)
    parts.forEachIndexed { k, part ->
        if (k > 0) append(',')
        writePart(part)
    }
    append(last)
}
