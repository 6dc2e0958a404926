package org.sparserec.harness

import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.buildJsonObject
import kotlinx.serialization.json.put
import java.io.File
import java.io.IOException

/** Memory of this process in kB; null where it cannot be read. */
class MemoryProbe(private val platform: Platform) {
    fun read(): JsonObject {
        val status = Lines.of("/proc/self/status")
        val rollup = Lines.of("/proc/self/smaps_rollup")
        return buildJsonObject {
            put("rss_kb", status.kb("VmRSS"))
            put("rss_peak_kb", status.kb("VmHWM"))
            put("pss_kb", rollup.kb("Pss"))
            put("pss_anon_kb", rollup.kb("Pss_Anon"))
            put("pss_file_kb", rollup.kb("Pss_File"))
            put("private_dirty_kb", rollup.kb("Private_Dirty"))
            put("java_heap_kb", javaHeapKb())
            put("native_heap_kb", platform.nativeHeapKb())
        }
    }
}

/**
 * The used part of the Java heap; null where the heap was resized between the two readings, which
 * then contradict each other.
 */
fun javaHeapKb(): Long? {
    val runtime = Runtime.getRuntime()
    val used = runtime.totalMemory() - runtime.freeMemory()
    return if (used >= 0) used / 1024 else null
}

/** `Name: value` lines, as under `/proc`. */
class Lines(private val lines: List<String>) {
    /** The value after [name], null if there is none. */
    operator fun get(name: String): String? =
        lines.find { it.substringBefore(':').trim() == name }?.substringAfter(':')?.trim()

    fun kb(name: String): Long? = get(name)?.removeSuffix("kB")?.trim()?.toLongOrNull()

    companion object {
        /** The lines of a file; none if it cannot be read. */
        fun of(path: String): Lines = Lines(
            try {
                File(path).readLines()
            } catch (_: IOException) {
                emptyList()
            },
        )
    }
}
