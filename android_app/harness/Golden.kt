package org.sparserec.harness

import kotlin.math.abs

/** The host's losses for the first steps (docs/formats.md section 1.4), to judge ours by. */
class Golden(
    private val seed: Long,
    private val batchSize: Int,
    private val losses: FloatArray,
    private val tolerance: Double,
) {
    class Verdict(
        val verdict: String,
        val steps: Int,
        val maxAbsError: Double?,
        val tolerance: Double,
    )

    /**
     * Compares [step] losses of a run that began at step 0 with the host's.
     *
     * [warn] is told why, where they cannot be compared.
     */
    fun judge(
        run: FloatArray,
        step: Int,
        training: Manifest.Training,
        warn: (String) -> Unit,
    ): Verdict {
        val obstacle = when {
            seed != training.seed -> "golden.json is of seed $seed, the run of ${training.seed}"
            batchSize != training.batchSize ->
                "golden.json is of batch size $batchSize, the run of ${training.batchSize}"
            step < losses.size -> "golden.json has ${losses.size} steps, the run only $step"
            else -> null
        }
        if (obstacle != null) {
            warn("correctness not checked: $obstacle")
            return Verdict("not checked", 0, null, tolerance)
        }
        val error = losses.indices.maxOf { abs(losses[it].toDouble() - run[it]) }
        val verdict = if (error <= tolerance) "passed" else "failed"
        return Verdict(verdict, losses.size, error, tolerance)
    }

    companion object {
        fun parse(file: String, bytes: ByteArray): Golden {
            val json = Fields.parse(file, bytes)
            val losses = json.floats("losses")
            json.int("steps", 1..Int.MAX_VALUE).let {
                if (it != losses.size) json.fail("steps", "${losses.size}, the number of losses")
            }
            return Golden(
                json.long("seed", 0..Long.MAX_VALUE),
                json.int("batch_size", 1..Int.MAX_VALUE),
                losses,
                json.double("tolerance", 0.0, 1.0),
            )
        }
    }
}
