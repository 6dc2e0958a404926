package org.sparserec.app

import android.app.Activity
import android.graphics.Bitmap
import android.graphics.BitmapFactory
import android.graphics.Canvas
import android.view.View
import org.json.JSONObject
import org.junit.Assert.assertTrue
import org.junit.Test
import org.robolectric.Robolectric
import org.robolectric.RuntimeEnvironment
import org.robolectric.Shadows.shadowOf
import java.io.File
import java.util.concurrent.CountDownLatch
import kotlin.math.abs

/**
 * Each screen, drawn by Android's own renderer, against its picture in docs/images. What they show
 * was recorded by `sparserec demo`. `mvn test -Dscreenshots=write` takes the pictures anew.
 */
class ScreensTest : AppTest() {
    private val report = JSONObject(File(RECORDED, "report.json").readText())
    private val bundleId = report.getJSONObject("bundle").getString("bundle_id")

    private fun putBundle() {
        File(RECORDED, "manifest.json").copyTo(File(root, "bundles/$bundleId/manifest.json"))
    }

    private fun putReport() {
        val out = File(root, "runs/${report.getString("run_id")}/report.json")
        File(RECORDED, "report.json").copyTo(out)
        val done = report.getJSONObject("state").getInt("generation")
        File(state(bundleId), "gen-%010d.safetensors".format(done)).apply {
            parentFile!!.mkdirs()
        }.createNewFile()
    }

    /** The recorded run as it stood after [step] steps. */
    private fun liveAt(step: Int): LiveRun {
        val losses = report.getJSONArray("losses")
        val history = LossHistory()
        for (k in 0 until step) history.add(losses.getDouble(k).toFloat())
        val ms =
            report.getJSONObject("metrics").getJSONObject("train_step_ns").getDouble("p50") / 1e6
        return LiveRun(
            bundleId,
            "train",
            step,
            losses.length(),
            losses.getDouble(step - 1).toFloat(),
            ms,
            history.points(),
        )
    }

    @Test
    fun `without bundles`() = compare("empty", MainActivity::class.java)

    @Test
    fun training() {
        putBundle()
        compare("training", MainActivity::class.java) { LiveRun.publish(liveAt(700)) }
    }

    @Test
    fun `after a run`() {
        putBundle()
        putReport()
        compare("finished", MainActivity::class.java)
    }

    @Test
    fun report() {
        putReport()
        compare("report", ReportActivity::class.java)
    }

    @Test
    fun notices() = compare("notices", NoticesActivity::class.java)

    private fun compare(name: String, activity: Class<out Activity>, prepare: () -> Unit = {}) {
        for (theme in listOf("light", "dark")) {
            RuntimeEnvironment.setQualifiers(if (theme == "dark") "+night" else "+notnight")
            prepare()
            val screen = Robolectric.buildActivity(activity).setup()
            settle()
            val drawn = draw(screen.get().window.decorView)
            screen.pause().stop().destroy()
            LiveRun.publish(null)
            assertTrue("$name is not $theme", (meanLight(drawn) > 0.5) == (theme == "light"))
            check(File(IMAGES, "app-$name-$theme.png"), drawn)
        }
    }

    /** Lets the screen's files be read and shown: the reader takes one job after the other. */
    private fun settle() {
        val done = CountDownLatch(1)
        val activity = Robolectric.buildActivity(NoticesActivity::class.java).get()
        Background.load(activity, done::countDown) {}
        waitFor("the reader") { done.count == 0L }
        shadowOf(app.mainLooper).idle()
    }

    private fun draw(view: View): Bitmap {
        val image = Bitmap.createBitmap(view.width, view.height, Bitmap.Config.ARGB_8888)
        view.draw(Canvas(image))
        return image
    }

    private fun pixels(image: Bitmap): IntArray {
        val pixels = IntArray(image.width * image.height)
        image.getPixels(pixels, 0, image.width, 0, 0, image.width, image.height)
        return pixels
    }

    /** 0 to 1, of the green channel. */
    private fun meanLight(image: Bitmap): Double =
        pixels(image).map { channel(it, 8) }.average() / 255

    private fun channel(pixel: Int, shift: Int): Int = pixel shr shift and 0xFF

    private fun check(file: File, drawn: Bitmap) {
        val actual = File(System.getProperty("screens"), file.name).apply { parentFile!!.mkdirs() }
        actual.outputStream().use { drawn.compress(Bitmap.CompressFormat.PNG, 100, it) }
        if (System.getProperty("screenshots") == "write") {
            actual.copyTo(file, overwrite = true)
            return
        }
        val expected = BitmapFactory.decodeFile(file.path)
        val same = expected.width == drawn.width && expected.height == drawn.height
        val share = if (same) differing(pixels(expected), pixels(drawn)) else 1.0
        assertTrue(
            "$actual differs from $file in ${100 * share} % of its pixels",
            share < TOLERANCE,
        )
    }

    /** The share of pixels that a viewer could tell apart. */
    private fun differing(expected: IntArray, actual: IntArray): Double {
        val count = expected.indices.count { k ->
            CHANNELS.any { abs(channel(expected[k], it) - channel(actual[k], it)) > VISIBLE }
        }
        return count / expected.size.toDouble()
    }

    private companion object {
        val CHANNELS = listOf(0, 8, 16)
        const val VISIBLE = 8
        val IMAGES = File(System.getProperty("images"))

        /** Fonts and anti-aliasing are Robolectric's own, so nearly nothing may differ. */
        const val TOLERANCE = 0.001
    }
}
