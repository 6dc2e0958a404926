package org.sparserec.harness

import java.io.Closeable
import java.nio.ByteBuffer
import java.nio.channels.FileChannel
import java.nio.file.Files
import java.nio.file.Path
import java.nio.file.StandardOpenOption.CREATE
import java.nio.file.StandardOpenOption.WRITE
import java.util.concurrent.TimeUnit.SECONDS

private const val NAME = ".lock"
private const val POLL_MS = 50L

/** For a run that was killed just now: the kernel lets go of its memory first, then of its files. */
private val PATIENCE_NS = SECONDS.toNanos(2)

/**
 * Keeps other processes from working on [state], where two would remove each other's checkpoints,
 * until the result is closed or this process ends, however it does. The file says that [runId]
 * holds it.
 */
fun lockState(state: Path, runId: String): Closeable {
    makeDirectory(state, "state")
    val path = state.resolve(NAME)
    val file = FileChannel.open(path, WRITE, CREATE)
    try {
        val deadline = System.nanoTime() + PATIENCE_NS
        while (file.tryLock() == null) {
            if (System.nanoTime() > deadline) {
                val fix = "wait for it to end, or give another directory"
                val holder = String(Files.readAllBytes(path))
                throw HarnessError("state: $holder is at work in $state", fix)
            }
            Thread.sleep(POLL_MS)
        }
        val process = Lines.of("/proc/self/status")["Pid"]
        file.truncate(0)
        file.write(ByteBuffer.wrap("run $runId of process $process".toByteArray()))
        return file
    } catch (error: Exception) {
        file.close()
        throw error
    }
}
