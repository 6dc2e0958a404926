package org.sparserec.harness

import java.nio.FloatBuffer
import java.util.Arrays
import kotlin.math.abs
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
 * In the [sampled] rows (ascending) of [table], drops the weakest active entries and grows as many
 * where the gradients summed over the window, [sums] (|S|, d), are largest. No row falls below
 * [keep] active entries. Returns the number of entries exchanged.
 */
fun exchange(
    table: PackedTable,
    sampled: IntArray,
    sums: FloatBuffer,
    fraction: Double,
    keep: Int,
): Int {
    val sizes = IntArray(sampled.size) { table.end(sampled[it]) - table.start(sampled[it]) }
    val grow = growCandidates(table, sampled, sums)
    val droppable = sizes.sumOf { maxOf(0, it - keep) }
    val wanted = floor(fraction * sizes.sum()).toInt()
    val count = minOf(wanted, grow.size, droppable)
    val dropped = weakest(table, sampled, sizes, keep, count)
    Arrays.sort(grow)
    val grown = IntArray(count) { grow[it].toInt() }
    Arrays.sort(grown)
    table.exchange(
        dropped,
        IntArray(count) { sampled[grown[it] / table.dim] },
        IntArray(count) { grown[it] % table.dim },
    )
    return count
}

/**
 * Inactive places with a gradient, as sortable numbers: the larger |sum|, then the smaller
 * `slot * dim + col` (the lower half), comes first.
 */
private fun growCandidates(table: PackedTable, sampled: IntArray, sums: FloatBuffer): LongArray {
    val found = LongArray(sampled.size * table.dim)
    var count = 0
    for (slot in sampled.indices) {
        var entry = table.start(sampled[slot])
        val end = table.end(sampled[slot])
        for (col in 0 until table.dim) {
            if (entry < end && table.col(entry) == col) {
                entry++
                continue
            }
            val place = slot * table.dim + col
            val sum = sums.get(place)
            if (sum != 0f) found[count++] = sortable(Int.MAX_VALUE - abs(sum).toBits(), place)
        }
    }
    return found.copyOf(count)
}

/** The places of the [count] weakest entries that may go, ascending. */
private fun weakest(
    table: PackedTable,
    sampled: IntArray,
    sizes: IntArray,
    keep: Int,
    count: Int,
): IntArray {
    val order = LongArray(sizes.sum())
    val slotOf = IntArray(order.size)
    val placeOf = IntArray(order.size)
    var k = 0
    for (slot in sampled.indices) {
        for (entry in table.start(sampled[slot]) until table.end(sampled[slot])) {
            order[k] = sortable(abs(table.vals.get(entry)).toBits(), k)
            slotOf[k] = slot
            placeOf[k++] = entry
        }
    }
    Arrays.sort(order)
    val left = sizes.copyOf()
    val dropped = IntArray(count)
    var taken = 0
    for (value in order) {
        if (taken == count) break
        val slot = slotOf[value.toInt()]
        if (left[slot] <= keep) continue
        left[slot]--
        dropped[taken++] = placeOf[value.toInt()]
    }
    Arrays.sort(dropped)
    return dropped
}

/** Sorts by [major], then [minor], neither negative. Bits of floats >= 0 sort as the floats do. */
private fun sortable(major: Int, minor: Int): Long = major.toLong() shl 32 or minor.toLong()
