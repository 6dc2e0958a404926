package org.sparserec.harness

import java.nio.ByteBuffer
import java.nio.ByteOrder.LITTLE_ENDIAN
import java.nio.channels.FileChannel
import java.nio.file.Files
import java.nio.file.Path
import java.nio.file.StandardOpenOption.CREATE_NEW
import java.nio.file.StandardOpenOption.WRITE

/**
 * Makes the safetensors file [name] of a bundle from the base's and from a delta's word on which of
 * its rows, and which runs of its lists, are others: docs/formats.md section 1.9.
 *
 * @param users rows for users in the base and in the result: users that come move items' rows
 */
class ChangedRows(
    private val name: String,
    basePath: Path,
    private val deltaPath: Path,
    private val users: Pair<Int, Int>,
) {
    private val base = Safetensors.open(basePath)
    private val delta = Safetensors.open(deltaPath)
    private val atMost = Files.size(basePath) + Files.size(deltaPath)

    /** Writes the file to [to], which is not there, and syncs it; it takes [size] bytes. */
    fun write(to: Path, size: Long) {
        // All is of the base or of the delta: what asks for more would only fill the disk.
        if (size > atMost) fail("$name: $size bytes cannot come of $atMost")
        val start = delta.vector(HEADER, DType.U8)
        val header = Safetensors.header("$deltaPath: $HEADER", start, size)
        val merges = RAGGED[name].orEmpty()
            .filter { "${it.pointer}$ROWS" in delta.tensors }
            .map { RowMerge(it, header) } +
            LISTS[name].orEmpty()
                .filter { "${it.first()}$STARTS" in delta.tensors }
                .map { RunMerge(it, elements(header.tensors, it.first())) }
        FileChannel.open(to, WRITE, CREATE_NEW).use { channel ->
            val out = Output(channel)
            out.put(start, 0, start.capacity())
            for ((tensor, entry) in header.tensors.toList().sortedBy { it.second.begin }) {
                val merge = merges.find { tensor in it.members }
                if (merge != null) merge.write(tensor, out) else out.putAll(whole(tensor))
                val end = header.dataStart + entry.begin + entry.bytes
                if (out.written != end) fail("tensor $tensor: ends at ${out.written}, not $end")
            }
            out.flush()
            channel.force(true)
        }
    }

    private fun whole(tensor: String): ByteBuffer =
        (if (tensor in delta.tensors) delta else base).vector(tensor)

    private fun fail(problem: String): Nothing =
        throw HarnessError("$deltaPath: $problem", "copy or export the file again")

    /** Writes some tensors of the result, each of which is partly the base's. */
    private interface Merge {
        val members: List<String>

        fun write(tensor: String, out: Output)
    }

    /** Tensors that together are rows of unequal length; [rows] have an element for each row. */
    private class Ragged(
        val pointer: String,
        val entries: List<String>,
        rows: List<String> = emptyList(),
        /** The rows are users, then items. */
        val ofBoth: Boolean = false,
    ) {
        val members = listOf(pointer) + entries + rows
    }

    /** Goes through the rows of the result, each of which is the base's or the delta's. */
    private inner class RowMerge(
        private val ragged: Ragged,
        private val header: Safetensors.Header,
    ) : Merge {
        override val members get() = ragged.members
        private val wide = type(ragged.pointer) == DType.I64
        private val pointers = base.vector(ragged.pointer, type(ragged.pointer))
        private val rows = delta.vector("${ragged.pointer}$ROWS", DType.I32).asIntBuffer()
        private val sizes = delta.vector("${ragged.pointer}$SIZES", DType.I32).asIntBuffer()
        private val before = pointers.capacity() / type(ragged.pointer).bytes - 1
        private val after = elements(header.tensors, ragged.pointer) - 1

        init {
            val told = rows.capacity()
            val ascend = (0 until told).all { rows[it] in 0 until after } &&
                (1 until told).all { rows[it - 1] < rows[it] }
            if (!ascend || sizes.capacity() != told || (0 until told).any { sizes[it] < 0 }) {
                fail("${ragged.pointer}$ROWS: are not ascending rows with a size each")
            }
            val rises = before >= 0 &&
                pointer(0) == 0L &&
                (0 until before).all { pointer(it) <= pointer(it + 1) }
            if (!rises) fail("${ragged.pointer}: the base's does not rise from 0")
        }

        private fun type(tensor: String): DType =
            header.tensors[tensor]?.dtype ?: fail("tensor $tensor: missing")

        private fun pointer(row: Int): Long =
            if (wide) pointers.getLong(8 * row) else pointers.getInt(4 * row).toLong()

        override fun write(tensor: String, out: Output) = when (tensor) {
            ragged.pointer -> writePointers(out)
            in ragged.entries -> {
                val (old, new) = parts(tensor, pointer(before), total())
                val bytes = type(tensor).bytes
                forEach { told, _, start, size ->
                    out.put(if (told) new else old, bytes * start, bytes * size)
                }
            }
            else -> {
                val (old, new) = parts(tensor, before.toLong(), rows.capacity().toLong())
                val bytes = type(tensor).bytes
                forEach { told, row, _, _ -> out.put(if (told) new else old, bytes * row, bytes) }
            }
        }

        /** The base's and the delta's part of [tensor], of so many elements. */
        private fun parts(tensor: String, inBase: Long, inDelta: Long) =
            part(base, tensor, type(tensor), inBase) to part(delta, tensor, type(tensor), inDelta)

        private fun total(): Long = (0 until sizes.capacity()).sumOf { sizes[it].toLong() }

        private fun writePointers(out: Output) {
            var end = 0L
            if (wide) out.putLong(0) else out.putInt(0)
            forEach { _, _, _, size ->
                end += size
                if (end > Int.MAX_VALUE) fail("${ragged.pointer}: more than 2^31 entries")
                if (wide) out.putLong(end) else out.putInt(end.toInt())
            }
        }

        /**
         * Calls [action] for each row of the result: whether the delta tells it, which row it is
         * there, or in the base, and where its entries begin there, and how many they are.
         */
        private inline fun forEach(action: (Boolean, Int, Int, Int) -> Unit) {
            val firstBefore = if (ragged.ofBoth) users.first else before
            val firstAfter = if (ragged.ofBoth) users.second else after
            var told = 0
            var start = 0
            for (row in 0 until after) {
                if (told < rows.capacity() && rows[told] == row) {
                    action(true, told, start, sizes[told])
                    start += sizes[told++]
                    continue
                }
                val isFirst = row < firstAfter
                val old = if (isFirst) row else firstBefore + (row - firstAfter)
                if (old >= if (isFirst) minOf(firstBefore, before) else before) {
                    fail("${ragged.pointer}$ROWS: row $row is new and not told")
                }
                action(false, old, pointer(old).toInt(), (pointer(old + 1) - pointer(old)).toInt())
            }
        }
    }

    /** Puts a list together from runs of the base's and runs that the delta tells. */
    private inner class RunMerge(override val members: List<String>, after: Int) : Merge {
        private val starts = delta.vector("${members.first()}$STARTS", DType.I32).asIntBuffer()
        private val sizes = delta.vector("${members.first()}$SIZES", DType.I32).asIntBuffer()
        private val told: Long

        init {
            val length = elements(base.tensors, members.first())
            val runs = 0 until starts.capacity()
            val fits = sizes.capacity() == starts.capacity() &&
                runs.all { sizes[it] >= 0 && (starts[it] < 0 || starts[it] <= length - sizes[it]) }
            if (!fits || runs.sumOf { sizes[it].toLong() } != after.toLong()) {
                fail("${members.first()}$STARTS: are not runs of the base that make $after pairs")
            }
            told = runs.filter { starts[it] < 0 }.sumOf { sizes[it].toLong() }
        }

        override fun write(tensor: String, out: Output) {
            val length = elements(base.tensors, members.first()).toLong()
            val old = part(base, tensor, DType.I32, length)
            val new = part(delta, tensor, DType.I32, told)
            var next = 0
            for (run in 0 until starts.capacity()) {
                val bytes = DType.I32.bytes * sizes[run]
                if (starts[run] >= 0) {
                    out.put(old, DType.I32.bytes * starts[run], bytes)
                } else {
                    out.put(new, next, bytes)
                    next += bytes
                }
            }
        }
    }

    private fun part(file: Safetensors, tensor: String, type: DType, wanted: Long): ByteBuffer {
        val found = elements(file.tensors, tensor)
        if (found.toLong() != wanted) fail("tensor $tensor: $found elements, not $wanted")
        return file.vector(tensor, type)
    }

    private fun elements(tensors: Map<String, Safetensors.Entry>, name: String): Int {
        val shape = tensors[name]?.shape ?: fail("tensor $name: missing")
        if (shape.size != 1 || shape[0] > Int.MAX_VALUE) fail("tensor $name: has shape $shape")
        return shape[0].toInt()
    }

    /** Collects small pieces before they are written. */
    private class Output(private val channel: FileChannel) {
        private val buffer = ByteBuffer.allocateDirect(BUFFER_BYTES).order(LITTLE_ENDIAN)
        var written = 0L
            private set

        fun putInt(value: Int) {
            room(Int.SIZE_BYTES).putInt(value)
        }

        fun putLong(value: Long) {
            room(Long.SIZE_BYTES).putLong(value)
        }

        fun putAll(from: ByteBuffer) = put(from, 0, from.capacity())

        fun put(from: ByteBuffer, start: Int, size: Int) {
            val piece = from.duplicate().apply {
                limit(start + size)
                position(start)
            }
            if (size <= BUFFER_BYTES) {
                room(size).put(piece)
            } else {
                flush()
                while (piece.hasRemaining()) channel.write(piece)
                written += size
            }
        }

        fun flush() {
            buffer.flip()
            while (buffer.hasRemaining()) channel.write(buffer)
            buffer.clear()
        }

        private fun room(size: Int): ByteBuffer {
            if (buffer.remaining() < size) flush()
            written += size
            return buffer
        }
    }

    private companion object {
        const val HEADER = "header"
        const val ROWS = ".rows"
        const val SIZES = ".sizes"
        const val STARTS = ".starts"
        const val BUFFER_BYTES = 1 shl 18

        val RAGGED = mapOf(
            "table.safetensors" to
                listOf(Ragged("row_ptr", listOf("cols", "vals"), listOf("scales"), true)),
            "graph.safetensors" to
                listOf(Ragged("graph_ptr", listOf("graph_rows"), ofBoth = true)),
            "interactions.safetensors" to listOf(Ragged("seen_ptr", listOf("seen_items"))),
            "ids.safetensors" to listOf(
                Ragged("users_offsets", listOf("users_utf8")),
                Ragged("items_offsets", listOf("items_utf8")),
            ),
        )

        val LISTS = mapOf(
            "interactions.safetensors" to listOf(
                listOf("log_users", "log_items"),
                listOf("later_users", "later_items"),
            ),
        )
    }
}
