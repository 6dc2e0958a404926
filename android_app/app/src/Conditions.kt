package org.sparserec.app

import android.content.BroadcastReceiver
import android.content.Context
import android.content.Intent
import android.content.IntentFilter
import android.os.BatteryManager
import android.os.Build
import android.os.PowerManager

/**
 * Watches for what should end a run early: a low battery off the charger, and a phone that is too
 * hot. [onBad] is told which, also when it is so from the start, and possibly more than once.
 */
class Conditions(private val context: Context, private val onBad: (String) -> Unit) :
    AutoCloseable {
    private val power = context.getSystemService(PowerManager::class.java)

    private val battery = object : BroadcastReceiver() {
        override fun onReceive(context: Context, intent: Intent) = checkBattery(intent)
    }

    /** Null before Android 10, which has no thermal status. */
    private val thermal =
        if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.Q) ThermalListener() else null

    init {
        val changes = IntentFilter(Intent.ACTION_BATTERY_CHANGED)
        // The broadcast is sticky: the state of now is returned at once.
        context.registerReceiver(battery, changes)?.let { checkBattery(it) }
        thermal?.start()
    }

    private inner class ThermalListener : PowerManager.OnThermalStatusChangedListener {
        fun start() {
            onThermalStatusChanged(power.currentThermalStatus)
            power.addThermalStatusListener(this)
        }

        fun stop() = power.removeThermalStatusListener(this)

        override fun onThermalStatusChanged(status: Int) {
            val isSevere = status >= PowerManager.THERMAL_STATUS_SEVERE
            if (isSevere) onBad("the phone is too hot (thermal status $status)")
        }
    }

    private fun checkBattery(intent: Intent) {
        val level = intent.getIntExtra(BatteryManager.EXTRA_LEVEL, -1)
        val scale = intent.getIntExtra(BatteryManager.EXTRA_SCALE, -1)
        val isPlugged = intent.getIntExtra(BatteryManager.EXTRA_PLUGGED, 0) != 0
        if (level < 0 || scale <= 0 || isPlugged) return
        val percent = 100 * level / scale
        if (percent <= LOW_BATTERY_PERCENT) onBad("the battery is at $percent %")
    }

    override fun close() {
        context.unregisterReceiver(battery)
        thermal?.stop()
    }

    private companion object {
        /** Where Android itself warns of a low battery. */
        const val LOW_BATTERY_PERCENT = 15
    }
}
