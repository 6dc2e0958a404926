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

    /** Of one row's values. */
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
            val grown = strongest.name(k)
            val dropped = weakest.name(k)
            repacking.grow(sampled[grown / dim], grown % dim)
            repacking.drop(sampled[dropped / dim], dropped % dim)
        }
        repacking.run()
        return count
    }

    /**
     * Offers the inactive places that have a sum, called `place * d + col`. A sum of 0 is none, so
     * those of active places are set to it.
     */
    private fun offerSums(sampled: SampledRows, sums: GradientSums) {
        for (place in 0 until sampled.size) {
            if (!sums.has(place)) continue
            val values = sums.chunk(place)
            val start = sums.start(place)
            val row = sampled[place]
            for (entry in table.start(row) until table.end(row)) {
                values[start + table.col(entry)] = 0f
            }
            offerSums(values, start, place * dim)
        }
    }

    private fun offerSums(values: FloatArray, start: Int, name: Int) {
        val least = Smallest.LARGEST - strongest.limit // 0 where all but 0 may pass
        for (col in 0 until dim) {
            val magnitude = PackedTable.magnitude(values[start + col])
            if (magnitude > least) strongest.offer(Smallest.LARGEST - magnitude, name + col)
        }
    }

    /** Offers the entries that may go; the k-th of a row is called `place * d + k`. */
    private fun offerEntries(sampled: SampledRows) {
        for (place in 0 until sampled.size) {
            val row = sampled[place]
            val start = table.start(row)
            val size = table.end(row) - start
            table.readMagnitudes(row, start, size, keys)
            protect(size)
            weakest.offer(keys, size, place * dim)
        }
    }

    /** Takes the strongest of a row's [size] keys out, if it would keep too few with none. */
    private fun protect(size: Int) {
        val limit = weakest.limit
        var weak = 0
        for (k in 0 until size) weak += keys[k] - limit ushr Int.SIZE_BITS - 1 // 1 if below
        repeat(minOf(weak, keep - (size - weak))) { protectStrongest(size) }
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
}
