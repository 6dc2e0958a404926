package org.sparserec.harness

import java.nio.FloatBuffer

/**
 * The arithmetic of a training step, `step.pte` (docs/formats.md section 2). The inputs are buffers
 * that the caller fills and that keep their content; nothing is allocated per step.
 */
interface StepProgram {
    /** B, examples in a tile; a smaller batch is padded with zero weights. */
    val batchSize: Int

    /** T, slots of a tile. */
    val slots: Int

    /** (T, d) */
    val rows: FloatBuffer

    /** (T, d) */
    val mask: FloatBuffer

    /** (T, 1) */
    val sampled: FloatBuffer

    /** (B,) */
    val weight: FloatBuffer

    /** F, most neighbours of a slot; 0 where the model has no graph, as the next two are null. */
    val width: Int
    val neighbours: SlotLists?
    val readers: SlotLists?

    /** (E,) values for [update] */
    val values: FloatBuffer

    /** (E,) their gradients */
    val gradient: FloatBuffer

    /** (E,) each, the optimizer's numbers for them */
    val states: List<FloatBuffer>

    /** Sets `lr` and `correction` of both methods. */
    fun setRate(rate: Float, correction: Float)

    /** Runs `gradients`; fills [gradients] (T d) from its beginning and returns the loss. */
    fun gradients(gradients: FloatBuffer): Float

    /** Takes over what [gradients] made of the dense parameters and their state. */
    fun keepDense()

    /** Runs `update`; fills [updated] (E) and [states] (E) each from the beginning. */
    fun update(updated: FloatBuffer, states: Array<FloatBuffer>)
}

/** The ranking of one user's items, `score.pte` (docs/formats.md section 3). */
interface ScoreProgram {
    /** C, items in a call. */
    val chunk: Int

    /** K, items in a top list. */
    val top: Int

    /** (1, 1, w) */
    val user: FloatBuffer

    /** (1, C, w) */
    val items: FloatBuffer

    /** (1, C): 0, or -inf for an item that is no candidate. */
    val penalty: FloatBuffer

    /** What makes vectors of rows; null where the rows themselves are scored. */
    val vectors: VectorsProgram?

    /** Sets the dense parameters (P,), where there are some. */
    fun setDense(dense: FloatBuffer)

    /** Runs `score`; fills [values] (K) and [indices] (K), best first. */
    fun score(values: FloatArray, indices: LongArray)
}

/** Vectors of a model with a graph, from a sampled neighbourhood. */
interface VectorsProgram {
    /** T, slots of the tile. */
    val slots: Int

    /** F, most neighbours of a slot. */
    val width: Int

    /** (T, d) */
    val rows: FloatBuffer
    val neighbours: SlotLists

    /** Runs `vectors`; fills [vectors] (C w), of the tile's first C slots, from its beginning. */
    fun vectors(vectors: FloatBuffer)
}
