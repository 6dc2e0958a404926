package org.sparserec.app

import android.util.JsonReader
import android.util.JsonToken
import org.json.JSONArray
import org.json.JSONObject
import java.io.File
import java.io.IOException

/** What a report says (docs/formats.md section 8), for a reader with a small screen. */
class ReportSummary private constructor(
    private val json: JSONObject,
    private val isRunning: Boolean,
) {
    val headline: String
        get() = when (json.optString("exit_status")) {
            "succeeded" -> "Succeeded"
            "failed" -> "Ended early"
            else -> if (isRunning) "Going on" else "Interrupted: start it again, and it resumes"
        }

    /** Names and values in reading order. What was not measured is left out. */
    val rows: List<Pair<String, String>>
        get() = listOf(
            "Error" to json.text("error"),
            "Bundle" to json.at("bundle")?.text("bundle_id"),
            "Device" to json.at("target")?.let { join(it, "kind", "model", "abi", "os") },
            "Runtime" to json.at("versions")?.text("runtime"),
            "Started" to json.text("started_utc"),
            "Finished" to json.text("finished_utc"),
            "Steps" to steps(),
            "Correctness" to correctness(),
            "Recall@20" to change("recall@20"),
            "NDCG@20" to change("ndcg@20"),
            "Time of a step" to latency(),
            "Peak memory" to peakMemory(),
            "Warnings" to
                json.optJSONArray("warnings")?.strings()?.joinToString("\n")?.ifEmpty { null },
        ).mapNotNull { (name, value) -> value?.let { name to it } }

    private fun steps(): String? {
        val done = json.opt("losses") as? String ?: "0"
        val steps = json.at("parameters")?.text("steps") ?: return null
        val resumed = json.text("resumed_from_step")?.let { ", resumed from $it" }.orEmpty()
        return "$done of $steps$resumed"
    }

    private fun correctness(): String? {
        val json = json.at("correctness") ?: return null
        val verdict = json.text("verdict")
        val error = json.number("max_abs_error") ?: return verdict
        return "%s: %s losses within %.1e of the host's".format(verdict, json.text("steps"), error)
    }

    private fun change(name: String): String? {
        val before = json.at("quality")?.at("before")?.number(name) ?: return null
        val after = json.at("quality")?.at("after")?.number(name)
        if (after == null) return "%.4f before".format(before)
        return "%.4f before, %.4f after".format(before, after)
    }

    private fun latency(): String? {
        val step = json.at("metrics")?.at("train_step_ns") ?: return null
        val median = step.number("p50") ?: return null
        val tail = step.number("p95") ?: return null
        return "half take at most %.2f ms, 95 %% at most %.2f ms".format(median / 1e6, tail / 1e6)
    }

    private fun peakMemory(): String? = json.optJSONArray("phases")?.objects()
        ?.mapNotNull { it.at("memory")?.number("rss_peak_kb") }
        ?.maxOrNull()
        ?.let { "%.0f MB resident".format(it / 1024) }

    companion object {
        /** Null if [file] cannot be read as a report. */
        fun read(file: File, isRunning: Boolean): ReportSummary? = try {
            JsonReader(file.bufferedReader()).use { reader ->
                (read(reader) as? JSONObject)?.let { ReportSummary(it, isRunning) }
            }
        } catch (_: IOException) {
            null
        }

        /**
         * The next value. A list of numbers becomes its length: a long run's times fill megabytes,
         * which the main screen neither shows nor has room for.
         */
        private fun read(reader: JsonReader): Any = when (reader.peek()) {
            JsonToken.BEGIN_OBJECT -> readObject(reader)
            JsonToken.BEGIN_ARRAY -> readArray(reader)
            JsonToken.BOOLEAN -> reader.nextBoolean()
            JsonToken.NULL -> JSONObject.NULL.also { reader.nextNull() }
            else -> reader.nextString()
        }

        private fun readObject(reader: JsonReader): JSONObject {
            val json = JSONObject()
            reader.beginObject()
            while (reader.hasNext()) json.put(reader.nextName(), read(reader))
            reader.endObject()
            return json
        }

        private fun readArray(reader: JsonReader): Any {
            val array = JSONArray()
            var numbers = 0
            reader.beginArray()
            while (reader.hasNext()) {
                if (reader.peek() == JsonToken.NUMBER) {
                    reader.skipValue()
                    numbers++
                } else {
                    array.put(read(reader))
                }
            }
            reader.endArray()
            return if (numbers > 0) numbers.toString() else array
        }

        private fun join(json: JSONObject, vararg names: String) =
            names.mapNotNull { json.text(it) }.joinToString(", ").ifEmpty { null }

        private fun JSONObject.at(name: String): JSONObject? = optJSONObject(name)

        private fun JSONObject.text(name: String): String? =
            if (isNull(name)) null else optString(name)

        private fun JSONObject.number(name: String): Double? =
            optDouble(name).takeUnless { it.isNaN() }

        private fun JSONArray.strings(): List<String> = (0 until length()).map { optString(it) }

        private fun JSONArray.objects(): List<JSONObject> =
            (0 until length()).mapNotNull { optJSONObject(it) }
    }
}
