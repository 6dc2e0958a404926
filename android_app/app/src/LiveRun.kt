package org.sparserec.app

import android.os.Handler
import android.os.Looper
import java.util.concurrent.CopyOnWriteArraySet

/**
 * What the service's run is doing at a moment. [losses] are some of the run so far, evenly spread;
 * [ended] is null while it goes on.
 */
data class LiveRun(
    val bundleId: String,
    val phase: String,
    val step: Int? = null,
    val steps: Int? = null,
    val loss: Float? = null,
    val msPerStep: Double? = null,
    val losses: List<Float> = emptyList(),
    val ended: Ended? = null,
) {
    /** [error] is null after a success. */
    class Ended(val error: String?)

    val isRunning: Boolean get() = ended == null

    companion object {
        private val watchers = CopyOnWriteArraySet<() -> Unit>()

        /** The run of this process, null if there was none: a new process starts with nothing. */
        @Volatile
        var current: LiveRun? = null
            private set

        fun publish(run: LiveRun?) {
            current = run
            Handler(Looper.getMainLooper()).post { watchers.forEach { it() } }
        }

        /** Calls [watcher] on the main thread after each change. */
        fun watch(watcher: () -> Unit) {
            watchers += watcher
        }

        fun unwatch(watcher: () -> Unit) {
            watchers -= watcher
        }
    }
}

/** Turns the progress of one run into [LiveRun]s. */
class LiveRunner(bundleId: String) {
    private val losses = LossHistory()
    private var last = LiveRun(bundleId, "load")
    private var shownNs = 0L

    fun start() = LiveRun.publish(last)

    fun progress(phase: String, step: Int?, steps: Int?, loss: Float?) {
        val now = System.nanoTime()
        if (loss != null) losses.add(loss)
        // Outside training the last numbers stay on show.
        last = last.copy(
            phase = phase,
            step = step ?: last.step,
            steps = steps ?: last.steps,
            loss = loss ?: last.loss,
            msPerStep = latency(step, now) ?: last.msPerStep,
            losses = losses.points(),
        )
        shownNs = now
        LiveRun.publish(last)
    }

    fun end(error: String?) = LiveRun.publish(last.copy(ended = LiveRun.Ended(error)))

    /** Milliseconds a step since the last progress, checkpoints included. */
    private fun latency(step: Int?, now: Long): Double? {
        val before = last.step ?: return null
        if (step == null || step <= before) return null
        return (now - shownNs) / 1e6 / (step - before)
    }
}

/** At most [CAPACITY] losses of a run: when full, every second one goes and fewer are taken. */
class LossHistory {
    private var kept = mutableListOf<Float>()
    private var every = 1
    private var skipped = 0

    fun add(loss: Float) {
        if (++skipped < every) return
        skipped = 0
        if (kept.size == CAPACITY) {
            kept = kept.filterIndexed { k, _ -> k % 2 == 1 }.toMutableList()
            every *= 2
        }
        kept += loss
    }

    fun points(): List<Float> = kept.toList()

    private companion object {
        const val CAPACITY = 256
    }
}
