package org.sparserec.app

import android.app.Activity
import java.util.concurrent.Executors

/** Reads files for the screens off the main thread, one after the other. */
object Background {
    private val reader = Executors.newSingleThreadExecutor { Thread(it, "reader") }

    /** Calls [show] on the main thread with what [read] returned, unless [activity] is gone. */
    fun <T> load(activity: Activity, read: () -> T, show: (T) -> Unit) = reader.execute {
        val result = read()
        activity.runOnUiThread { if (!activity.isDestroyed) show(result) }
    }
}
