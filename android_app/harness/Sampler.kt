package org.sparserec.harness

import java.util.BitSet
import kotlin.math.floor
import kotlin.math.max

/** What a step trains on, and a window's sampled rows: docs/formats.md section 4. */
class Sampler(private val interactions: Interactions, private val manifest: Manifest) {
    private val training = manifest.training
    private val logSize = interactions.logUsers.capacity()

    /** |S|, unless the log has fewer rows. */
    val sampledSize: Int = max(1, floor(training.sampledFraction * manifest.numRows + 0.5).toInt())

    /** Rows that a window can come to: once it has all of the log's, no draw adds one. */
    private val mostRows = minOf(sampledSize, rowsOfLog())

    init {
        // A checkpoint holds the sums of S in one buffer, (|S|, d) float32.
        if (Float.SIZE_BYTES.toLong() * mostRows * manifest.dim > Int.MAX_VALUE) {
            throw HarnessError(
                "manifest.json: training.sampled_fraction: ${training.sampledFraction} samples " +
                    "$mostRows rows, whose sums take more than 2 GiB",
                "export with a smaller one",
            )
        }
    }

    /** Of a batch's first negatives, whether they must be looked at closely. */
    private val doubtful = BooleanArray(training.batchSize)

    /** Rows of a few pairs. */
    private val drawn = IntArray(2 * PAIRS_AT_ONCE)

    /**
     * Draws the batch of [step] as table rows into [slots]: users from 0, positive items from
     * [stride] on, the batch's `batch_size` first of each; from 2 [stride] on negative items, one
     * for each example, or those that all share.
     */
    fun batch(step: Int, slots: IntArray, stride: Int) {
        val positives = Draws.base(training.seed, Draws.POSITIVES, step)
        for (b in 0 until training.batchSize) {
            val pair = Draws.bounded(Draws.draw(positives, b.toLong()), logSize)
            slots[b] = interactions.logUsers.get(pair)
            slots[stride + b] = manifest.numUsers + interactions.logItems.get(pair)
        }
        if (training.sharedNegatives > 0) {
            sharedNegatives(step, slots, 2 * stride)
        } else {
            negatives(step, slots, 2 * stride)
        }
    }

    /**
     * Draws all first tries, then looks all of them up, then judges them: accesses to memory that
     * no branch waits for run side by side.
     */
    private fun negatives(step: Int, slots: IntArray, first: Int) {
        val base = Draws.base(training.seed, Draws.NEGATIVES, step)
        for (b in 0 until training.batchSize) slots[first + b] = item(base, b, 0)
        for (b in 0 until training.batchSize) {
            doubtful[b] = interactions.mayBeKnown(slots[b], slots[first + b])
        }
        for (b in 0 until training.batchSize) {
            if (doubtful[b]) slots[first + b] = negative(base, b, slots[b])
            slots[first + b] += manifest.numUsers
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
            item = item(base, b, t)
            if (!interactions.isKnown(user, item)) break
        }
        return item
    }

    private fun item(base: Long, b: Int, tried: Int): Int {
        val draw = Draws.draw(base, b.toLong() * training.negativeTries + tried)
        return Draws.bounded(draw, manifest.knownItems)
    }

    /** Draws the rows of a window into [sampled]: those frequent in the log come up more. */
    fun sampledRows(window: Int, sampled: SampledRows) {
        val base = Draws.base(training.seed, Draws.SAMPLED_ROWS, window)
        sampled.clear()
        val most = MAX_DRAWS_PER_ROW * sampledSize
        var i = 0L
        while (i < most && sampled.size < mostRows) {
            val pairs = minOf(PAIRS_AT_ONCE.toLong(), most - i).toInt()
            drawRows(base, i, pairs)
            for (k in 0 until 2 * pairs) if (sampled.size < mostRows) sampled.add(drawn[k])
            i += pairs
        }
        sampled.seal()
    }

    /** Reads the rows of [pairs] pairs, by the draws from [first] on, before any is looked at. */
    private fun drawRows(base: Long, first: Long, pairs: Int) {
        for (k in 0 until pairs) {
            val pair = Draws.bounded(Draws.draw(base, first + k), logSize)
            drawn[2 * k] = interactions.logUsers.get(pair)
            drawn[2 * k + 1] = manifest.numUsers + interactions.logItems.get(pair)
        }
    }

    private fun rowsOfLog(): Int {
        val met = BitSet(manifest.numRows)
        for (pair in 0 until logSize) {
            met.set(interactions.logUsers.get(pair))
            met.set(manifest.numUsers + interactions.logItems.get(pair))
        }
        return met.cardinality()
    }

    private companion object {
        const val MAX_DRAWS_PER_ROW = 16L
        const val PAIRS_AT_ONCE = 256
    }
}
