package org.sparserec.app

import android.app.ActivityThread
import android.app.IInstrumentationWatcher
import android.app.IUiAutomationConnection
import android.app.Instrumentation
import android.content.ComponentName
import android.content.Context
import android.os.Bundle
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertNull
import org.junit.Assert.assertTrue
import org.junit.Before
import org.junit.Test
import org.robolectric.RuntimeEnvironment
import org.robolectric.Shadows.shadowOf
import org.robolectric.annotation.Config
import org.robolectric.annotation.Implementation
import org.robolectric.annotation.Implements
import org.robolectric.shadows.ShadowActivityThread
import org.robolectric.shadows.ShadowPowerManager
import org.robolectric.util.ReflectionHelpers
import org.robolectric.util.ReflectionHelpers.ClassParameter
import java.io.File
import java.io.RandomAccessFile

/** `am instrument`, from the arguments to the streamed statuses and the result. */
@Config(shadows = [InstrumentationTest.Ending::class])
class InstrumentationTest : AppTest() {
    /** Where an instrumentation's result goes: in Android, over to the system. */
    @Implements(value = ActivityThread::class, isInAndroidSdk = false)
    class Ending : ShadowActivityThread() {
        @Implementation
        fun finishInstrumentation(resultCode: Int, results: Bundle) {
            ended = resultCode to texts(results)
        }
    }

    private class Watcher : IInstrumentationWatcher.Stub() {
        val statuses = mutableListOf<Pair<Int, Map<String, String>>>()

        /** Whether the processor was kept awake at each of them. */
        val awake = mutableListOf<Boolean>()

        @Synchronized
        override fun instrumentationStatus(name: ComponentName, code: Int, results: Bundle) {
            statuses += code to texts(results)
            awake += ShadowPowerManager.getLatestWakeLock()?.isHeld == true
        }

        @Synchronized
        fun hasStep(): Boolean = statuses.any { (_, status) -> "step" in status }

        override fun instrumentationFinished(name: ComponentName, code: Int, results: Bundle) = Unit
    }

    private val watcher = Watcher()

    @Before
    fun reset() {
        ended = null
    }

    private fun instrument(values: Map<String, String>): Pair<Int, Map<String, String>> {
        begin(values)
        waitFor("the instrumentation to finish") { ended != null }
        return ended!!
    }

    private fun begin(values: Map<String, String>) {
        val instrumentation = HarnessInstrumentation()
        val component = ComponentName(app, HarnessInstrumentation::class.java)
        ReflectionHelpers.callInstanceMethod<Unit>(
            Instrumentation::class.java,
            instrumentation,
            "init",
            ClassParameter.from(ActivityThread::class.java, RuntimeEnvironment.getActivityThread()),
            ClassParameter.from(Context::class.java, app),
            ClassParameter.from(Context::class.java, app),
            ClassParameter.from(ComponentName::class.java, component),
            ClassParameter.from(IInstrumentationWatcher::class.java, watcher),
            ClassParameter.from(IUiAutomationConnection::class.java, null),
        )
        val arguments = Bundle()
        values.forEach { (key, value) -> arguments.putString(key, value) }
        instrumentation.onCreate(arguments)
    }

    @Test
    fun `a run streams its phases and steps and ends with its report`() {
        push("short")
        val values = values("short")
        val (code, results) = instrument(values)
        assertEquals(null, results["error"])
        assertEquals(-1, code)
        assertEquals("succeeded", results["exit_status"])
        assertEquals(values.getValue("out") + "/report.json", results["report"])
        assertTrue(watcher.statuses.all { (status, _) -> status == 2 })
        assertEquals(
            listOf(
                "load",
                "evaluate_before",
                "warm_up",
                "train",
                "checkpoint",
                "evaluate_after",
                "done",
            ),
            watcher.statuses.map { (_, status) -> status.getValue("phase") }.distinct(),
        )
        val last = watcher.statuses.last { (_, status) -> "step" in status }.second
        assertEquals(setOf("phase", "step", "steps", "loss"), last.keys)
        assertEquals("120" to "120", last["step"] to last["steps"])
        val report = report(values)
        assertEquals("passed", report.getJSONObject("correctness").getString("verdict"))
        assertEquals(34, report.getJSONObject("target").getInt("sdk"))
        assertEquals(
            report.getJSONArray("losses").getDouble(119).toFloat(),
            last.getValue("loss").toFloat(),
        )
    }

