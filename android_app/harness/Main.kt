package org.sparserec.harness

import java.util.concurrent.CountDownLatch
import java.util.concurrent.TimeUnit
import kotlin.system.exitProcess

/** The desktop's entry: `KEY VALUE ...` in, the raw form of `am instrument -r` out. */
object Main {
    private const val IN_PROGRESS = 2
    private const val OK = -1
    private const val CANCELED = 0
    private const val STOP_SECONDS = 20L

    @JvmStatic
    fun main(args: Array<String>) {
        val results = LinkedHashMap<String, String>()
        val error = try {
            val values = Options.pairs(args)
            if (Update.isAsked(values)) {
                results += Update.of(values).perform { showProgress(it, null, null, null) }
                null
            } else {
                val run = Run(Options.of(values), DesktopPlatform(), ::showProgress)
                results["report"] = run.reportPath
                stopAtSignal(run)
                run.run()
            }
        } catch (error: HarnessError) {
            error.message
        }
        results["exit_status"] = if (error == null) "succeeded" else "failed"
        if (error != null) results["error"] = error
        print(
            results.map { (key, value) -> "INSTRUMENTATION_RESULT: $key=$value" } +
                "INSTRUMENTATION_CODE: ${if (error == null) OK else CANCELED}",
        )
        ended.countDown()
        // Explicit, because the library's fbjni leaves a thread that would keep the JVM alive.
        exitProcess(if (error == null) 0 else 1)
    }

    private val ended = CountDownLatch(1)

    /** At SIGTERM and Ctrl-C, the JVM waits for the step under way and for its state on disk. */
    private fun stopAtSignal(run: Run) = Runtime.getRuntime().addShutdownHook(
        Thread {
            run.stop("the process was told to end")
            ended.await(STOP_SECONDS, TimeUnit.SECONDS)
        },
    )

    private fun showProgress(phase: String, step: Int?, steps: Int?, loss: Float?) {
        val values = listOf("phase" to phase, "step" to step, "steps" to steps, "loss" to loss)
        val shown = values.filter { (_, value) -> value != null }
        print(
            shown.map { (key, value) -> "INSTRUMENTATION_STATUS: $key=$value" } +
                "INSTRUMENTATION_STATUS_CODE: $IN_PROGRESS",
        )
    }

    /** One write, so that lines of a status stay together. */
    private fun print(lines: List<String>) {
        System.out.write(lines.joinToString("") { "$it\n" }.toByteArray())
        System.out.flush()
    }
}
