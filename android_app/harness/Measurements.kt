package org.sparserec.harness

import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.buildJsonObject
import kotlinx.serialization.json.put
import kotlin.math.abs
import kotlin.math.floor
import kotlin.math.roundToLong

/** Durations in nanoseconds; every one is kept. The first [expected] need no more memory. */
class Samples(expected: Int = 256) {
    private var values = LongArray(maxOf(expected, 1))

    var count = 0
        private set

    fun add(ns: Long) {
        if (count == values.size) values = values.copyOf(2 * count)
        values[count++] = ns
    }

    /** The report's summary. Without a sample the statistics are null. */
    fun summary(): JsonObject = buildJsonObject {
        val sorted = values.copyOf(count).apply { sort() }
        put("runs", jsonNumbers(count) { values[it] })
        put("count", count)
        put("minimum", sorted.firstOrNull())
        for (percent in PERCENTILES) put("p$percent", percentile(sorted, percent))
        put("maximum", sorted.lastOrNull())
        put("mad", medianAbsoluteDeviation(sorted))
    }

    companion object {
        private val PERCENTILES = listOf(50, 90, 95, 99)

        /** The percentile of [sorted] values, interpolated linearly between neighbours. */
        fun percentile(sorted: LongArray, percent: Int): Long? {
            if (sorted.isEmpty()) return null
            val place = (sorted.size - 1) * percent / 100.0
            val below = floor(place).toInt()
            val above = minOf(below + 1, sorted.size - 1)
            return (sorted[below] + (place - below) * (sorted[above] - sorted[below])).roundToLong()
        }

        /** The median of the distances from the median. */
        fun medianAbsoluteDeviation(sorted: LongArray): Long? {
            val median = percentile(sorted, 50) ?: return null
            val distances = LongArray(sorted.size) { abs(sorted[it] - median) }
            return percentile(distances.apply { sort() }, 50)
        }
    }
}

/**
 * The report's metrics, in its order. `train_step` is a whole step, an exchange included.
 *
 * @param steps expected
 */
class Metrics(steps: Int = 256) {
    val trainStep = Samples(steps)
    val gradients = Samples(steps)
    val update = Samples(steps)
    val assemble = Samples(steps)
    val writeBack = Samples(steps)
    val exchange = Samples(steps)
    val checkpoint = Samples()
    val score = Samples()

    fun toJson(): JsonObject = buildJsonObject {
        put("train_step_ns", trainStep.summary())
        put("gradients_ns", gradients.summary())
        put("update_ns", update.summary())
        put("assemble_ns", assemble.summary())
        put("write_back_ns", writeBack.summary())
        put("exchange_ns", exchange.summary())
        put("checkpoint_ns", checkpoint.summary())
        put("score_ns", score.summary())
    }
}
