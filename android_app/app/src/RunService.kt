package org.sparserec.app

import android.app.Service
import android.content.Context
import android.content.Intent
import android.content.pm.ServiceInfo
import android.os.Build
import android.os.Handler
import android.os.IBinder
import android.os.Looper
import android.util.Log
import org.sparserec.harness.HarnessError
import org.sparserec.harness.Options
import kotlin.concurrent.thread

/**
 * Trains in the foreground, for as long as it takes, with a notification that shows how far it is.
 *
 * When Android kills the process it delivers the same intent to a new one, and the run resumes from
 * its checkpoint; where Android does not (an upgrade, a forced stop), the next start does.
 */
class RunService : Service() {
    private val main = Handler(Looper.getMainLooper())
    private lateinit var notices: RunNotifications
    private var session: Session? = null

    override fun onCreate() {
        super.onCreate()
        notices = RunNotifications(this)
    }

    override fun onBind(intent: Intent?): IBinder? = null

    override fun onStartCommand(intent: Intent?, flags: Int, startId: Int): Int {
        if (intent?.action == STOP) {
            Session.current?.stop("the user asked for it")
            if (session == null) stopSelf()
            return START_NOT_STICKY
        }
        if (intent != null && enterForeground()) {
            when {
                LiveRun.current?.isRunning != true ->
                    train(values(intent, redelivered = flags and START_FLAG_REDELIVERY != 0))
                // The shell's run, or that of a service that Android ended and still saving.
                session == null -> stopSelf()
            }
        }
        return START_REDELIVER_INTENT
    }

    /** False where Android (12 and newer) lets no service into the foreground from here. */
    private fun enterForeground(): Boolean = try {
        val notification = notices.progress("starting", null, null)
        if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.UPSIDE_DOWN_CAKE) {
            startForeground(
                RunNotifications.PROGRESS,
                notification,
                ServiceInfo.FOREGROUND_SERVICE_TYPE_SPECIAL_USE,
            )
        } else {
            startForeground(RunNotifications.PROGRESS, notification)
        }
        true
    } catch (error: IllegalStateException) {
        Log.w(Session.TAG, "not restarted in the background, open the app to resume: $error")
        stopSelf()
        false
    }

    private fun train(values: Map<String, String>) {
        val bundleId = values.getValue("bundle").substringAfterLast('/')
        val live = LiveRunner(bundleId)
        live.start()
        try {
            val options = Options.of(values)
            val started = Session(this, options) { phase, step, steps, loss ->
                live.progress(phase, step, steps, loss)
                notices.update(phase, step, steps)
            }
            session = started
            thread(name = "run") {
                val error = started.run()
                main.post { end(live, error) }
            }
        } catch (error: HarnessError) {
            end(live, error.message)
        }
    }

    private fun end(live: LiveRunner, error: String?) {
        session = null
        live.end(error)
        stopForeground(STOP_FOREGROUND_REMOVE)
        notices.ended(error)
        stopSelf()
    }

    /** Android ends the service: the run's thread goes on until what is trained is saved. */
    override fun onDestroy() {
        session?.stop("Android ended the service")
        super.onDestroy()
    }

    companion object {
        private const val STOP = "org.sparserec.app.STOP"
        private const val FRESH = "fresh"

        /** Starts a run with the harness's keys and values. */
        fun train(context: Context, values: Map<String, String>) {
            val intent = Intent(context, RunService::class.java)
            values.forEach { (key, value) -> intent.putExtra(key, value) }
            context.startForegroundService(intent)
        }

        fun stop(context: Context) {
            context.startService(stopIntent(context))
        }

        fun stopIntent(context: Context): Intent =
            Intent(context, RunService::class.java).setAction(STOP)

        /** Starting over is done once: an intent that comes again must not undo what followed. */
        private fun values(intent: Intent, redelivered: Boolean): Map<String, String> {
            val extras = intent.extras ?: return emptyMap()
            val values = extras.keySet().associateWith { extras.getString(it).orEmpty() }
            return if (redelivered) values - FRESH else values
        }
    }
}
