package org.sparserec.app

import org.sparserec.harness.HarnessError
import org.sparserec.harness.Manifest
import java.io.File
import java.io.IOException

/**
 * A bundle on the phone, as far as its manifest tells; a run checks every file before it trains.
 *
 * [done] of [steps] steps are saved. [problem] is null unless the manifest cannot be read.
 */
class StoredBundle(
    val id: String,
    val description: String,
    val done: Int,
    val steps: Int,
    val problem: String?,
) {
    val isFinished: Boolean get() = problem == null && done >= steps

    companion object {
        private val GENERATION = Regex("""gen-(\d{10})\.safetensors""")

        fun read(directory: File, state: File): StoredBundle = try {
            val path = File(directory, "manifest.json")
            val manifest = Manifest.parse(path.path, path.readBytes())
            StoredBundle(
                directory.name,
                describe(manifest),
                doneSteps(state),
                manifest.training.steps,
                null,
            )
        } catch (error: HarnessError) {
            StoredBundle(directory.name, "", 0, 0, error.message)
        } catch (error: IOException) {
            StoredBundle(directory.name, "", 0, 0, "$error; push the bundle again")
        }

        private fun describe(manifest: Manifest): String {
            val density = 100.0 * manifest.nnz / (manifest.numRows.toDouble() * manifest.dim)
            return "%,d users, %,d items, d = %d, density %.1f %%"
                .format(manifest.knownUsers, manifest.knownItems, manifest.dim, density)
        }

        /** The newest checkpoint's step: its file is named after it. */
        private fun doneSteps(state: File): Int = state.list()
            .orEmpty()
            .mapNotNull { GENERATION.matchEntire(it)?.groupValues?.get(1)?.toIntOrNull() }
            .maxOrNull() ?: 0
    }
}
