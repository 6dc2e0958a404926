package org.sparserec.app

import android.app.Notification
import android.app.NotificationManager
import android.app.Service
import android.content.Intent
import android.os.BatteryManager
import android.os.PowerManager
import org.json.JSONObject
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertNull
import org.junit.Assert.assertTrue
import org.junit.Test
import org.robolectric.Shadows.shadowOf
import org.robolectric.annotation.Config
import org.robolectric.annotation.Implementation
import org.robolectric.annotation.Implements
import org.robolectric.shadows.ShadowPowerManager
import org.robolectric.shadows.ShadowService
import org.robolectric.shadows.ShadowSystemClock
import java.io.File
import java.time.Duration

/** The foreground service: to the end, stopped, hot, out of power, killed, out of space. */
class RunServiceTest : AppTest() {
    private fun start(values: Map<String, String>, flags: Int = 0): RunService {
        RunService.train(app, values)
        return deliverStart(flags)
    }

    private fun waitForStep(step: Int) = waitFor("step $step") {
        (LiveRun.current?.step ?: 0) >=
            step
    }

    /** Returns the error of the run, null if it succeeded. However it ended, the phone may sleep. */
    private fun waitForEnd(): String? {
        waitFor("the run to end") { LiveRun.current?.isRunning == false }
        assertFalse(ShadowPowerManager.getLatestWakeLock().isHeld)
        return LiveRun.current!!.ended!!.error
    }

    private fun savedStep(fixture: String): Int = state(fixture).list()!!
        .filter { it.startsWith("gen-") }
        .maxOf { it.removePrefix("gen-").removeSuffix(".safetensors").toInt() }

    /** What a run on the desktop, without this app, makes of the same bundle. */
    private fun desktopRun(fixture: String, state: File): ProcessBuilder = ProcessBuilder(
        File(DESKTOP, "bin/harness").path, "bundle", File(root, "bundles/$fixture").path,
        "state", state.path, "out", "${state.path}-out", "evaluate", "false",
    ).redirectErrorStream(true)

    @Test
    fun `a run is in the foreground and ends with a report and a notification`() {
        push("long")
        val values = values("long", "evaluate" to "false")
        val service = start(values)
        waitForStep(1)
        assertEquals(
            RunNotifications.PROGRESS,
            shadowOf(service).lastForegroundNotificationId,
        )
        val notification = shadowOf(service).lastForegroundNotification
        assertEquals("Stop", notification.actions.single().title)
        assertNull(waitForEnd())
        assertTrue(shadowOf(service).isStoppedBySelf)
        assertTrue(shadowOf(service).isForegroundStopped)
        val shown = shadowOf(app.getSystemService(NotificationManager::class.java))
        assertEquals(
            "Training is done",
            shadowOf(shown.getNotification(RunNotifications.ENDED)).contentTitle,
        )
        assertEquals("succeeded", report(values).getString("exit_status"))
        assertEquals("passed", report(values).getJSONObject("correctness").getString("verdict"))
        assertTrue(LiveRun.current!!.losses.size in 2..256)
    }

    /** Remembers what kind of lock was asked for. */
    @Implements(PowerManager::class)
    class WakeLocks : ShadowPowerManager() {
        @Implementation
        override fun newWakeLock(flags: Int, tag: String): PowerManager.WakeLock {
            level = flags
            return super.newWakeLock(flags, tag)
        }

        companion object {
            @Volatile
            var level = 0
        }
    }

    @Test
    @Config(shadows = [WakeLocks::class])
    fun `with the screen off the processor is kept awake until the run ends`() {
        push("long")
        shadowOf(app.getSystemService(PowerManager::class.java)).turnScreenOn(false)
        val values = values("long", "evaluate" to "false")
        start(values)
        waitForStep(1)
        val lock = ShadowPowerManager.getLatestWakeLock()
        assertTrue(lock.isHeld)
        assertEquals(PowerManager.PARTIAL_WAKE_LOCK, WakeLocks.level)
        // Progress holds the lock for as long as the run takes, however long that is.
        repeat(3) {
            ShadowSystemClock.advanceBy(Duration.ofMillis(Awake.LIMIT_MS - 1))
            waitForStep(LiveRun.current!!.step!! + 1000)
            assertTrue(lock.isHeld)
        }
        assertNull(waitForEnd())
        assertEquals("passed", report(values).getJSONObject("correctness").getString("verdict"))
    }

