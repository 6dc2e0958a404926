package org.sparserec.app

import android.content.Context
import android.os.PowerManager
import android.os.SystemClock

/**
 * Keeps the processor awake while the screen is off, which else ends in sleep, and the run with it.
 *
 * Not for ever: a run that has told nothing for [LIMIT_MS], which hangs then, lets the phone sleep.
 * A process that is killed takes its lock with it.
 */
class Awake(context: Context) : AutoCloseable {
    private val lock = context.getSystemService(PowerManager::class.java)
        .newWakeLock(PowerManager.PARTIAL_WAKE_LOCK, "sparserec:run")
        .apply { setReferenceCounted(false) }
    private var renewedMs = SystemClock.elapsedRealtime()

    init {
        lock.acquire(LIMIT_MS)
    }

    /** To be called at each progress of the run: the limit counts from here. */
    fun renew() {
        val now = SystemClock.elapsedRealtime()
        if (now - renewedMs < RENEW_MS) return
        renewedMs = now
        lock.acquire(LIMIT_MS)
    }

    override fun close() = lock.release()

    companion object {
        /** Evaluation, which tells nothing, on a slow phone takes minutes. */
        const val LIMIT_MS = 30 * 60_000L

        /** Asking the system at each progress, five times a second, would be wasteful. */
        private const val RENEW_MS = 60_000L
    }
}
