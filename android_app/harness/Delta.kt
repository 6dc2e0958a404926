package org.sparserec.harness

import java.nio.file.Files
import java.nio.file.Path

/** A bundle, by the SHA-256 of its manifest, which has those of all its files. */
data class Version(val bundleId: String, val manifestSha256: String) {
    override fun toString(): String = "$bundleId (manifest ${manifestSha256.take(SHOWN_DIGITS)}...)"

    companion object {
        private const val SHOWN_DIGITS = 12

        /** Reads the object [name] of [json]. The id is to be a directory's name, and no more. */
        fun read(json: Fields, name: String): Version {
            val fields = json.child(name)
            val version = Version(fields.text("bundle_id"), fields.text("manifest_sha256"))
            val id = version.bundleId
            if (!Manifest.isPlain(id) || Generations.isAside(id)) {
                fields.fail("bundle_id", "the name of a bundle's directory")
            }
            return version
        }
    }
}

/**
 * What turns the bundle [base] into another (docs/formats.md section 1.9), whose every file has the
 * size and the hash that `delta.json` names.
 */
class Delta private constructor(
    private val directory: Path,
    val base: Version,
    val result: Version,
    /** Of the bundle that it makes. */
    val manifest: Manifest,
    private val files: Map<String, Manifest.FileEntry>,
) {
    /** Checks that each file of the result is shipped, or is one of [from]. */
    fun checkComplete(from: Manifest) {
        for ((name, wanted) in manifest.files) {
            val kept = from.files[name]
            val isThere = name in files || ROWS + name in files
            if (isThere || kept?.sha256 == wanted.sha256 && kept.bytes == wanted.bytes) continue
            fail("files.$name: is missing, and the base has another")
        }
    }

    /** Writes the file [name] of the result to [to], a copy, or what the rows make of [from]'s. */
    fun write(name: String, from: Bundle, to: Path) {
        val size = manifest.files.getValue(name).bytes
        val rows = directory.resolve(ROWS + name)
        when {
            ROWS + name in files -> advising(DELTA_AGAIN) {
                val users = from.manifest.numUsers to manifest.numUsers
                ChangedRows(name, from.file(name), rows, users).write(to, size)
            }
            name in files -> copy(directory.resolve(name), to)
            else -> copy(from.file(name), to)
        }
    }

    /** Writes the manifest of the result to [to]. */
    fun writeManifest(to: Path) = copy(directory.resolve(RESULT), to)

    private fun copy(from: Path, to: Path) {
        Files.copy(from, to)
        syncFile(to)
    }

    private fun fail(problem: String): Nothing =
        throw HarnessError("${directory.resolve(NAME)}: $problem", DELTA_AGAIN)

    companion object {
        private const val NAME = "delta.json"
        private const val RESULT = "result.json"
        private const val ROWS = "delta-"
        private const val SCHEMA_VERSION = 1
        private const val DELTA_AGAIN =
            "push the delta again, or make it again: sparserec export RUN --since BUNDLE"

        /** Reads and checks the delta in [directory]. */
        fun open(directory: Path): Delta = advising(DELTA_AGAIN) {
            val path = directory.resolve(NAME)
            val json = Fields.parse(path.toString(), Bundle.read(path, "delta"))
            json.int("schema_version", SCHEMA_VERSION..SCHEMA_VERSION)
            val files = Manifest.files(json)
            for ((name, entry) in files) Bundle.checkFile(directory.resolve(name), entry, NAME)
            val result = Version.read(json, "result")
            if (files[RESULT]?.sha256 != result.manifestSha256) {
                throw HarnessError("$path: result.manifest_sha256: is not that of $RESULT", "")
            }
            val shipped = directory.resolve(RESULT)
            val manifest = Manifest.parse(shipped.toString(), Bundle.read(shipped, "delta"))
            if (manifest.bundleId != result.bundleId) {
                val other = manifest.bundleId
                throw HarnessError("$path: result.bundle_id: $RESULT says $other", "")
            }
            val base = Version.read(json, "base")
            if (base.bundleId == result.bundleId) {
                throw HarnessError("$path: base.bundle_id: is the result's too", "")
            }
            Delta(directory, base, result, manifest, files)
        }
    }
}
