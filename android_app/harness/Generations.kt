package org.sparserec.harness

import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObjectBuilder
import kotlinx.serialization.json.buildJsonObject
import kotlinx.serialization.json.put
import kotlinx.serialization.json.putJsonObject
import java.io.IOException
import java.nio.ByteBuffer
import java.nio.file.Files
import java.nio.file.Path
import java.nio.file.StandardCopyOption.ATOMIC_MOVE

/**
 * The bundles of a device, of which one may have been made of another by a delta: docs/formats.md
 * section 9.1. What is in use changes by one rename, of `generations.json`; a kill at any instant
 * leaves the old bundle in use or the new one, whole in either case. What was trained is in
 * directories of its own, which are not touched.
 *
 * @param progress told what is being done
 */
class Generations(private val directory: Path, private val progress: (String) -> Unit) {
    private val path = directory.resolve(NAME)

    /** [previous] is what `rollback` goes back to; [leaving] is being removed. */
    class State(val current: Version, val previous: Version?, val leaving: Version?)

    /** Makes and uses what [delta] makes of its base. Changes nothing if anything does not fit. */
    fun apply(delta: Delta): State = reporting {
        progress("check base")
        removeLeftovers()
        val before = read()
        val base = open(delta.base) { "the delta is for ${delta.base}" }
        delta.checkComplete(base.manifest)
        if (!isWhole(delta.result)) make(delta, base)
        val older = before?.takeIf { it.current == delta.base }?.previous
            ?.takeIf { it.bundleId != delta.result.bundleId }
        use(State(delta.result, delta.base, older))
    }

    /** Uses the bundle that the last delta was applied to again, and removes what it made. */
    fun rollback(): State = reporting {
        progress("check base")
        removeLeftovers()
        val now = read()
        val previous = now?.previous ?: throw HarnessError(
            "$directory: there is nothing to go back to: no delta was applied to what is in use",
            "push the bundle that you want: sparserec deploy BUNDLE",
        )
        open(previous) { "the bundle before is $previous" }
        use(State(previous, null, now.current))
    }

    /** The bundle [version], every file of which is checked; [wanted] says why it is. */
    private fun open(version: Version, wanted: () -> String): Bundle {
        val place = place(version)
        val fix = "push that bundle first, or the new one whole: sparserec deploy BUNDLE"
        if (!Files.isDirectory(place)) {
            throw HarnessError("$directory: ${wanted()}, which is not on this device", fix)
        }
        val bundle = advising(fix) { Bundle.open(place) }
        if (bundle.manifestSha256 != version.manifestSha256) {
            val found = Version(bundle.manifest.bundleId, bundle.manifestSha256)
            throw HarnessError("$place: ${wanted()}, but this is $found", fix)
        }
        return bundle
    }

    private fun isWhole(version: Version): Boolean = try {
        Bundle.open(place(version)).manifestSha256 == version.manifestSha256
    } catch (_: HarnessError) {
        false
    }

    /** Makes the new bundle beside the old, checks it, and gives it its name. */
    private fun make(delta: Delta, base: Bundle) {
        progress("write")
        val part = aside(delta.result, PART)
        try {
            Files.createDirectory(part)
            for (name in delta.manifest.files.keys) delta.write(name, base, part.resolve(name))
            delta.writeManifest(part.resolve(Bundle.MANIFEST))
            syncDirectory(part)
            progress("check result")
            Bundle.open(part) // whose manifest's hash the delta was checked for
        } catch (error: Exception) {
            removeTree(part)
            throw error
        }
        val place = place(delta.result)
        if (Files.exists(place)) Files.move(place, aside(delta.result, OLD), ATOMIC_MOVE)
        Files.move(part, place, ATOMIC_MOVE)
        syncDirectory(directory)
        removeTree(aside(delta.result, OLD))
    }

    /** The one rename that counts; then what has had its time goes. */
    private fun use(state: State): State {
        write(state)
        val leaving = state.leaving ?: return state
        progress("clean up")
        remove(leaving)
        return State(state.current, state.previous, null).also { write(it) }
    }

    private fun remove(version: Version) {
        val place = place(version)
        if (!Files.exists(place)) return
        val old = aside(version, OLD)
        removeTree(old)
        Files.move(place, old, ATOMIC_MOVE)
        removeTree(old)
    }

    /** What a kill left: half a bundle, or one that was being removed. */
    private fun removeLeftovers() {
        if (!Files.isDirectory(directory)) {
            throw HarnessError("bundles: $directory is no directory", "push a bundle first")
        }
        Files.newDirectoryStream(directory)
            .use { paths -> paths.filter { isAside(it.fileName.toString()) } }
            .forEach { removeTree(it) }
        val state = read() ?: return
        if (state.leaving != null) use(state)
    }

    private fun read(): State? {
        if (!Files.exists(path)) return null
        return advising("remove it: bundles and what was trained stay, only going back does not") {
            val json = Fields.parse(path.toString(), Bundle.read(path, "state of bundles"))
            json.int("schema_version", 1..1)
            fun version(name: String) = if (json.has(name)) Version.read(json, name) else null
            State(Version.read(json, CURRENT), version(PREVIOUS), version(LEAVING))
        }
    }

    private fun write(state: State) {
        val json = buildJsonObject {
            put("schema_version", 1)
            putVersion(CURRENT, state.current)
            putVersion(PREVIOUS, state.previous)
            putVersion(LEAVING, state.leaving)
        }
        writeAtomically(path, listOf(ByteBuffer.wrap("$json\n".toByteArray())))
    }

    private fun JsonObjectBuilder.putVersion(name: String, version: Version?) {
        if (version == null) {
            put(name, JsonNull)
        } else {
            putJsonObject(name) {
                put("bundle_id", version.bundleId)
                put("manifest_sha256", version.manifestSha256)
            }
        }
    }

    private fun place(version: Version): Path = directory.resolve(version.bundleId)

    private fun aside(version: Version, end: String): Path =
        directory.resolve(version.bundleId + end)

    private inline fun reporting(action: () -> State): State = try {
        action()
    } catch (error: IOException) {
        throw HarnessError(
            "$directory: cannot be written ($error); $NAME still names a whole bundle",
            "free some space and run it again",
        )
    }

    companion object {
        private const val NAME = "generations.json"
        private const val CURRENT = "current"
        private const val PREVIOUS = "previous"
        private const val LEAVING = "leaving"
        private const val PART = ".part"
        private const val OLD = ".old"

        /** Whether a name in the directory is that of something half made or half removed. */
        fun isAside(name: String): Boolean = name.endsWith(PART) || name.endsWith(OLD)
    }
}
