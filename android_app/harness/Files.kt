package org.sparserec.harness

import java.io.IOException
import java.nio.ByteBuffer
import java.nio.ByteOrder.LITTLE_ENDIAN
import java.nio.channels.FileChannel
import java.nio.channels.FileChannel.MapMode
import java.nio.file.Files
import java.nio.file.LinkOption.NOFOLLOW_LINKS
import java.nio.file.Path
import java.nio.file.StandardCopyOption.ATOMIC_MOVE
import java.nio.file.StandardOpenOption.CREATE
import java.nio.file.StandardOpenOption.DELETE_ON_CLOSE
import java.nio.file.StandardOpenOption.READ
import java.nio.file.StandardOpenOption.TRUNCATE_EXISTING
import java.nio.file.StandardOpenOption.WRITE
import java.security.MessageDigest

private const val READ_BYTES = 1 shl 16

/** SHA-256 of the bytes of [path] from [offset] on, in hexadecimal. */
fun sha256(path: Path, offset: Long = 0): String {
    val digest = MessageDigest.getInstance("SHA-256")
    val buffer = ByteBuffer.allocateDirect(READ_BYTES)
    FileChannel.open(path, READ).use { channel ->
        channel.position(offset)
        while (channel.read(buffer) >= 0) {
            buffer.flip()
            digest.update(buffer)
            buffer.clear()
        }
    }
    return hex(digest)
}

/** SHA-256 of all bytes of [parts], one after the other; their positions do not move. */
fun sha256(parts: List<ByteBuffer>): String {
    val digest = MessageDigest.getInstance("SHA-256")
    parts.forEach { digest.update(whole(it)) }
    return hex(digest)
}

/**
 * Writes [parts] so that a reader meets the old file or the new one, whatever happens: `.part`
 * beside it, synced, renamed, directory synced. A failure leaves the old file as it was.
 */
fun writeAtomically(path: Path, parts: List<ByteBuffer>) = writeAtomically(path) { channel ->
    for (bytes in parts.map { whole(it) }) {
        while (bytes.hasRemaining()) channel.write(bytes)
    }
}

/** The same of what [write] writes. */
fun writeAtomically(path: Path, write: (FileChannel) -> Unit) {
    val part = path.resolveSibling("${path.fileName}.part")
    try {
        FileChannel.open(part, WRITE, CREATE, TRUNCATE_EXISTING).use { channel ->
            write(channel)
            channel.force(true)
        }
        Files.move(part, path, ATOMIC_MOVE)
    } catch (error: IOException) {
        Files.deleteIfExists(part)
        throw error
    }
    syncDirectory(path.parent)
}

/**
 * Gives [bytes] zeros, little-endian, off the Java heap, which take memory only where they are
 * written: on Android, direct buffers count as heap.
 */
fun zeros(bytes: Int): ByteBuffer {
    if (bytes == 0) return ByteBuffer.allocateDirect(0).order(LITTLE_ENDIAN)
    val path = Files.createTempFile("sparserec-", ".zeros")
    return FileChannel.open(path, READ, WRITE, DELETE_ON_CLOSE)
        .use { it.map(MapMode.PRIVATE, 0, bytes.toLong()) }
        .order(LITTLE_ENDIAN)
}

/** Makes the content of [path] durable. */
fun syncFile(path: Path) {
    FileChannel.open(path, WRITE).use { it.force(true) }
}

/** Makes renames and removals inside [directory] durable. */
fun syncDirectory(directory: Path) {
    FileChannel.open(directory, READ).use { it.force(true) }
}

/** Makes [path] and its parents durably, if they are not there. [what] names it in the error. */
fun makeDirectory(path: Path, what: String) {
    try {
        val missing = generateSequence(path) { it.parent }.takeWhile { !Files.exists(it) }.toList()
        Files.createDirectories(path)
        missing.forEach { syncDirectory(it.parent) }
    } catch (error: IOException) {
        throw HarnessError("$what: cannot make directory $path ($error)", "choose another one")
    }
}

/** Removes [path] with all that is in it, if it is there. Not atomic: rename it first. */
fun removeTree(path: Path) {
    if (Files.isDirectory(path, NOFOLLOW_LINKS)) {
        Files.newDirectoryStream(path).use { inside -> inside.forEach { removeTree(it) } }
    }
    Files.deleteIfExists(path)
}

private fun whole(bytes: ByteBuffer): ByteBuffer = bytes.duplicate().apply { clear() }

private fun hex(digest: MessageDigest): String =
    digest.digest().joinToString("") { "%02x".format(it) }
