package org.sparserec.app

import android.Manifest
import android.app.AlertDialog
import android.content.Intent
import android.net.Uri
import android.view.View
import android.view.ViewGroup
import android.widget.Button
import android.widget.TextView
import org.json.JSONObject
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertNull
import org.junit.Assert.assertTrue
import org.junit.Test
import org.robolectric.Robolectric
import org.robolectric.Shadows.shadowOf
import org.robolectric.shadows.ShadowAlertDialog
import org.sparserec.harness.Options
import java.io.File
import java.io.FileInputStream
import java.io.FileNotFoundException

/** What the user sees and taps. */
class MainActivityTest : AppTest() {
    private fun open(): MainActivity {
        val activity = Robolectric.buildActivity(MainActivity::class.java).setup().get()
        waitFor("the lists") { "Third-party notices" in activity.texts() }
        return activity
    }

    private fun views(view: View): List<View> {
        if (view !is ViewGroup) return listOf(view)
        return (0 until view.childCount).flatMap { views(view.getChildAt(it)) }
    }

    private fun MainActivity.shown(): List<TextView> =
        views(window.decorView).filterIsInstance<TextView>().filter { it.isShown }

    private fun MainActivity.texts(): List<String> = shown().map { it.text.toString() }

    private fun MainActivity.tap(label: String) {
        val button = shown().filterIsInstance<Button>().single { it.text.toString() == label }
        button.performClick()
    }

    private fun waitForEnd() = waitFor("the run to end") { LiveRun.current?.isRunning == false }

    private fun allowNotifications() =
        shadowOf(app).grantPermissions(Manifest.permission.POST_NOTIFICATIONS)

    @Test
    fun `without a bundle it says how to bring one`() {
        val texts = open().texts()
        assertTrue(texts.any { "sparserec deploy" in it })
        assertFalse("Last report" in texts)
    }

    @Test
    fun `a tap trains, the screen follows, and the report can be opened`() {
        push("short")
        allowNotifications()
        val activity = open()
        assertTrue("50 users, 80 items, d = 16" in activity.texts().single { "users" in it })
        activity.tap("Train")
        deliverStart()
        waitForEnd()
        waitFor("the screen to follow") { "Start over" in activity.texts() }
        val texts = activity.texts()
        assertTrue(texts.toString(), texts.any { it.startsWith("step 120 of 120, loss ") })
        assertTrue("120 of 120 steps done" in texts)
        assertTrue("Succeeded" in texts)
        assertTrue("Training is done" in texts)
        activity.tap("Open")
        assertEquals(
            ReportActivity::class.java.name,
            shadowOf(activity).nextStartedActivity.component!!.className,
        )
        activity.tap("Third-party notices")
        assertEquals(
            NoticesActivity::class.java.name,
            shadowOf(activity).nextStartedActivity.component!!.className,
        )
    }

    @Test
    fun `stop is offered while a run goes on, and asks the service`() {
        push("long")
        allowNotifications()
        val activity = open()
        activity.tap("Train")
        deliverStart()
        waitFor("a step") { (LiveRun.current?.step ?: 0) > 0 }
        assertTrue("Stop" in activity.texts())
        waitFor("the button to go") { "Train" !in activity.texts() }
        activity.tap("Stop")
        deliverStart()
    }

    @Test
    fun `training goes on where notifications are refused`() {
        push("short")
        val activity = open()
        activity.tap("Train")
        assertNull(shadowOf(app).nextStartedService)
        val asked = shadowOf(activity).lastRequestedPermission
        assertEquals(
            listOf(Manifest.permission.POST_NOTIFICATIONS),
            asked.requestedPermissions.toList(),
        )
        shadowOf(app).denyPermissions(Manifest.permission.POST_NOTIFICATIONS)
        activity.onRequestPermissionsResult(
            asked.requestCode,
            asked.requestedPermissions,
            intArrayOf(-1),
        )
        deliverStart()
        waitForEnd()
        assertNull(LiveRun.current!!.ended!!.error)
    }

    @Test
    fun `a tap outlives a turn of the phone while the permission is asked for`() {
        push("short")
        val controller = Robolectric.buildActivity(MainActivity::class.java).setup()
        waitFor("the button") { "Train" in controller.get().texts() }
        controller.get().tap("Train")
        val asked = shadowOf(controller.get()).lastRequestedPermission
        val turned = controller.recreate().get()
        assertNull(shadowOf(app).nextStartedService)
        turned.onRequestPermissionsResult(
            asked.requestCode,
            asked.requestedPermissions,
            intArrayOf(0),
        )
        val started = shadowOf(app).nextStartedService
        assertEquals(File(root, "bundles/short").path, started.getStringExtra("bundle"))
        assertEquals("false", started.getStringExtra("fresh"))
    }

