package org.sparserec.app

import android.os.Debug
import android.util.Log
import org.json.JSONArray
import org.json.JSONObject
import org.sparserec.harness.Lines
import org.sparserec.harness.Options
import org.sparserec.harness.Platform
import org.sparserec.harness.writeAtomically
import java.io.IOException
import java.nio.ByteBuffer
import java.util.concurrent.Executors
import java.util.concurrent.TimeUnit.MILLISECONDS
import java.util.concurrent.TimeUnit.SECONDS

/**
 * Samples memory every [PERIOD_MS], and what is slow to read (heat, battery, processor frequencies)
 * every [SLOW_EVERY] samples, by phase of the run. `sensors.json` beside the report gets each
 * series' extremes and mean, and what the sampling itself took.
 */
class Sensors(private val platform: Platform, private val options: Options) : AutoCloseable {
    private val timer = Executors.newSingleThreadScheduledExecutor { Thread(it, "sensors") }
    private val phases = mutableListOf<PhaseSamples>()
    private val cost = Series()
    private var cpuNs: Long? = null
    private val startNs = System.nanoTime()

    init {
        timer.scheduleAtFixedRate(::sample, 0, PERIOD_MS, MILLISECONDS)
    }

    /** Samples from now on belong to [phase]; a repeated call changes nothing. */
    @Synchronized
    fun enter(phase: String) {
        if (phases.lastOrNull()?.name == phase) return
        phases.lastOrNull()?.end()
        phases += PhaseSamples(phase)
    }

    @Synchronized
    private fun sample() {
        val phase = phases.lastOrNull() ?: return
        val start = System.nanoTime()
        phase.sampleMemory(platform)
        if (cost.count % SLOW_EVERY == 0L) phase.sampleSlow(platform)
        cost.add(System.nanoTime() - start)
        cpuNs = Debug.threadCpuTimeNanos().takeIf { it >= 0 }
    }

    /** Ends the sampling and writes the file. */
    override fun close() {
        timer.shutdown()
        timer.awaitTermination(STOP_SECONDS, SECONDS)
        phases.lastOrNull()?.end()
        val text = toJson().toString() + "\n"
        try {
            writeAtomically(options.out.resolve(FILE), listOf(ByteBuffer.wrap(text.toByteArray())))
        } catch (error: IOException) {
            Log.w(Session.TAG, "$FILE cannot be written ($error)")
        }
    }

    private fun toJson() = JSONObject()
        .put("schema_version", 1)
        .put("run_id", options.runId)
        .put("period_ms", PERIOD_MS)
        .put("slow_period_ms", PERIOD_MS * SLOW_EVERY)
        .put("duration_ns", System.nanoTime() - startNs)
        .put("cost_ns", cost.toJson())
        .put("cost_cpu_ns", cpuNs ?: JSONObject.NULL)
        .put("phases", JSONArray(phases.map { it.toJson() }))

    companion object {
        const val FILE = "sensors.json"
        const val PERIOD_MS = 50L
        const val SLOW_EVERY = 20L
        private const val STOP_SECONDS = 5L
    }
}

/** The samples of one phase. */
private class PhaseSamples(val name: String) {
    private val memory = sortedMapOf<String, Series>()
    private val slow = sortedMapOf<String, Series>()
    private var frequencies: List<Series> = emptyList()
    private var stats: Map<String, String> = emptyMap()

    fun sampleMemory(platform: Platform) {
        val status = Lines.of("/proc/self/status")
        val runtime = Runtime.getRuntime()
        memory.add("rss_kb", status.kb("VmRSS"))
        memory.add("rss_anon_kb", status.kb("RssAnon"))
        memory.add("rss_file_kb", status.kb("RssFile"))
        memory.add("java_heap_kb", (runtime.totalMemory() - runtime.freeMemory()) / 1024)
        memory.add("native_heap_kb", platform.nativeHeapKb())
    }

    fun sampleSlow(platform: Platform) {
        val battery = platform.battery()
        slow.add("thermal_status", platform.thermalStatus()?.toLong())
        slow.add("battery_level", battery.level?.toLong())
        slow.add("battery_current_now", battery.currentNow)
        val now = platform.cpuFrequenciesKhz() ?: return
        if (frequencies.size != now.size) frequencies = now.map { Series() }
        now.forEachIndexed { core, khz -> frequencies[core].add(khz) }
    }

    /** Takes Android's own account of the process. It walks the memory map, so once a phase. */
    fun end() {
        stats = Debug.MemoryInfo().also { Debug.getMemoryInfo(it) }.memoryStats
    }

    fun toJson(): JSONObject {
        val json = JSONObject().put("name", name)
        (memory + slow).forEach { (key, series) -> json.put(key, series.toJson()) }
        json.put("cpu_frequencies_khz", JSONArray(frequencies.map { it.toJson() }))
        val shown = JSONObject()
        for ((key, kb) in stats) {
            shown.put(key.removePrefix("summary."), kb.toLongOrNull() ?: JSONObject.NULL)
        }
        return json.put("memory_stats_kb", shown)
    }

    private fun MutableMap<String, Series>.add(key: String, value: Long?) =
        getOrPut(key) { Series() }.add(value)
}

/** Extremes and mean of values; what could not be read does not count. */
private class Series {
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
