package org.sparserec.harness

import java.nio.file.InvalidPathException
import java.nio.file.Path
import java.nio.file.Paths
import java.util.UUID

/** What a run is asked to do: docs/formats.md section 7. [steps] null means the manifest's. */
class Options(
    val bundle: Path,
    val state: Path,
    val out: Path,
    val runId: String,
    val steps: Int?,
    val threads: Int,
    val checkpointEvery: Int,
    val evaluate: Boolean,
    val fresh: Boolean,
    val workload: Workload? = null,
) {
    /** The directories, by their keys. */
    val places: Map<String, Path> get() = mapOf("bundle" to bundle, "state" to state, "out" to out)

    companion object {
        private val KEYS = listOf(
            "bundle",
            "state",
            "out",
            "run_id",
            "steps",
            "threads",
            "checkpoint_every",
            "evaluate",
            "fresh",
            "workload",
        )
        private const val MAX_THREADS = 64

        /** Reads `KEY VALUE KEY VALUE ...`. */
        fun pairs(args: Array<String>): Map<String, String> {
            val values = LinkedHashMap<String, String>()
            for (k in args.indices step 2) {
                val key = args[k]
                val value = args.getOrNull(k + 1)
                    ?: fail(key, "has no value", "give pairs: KEY VALUE")
                if (values.put(key, value) != null) fail(key, "is given twice", "give it once")
            }
            return values
        }

        fun of(values: Map<String, String>): Options {
            values.keys.find { it !in KEYS }?.let {
                fail(it, "is no key", "use ${KEYS.joinToString()}")
            }
            return Options(
                bundle = path(values, "bundle"),
                state = path(values, "state"),
                out = path(values, "out"),
                runId = values["run_id"] ?: UUID.randomUUID().toString(),
                steps = values["steps"]?.let { int(values, "steps", 0, Int.MAX_VALUE) },
                threads = int(values, "threads", 1, MAX_THREADS),
                checkpointEvery = int(values, "checkpoint_every", 100, Int.MAX_VALUE),
                evaluate = boolean(values, "evaluate", true),
                fresh = boolean(values, "fresh", false),
                workload = values["workload"]?.let { workload(it) },
            )
        }

        /** The directory that [key] names. */
        fun path(values: Map<String, String>, key: String): Path {
            val text = values[key] ?: fail(key, "is missing", "add: $key DIRECTORY")
            return try {
                Paths.get(text).toAbsolutePath()
            } catch (_: InvalidPathException) {
                fail(key, "'$text' is no path", "give a directory")
            }
        }

        private fun int(values: Map<String, String>, key: String, default: Int, maximum: Int): Int {
            val text = values[key] ?: return default
            return text.toIntOrNull()?.takeIf { it in 1..maximum }
                ?: fail(key, "'$text' is no integer in [1, $maximum]", "give one")
        }

        /** What [key] says, [default] if nothing. */
        fun boolean(values: Map<String, String>, key: String, default: Boolean): Boolean {
            val text = values[key] ?: return default
            return text.toBooleanStrictOrNull()
                ?: fail(key, "'$text' is neither true nor false", "give one")
        }

        private fun workload(text: String): Workload {
            val names = Workload.entries.map { it.label }
            return Workload.entries.find { it.label == text } ?: fail(
                "workload",
                "'$text' is none",
                "give one of ${names.joinToString()}, or leave it out to train",
            )
        }

        fun fail(key: String, problem: String, fix: String): Nothing =
            throw HarnessError("$key: $problem", fix)
    }
}
