package org.sparserec.harness

import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonObjectBuilder
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.add
import kotlinx.serialization.json.buildJsonObject
import kotlinx.serialization.json.put
import kotlinx.serialization.json.putJsonArray
import kotlinx.serialization.json.putJsonObject
import java.io.IOException
import java.nio.channels.Channels
import java.nio.file.Path
import java.time.Instant
import java.time.temporal.ChronoUnit.SECONDS

const val HARNESS_VERSION = "0.1.0"

/**
 * `report.json` of a run: docs/formats.md section 8. Fields are filled as they become known;
 * [write] replaces the file atomically, so there is a valid report from the start, whatever happens
 * later.
 */
class Report(private val options: Options, private val platform: Platform) {
    val path: Path = options.out.resolve("report.json")
    val metrics = Metrics()
    val warnings = mutableListOf<String>()
    var phase = Phase.LOAD
    var error: String? = null
    var bundle: Bundle? = null
    var steps: Int? = null
    var resumedFromStep: Int? = null
    var verdict: Golden.Verdict? = null
    var before: Quality? = null
    var after: Quality? = null
    var state: TrainState? = null
    var generation: Int? = null
    var tableSha256: String? = null

    /** Of a workload, which has no [state]. */
    var losses: FloatArray? = null
    private var exitStatus = "started"
    private val started = now()
    private var finished: String? = null
    private val phases = mutableListOf<JsonObject>()
    private val origin = System.nanoTime()
    private val memory = MemoryProbe(platform)

    init {
        makeDirectory(options.out, "out")
    }

    /** Notes that a phase which began at [startNs] (System.nanoTime) is over. */
    fun endPhase(startNs: Long, name: String = phase.label) {
        phases += buildJsonObject {
            put("name", name)
            put("start_ns", startNs - origin)
            put("duration_ns", System.nanoTime() - startNs)
            put("memory", memory.read())
        }
    }

    fun finish(exitStatus: String) {
        this.exitStatus = exitStatus
        finished = now()
        write()
    }

    fun write() {
        try {
            writeAtomically(path) { channel ->
                val writer = Channels.newOutputStream(channel).bufferedWriter()
                writer.write(toJson())
                writer.appendLine()
                writer.flush()
            }
        } catch (error: IOException) {
            throw HarnessError("$path: cannot be written ($error)", "free some space")
        }
    }

    private fun toJson(): JsonObject = buildJsonObject {
        put("schema_version", 1)
        put("run_id", options.runId)
        put("started_utc", started)
        put("finished_utc", finished)
        put("exit_status", exitStatus)
        put("phase", phase.label)
        put("error", error)
        putTarget()
        put("bundle", bundle?.let { bundleJson(it) } ?: JsonNull)
        put("parameters", bundle?.let { parametersJson(it.manifest.training) } ?: JsonNull)
        put("resumed_from_step", resumedFromStep)
        put("correctness", verdict?.let { verdictJson(it) } ?: JsonNull)
        putJsonObject("quality") {
            put("before", before?.let { qualityJson(it) } ?: JsonNull)
            put("after", after?.let { qualityJson(it) } ?: JsonNull)
        }
        val shown = state?.losses ?: losses ?: FloatArray(0)
        put("losses", jsonNumbers(state?.step ?: shown.size) { shown[it] })
        put("metrics", metrics.toJson())
        put("phases", JsonArray(phases))
        putSensors()
        putJsonObject("versions") {
            put("harness", HARNESS_VERSION)
            put("runtime", platform.runtime)
            put("runtime_sha256", platform.runtimeSha256)
            val vm = System.getProperty("java.vm.name")
            put("vm", "$vm ${System.getProperty("java.vm.version")}")
        }
        putJsonObject("state") {
            put("generation", generation)
            put("table_sha256", tableSha256)
        }
        putJsonArray("warnings") { warnings.forEach { add(it) } }
    }

    private fun JsonObjectBuilder.putTarget() = putJsonObject("target") {
        put("kind", platform.kind)
        put("model", platform.model)
        put("abi", platform.abi)
        put("sdk", platform.sdk)
        put("os", platform.os)
        put("debuggable", platform.debuggable)
        put("cores", platform.cores())
        put("memory_total_kb", platform.memoryTotalKb())
    }

    private fun JsonObjectBuilder.putSensors() {
        put("thermal_status", platform.thermalStatus())
        val battery = platform.battery()
        putJsonObject("battery") {
            put("level", battery.level)
            put("charging", battery.charging)
            put("current_now", battery.currentNow)
        }
        val frequencies = platform.cpuFrequenciesKhz()?.map { JsonPrimitive(it) }
        put("cpu_frequencies_khz", frequencies?.let { JsonArray(it) } ?: JsonNull)
    }

    private fun bundleJson(bundle: Bundle) = buildJsonObject {
        put("bundle_id", bundle.manifest.bundleId)
        put("manifest_sha256", bundle.manifestSha256)
        putJsonObject("files") {
            bundle.manifest.files.forEach { (name, file) -> put(name, file.sha256) }
        }
        putJsonObject("planned_arena_bytes") {
            for (program in bundle.manifest.programs.values) {
                program.methods.forEach { (name, method) -> put(name, method.plannedArenaBytes) }
            }
        }
    }

    private fun parametersJson(training: Manifest.Training) = buildJsonObject {
        put("workload", options.workload?.label)
        put("steps", steps)
        put("batch_size", training.batchSize)
        put("threads", options.threads)
        put("seed", training.seed)
        put("checkpoint_every", options.checkpointEvery)
        put("learning_rate", training.learningRate)
    }

    private fun verdictJson(verdict: Golden.Verdict) = buildJsonObject {
        put("verdict", verdict.verdict)
        put("steps", verdict.steps)
        put("max_abs_error", verdict.maxAbsError)
        put("tolerance", verdict.tolerance)
    }

    private fun qualityJson(quality: Quality) = buildJsonObject {
        put("recall@20", quality.recall)
        put("ndcg@20", quality.ndcg)
        put("users", quality.users)
    }

    private companion object {
        fun now(): String = Instant.now().truncatedTo(SECONDS).toString()
    }
}
