package org.sparserec.app

import android.content.Context
import org.sparserec.harness.Generations
import org.sparserec.harness.HarnessError
import java.io.File
import java.nio.file.Path
import java.util.UUID

/**
 * The app's directory under `Android/media`, which the app and adb both read and write without a
 * permission: docs/formats.md section 9. Not the cache directory: Android may empty that.
 */
class SharedStorage(private val root: File) {
    private val bundlesDirectory = File(root, "bundles")
    private val runsDirectory = File(root, "runs")

    /** The bundles, by name. A directory without a manifest is still under way. */
    fun bundles(): List<StoredBundle> = bundlesDirectory.listFiles()
        .orEmpty()
        .filter { File(it, "manifest.json").exists() && !Generations.isAside(it.name) }
        .sortedBy { it.name }
        .map { StoredBundle.read(it, File(root, "state/${it.name}")) }

    /** The report that was written last, null if there is none. */
    fun lastReport(): File? = runsDirectory.listFiles()
        .orEmpty()
        .map { File(it, REPORT) }
        .filter { it.exists() }
        .maxByOrNull { it.lastModified() }

    /** The report of the run with this name, null if there is none. */
    fun report(runId: String): File? {
        val run = File(runsDirectory, runId)
        val isRun = run.canonicalFile.parentFile == runsDirectory.canonicalFile
        return if (isRun) File(run, REPORT).takeIf { it.exists() } else null
    }

    /** The harness's keys and values for a new run of a bundle, in the places of section 9. */
    fun newRun(bundleId: String, fresh: Boolean): Map<String, String> {
        val runId = UUID.randomUUID().toString()
        return mapOf(
            "bundle" to File(bundlesDirectory, bundleId).path,
            "state" to File(root, "state/$bundleId").path,
            "out" to File(runsDirectory, runId).path,
            "run_id" to runId,
            "fresh" to fresh.toString(),
        )
    }

    /** Keeps what is asked for inside [root], whoever asks; HarnessError if it is elsewhere. */
    fun requireInside(places: Map<String, Path>) {
        for ((key, path) in places) {
            if (isInside(path)) continue
            throw HarnessError("$key: $path is outside $root", "use a directory inside it")
        }
    }

    /** Canonical, because adb's `/sdcard` is a link to where the app finds the same files. */
    private fun isInside(path: Path): Boolean =
        path.toFile().canonicalFile.startsWith(root.canonicalFile)

    companion object {
        const val REPORT = "report.json"

        fun of(context: Context): SharedStorage {
            // The replacement, MediaStore, is for photographs and the like.
            @Suppress("DEPRECATION")
            val root = context.externalMediaDirs.firstOrNull()
                ?: throw HarnessError("the shared storage is not mounted", "unlock the phone")
            return SharedStorage(root)
        }
    }
}
