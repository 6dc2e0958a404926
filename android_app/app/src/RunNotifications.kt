package org.sparserec.app

import android.app.Notification
import android.app.NotificationChannel
import android.app.NotificationManager
import android.app.PendingIntent
import android.content.Context
import android.content.Intent

/** The notifications of a run. Where Android may not show them, it drops them: the run goes on. */
class RunNotifications(private val context: Context) {
    private val manager = context.getSystemService(NotificationManager::class.java)
    private var updatedNs = 0L

    init {
        manager.createNotificationChannel(
            NotificationChannel(CHANNEL, "Training", NotificationManager.IMPORTANCE_LOW),
        )
    }

    /** How far the run is; [step] and [steps] are null outside training. */
    fun progress(phase: String, step: Int?, steps: Int?): Notification {
        val stop = PendingIntent.getService(context, 0, RunService.stopIntent(context), FLAGS)
        val text = if (step == null) phase.replace('_', ' ') else "step $step of $steps"
        return builder("Training", text)
            .setOngoing(true)
            .setOnlyAlertOnce(true)
            .setProgress(steps ?: 0, step ?: 0, steps == null)
            .addAction(Notification.Action.Builder(null, "Stop", stop).build())
            .build()
    }

    /** Shows progress, at most once a second: Android drops what comes faster. */
    fun update(phase: String, step: Int?, steps: Int?) {
        val now = System.nanoTime()
        if (now - updatedNs < SECOND_NS) return
        updatedNs = now
        manager.notify(PROGRESS, progress(phase, step, steps))
    }

    fun ended(error: String?) {
        val notification = if (error == null) {
            builder("Training is done", "Tap to see the report")
        } else {
            builder(
                "Training ended early",
                error,
            ).setStyle(Notification.BigTextStyle().bigText(error))
        }
        manager.notify(ENDED, notification.setAutoCancel(true).build())
    }

    private fun builder(title: String, text: String): Notification.Builder {
        val open = Intent(context, MainActivity::class.java)
        return Notification.Builder(context, CHANNEL)
            .setSmallIcon(android.R.drawable.stat_notify_sync)
            .setContentTitle(title)
            .setContentText(text)
            .setContentIntent(PendingIntent.getActivity(context, 0, open, FLAGS))
    }

    companion object {
        const val PROGRESS = 1
        const val ENDED = 2
        private const val CHANNEL = "training"
        private const val FLAGS = PendingIntent.FLAG_IMMUTABLE or PendingIntent.FLAG_UPDATE_CURRENT
        private const val SECOND_NS = 1_000_000_000L
    }
}
