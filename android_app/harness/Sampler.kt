package org.sparserec.harness

import kotlin.math.floor
import kotlin.math.max

/** What a step trains on, and a window's sampled rows: docs/formats.md section 4. */
class Sampler(private val interactions: Interactions, private val manifest: Manifest) {
    private val training = manifest.training
    private val logSize = interactions.logUsers.capacity()

    /** |S|, unless the log has fewer rows. */
    val sampledSize: Int = max(1, floor(training.sampledFraction * manifest.numRows + 0.5).toInt())

    /**
     * Draws the batch of [step] as table rows into [slots]: users from 0, positive items from
     * [stride] on, the batch's `batch_size` first of each; from 2 [stride] on negative items, one
     * for each example, or those that all share.
     */
    fun batch(step: Int, slots: IntArray, stride: Int) {
        val positives = Draws.base(training.seed, Draws.POSITIVES, step)
        val negatives = Draws.base(training.seed, Draws.NEGATIVES, step)
        for (b in 0 until training.batchSize) {
            val pair = Draws.bounded(Draws.draw(positives, b.toLong()), logSize)
            slots[b] = interactions.logUsers.get(pair)
            slots[stride + b] = manifest.numUsers + interactions.logItems.get(pair)
        }
        if (training.sharedNegatives > 0) return sharedNegatives(step, slots, 2 * stride)
        for (b in 0 until training.batchSize) {
            slots[2 * stride + b] = manifest.numUsers + negative(negatives, b, slots[b])
        }
    }

    private fun sharedNegatives(step: Int, slots: IntArray, first: Int) {
        val base = Draws.base(training.seed, Draws.SHARED_NEGATIVES, step)
        for (k in 0 until training.sharedNegatives) {
            val item = Draws.bounded(Draws.draw(base, k.toLong()), manifest.knownItems)
            slots[first + k] = manifest.numUsers + item
        }
    }

    /** The first drawn item that [user] is not known to like, or else the last one drawn. */
    private fun negative(base: Long, b: Int, user: Int): Int {
        var item = 0
        for (t in 0 until training.negativeTries) {
            val draw = Draws.draw(base, b.toLong() * training.negativeTries + t)
            item = Draws.bounded(draw, manifest.knownItems)
            if (!interactions.isKnown(user, item)) break
        }
        return item
    }

    /** Draws the rows of a window into [sampled]: those frequent in the log come up more. */
    fun sampledRows(window: Int, sampled: SampledRows) {
        val base = Draws.base(training.seed, Draws.SAMPLED_ROWS, window)
        sampled.clear()
        for (i in 0 until MAX_DRAWS_PER_ROW * sampledSize) {
            if (sampled.size == sampledSize) break
            val pair = Draws.bounded(Draws.draw(base, i), logSize)
            sampled.add(interactions.logUsers.get(pair))
            if (sampled.size == sampledSize) break
            sampled.add(manifest.numUsers + interactions.logItems.get(pair))
        }
        sampled.seal()
    }

    private companion object {
        const val MAX_DRAWS_PER_ROW = 16L
    }
}
