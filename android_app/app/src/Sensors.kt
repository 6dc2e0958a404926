package org.sparserec.app

import android.os.Debug
import android.util.Log
import org.json.JSONArray
import org.json.JSONObject
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
 * every [SLOW_EVERY] samples, by phase of the run. `sensors.json` beside the report gets it all, and
 * what the sampling itself took: docs/formats.md section 8.1.
 *
 * The first phase, `idle`, is what the process has before the run loads anything.
 */
class Sensors(private val platform: Platform, private val options: Options) : AutoCloseable {
    private val timer = Executors.newSingleThreadScheduledExecutor { Thread(it, "sensors") }
    private val phases = mutableListOf<PhaseSamples>()
    private val trace = Trace()
    private val cost = Series()
    private val borderCost = Series()
    private var cpuNs: Long? = null
    private val startNs = System.nanoTime()

    init {
        enter(IDLE)
        timer.scheduleAtFixedRate(::sample, PERIOD_MS, PERIOD_MS, MILLISECONDS)
    }

    private fun sinceStart() = System.nanoTime() - startNs

    /**
     * Samples from now on belong to [phase]; a repeated call changes nothing. The first one is
     * taken here, so that no phase is too short for it. This is the run's own thread, but between
     * two phases, so that no phase's time has it.
     */
    @Synchronized
    fun enter(phase: String) {
        if (phases.lastOrNull()?.name == phase) return
        val began = sinceStart()
        phases.lastOrNull()?.end(began)
        val entered = PhaseSamples(phase, began)
        entered.sampleMemory(platform)
        entered.sampleSlow(platform)
        phases += entered
        borderCost.add(sinceStart() - began)
    }

    @Synchronized
    private fun sample() {
        val phase = phases.last()
        val began = sinceStart()
        val memory = phase.sampleMemory(platform)
        if (cost.count % SLOW_EVERY == 0L) trace.add(began, memory, phase.sampleSlow(platform))
        cost.add(sinceStart() - began)
        cpuNs = Debug.threadCpuTimeNanos().takeIf { it >= 0 }
    }

    /** Ends the sampling and writes the file. */
    override fun close() {
        timer.shutdown()
        timer.awaitTermination(STOP_SECONDS, SECONDS)
        val text = toJson().toString() + "\n"
        try {
            writeAtomically(options.out.resolve(FILE), listOf(ByteBuffer.wrap(text.toByteArray())))
        } catch (error: IOException) {
            Log.w(Session.TAG, "$FILE cannot be written ($error)")
        }
    }

    @Synchronized
    private fun toJson(): JSONObject {
        val duration = sinceStart()
        phases.last().end(duration)
        return JSONObject()
            .put("schema_version", 1)
            .put("run_id", options.runId)
            .put("period_ms", PERIOD_MS)
            .put("slow_period_ms", PERIOD_MS * SLOW_EVERY)
            .put("duration_ns", duration)
            .put("cost_ns", cost.toJson())
            .put("cost_cpu_ns", cpuNs ?: JSONObject.NULL)
            .put("border_cost_ns", borderCost.toJson())
            .put("phases", JSONArray(phases.map { it.toJson() }))
            .put("trace", trace.toJson())
    }

    companion object {
        const val FILE = "sensors.json"
        const val IDLE = "idle"
        const val PERIOD_MS = 50L
        const val SLOW_EVERY = 20L
        private const val STOP_SECONDS = 5L
    }
}
