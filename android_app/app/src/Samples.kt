package org.sparserec.app

import android.os.Debug
import org.json.JSONArray
import org.json.JSONObject
import org.sparserec.harness.Lines
import org.sparserec.harness.Platform
import org.sparserec.harness.javaHeapKb

/** What was read at a moment, by name; null is what could not be. */
typealias Readings = Map<String, Long?>

/** The samples of the phase [name], which began [startNs] after the sampling. */
class PhaseSamples(val name: String, private val startNs: Long) {
    private var durationNs = 0L
    private val series = sortedMapOf<String, Series>()
    private var frequencies: List<Series> = emptyList()
    private var stats: Map<String, String> = emptyMap()

    fun sampleMemory(platform: Platform): Readings {
        val status = Lines.of("/proc/self/status")
        return added(
            "rss_kb" to status.kb("VmRSS"),
            "rss_anon_kb" to status.kb("RssAnon"),
            "rss_file_kb" to status.kb("RssFile"),
            "java_heap_kb" to javaHeapKb(),
            "native_heap_kb" to platform.nativeHeapKb(),
        )
    }

    fun sampleSlow(platform: Platform): SlowSample {
        val battery = platform.battery()
        val values = added(
            "thermal_status" to platform.thermalStatus()?.toLong(),
            "battery_level" to battery.level?.toLong(),
            "battery_current_now" to battery.currentNow,
        )
        val khz = platform.cpuFrequenciesKhz()
        if (khz != null) {
            if (frequencies.size != khz.size) frequencies = khz.map { Series() }
            khz.forEachIndexed { core, value -> frequencies[core].add(value) }
        }
        return SlowSample(values, khz)
    }

    private fun added(vararg values: Pair<String, Long?>): Readings {
        for ((key, value) in values) series.getOrPut(key) { Series() }.add(value)
        return values.toMap()
    }

    /** Takes Android's own account of the process. It walks the memory map, so once a phase. */
    fun end(nowNs: Long) {
        durationNs = nowNs - startNs
        stats = Debug.MemoryInfo().also { Debug.getMemoryInfo(it) }.memoryStats
    }

    fun toJson(): JSONObject {
        val json = JSONObject()
            .put("name", name)
            .put("start_ns", startNs)
            .put("duration_ns", durationNs)
        series.forEach { (key, values) -> json.put(key, values.toJson()) }
        val cores = frequencies.takeIf { it.isNotEmpty() }?.map { it.toJson() }
        json.put("cpu_frequencies_khz", cores?.let { JSONArray(it) } ?: JSONObject.NULL)
        val shown = JSONObject()
        for ((key, kb) in stats) {
            shown.put(key.removePrefix("summary."), kb.toLongOrNull() ?: JSONObject.NULL)
        }
        return json.put("memory_stats_kb", shown)
    }
}

/** What is slow to read, at a moment; [khz] is each core's frequency. */
class SlowSample(val values: Readings, val khz: List<Long>?)

/** The run as a line to draw: points of the same distance in time, at most [MAX_POINTS]. */
class Trace {
    private val points = mutableListOf<JSONObject>()
    private var offered = 0
    private var every = 1

    /** Adds the sample of [timeNs], or every second, fourth, ... one where the run is long. */
    fun add(timeNs: Long, memory: Readings, slow: SlowSample) {
        if (offered++ % every != 0) return
        val point = JSONObject().put("time_ns", timeNs)
        (memory + slow.values).forEach { (key, value) -> point.put(key, value ?: JSONObject.NULL) }
        points += point.put(
            "cpu_frequencies_khz",
            slow.khz?.let { JSONArray(it) } ?: JSONObject.NULL,
        )
        if (points.size == MAX_POINTS) {
            every *= 2
            for (odd in MAX_POINTS - 1 downTo 1 step 2) points.removeAt(odd)
        }
    }

    fun toJson() = JSONArray(points)

    companion object {
        const val MAX_POINTS = 512
    }
}

/** Extremes and mean of values; what could not be read does not count. */
class Series {
    var count = 0L
        private set
    private var minimum = Long.MAX_VALUE
    private var maximum = Long.MIN_VALUE
    private var sum = 0.0

    fun add(value: Long?) {
        if (value == null) return
        count++
        minimum = minOf(minimum, value)
        maximum = maxOf(maximum, value)
        sum += value
    }

    /** JSON's null where nothing could be read. */
    fun toJson(): Any = if (count == 0L) {
        JSONObject.NULL
    } else {
        JSONObject()
            .put("count", count)
            .put("minimum", minimum)
            .put("mean", sum / count)
            .put("maximum", maximum)
    }
}
