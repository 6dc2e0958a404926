package org.sparserec.harness

import java.io.IOException
import java.nio.ByteBuffer
import java.nio.file.Files
import java.nio.file.Path

/** A bundle whose every file has the size and the hash that its manifest names. */
class Bundle private constructor(
    private val directory: Path,
    val manifest: Manifest,
    val manifestSha256: String,
) {
    /** The path of a file. */
    fun file(name: String): Path = directory.resolve(name)

    /** The path of a program's file. */
    fun program(name: String): Path = file(manifest.programs.getValue(name).file)

    fun golden(): Golden = directory.resolve(GOLDEN).let {
        Golden.parse(it.toString(), Files.readAllBytes(it))
    }

    fun interactions(): Interactions =
        Interactions.read(Safetensors.open(directory.resolve(INTERACTIONS)), manifest)

    /** Maps the table afresh: changes to it stay in memory. */
    fun table(): PackedTable = directory.resolve(TABLE).let {
        PackedTable.read(it.toString(), Safetensors.open(it), manifest)
    }

    /** Reads the dense parameters afresh, float32 (P,); null where there are none. */
    fun dense(): ByteBuffer? = if (manifest.denseSize > 0) {
        Safetensors.open(directory.resolve(TABLE)).floats("dense", manifest.denseSize)
    } else {
        null
    }

    /** The graph, for a model that has one. */
    fun graph(): Graph? = if (manifest.model.hasGraph) {
        directory.resolve(GRAPH).let { Graph.read(it.toString(), Safetensors.open(it), manifest) }
    } else {
        null
    }

    companion object {
        const val MANIFEST = "manifest.json"
        private const val TABLE = "table.safetensors"
        private const val INTERACTIONS = "interactions.safetensors"
        private const val GRAPH = "graph.safetensors"
        private const val GOLDEN = "golden.json"
        private const val MAX_MANIFEST_BYTES = 16L shl 20
        private val PROGRAMS = listOf("step", "score")

        fun open(directory: Path): Bundle {
            val path = directory.resolve(MANIFEST)
            val bytes = read(path, "bundle")
            val manifest = Manifest.parse(path.toString(), bytes)
            checkComplete(path, manifest)
            for ((name, entry) in manifest.files) checkFile(directory.resolve(name), entry)
            return Bundle(directory, manifest, sha256(listOf(ByteBuffer.wrap(bytes))))
        }

        /** Reads a small file, without which its directory is no [what]. */
        fun read(path: Path, what: String): ByteArray = try {
            if (Files.size(path) > MAX_MANIFEST_BYTES) {
                throw HarnessError("$path: over $MAX_MANIFEST_BYTES bytes", EXPORT_AGAIN)
            }
            Files.readAllBytes(path)
        } catch (error: IOException) {
            throw HarnessError(
                "$what: $path cannot be read ($error), so this is not a $what",
                "give a directory that `sparserec export` wrote",
            )
        }

        private fun checkComplete(path: Path, manifest: Manifest) {
            PROGRAMS.find { it !in manifest.programs }?.let {
                throw HarnessError("$path: programs: no $it", EXPORT_AGAIN)
            }
            val needed = listOf(TABLE, INTERACTIONS, GOLDEN) +
                manifest.programs.values.map { it.file } +
                listOf(GRAPH).filter { manifest.model.hasGraph }
            needed.find { it !in manifest.files }?.let {
                throw HarnessError("$path: files: no $it", EXPORT_AGAIN)
            }
        }

        /** Checks the size and the hash of a file that [where] describes. */
        fun checkFile(path: Path, expected: Manifest.FileEntry, where: String = "the manifest") {
            val problem = try {
                val size = Files.size(path)
                when {
                    size != expected.bytes -> "$size bytes, $where says ${expected.bytes}"
                    sha256(path) != expected.sha256 -> "SHA-256 differs from $where's"
                    else -> return
                }
            } catch (error: IOException) {
                "cannot be read ($error)"
            }
            throw HarnessError("$path: $problem", "copy the bundle again")
        }
    }
}
