package org.sparserec.harness

import kotlinx.serialization.json.add
import kotlinx.serialization.json.buildJsonObject
import kotlinx.serialization.json.put
import kotlinx.serialization.json.putJsonArray
import kotlinx.serialization.json.putJsonObject
import java.io.IOException
import java.nio.ByteBuffer
import java.nio.ByteOrder.LITTLE_ENDIAN
import java.nio.channels.FileChannel
import java.nio.channels.FileChannel.MapMode
import java.nio.file.Path
import java.nio.file.StandardOpenOption.READ
import java.nio.file.StandardOpenOption.WRITE

/** The data types that our files use. */
enum class DType(val bytes: Int) { U8(1), I8(1), F16(2), I32(4), I64(8), F32(4) }

/** A tensor to write: [data] holds its little-endian bytes. */
class NamedTensor(val name: String, val dtype: DType, val shape: List<Long>, val data: ByteBuffer)

/**
 * A safetensors file: 8 bytes header length, JSON header, data
 * (huggingface/safetensors, "Format"). Opening checks the whole header against the file's size, so
 * that no later access can leave the file, whatever its bytes are.
 */
class Safetensors private constructor(private val path: Path, private val header: Header) {
    val metadata: Map<String, String> get() = header.metadata

    /** Every tensor's type, shape and place. */
    val tensors: Map<String, Entry> get() = header.tensors

    /** Where the data begins in the file, in bytes. */
    val dataStart: Long get() = header.dataStart

    /** Maps the tensor [name], of one dimension and any length, to be read; of any type if null. */
    fun vector(name: String, dtype: DType? = null): ByteBuffer {
        val shape = entry(name).shape
        if (shape.size != 1 || shape[0] > Int.MAX_VALUE) {
            fail(path.toString(), "tensor $name: expected one dimension, found $shape")
        }
        return map(name, dtype ?: entry(name).dtype, shape[0].toInt())
    }

    /**
     * Maps the tensor [name], little-endian. What is [writable] is a private copy-on-write mapping:
     * big tables stay off the Java heap, and changes never reach the file.
     */
    fun map(name: String, dtype: DType, vararg shape: Int, writable: Boolean = false): ByteBuffer {
        val entry = entry(name)
        val wanted = shape.map { it.toLong() }
        if (entry.dtype != dtype || entry.shape != wanted) {
            fail(
                path.toString(),
                "tensor $name: expected $dtype $wanted, found ${entry.dtype} ${entry.shape}",
            )
        }
        if (entry.bytes > Int.MAX_VALUE) fail(path.toString(), "tensor $name: more than 2 GiB")
        val start = header.dataStart + entry.begin
        return when {
            entry.bytes == 0L -> ByteBuffer.allocateDirect(0)
            writable -> mapped(MapMode.PRIVATE, start, entry.bytes)
            else -> mapped(MapMode.READ_ONLY, start, entry.bytes)
        }.order(LITTLE_ENDIAN)
    }

    /** Copies the float32 tensor [name] (size,), aligned, as a program's input must be. */
    fun floats(name: String, size: Int): ByteBuffer {
        val read = map(name, DType.F32, size)
        return ByteBuffer.allocateDirect(read.capacity()).order(LITTLE_ENDIAN).also { copy ->
            copy.put(read)
            copy.clear()
            for (k in 0 until size) {
                val value = copy.getFloat(4 * k)
                if (!value.isFinite()) fail(path.toString(), "tensor $name: $value at $k")
            }
        }
    }

    private fun mapped(mode: MapMode, start: Long, bytes: Long): ByteBuffer {
        // Java asks for write access even where a mapping is private.
        val access = if (mode == MapMode.PRIVATE) setOf(READ, WRITE) else setOf(READ)
        return try {
            FileChannel.open(path, access).use { it.map(mode, start, bytes) }
        } catch (error: IOException) {
            val fix = "free some memory, and make it readable and writable"
            throw HarnessError("$path: cannot be mapped ($error)", fix, error)
        }
    }

    private fun entry(name: String): Entry =
        header.tensors[name] ?: fail(path.toString(), "tensor $name: missing")

    /** A tensor's place: `[begin, begin + bytes)` of the data. */
    class Entry(val dtype: DType, val shape: List<Long>, val begin: Long, val bytes: Long)

    class Header(
        val metadata: Map<String, String>,
        val tensors: Map<String, Entry>,
        val dataStart: Long,
    )