    @Test
    fun `a run that hangs does not keep the phone awake for ever`() {
        Awake(app).use { awake ->
            val lock = ShadowPowerManager.getLatestWakeLock()
            ShadowSystemClock.advanceBy(Duration.ofMillis(Awake.LIMIT_MS - 1))
            assertTrue(lock.isHeld)
            awake.renew()
            ShadowSystemClock.advanceBy(Duration.ofMillis(Awake.LIMIT_MS - 1))
            assertTrue(lock.isHeld)
            ShadowSystemClock.advanceBy(Duration.ofMillis(2))
            assertFalse(lock.isHeld)
        }
    }

    @Test
    fun `a run of a damaged bundle ends with an error and lets the phone sleep`() {
        File(push("short"), "step.pte").delete()
        val values = values("short")
        start(values)
        val error = waitForEnd()!!
        assertTrue(error, "step.pte" in error)
        assertEquals(error, report(values).getString("error"))
    }

    @Test
    fun `stop saves what is trained and the next start resumes there`() {
        push("long")
        val values = values("long")
        start(values)
        waitForStep(200)
        RunService.stop(app)
        deliverStart()
        val error = waitForEnd()!!
        assertTrue(error, ": the user asked for it" in error)
        val step = report(values).getJSONArray("losses").length()
        assertEquals(step, savedStep("long"))
        assertEquals("failed", report(values).getString("exit_status"))

        val again = values("long", "steps" to (step + 5).toString())
        start(again)
        assertNull(waitForEnd())
        assertEquals(step, report(again).getInt("resumed_from_step"))
        assertEquals(step + 5, savedStep("long"))
    }

    @Test
    fun `a second start during a run changes nothing`() {
        push("long")
        start(values("long"))
        waitForStep(10)
        val second = values("long", "fresh" to "true")
        RunService.train(app, second)
        deliverStart()
        waitForStep(200)
        assertFalse(File(second.getValue("out")).exists())
    }

    @Test
    fun `a low battery ends the run with a checkpoint, but not on the charger`() {
        push("long")
        val values = values("long")
        start(values)
        waitForStep(10)
        app.sendBroadcast(battery(level = 5, plugged = BatteryManager.BATTERY_PLUGGED_USB))
        app.sendBroadcast(battery(level = 16, plugged = 0))
        val step = LiveRun.current!!.step!!
        waitForStep(step + 1000)
        app.sendBroadcast(battery(level = 15, plugged = 0))
        val error = waitForEnd()!!
        assertTrue(error, "the battery is at 15 %" in error)
        assertEquals(report(values).getJSONArray("losses").length(), savedStep("long"))
    }

    @Test
    fun `a battery that is low from the start ends the run before it begins`() {
        push("long")
        @Suppress("DEPRECATION")
        app.sendStickyBroadcast(battery(level = 3, plugged = 0))
        start(values("long"))
        val error = waitForEnd()!!
        assertTrue(error, "the battery is at 3 %" in error)
    }

    private fun battery(level: Int, plugged: Int) = Intent(Intent.ACTION_BATTERY_CHANGED)
        .putExtra(BatteryManager.EXTRA_LEVEL, level)
        .putExtra(BatteryManager.EXTRA_SCALE, 100)
        .putExtra(BatteryManager.EXTRA_PLUGGED, plugged)

