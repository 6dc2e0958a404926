package org.sparserec.harness

import java.io.IOException
import java.nio.file.Path

/**
 * What is asked of a device's bundles instead of a run: to [apply] a delta to one of those in
 * [bundles], or, where that is null, to go back to the one before. docs/formats.md section 7.1.
 */
class Update private constructor(private val bundles: Path, private val apply: Path?) {
    /** The directories, by their keys. */
    val places: Map<String, Path>
        get() = mapOf(BUNDLES to bundles) + listOfNotNull(apply?.let { APPLY to it })

    /** Does it, telling [progress] the phases. Returns the results to print. */
    fun perform(progress: (String) -> Unit): Map<String, String> {
        val generations = Generations(bundles, progress)
        val state = try {
            if (apply == null) generations.rollback() else generations.apply(Delta.open(apply))
        } catch (error: IOException) {
            throw HarnessError("file error: $error", "check the disk and the paths")
        }
        return mapOf("bundle" to state.current.bundleId) +
            listOfNotNull(state.previous?.let { "previous" to it.bundleId })
    }

    companion object {
        private const val BUNDLES = "bundles"
        private const val APPLY = "apply"
        private const val ROLLBACK = "rollback"

        /** Whether [values] ask for this and not for a run. */
        fun isAsked(values: Map<String, String>): Boolean =
            APPLY in values || ROLLBACK in values || BUNDLES in values

        fun of(values: Map<String, String>): Update {
            val others = values.keys - setOf(BUNDLES, APPLY, ROLLBACK)
            others.firstOrNull()?.let {
                Options.fail(it, "is no key here", "use $BUNDLES with $APPLY or $ROLLBACK")
            }
            val rollback = Options.boolean(values, ROLLBACK, false)
            if (rollback == (APPLY in values)) {
                Options.fail(APPLY, "and $ROLLBACK: give one of them", "$APPLY DIRECTORY")
            }
            val delta = if (rollback) null else Options.path(values, APPLY)
            return Update(Options.path(values, BUNDLES), delta)
        }
    }
}
