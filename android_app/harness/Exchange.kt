package org.sparserec.harness

import java.nio.ByteBuffer
import kotlin.math.floor

/** When the mask changes and by how much: docs/formats.md section 5. */
class Schedule(training: Manifest.Training) {
    private val window = training.window
    private val fraction = training.exchangeFraction
    private val end = training.exchangeStop * training.steps

    fun beginsAt(step: Int): Boolean = step % window == 0

    fun windowOf(step: Int): Int = step / window

    /** The fraction to exchange when [done] steps are done; 0 where there is no exchange. */
    fun fractionAfter(done: Int): Double {
        if (done % window != 0 || done >= end) return 0.0
        // StrictMath: the same digits on every machine.
        return fraction / 2 * (1 + StrictMath.cos(Math.PI * done / end))
    }
}

/**
 * The mask update, cumulative-gradient regrowth: docs/formats.md section 5, arXiv 2411.12205.
 *
 * In the sampled rows of [table], drops the weakest active entries and grows as many where the
 * gradients summed over the window are largest. No row falls below [keep] active entries.
 *
 * Candidates come by in the order of the format's ties, row then column, so that the first of equal
 * ones wins, and nothing needs to be sorted.
 *
 * @param states float32 (nnz,) each: optimizer state, which moves with its entries
 */
class Exchange(
    private val table: PackedTable,
    private val keep: Int,
    states: List<ByteBuffer> = emptyList(),
) {
    private val dim = table.dim
    private val strongest = Smallest()
    private val weakest = Smallest()
    private val repacking = Repacking(table, states)

    /** Of one row: its values, and their keys. */
    private val values = FloatArray(dim)
    private val keys = IntArray(dim)

    /** Exchanges [fraction] of the active entries of [sampled]; returns how many they were. */
    fun exchange(sampled: SampledRows, sums: GradientSums, fraction: Double): Int {
        var active = 0
        var droppable = 0
        for (place in 0 until sampled.size) {
            val size = table.end(sampled[place]) - table.start(sampled[place])
            active += size
            droppable += maxOf(0, size - keep)
        }
        strongest.begin(minOf(floor(fraction * active).toInt(), droppable))
        do offerSums(sampled, sums) while (!strongest.finish())
        val count = strongest.count
        if (count == 0) return 0
        weakest.begin(count)
        do offerEntries(sampled) while (!weakest.finish())
        repacking.begin(count)
        for (k in 0 until count) {
            val place = strongest.name(k)
            repacking.grow(sampled[place / dim], place % dim)
            repacking.drop(weakest.name(k))
        }
        repacking.run()
        return count
    }

    /** Offers the inactive places that have a sum, called `place * d + col`. */
    private fun offerSums(sampled: SampledRows, sums: GradientSums) {
        for (place in 0 until sampled.size) {
            if (sums.start(place) >= 0) offerInactive(sampled[place], sums, place)
        }
    }

    private fun offerInactive(row: Int, sums: GradientSums, place: Int) {
        val values = sums.values
        val start = sums.start(place)
        val least = Smallest.LARGEST - strongest.limit
        for (col in 0 until dim) {
            // Few pass, and a sum of 0 never does, so this comes before the search for the column.
            val magnitude = magnitude(values[start + col])
            if (magnitude > least && !isActive(row, col)) {
                strongest.offer(Smallest.LARGEST - magnitude, place * dim + col)
            }
        }
    }

    private fun isActive(row: Int, col: Int): Boolean {
        for (entry in table.start(row) until table.end(row)) {
            if (table.col(entry) == col) return true
        }
        return false
    }

    /** Offers the entries that may go, called by their places in the table. */
    private fun offerEntries(sampled: SampledRows) {
        for (place in 0 until sampled.size) {
            val start = table.start(sampled[place])
            val size = table.end(sampled[place]) - start
            var weak = 0
            table.read(sampled[place], start, size, values, 0)
            for (k in 0 until size) {
                keys[k] = magnitude(values[k])
                if (keys[k] < weakest.limit) weak++
            }
            if (weak == 0) continue
            repeat(minOf(weak, keep - (size - weak))) { protectStrongest(size) }
            for (k in 0 until size) weakest.offer(keys[k], start + k)
        }
    }

    /** Of the keys below the limit, takes the largest out, of equal ones the last. */
    private fun protectStrongest(size: Int) {
        var strongest = -1
        for (k in 0 until size) {
            val weak = keys[k] < weakest.limit
            if (weak && (strongest < 0 || keys[k] >= keys[strongest])) strongest = k
        }
        keys[strongest] = Int.MAX_VALUE
    }

    /** The bits of |value|, which are ordered as the absolute values are. */
    private fun magnitude(value: Float): Int = value.toRawBits() and Int.MAX_VALUE
}
