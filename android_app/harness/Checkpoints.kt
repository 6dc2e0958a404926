package org.sparserec.harness

import java.io.IOException
import java.nio.file.Files
import java.nio.file.Path
import java.nio.file.StandardCopyOption.REPLACE_EXISTING

/**
 * Generations of a run's state in a directory: docs/formats.md section 6. A generation appears
 * whole or not at all, so a run that is killed loses at most the steps since the last one.
 */
class Checkpoints(
    private val directory: Path,
    private val manifest: Manifest,
    private val manifestSha256: String,
    private val warn: (String) -> Unit,
) {
    init {
        // What a kill left.
        list { HALF_WRITTEN.matches(it) }.forEach { Files.delete(it) }
    }

    /**
     * Reads the newest generation that is whole and of this bundle, for a run of [steps] steps;
     * null if there is none. Others that are newer are set aside as `.bad`; but where the newest
     * cannot be read, that is an error, because it may be whole. So is one that has done more.
     */
    fun newest(steps: Int, maxSampled: Int): TrainState? {
        for (path in generations()) {
            val state = try {
                read(path, steps, maxSampled)
            } catch (error: HarnessError) {
                if (error.cause != null) throw HarnessError(error.problem, UNREADABLE)
                setAside(path, error)
                continue
            } catch (error: IOException) {
                throw HarnessError("$path: cannot be read ($error)", UNREADABLE)
            }
            if (state.step > steps) {
                throw HarnessError(
                    "steps: $steps is less than what ${path.fileName} in $directory has done",
                    "give steps ${state.step} or more, or fresh true",
                )
            }
            return state
        }
        return null
    }

    /** Writes the generation of [state], then removes all but the two newest. */
    fun save(state: TrainState) {
        val path = directory.resolve("$PREFIX${state.step.toString().padStart(DIGITS, '0')}$SUFFIX")
        try {
            Safetensors.write(path, state.tensors()) { metadata(state.step) + (HASH to it) }
            generations().drop(KEPT).forEach { Files.delete(it) }
        } catch (error: IOException) {
            throw HarnessError(
                "$path: cannot be written ($error); the generation before it is whole",
                "free some space and run again: it resumes there",
            )
        }
    }

    /** Removes every generation. */
    fun removeAll() = generations().forEach { Files.delete(it) }

    private fun read(path: Path, steps: Int, maxSampled: Int): TrainState {
        val file = Safetensors.open(path)
        val step = generation(path)
        val wanted = metadata(step) + (HASH to sha256(path, file.dataStart))
        for ((key, value) in wanted) {
            if (file.metadata[key] != value) {
                throw HarnessError("$path: $key is ${file.metadata[key]}, not $value", "remove it")
            }
        }
        // Its name is its metadata's, so the step is an Int; it may be past the run's last one.
        val most = maxOf(steps, step.toInt())
        val state = TrainState.read(path.toString(), file, manifest, most, maxSampled)
        if (state.step.toLong() != step) {
            throw HarnessError("$path: holds ${state.step} losses", "remove it")
        }
        return state
    }

    private fun setAside(path: Path, reason: HarnessError) {
        val aside = path.resolveSibling("${path.fileName}.bad")
        Files.move(path, aside, REPLACE_EXISTING)
        warn("checkpoint set aside as ${aside.fileName}: ${reason.message}")
    }

    private fun metadata(step: Number): Map<String, String> = mapOf(
        "schema_version" to Manifest.SCHEMA_VERSION.toString(),
        "step" to step.toString(),
        "bundle_id" to manifest.bundleId,
        "manifest_sha256" to manifestSha256,
    )

    /** Newest first. */
    private fun generations(): List<Path> =
        list { GENERATION.matches(it) }.sortedByDescending { generation(it) }

    private fun list(wanted: (String) -> Boolean): List<Path> =
        Files.newDirectoryStream(directory).use { paths ->
            paths.filter { wanted(it.fileName.toString()) }
        }

    private fun generation(path: Path): Long =
        path.fileName.toString().substring(PREFIX.length, PREFIX.length + DIGITS).toLong()

    private companion object {
        const val PREFIX = "gen-"
        const val DIGITS = 10
        const val SUFFIX = ".safetensors"
        const val HASH = "data_sha256"
        const val KEPT = 2
        const val UNREADABLE =
            "make it readable and writable, free some memory and run again; or give it up: fresh true"
        val GENERATION = Regex("$PREFIX\\d{$DIGITS}\\.safetensors")
        val HALF_WRITTEN = Regex("${GENERATION.pattern}\\.part")
    }
}