    companion object {
        /** Our headers take 1 or 2 kB. A bound keeps a damaged length from asking for memory. */
        private const val MAX_HEADER_BYTES = 64 * 1024L
        private const val LENGTH_BYTES = 8
        private const val METADATA = "__metadata__"

        fun open(path: Path): Safetensors = try {
            FileChannel.open(path, READ).use { Safetensors(path, readHeader(path.toString(), it)) }
        } catch (error: IOException) {
            throw HarnessError("$path: cannot be read ($error)", "check the file", error)
        }

        /** Writes atomically (see [writeAtomically]). [metadata] is given the hash of the data. */
        fun write(
            path: Path,
            tensors: List<NamedTensor>,
            metadata: (String) -> Map<String, String>,
        ) {
            // Data starts at a multiple of 8 and wide numbers come first, so that all are aligned.
            val ordered = tensors.sortedByDescending { it.dtype.bytes }
            val data = ordered.map { it.data }
            val json = headerJson(ordered, metadata(sha256(data))).toByteArray()
            val padded = json.copyOf((json.size + 7) / 8 * 8)
            padded.fill(' '.code.toByte(), json.size)
            val length = ByteBuffer.allocate(LENGTH_BYTES).order(LITTLE_ENDIAN)
            length.putLong(0, padded.size.toLong())
            writeAtomically(path, listOf(length, ByteBuffer.wrap(padded)) + data)
        }

        /** Reads [start], which is all that comes before the data of a file of [size] bytes. */
        fun header(file: String, start: ByteBuffer, size: Long): Header {
            val length = start.capacity() - LENGTH_BYTES
            if (length !in 2..MAX_HEADER_BYTES || start.getLong(0) != length.toLong()) {
                fail(file, "${start.capacity()} bytes, not a safetensors header")
            }
            val text = ByteArray(length)
            start.duplicate().apply { position(LENGTH_BYTES) }.get(text)
            return header(file, text, size)
        }

        private fun headerJson(tensors: List<NamedTensor>, metadata: Map<String, String>) =
            buildJsonObject {
                putJsonObject(METADATA) { metadata.forEach { (key, value) -> put(key, value) } }
                var offset = 0L
                for (tensor in tensors) {
                    putJsonObject(tensor.name) {
                        put("dtype", tensor.dtype.name)
                        putJsonArray("shape") { tensor.shape.forEach { add(it) } }
                        putJsonArray("data_offsets") {
                            add(offset)
                            offset += tensor.data.capacity()
                            add(offset)
                        }
                    }
                }
            }.toString()

        private fun readHeader(file: String, channel: FileChannel): Header {
            val size = channel.size()
            if (size < LENGTH_BYTES) fail(file, "$size bytes, not a safetensors file")
            val length = readFully(channel, LENGTH_BYTES).order(LITTLE_ENDIAN).getLong(0)
            if (length !in 2..minOf(MAX_HEADER_BYTES, size - LENGTH_BYTES)) {
                fail(file, "header length $length is out of bounds")
            }
            return header(file, readFully(channel, length.toInt()).array(), size)
        }

        /** Reads the header [text] of a file of [size] bytes. */
        private fun header(file: String, text: ByteArray, size: Long): Header {
            val json = Fields.parse("$file: header", text)
            val dataStart = LENGTH_BYTES + text.size.toLong()
            val tensors = json.names.filter { it != METADATA }
                .associateWith { entry(file, it, json.child(it)) }
            checkLayout(file, tensors, size - dataStart)
            val metadata = if (METADATA in json.names) json.child(METADATA) else null
            return Header(
                metadata?.names.orEmpty().associateWith { metadata!!.text(it) },
                tensors,
                dataStart,
            )
        }

        private fun entry(file: String, name: String, json: Fields): Entry {
            val label = json.text("dtype")
            val dtype = DType.values().find { it.name == label }
                ?: fail(file, "tensor $name: dtype $label is not used in this format")
            val shape = json.longs("shape")
            val offsets = json.longs("data_offsets")
            if (offsets.size != 2 || offsets[0] < 0 || offsets[1] < offsets[0]) {
                fail(file, "tensor $name: data_offsets $offsets are not a range")
            }
            val bytes = offsets[1] - offsets[0]
            if (byteCount(dtype, shape) != bytes) {
                fail(file, "tensor $name: $dtype $shape does not take $bytes bytes")
            }
            return Entry(dtype, shape, offsets[0], bytes)
        }

        /** Bytes that a tensor takes, null if that is no number of bytes. */
        private fun byteCount(dtype: DType, shape: List<Long>): Long? {
            if (shape.any { it < 0 }) return null
            return try {
                shape.fold(dtype.bytes.toLong()) { bytes, size -> Math.multiplyExact(bytes, size) }
            } catch (_: ArithmeticException) {
                null
            }
        }

        /** The tensors must cover the data exactly once: no hole, no overlap, nothing behind. */
        private fun checkLayout(file: String, tensors: Map<String, Entry>, dataBytes: Long) {
            var end = 0L
            val inOrder = compareBy<Pair<String, Entry>>({ it.second.begin }, { it.second.bytes })
            for ((name, entry) in tensors.toList().sortedWith(inOrder)) {
                val begin = entry.begin
                if (begin != end) fail(file, "tensor $name: begins at $begin, not $end")
                end += entry.bytes
            }
            if (end != dataBytes) fail(file, "tensors take $end bytes, the file holds $dataBytes")
        }

        private fun readFully(channel: FileChannel, bytes: Int): ByteBuffer {
            val buffer = ByteBuffer.allocate(bytes)
            while (buffer.hasRemaining() && channel.read(buffer) >= 0) Unit
            return buffer
        }

        private fun fail(file: String, problem: String): Nothing =
            throw HarnessError("$file: $problem", "copy or export the file again")
    }
}
