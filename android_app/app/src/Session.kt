package org.sparserec.app

import android.content.Context
import android.util.Log
import org.sparserec.harness.Options
import org.sparserec.harness.Run

/** What a run tells while it goes on; the numbers are null outside training. */
typealias OnProgress = (phase: String, step: Int?, steps: Int?, loss: Float?) -> Unit

/**
 * One run of the harness as both entries do it: the processor kept awake, sensors sampled, and an
 * early end with a checkpoint when the phone cannot bear more.
 */
class Session(context: Context, private val options: Options, private val onProgress: OnProgress) {
    // An instrumentation may start before there is an application.
    private val app = context.applicationContext ?: context
    private val platform = AndroidPlatform(app)
    private val run = Run(options, platform, ::show)
    private lateinit var sensors: Sensors
    private lateinit var awake: Awake

    init {
        current = this
    }

    val reportPath: String get() = run.reportPath

    /** Asks for an early end, from any thread: what is trained is saved first. */
    fun stop(reason: String) = run.stop(reason)

    /** Runs to the end. Returns null, or the error in one line. */
    fun run(): String? = try {
        Awake(app).use {
            awake = it
            Conditions(app, ::stop).use {
                sensors = Sensors(platform, options)
                sensors.use { run.run() }.also(::log)
            }
        }
    } finally {
        current = null
    }

    private fun show(phase: String, step: Int?, steps: Int?, loss: Float?) {
        awake.renew()
        sensors.enter(phase)
        onProgress(phase, step, steps, loss)
    }

    private fun log(error: String?) {
        if (error == null) Log.i(TAG, "run ${options.runId} succeeded") else Log.e(TAG, error)
    }

    companion object {
        const val TAG = "sparserec"

        /** The session of this process, whichever entry began it; null if there is none. */
        @Volatile
        var current: Session? = null
            private set
    }
}
