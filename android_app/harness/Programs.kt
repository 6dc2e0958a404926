package org.sparserec.harness

import java.nio.FloatBuffer

/**
 * The arithmetic of a training step, `step.pte` (docs/formats.md section 2). The inputs are buffers
 * that the caller fills and that keep their content; nothing is allocated per step.
 */
interface StepProgram {
    /** B, triples in a tile; a smaller batch is padded with zero weights. */
    val batchSize: Int

    /** (3B, d) */
    val rows: FloatBuffer

    /** (3B, d) */
    val mask: FloatBuffer

    /** (3B, 1) */
    val sampled: FloatBuffer

    /** (B,) */
    val weight: FloatBuffer

    /** (E,) values for [update] */
    val values: FloatBuffer

    /** (E,) their gradients */
    val gradient: FloatBuffer

    /** (1,) */
    val learningRate: FloatBuffer

    /** Runs `gradients`; fills [gradients] (3B d) from its beginning and returns the loss. */
    fun gradients(gradients: FloatBuffer): Float

    /** Runs `update`; fills [updated] (E) from its beginning. */
    fun update(updated: FloatBuffer)
}

/** The ranking of one user's items, `score.pte` (docs/formats.md section 3). */
interface ScoreProgram {
    /** C, items in a call. */
    val chunk: Int

    /** K, items in a top list. */
    val top: Int

    /** (1, 1, d) */
    val user: FloatBuffer

    /** (1, C, d) */
    val items: FloatBuffer

    /** (1, C): 0, or -inf for an item that is no candidate. */
    val penalty: FloatBuffer

    /** Runs `score`; fills [values] (K) and [indices] (K), best first. */
    fun score(values: FloatArray, indices: LongArray)
}
