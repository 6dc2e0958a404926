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
 * @param secondMoment the same, but new entries start at their row's mean
 */
class Exchange(
    private val table: PackedTable,
    private val keep: Int,
    states: List<ByteBuffer> = emptyList(),
    secondMoment: ByteBuffer? = null,
) {
    private val dim = table.dim
    private val strongest = Smallest()
    private val weakest = Smallest()
    private val repacking = Repacking(table, states, secondMoment)

    /** Of one row's values. */
    private val keys = IntArray(dim)

    /** Places that have sums, among a few. */
    private val summed = IntArray(GROUP)

    /** Keeps the accesses that only warm a cache from being left out. */
    private var touched = 0f

    /** Exchanges [fraction] of the active entries of [sampled]; returns how many they were. */
    fun exchange(sampled: SampledRows, sums: GradientSums, fraction: Double): Int {
        var active = 0
        var droppable = 0
        for (place in 0 until sampled.size) {
            val size = table.end(sampled[place]) - table.start(sampled[place])
            active += size
            droppable += maxOf(0, size - keep)
        }
        val wanted = minOf(floor(fraction * active).toInt(), droppable)
        strongest.keep(wanted) { part -> offerSums(sampled, sums, part) }
        val count = strongest.count
        if (count == 0) return 0
        weakest.keep(count) { part -> offerEntries(sampled, part) }
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

    /** Keeps the [wanted] smallest; [offer] offers those of one in so many rows, or of all for 1. */
    private inline fun Smallest.keep(wanted: Int, offer: (part: Int) -> Unit) {
        beginGuess(wanted, PART)
        offer(PART)
        endGuess()
        begin(wanted)
        do offer(1) while (!finish())
    }

    /**
     * Offers the inactive places that have a sum, called `place * d + col`; of one in
     * [part] rows or so. A sum of 0 is none, so those of active places are set to it.
     */
    private fun offerSums(sampled: SampledRows, sums: GradientSums, part: Int) {
        var first = 0
        while (first < sampled.size) {
            val count = bringNear(first, sampled, sums)
            for (k in 0 until count) {
                val place = summed[k]
                val values = sums.chunk(place)
                val start = sums.start(place)
                val row = sampled[place]
                for (entry in table.start(row) until table.end(row)) {
                    values[start + table.col(entry)] = 0f
                }
                offerSums(values, start, place * dim)
            }
            first += GROUP * part
        }
    }

    /**
     * Lists those of the [GROUP] places from [first] on that have sums, and has these brought near:
     * accesses to what is far away run side by side. Returns how many there are.
     */
    private fun bringNear(first: Int, sampled: SampledRows, sums: GradientSums): Int {
        var count = 0
        for (place in first until minOf(first + GROUP, sampled.size)) {
            summed[count] = place
            count += if (sums.has(place)) 1 else 0
        }
        for (k in 0 until count) {
            touched += sums.touch(summed[k]) + table.start(sampled[summed[k]])
        }
        return count
    }

    private fun offerSums(values: FloatArray, start: Int, name: Int) {
        val least = Smallest.LARGEST - strongest.limit // 0 where all but 0 may pass
        for (col in start until start + dim) {
            val magnitude = values[col].toRawBits() and Int.MAX_VALUE
            if (magnitude > least) {
                strongest.offer(Smallest.LARGEST - magnitude, name + col - start)
            }
        }
    }

    /** Offers the entries that may go, [part] as above; a row's k-th is called `place * d + k`. */
    private fun offerEntries(sampled: SampledRows, part: Int) {
        var place = 0
        while (place < sampled.size) { // a range with a step would be an object
            offerEntries(sampled[place], place * dim)
            place += part
        }
    }

    /** Of those that are weak enough, a row keeps the strongest if it would keep too few. */
    private fun offerEntries(row: Int, name: Int) {
        val start = table.start(row)
        val size = table.end(row) - start
        table.readMagnitudes(row, start, size, keys)
        val weak = weakest.offer(keys, size, name)
        for (k in 0 until minOf(weak, keep - (size - weak))) weakest.forgetLargest(weak - k)
    }

    private companion object {
        /** Places that are looked at together. */
        const val GROUP = 16

        /** One in so many rows is enough to guess by. */
        const val PART = 32
    }
}