    @Test
    fun `severe heat ends the run with a checkpoint, moderate heat does not`() {
        push("long")
        val values = values("long")
        start(values)
        waitForStep(10)
        val power = shadowOf(app.getSystemService(PowerManager::class.java))
        power.setCurrentThermalStatus(PowerManager.THERMAL_STATUS_MODERATE)
        waitForStep(LiveRun.current!!.step!! + 1000)
        power.setCurrentThermalStatus(PowerManager.THERMAL_STATUS_SEVERE)
        val error = waitForEnd()!!
        assertTrue(error, "too hot (thermal status 3)" in error)
        assertEquals(report(values).getJSONArray("losses").length(), savedStep("long"))
        assertEquals(3, report(values).getInt("thermal_status"))
    }

    @Test
    fun `a service that Android ends saves first`() {
        push("long")
        val values = values("long")
        val service = start(values)
        waitForStep(10)
        service.onDestroy()
        val error = waitForEnd()!!
        assertTrue(error, ": Android ended the service" in error)
        assertEquals(report(values).getJSONArray("losses").length(), savedStep("long"))
    }

    @Test
    fun `a killed process is resumed from its checkpoint and ends as if nothing had happened`() {
        push("long")
        val killed = desktopRun("long", state("long")).start()
        waitFor("a checkpoint") {
            state("long").list().orEmpty().any { it.endsWith(".safetensors") }
        }
        killed.destroyForcibly().waitFor()
        val resumedFrom = savedStep("long")

        // Android delivers the intent again, with its wish to start over, which was fulfilled.
        val values = values("long", "fresh" to "true", "evaluate" to "false")
        start(values, flags = Service.START_FLAG_REDELIVERY)
        assertNull(waitForEnd())
        assertEquals(resumedFrom, report(values).getInt("resumed_from_step"))

        val whole = File(root, "uninterrupted")
        val reference = desktopRun("long", whole).start()
        reference.inputStream.readBytes()
        assertEquals(0, reference.waitFor())
        val expected = JSONObject(File("$whole-out/report.json").readText())
        for (hash in listOf("table_sha256", "generation")) {
            assertEquals(
                expected.getJSONObject("state").getString(hash),
                report(values).getJSONObject("state").getString(hash),
            )
        }
        assertEquals(
            expected.getJSONArray("losses").toString(),
            report(values).getJSONArray("losses").toString(),
        )
    }

    @Test
    fun `a start over that is not a redelivery starts over`() {
        push("short")
        start(values("short"))
        assertNull(waitForEnd())
        val again = values("short", "fresh" to "true")
        start(again)
        assertNull(waitForEnd())
        assertTrue(report(again).isNull("resumed_from_step"))
    }

    @Test
    fun `where a checkpoint cannot be written the one before it stays`() {
        push("long")
        val values = values("long")
        start(values)
        waitForStep(200)
        // Directories in the way are what a disk that fills up looks like from above.
        for (step in 0..20_000 step 100) {
            File(state("long"), "gen-%010d.safetensors.part".format(step)).mkdir()
        }
        val error = waitForEnd()!!
        assertTrue(error, ".safetensors: cannot be written" in error && "free some space" in error)
        assertEquals("failed", report(values).getString("exit_status"))
        state("long").listFiles { file -> file.isDirectory }!!.forEach { it.delete() }
        val saved = savedStep("long")
        assertTrue(saved >= 100)

        val again = values("long", "steps" to "${saved + 200}")
        start(again)
        assertNull(waitForEnd())
        assertEquals(saved, report(again).getInt("resumed_from_step"))
    }

    /** Android 12 and newer, where the app is in the background. */
    @Implements(Service::class)
    class NoForeground : ShadowService() {
        @Implementation
        override fun startForeground(id: Int, notification: Notification, type: Int): Unit =
            throw IllegalStateException("not allowed to start")
    }

    @Test
    @Config(shadows = [NoForeground::class])
    fun `where Android refuses the foreground the service ends quietly`() {
        push("short")
        val values = values("short")
        val service = start(values, Service.START_FLAG_REDELIVERY)
        assertTrue(shadowOf(service).isStoppedBySelf)
        assertNull(LiveRun.current)
        assertFalse(File(values.getValue("out")).exists())
    }
}
