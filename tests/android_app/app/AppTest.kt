package org.sparserec.app

import android.app.Application
import org.json.JSONObject
import org.junit.After
import org.junit.Before
import org.junit.runner.RunWith
import org.junit.runners.model.FrameworkMethod
import org.robolectric.Robolectric
import org.robolectric.RobolectricTestRunner
import org.robolectric.RuntimeEnvironment
import org.robolectric.Shadows.shadowOf
import org.robolectric.android.controller.ServiceController
import org.robolectric.internal.bytecode.InstrumentationConfiguration
import org.robolectric.shadows.ShadowEnvironment
import java.io.File
import java.util.concurrent.TimeUnit.SECONDS

/**
 * Robolectric, but with one ExecuTorch for all its class loaders: a JVM takes a native library into
 * one only.
 */
class AppRunner(test: Class<*>) : RobolectricTestRunner(test) {
    override fun createClassLoaderConfig(method: FrameworkMethod): InstrumentationConfiguration =
        InstrumentationConfiguration.Builder(super.createClassLoaderConfig(method))
            .doNotAcquirePackage("org.pytorch.")
            .doNotAcquirePackage("com.facebook.")
            .build()
}

/** The app in a Robolectric device, with real bundles in its shared storage. */
@RunWith(AppRunner::class)
abstract class AppTest {
    private var service: ServiceController<RunService>? = null
    private var startId = 0

    val app: Application get() = RuntimeEnvironment.getApplication()

    @Suppress("DEPRECATION")
    val root: File get() = app.externalMediaDirs.first()

    @Before
    fun mountStorage() {
        ShadowEnvironment.addExternalDir("sdcard")
        // Robolectric keeps it from test to test.
        root.deleteRecursively()
    }

    @After
    fun endRun() {
        try {
            service?.destroy()
            waitFor("the run to end") { LiveRun.current?.isRunning != true }
        } finally {
            LiveRun.publish(null)
        }
    }

    /** Gives the service the start that the app asked for last, as Android would. */
    fun deliverStart(flags: Int = 0): RunService {
        val intent = shadowOf(app).nextStartedService
        val current = service?.takeUnless { shadowOf(it.get()).isStoppedBySelf }
            ?: Robolectric.buildService(RunService::class.java, intent).create()
        service = current
        current.get().onStartCommand(intent, flags, ++startId)
        return current.get()
    }

    /** Puts the fixture bundle [fixture] on the device. Returns its directory. */
    fun push(fixture: String): File {
        val bundle = File(root, "bundles/$fixture")
        File(FIXTURES, fixture).copyRecursively(bundle, overwrite = true)
        return bundle
    }

    fun state(fixture: String) = File(root, "state/$fixture")

    /** The harness's keys and values for a run in the app's own places. */
    fun values(fixture: String, vararg more: Pair<String, String>): Map<String, String> =
        SharedStorage(root).newRun(fixture, fresh = false) + more

    fun report(values: Map<String, String>) =
        JSONObject(File(values.getValue("out"), "report.json").readText())

    /** Lets the main thread do its work until [condition] holds. */
    fun waitFor(what: String, condition: () -> Boolean) {
        val end = System.nanoTime() + SECONDS.toNanos(LIMIT_SECONDS)
        while (!condition()) {
            check(System.nanoTime() < end) { "waited $LIMIT_SECONDS s for $what" }
            shadowOf(app.mainLooper).idle()
            Thread.sleep(2)
        }
    }

    companion object {
        const val LIMIT_SECONDS = 60L
        val FIXTURES = File(System.getProperty("fixtures"))
        val DESKTOP = File(System.getProperty("desktop"))

        /** A bundle's manifest and its report from `sparserec demo`, without the raw times. */
        val RECORDED = File(System.getProperty("recorded"))
    }
}
