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

    /**
     * Draws the triples of [step] as table rows into [slots] (3B,): users from 0, positive items
     * from B, negative items from 2B, the batch's `batch_size` first of each.
     */
    fun triples(step: Int, slots: IntArray) {
        val stride = slots.size / 3
        val positives = Draws.base(training.seed, Draws.POSITIVES, step)
        val negatives = Draws.base(training.seed, Draws.NEGATIVES, step)
        for (b in 0 until training.batchSize) {
            val pair = Draws.bounded(Draws.draw(positives, b.toLong()), logSize)
            val user = interactions.logUsers.get(pair)
            slots[b] = user
            slots[stride + b] = manifest.numUsers + interactions.logItems.get(pair)
            slots[2 * stride + b] = manifest.numUsers + negative(negatives, b, user)
        }
    }

    /** The first drawn item that [user] is not known to like, or else the last one drawn. */
    private fun negative(base: Long, b: Int, user: Int): Int {
        var item = 0
        for (t in 0 until training.negativeTries) {
            val draw = Draws.draw(base, b.toLong() * training.negativeTries + t)
            item = Draws.bounded(draw, manifest.knownItems)
            val liked =
                interactions.seen.contains(user, item) || interactions.log.contains(user, item)
            if (!liked) break
        }
        return item
    }

    /** Draws the sampled rows of a window, ascending: rows frequent in the log come up more. */
    fun sampledRows(window: Int): IntArray {
        val base = Draws.base(training.seed, Draws.SAMPLED_ROWS, window)
        val taken = BitSet(manifest.numRows)
        var count = 0
        fun take(row: Int) {
            if (count < sampledSize && !taken.get(row)) {
                taken.set(row)
                count++
            }
        }
        for (i in 0 until MAX_DRAWS_PER_ROW * sampledSize) {
            if (count == sampledSize) break
            val pair = Draws.bounded(Draws.draw(base, i), logSize)
            take(interactions.logUsers.get(pair))
            take(manifest.numUsers + interactions.logItems.get(pair))
        }
        val rows = IntArray(count)
        var row = -1
        for (k in 0 until count) {
            row = taken.nextSetBit(row + 1)
            rows[k] = row
        }
        return rows
    }

    private companion object {
        const val MAX_DRAWS_PER_ROW = 16L
    }
}