    @Test
    fun `after a killed process the interrupted run is shown and resumed`() {
        push("long")
        allowNotifications()
        // The process of an older version, killed as an upgrade does it.
        val values = values("long", "evaluate" to "false")
        val command =
            listOf(File(DESKTOP, "bin/harness").path) + values.flatMap { listOf(it.key, it.value) }
        val killed = ProcessBuilder(command).redirectErrorStream(true).start()
        waitFor("a checkpoint") {
            state("long").list().orEmpty().any { it.endsWith(".safetensors") }
        }
        killed.destroyForcibly().waitFor()

        val activity = open()
        assertTrue(activity.texts().any { it.startsWith("Interrupted") })
        activity.tap("Resume")
        deliverStart()
        waitFor("a step") { (LiveRun.current?.step ?: 0) > 0 }
        activity.tap("Stop")
        deliverStart()
        waitForEnd()
        assertTrue(report(lastValues()).getInt("resumed_from_step") >= 100)
    }

    private fun lastValues() = mapOf("out" to SharedStorage(root).lastReport()!!.parent!!)

    @Test
    fun `starting over is confirmed first`() {
        push("short")
        allowNotifications()
        val activity = open()
        activity.tap("Train")
        deliverStart()
        waitForEnd()
        waitFor("the button") { "Start over" in activity.texts() }
        activity.tap("Start over")
        assertNull(shadowOf(app).nextStartedService)
        val dialog = ShadowAlertDialog.getLatestDialog() as AlertDialog
        dialog.getButton(AlertDialog.BUTTON_POSITIVE).performClick()
        shadowOf(app.mainLooper).idle()
        assertEquals("true", shadowOf(app).nextStartedService.getStringExtra("fresh"))
    }

    @Test
    fun `a bundle that cannot be read says why and cannot be trained`() {
        File(push("short"), "manifest.json").writeText("{")
        val texts = open().texts()
        assertTrue(texts.toString(), texts.any { "manifest.json: not a JSON object" in it })
        assertFalse("Train" in texts)
    }

    @Test
    fun `sharing hands over this one report, to read only`() {
        push("short")
        val values = values("short")
        assertNull(Session(app, Options.of(values)) { _, _, _, _ -> }.run())
        val activity = open()
        activity.tap("Share")
        @Suppress("DEPRECATION")
        val send = shadowOf(
            activity,
        ).nextStartedActivity.getParcelableExtra<Intent>(Intent.EXTRA_INTENT)!!
        assertTrue(send.flags and Intent.FLAG_GRANT_READ_URI_PERMISSION != 0)
        @Suppress("DEPRECATION")
        val uri = send.getParcelableExtra<Uri>(Intent.EXTRA_STREAM)!!
        val provider = Robolectric.setupContentProvider(ReportProvider::class.java)
        val file = File(values.getValue("out"), "report.json")
        val read = provider.openFile(uri, "r").use {
            FileInputStream(it.fileDescriptor).readBytes()
        }
        assertEquals(file.readText(), String(read))
        provider.query(uri, null, null, null, null).use {
            it.moveToFirst()
            assertEquals("sparserec-${values["run_id"]}.json", it.getString(0))
            assertEquals(file.length(), it.getLong(1))
        }
        assertThrows<SecurityException> { provider.openFile(uri, "rw") }
        for (path in listOf(
            "x/report.json",
            "../bundles/short/manifest.json",
            "..%2Fruns/report.json",
            "",
            "a/b/c",
        )) {
            val wrong = Uri.parse("content://org.sparserec.app.reports/$path")
            assertThrows<FileNotFoundException> { provider.openFile(wrong, "r") }
        }
    }

    private inline fun <reified T : Throwable> assertThrows(crossinline action: () -> Unit) {
        org.junit.Assert.assertThrows(T::class.java) { action() }
    }

    @Test
    fun `the summary has every measured field and none that was not`() {
        val summary = ReportSummary.read(File(RECORDED, "report.json"), isRunning = false)!!
        val rows = summary.rows.toMap()
        assertEquals("Succeeded", summary.headline)
        assertEquals("1106 of 1106", rows["Steps"])
        val json = JSONObject(File(RECORDED, "report.json").readText())
        val before = json.getJSONObject("quality").getJSONObject("before").getDouble("recall@20")
        val after = json.getJSONObject("quality").getJSONObject("after").getDouble("recall@20")
        assertEquals("%.4f before, %.4f after".format(before, after), rows["Recall@20"])
        assertFalse("Error" in rows)

        val damaged = File(root, "damaged.json").apply { parentFile!!.mkdirs() }
        damaged.writeText("""{"exit_status": "started", "quality": {"before": null}}""")
        val little = ReportSummary.read(damaged, isRunning = true)!!
        assertEquals(
            "Going on" to emptyList<Pair<String, String>>(),
            little.headline to little.rows,
        )
        damaged.writeText("{")
        assertNull(ReportSummary.read(damaged, isRunning = false))
    }
}
