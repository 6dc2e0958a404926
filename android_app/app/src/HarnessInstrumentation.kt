package org.sparserec.app

import android.app.Activity
import android.app.Instrumentation
import android.os.Bundle
import android.util.Log
import org.sparserec.harness.HarnessError
import org.sparserec.harness.Options
import org.sparserec.harness.Update

/**
 * The shell's entry: `am instrument -w -r -e KEY VALUE ...` (docs/formats.md section 7). Statuses
 * are streamed while the run goes on; the result ends the process.
 */
class HarnessInstrumentation : Instrumentation() {
    private lateinit var arguments: Bundle

    override fun onCreate(arguments: Bundle?) {
        super.onCreate(arguments)
        this.arguments = arguments ?: Bundle()
        start()
    }

    /** Called on a thread of its own. */
    override fun onStart() {
        val results = Bundle()
        val error = try {
            run(results)
        } catch (error: HarnessError) {
            Log.e(Session.TAG, error.message!!)
            error.message
        }
        results.putString("exit_status", if (error == null) "succeeded" else "failed")
        if (error != null) results.putString("error", error)
        finish(if (error == null) Activity.RESULT_OK else Activity.RESULT_CANCELED, results)
    }

    private fun run(results: Bundle): String? {
        val values = arguments.keySet().associateWith { arguments.getString(it).orEmpty() }
        val storage = SharedStorage.of(targetContext)
        if (Update.isAsked(values)) {
            val update = Update.of(values)
            storage.requireInside(update.places)
            val done = Awake(targetContext).use { awake ->
                update.perform { phase ->
                    awake.renew()
                    show(phase, null, null, null)
                }
            }
            done.forEach { (key, value) -> results.putString(key, value) }
            return null
        }
        val options = Options.of(values)
        storage.requireInside(options.places)
        // The app may be opened meanwhile, in this process: its screens follow, and begin no other.
        val live = LiveRunner(options.bundle.fileName.toString())
        val session = Session(targetContext, options) { phase, step, steps, loss ->
            live.progress(phase, step, steps, loss)
            show(phase, step, steps, loss)
        }
        results.putString("report", session.reportPath)
        live.start()
        return session.run().also { live.end(it) }
    }

    private fun show(phase: String, step: Int?, steps: Int?, loss: Float?) {
        val values = listOf("phase" to phase, "step" to step, "steps" to steps, "loss" to loss)
        val status = Bundle()
        for ((key, value) in values) if (value != null) status.putString(key, value.toString())
        sendStatus(IN_PROGRESS, status)
    }

    private companion object {
        const val IN_PROGRESS = 2
    }
}