    /** The launcher opens the app in the process of the instrumentation. */
    @Test
    fun `the screen may stop a run of the shell's and starts no other beside it`() {
        push("long")
        begin(values("long"))
        waitFor("a step") { watcher.hasStep() }
        val second = values("long", "fresh" to "true")
        RunService.train(app, second)
        assertTrue(shadowOf(deliverStart()).isStoppedBySelf)
        assertFalse(File(second.getValue("out")).exists())
        assertEquals("long", LiveRun.current!!.bundleId)
        assertTrue(LiveRun.current!!.isRunning)

        RunService.stop(app)
        assertTrue(shadowOf(deliverStart()).isStoppedBySelf)
        waitFor("the instrumentation to finish") { ended != null }
        val error = ended!!.second.getValue("error")
        assertTrue(error, ": the user asked for it" in error)
        assertEquals(error, LiveRun.current!!.ended!!.error)
    }

    @Test
    fun `a missing key, an unknown key and a place outside the app's directory are refused`() {
        push("short")
        val values = values("short")
        for ((wrong, message) in listOf(
            values - "state" to "state: is missing",
            values + ("step" to "3") to "step: is no key",
            values + ("out" to "/data/local/tmp/out") to "out: /data/local/tmp/out is outside",
            values + ("state" to "$root/../other.app/state") to "state: ",
        )) {
            reset()
            val (code, results) = instrument(wrong)
            assertEquals(0, code)
            assertEquals("failed", results["exit_status"])
            assertTrue(results.toString(), results.getValue("error").startsWith(message))
            assertNull(results["report"])
        }
    }

    @Test
    fun `deltas go the harness's way, and stay inside the app's directory`() {
        val bundles = push("short").parent!!
        for ((values, message) in listOf(
            mapOf("bundles" to "/data", "rollback" to "true") to "bundles: /data is outside",
            mapOf("bundles" to bundles, "apply" to "/data/x") to "apply: /data/x is outside",
            mapOf("bundles" to bundles, "apply" to "$bundles/short") to "delta: ",
            mapOf("bundles" to bundles, "rollback" to "true") to "$bundles: there is nothing to go",
        )) {
            reset()
            val (code, results) = instrument(values)
            assertEquals(0, code)
            assertTrue(results.toString(), results.getValue("error").startsWith(message))
        }
        // The last one came as far as looking at the bundles.
        assertEquals(listOf(true), watcher.awake)
        assertFalse(ShadowPowerManager.getLatestWakeLock().isHeld)
        File(bundles, "short").copyRecursively(File(bundles, "next.part"))
        assertEquals(listOf("short"), SharedStorage(root).bundles().map { it.id })
    }

    @Test
    fun `a link to the app's directory is as good as the directory`() {
        push("short")
        val link = File(root.parentFile, "sdcard")
        java.nio.file.Files.createSymbolicLink(link.toPath(), root.toPath())
        val values = values("short").mapValues { (_, value) -> value.replace(root.path, link.path) }
        assertEquals(-1, instrument(values).first)
    }

    @Test
    fun `a damaged bundle is an error that names the file`() {
        val bundle = push("short")
        RandomAccessFile(File(bundle, "table.safetensors"), "rw").use {
            it.seek(it.length() - 1)
            val last = it.read()
            it.seek(it.length() - 1)
            it.write(last xor 1)
        }
        val values = values("short")
        val (code, results) = instrument(values)
        assertEquals(0, code)
        assertTrue(
            results.toString(),
            "table.safetensors: SHA-256 differs" in results.getValue("error"),
        )
        assertEquals("failed", report(values).getString("exit_status"))
        assertEquals(results["error"], report(values).getString("error"))
    }

    private companion object {
        @Volatile
        var ended: Pair<Int, Map<String, String>>? = null

        fun texts(bundle: Bundle): Map<String, String> =
            bundle.keySet().associateWith { bundle.getString(it).orEmpty() }
    }
}
