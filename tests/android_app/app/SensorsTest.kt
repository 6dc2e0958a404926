package org.sparserec.app

import android.os.BatteryManager
import android.os.PowerManager
import org.json.JSONArray
import org.json.JSONObject
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNull
import org.junit.Assert.assertTrue
import org.junit.Test
import org.robolectric.Shadows.shadowOf
import org.robolectric.annotation.Config
import org.robolectric.shadows.ShadowBuild
import org.sparserec.harness.Options
import org.sparserec.harness.Phase
import java.io.File
import java.util.zip.ZipEntry
import java.util.zip.ZipOutputStream

/** What the app reads from the phone, and that what cannot be read is null. */
class SensorsTest : AppTest() {
    @Test
    fun `a run's sensors are sampled by phase and the cost is told`() {
        push("long")
        val battery = shadowOf(app.getSystemService(BatteryManager::class.java))
        battery.setIntProperty(BatteryManager.BATTERY_PROPERTY_CAPACITY, 61)
        battery.setLongProperty(BatteryManager.BATTERY_PROPERTY_CURRENT_NOW, -412_000)
        val values = values("long")
        val began = System.nanoTime()
        assertNull(Session(app, Options.of(values)) { _, _, _, _ -> }.run())
        val took = System.nanoTime() - began

        val file = File(values.getValue("out"), Sensors.FILE)
        assertEquals("", faultOf(file))
        val json = JSONObject(file.readText())
        assertEquals(values["run_id"], json.getString("run_id"))
        val duration = json.getLong("duration_ns")
        assertTrue(duration in 1..took)
        val phases = json.getJSONArray("phases").objects()
        assertEquals(
            listOf(Sensors.IDLE) + Phase.entries.map { it.label },
            phases.map { it.getString("name") },
        )
        var end = 0L
        for (phase in phases) {
            assertTrue(phase.getLong("start_ns") >= end)
            end = phase.getLong("start_ns") + phase.getLong("duration_ns")
            for (key in listOf("rss_kb", "battery_level", "thermal_status")) {
                assertTrue(phase.getJSONObject(key).getLong("count") >= 1)
            }
        }
        assertEquals(duration, end)
        val train = phases.single { it.getString("name") == "train" }
        val rss = train.getJSONObject("rss_kb")
        assertTrue(rss.getLong("minimum") in 1..rss.getLong("maximum"))
        assertTrue(rss.getDouble("mean") in rss.getDouble("minimum")..rss.getDouble("maximum"))
        assertEquals(-412_000, train.getJSONObject("battery_current_now").getLong("minimum"))
        assertEquals(61, train.getJSONObject("battery_level").getInt("maximum"))
        // At most one sample a period, give or take the first and the last.
        val cost = json.getJSONObject("cost_ns")
        assertTrue(cost.getLong("count") in 2..took / 1_000_000 / Sensors.PERIOD_MS + 2)
        assertTrue(cost.getLong("minimum") > 0)
        assertTrue(cost.getDouble("mean") * cost.getLong("count") < took)
        assertEquals(phases.size, json.getJSONObject("border_cost_ns").getInt("count"))
        val trace = json.getJSONArray("trace").objects()
        assertEquals((cost.getInt("count") - 1) / Sensors.SLOW_EVERY + 1, trace.size.toLong())
        assertTrue(trace.all { it.getLong("battery_current_now") == -412_000L })
    }

    private fun JSONArray.objects() = (0 until length()).map { getJSONObject(it) }

    /** What the published schema has against [file], by Python's jsonschema; empty if nothing. */
    private fun faultOf(file: File): String {
        val check = "import json, sys; from jsonschema import Draft202012Validator as Validator; " +
            "schema, file = (json.load(open(path)) for path in sys.argv[1:]); " +
            "Validator.check_schema(schema); " +
            "print(*(f'{e.json_path}: {e.message}' for e in Validator(schema).iter_errors(file)))"
        val schema = System.getProperty("schemas") + "/sensors.schema.json"
        val process = ProcessBuilder(System.getProperty("python"), "-c", check, schema, file.path)
            .redirectErrorStream(true)
            .start()
        return process.inputStream.bufferedReader().readText().trim()
            .also { assertEquals(it, 0, process.waitFor()) }
    }

    @Test
    fun `a long run's trace stays short and even`() {
        val trace = Trace()
        val slow = SlowSample(mapOf("thermal_status" to null), null)
        for (second in 0 until 5_000L) trace.add(second, mapOf("rss_kb" to second), slow)
        val points = trace.toJson().objects()
        assertTrue(points.size in Trace.MAX_POINTS / 2 until Trace.MAX_POINTS)
        assertEquals(
            points.indices.map { 16L * it },
            points.map { it.getLong("time_ns") },
        )
        assertTrue(points.all { it.isNull("thermal_status") && it.isNull("cpu_frequencies_khz") })
    }

    @Test
    fun `what the phone does not tell is null`() {
        val battery = shadowOf(app.getSystemService(BatteryManager::class.java))
        battery.setIntProperty(BatteryManager.BATTERY_PROPERTY_CAPACITY, Int.MIN_VALUE)
        battery.setLongProperty(BatteryManager.BATTERY_PROPERTY_CURRENT_NOW, Long.MIN_VALUE)
        val platform = AndroidPlatform(app)
        assertNull(platform.battery().level)
        assertNull(platform.battery().currentNow)
        assertNull(platform.runtime)
        assertNull(platform.runtimeSha256)
    }

    @Test
    @Config(sdk = [26])
    fun `before Android 10 there is no thermal status`() =
        assertNull(AndroidPlatform(app).thermalStatus())

    @Test
    fun `the thermal status is the phone's`() {
        val power = app.getSystemService(PowerManager::class.java)
        shadowOf(power).setCurrentThermalStatus(PowerManager.THERMAL_STATUS_LIGHT)
        assertEquals(PowerManager.THERMAL_STATUS_LIGHT, AndroidPlatform(app).thermalStatus())
    }

    @Test
    fun `the emulator is told from a phone`() {
        ShadowBuild.setHardware("ranchu")
        assertEquals("emulator", AndroidPlatform(app).kind)
        ShadowBuild.setHardware("tensor")
        assertEquals("phone", AndroidPlatform(app).kind)
    }

    @Test
    fun `the runtime's hash is that of the library inside the APK of the installed ABI`() {
        val apk = File(root, "split.apk").apply { parentFile!!.mkdirs() }
        ZipOutputStream(apk.outputStream()).use { zip ->
            zip.putNextEntry(ZipEntry("lib/arm64-v8a/libexecutorch.so"))
            zip.write("abc".toByteArray())
        }
        app.applicationInfo.splitSourceDirs = arrayOf(apk.path)
        app.applicationInfo.nativeLibraryDir = "/data/app/org.sparserec.app-1/lib/arm64"
        val platform = AndroidPlatform(app)
        assertEquals("arm64-v8a", platform.abi)
        // FIPS 180-2's example.
        assertEquals(
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            platform.runtimeSha256,
        )
    }
}
