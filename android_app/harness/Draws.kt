package org.sparserec.harness

/**
 * Random draws as a pure function of (seed, stream, step, index), so that a resumed run repeats an
 * uninterrupted one: docs/formats.md section 4. Kotlin's Long wraps modulo 2^64, as asked there.
 */
object Draws {
    const val POSITIVES = 0
    const val NEGATIVES = 1
    const val SAMPLED_ROWS = 2
    const val SHARED_NEGATIVES = 3
    const val ROUNDING = 5
    const val SCORED_NEIGHBOURS = 6
    const val NEIGHBOURS = 7

    private const val GOLDEN = -0x61c8864680b583ebL // 0x9E3779B97F4A7C15
    private const val UNIT = 1.0 / (1 shl 24)
    private const val MIX1 = -0x40a7b892e31b1a47L // 0xBF58476D1CE4E5B9
    private const val MIX2 = -0x6b2fb644ecceee15L // 0x94D049BB133111EB

    /** What the draws of one step have in common; [draw] finishes one of them. */
    fun base(seed: Long, stream: Int, step: Int): Long =
        mix(mix(seed + GOLDEN * (stream + 1L)) + GOLDEN * (step + 1L))

    fun draw(base: Long, index: Long): Long = mix(base + GOLDEN * (index + 1))

    /** An integer in [0, n), from the top 31 bits of [value]. */
    fun bounded(value: Long, n: Int): Int = (((value ushr 33) * n) ushr 31).toInt()

    /** A number in [0, 1), from the top 24 bits of [value]. */
    fun unit(value: Long): Double = (value ushr 40) * UNIT

    /** splitmix64's finaliser (Steele, Lea and Flood, OOPSLA 2014). */
    private fun mix(value: Long): Long {
        var z = value
        z = (z xor (z ushr 30)) * MIX1
        z = (z xor (z ushr 27)) * MIX2
        return z xor (z ushr 31)
    }
}
