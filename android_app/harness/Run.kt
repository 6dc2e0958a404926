package org.sparserec.harness

import java.io.IOException

/** The phases of a run, in order: docs/formats.md section 7. */
enum class Phase {
    LOAD,
    EVALUATE_BEFORE,
    WARM_UP,
    TRAIN,
    CHECKPOINT,
    EVALUATE_AFTER,
    DONE,
    ;

    val label = name.lowercase()
}

/**
 * One run: loads the bundle, resumes from the newest checkpoint, trains, and reports.
 *
 * [progress] is told the phase, the step, the number of steps and the loss, the latter three null
 * outside training.
 */
class Run(
    private val options: Options,
    platform: Platform,
    private val progress: (phase: String, step: Int?, steps: Int?, loss: Float?) -> Unit,
) {
    private val report = Report(options, platform)

    /** Why the run was asked to stop; null while it was not. */
    @Volatile
    private var stopReason: String? = null

    /** Asks for an early end, from any thread: the step under way, a checkpoint, then failure. */
    fun stop(reason: String) {
        stopReason = reason
    }

    val reportPath: String get() = report.path.toString()

    /** Runs to the end. Returns null, or the error in one line; the report has it too. */
    fun run(): String? = try {
        report.write()
        phases()
        null
    } catch (error: HarnessError) {
        fail(error.message!!)
    } catch (error: IOException) {
        fail("file error: $error; check the disk and the paths")
    } catch (error: OutOfMemoryError) {
        fail("out of memory ($error); use a smaller table, a smaller batch or fewer steps")
    } catch (error: InternalError) {
        // A desktop JVM's word for SIGBUS. Uncaught, it would leave the library's thread waiting.
        fail("a mapped file was cut or cannot be read ($error); copy the bundle and run again")
    } catch (error: RuntimeException) {
        error.printStackTrace()
        fail("defect in the harness: $error; please report it with this bundle")
    }

    private fun fail(message: String): String {
        val line = message.lines().joinToString(" ") { it.trim() }
        report.error = line
        return try {
            report.finish("failed")
            line
        } catch (error: HarnessError) {
            "$line (and ${error.message})"
        } catch (_: OutOfMemoryError) {
            "$line (and $reportPath was not written)"
        }
    }

    private fun phases() {
        options.workload?.let { return repeated(it) }
        lockState(options.state, options.runId).use { trained() }
    }

    private fun trained() {
        lateinit var session: Session
        phase(Phase.LOAD) { session = Session() }
        session.use {
            if (options.evaluate) phase(Phase.EVALUATE_BEFORE) { session.evaluateBefore() }
            phase(Phase.WARM_UP) { session.warmUp() }
            phase(Phase.TRAIN) { session.train() }
            phase(Phase.CHECKPOINT) { session.checkpoint() }
            if (options.evaluate) phase(Phase.EVALUATE_AFTER) { session.evaluateAfter() }
            phase(Phase.DONE) {}
            report.finish("succeeded")
        }
    }

    /** Repeats a workload instead of training; nothing is kept. Warm-up are its first steps. */
    private fun repeated(workload: Workload) {
        ExecuTorch.loadLibrary()
        report.endPhase(System.nanoTime(), IDLE)
        lateinit var work: Work
        var steps = 0
        phase(Phase.LOAD) {
            val bundle = Bundle.open(options.bundle).also { report.bundle = it }
            steps = (options.steps ?: bundle.manifest.training.steps).also { report.steps = it }
            work = Work.load(workload, bundle, steps, options.threads)
        }
        work.use {
            val losses = FloatArray(steps)
            val warm = steps / 2 // a JVM compiles what is repeated, bit by bit
            fun step(k: Int) {
                stopReason?.let { throw stopped("at step $k of $steps", it) }
                losses[k] = finite(work.step(k), k)
            }
            phase(Phase.WARM_UP) { for (k in 0 until warm) step(k) }
            phase(Phase.TRAIN) {
                for (k in warm until steps) {
                    val start = System.nanoTime()
                    step(k)
                    report.metrics.trainStep.add(System.nanoTime() - start)
                }
                progress(Phase.TRAIN.label, steps, steps, losses.last())
            }
            report.losses = losses
            phase(Phase.DONE) {}
            report.finish("succeeded")
        }
    }

    private fun finite(loss: Float, step: Int): Float = loss.also {
        if (!it.isFinite()) throw HarnessError("the loss of step $step is $it", EXPORT_AGAIN)
    }

    private fun phase(phase: Phase, action: () -> Unit) {
        // Once all is done, there is nothing left to stop.
        if (phase != Phase.DONE) stopReason?.let { throw stopped("before ${phase.label}", it) }
        report.phase = phase
        report.write()
        progress(phase.label, null, null, null)
        val start = System.nanoTime()
        action()
        report.endPhase(start)
    }

    private fun stopped(place: String, reason: String) = HarnessError(
        "stopped $place: $reason",
        if (options.workload == null) "run again: it resumes" else "run it again",
    )

    /** What a run has once it is loaded. */
    private inner class Session : AutoCloseable {
        private val bundle = Bundle.open(options.bundle).also { report.bundle = it }
        private val manifest = bundle.manifest
        private val steps = (options.steps ?: manifest.training.steps).also { report.steps = it }
        private val golden = bundle.golden()
        private val interactions = bundle.interactions()
        private val sampler = Sampler(interactions, manifest)
        private val checkpoints =
            Checkpoints(options.state, manifest, bundle.manifestSha256, report.warnings::add)
        private val state = load().also { report.state = it }
        private val programs = ExecuTorch.load(bundle, options.threads, state.dense)
        private val graph = bundle.graph()
        private val trainer =
            Trainer(manifest, programs.stepProgram, sampler, state, report.metrics, graph)
        private val evaluator =
            Evaluator(manifest, programs.scoreProgram, interactions, report.metrics.score, graph)

        private fun load(): TrainState {
            if (options.fresh) checkpoints.removeAll()
            val saved = checkpoints.newest(steps, sampler.sampledSize)
            report.resumedFromStep = saved?.step
            report.generation = saved?.step
            return saved ?: TrainState.begin(bundle, steps, sampler.sampledSize)
        }

        /** "Before" is the bundle's table, also where training resumes. */
        fun evaluateBefore() {
            report.before = if (state.step == 0) {
                evaluator.evaluate(state.table, state.dense.firstOrNull())
            } else {
                evaluator.evaluate(bundle.table(), bundle.dense())
            }
        }

        fun evaluateAfter() {
            report.after = evaluator.evaluate(state.table, state.dense.firstOrNull())
        }

        fun warmUp() = repeat(WARM_UP_RUNS) { trainer.warmUp() }

        fun train() {
            var shown = System.nanoTime() - PROGRESS_NS
            while (state.step < steps) {
                val loss = trainer.step()
                stopReason?.let { stop(it) }
                if (state.step % options.checkpointEvery == 0 && state.step < steps) save()
                if (System.nanoTime() - shown >= PROGRESS_NS || state.step == steps) {
                    progress(Phase.TRAIN.label, state.step, steps, loss)
                    shown = System.nanoTime()
                }
            }
            report.verdict =
                golden.judge(state.losses, state.step, manifest.training, report.warnings::add)
        }

        fun checkpoint() {
            if (report.generation != state.step) save()
            report.tableSha256 = state.table.sha256()
        }

        private fun stop(reason: String): Nothing {
            save()
            throw stopped("at step ${state.step} of $steps", reason)
        }

        private fun save() {
            val start = System.nanoTime()
            checkpoints.save(state)
            report.metrics.checkpoint.add(System.nanoTime() - start)
            report.generation = state.step
        }

        override fun close() = programs.close()
    }

    private companion object {
        /** The first calls of a method are slow: caches fill, the JVM compiles. */
        const val WARM_UP_RUNS = 20
        const val PROGRESS_NS = 200_000_000L

        /** The process before it has loaded anything of the bundle. */
        const val IDLE = "idle"
    }
}
