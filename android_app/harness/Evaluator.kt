package org.sparserec.harness

import kotlin.math.ln
import kotlin.math.min

/** Averages over [users] users; null if there is nobody to average over. */
class Quality(val recall: Double?, val ndcg: Double?, val users: Int)

/**
 * Full-ranking quality on the later interactions: docs/formats.md section 3. Candidates are all
 * known items that are neither in the user's past nor in the log.
 */
class Evaluator(
    private val manifest: Manifest,
    private val program: ScoreProgram,
    private val interactions: Interactions,
    private val samples: Samples,
) {
    private val top = program.top
    private val lines = FloatArray(LINES * manifest.dim)
    private val users =
        (0 until manifest.numUsers).filter { interactions.later.count(it) > 0 }.toIntArray()

    /** Ranks for every user who has a later item. The catalogue is walked chunk by chunk. */
    fun evaluate(table: PackedTable): Quality {
        val lists = Array(users.size) { TopList(top) }
        val values = FloatArray(top)
        val indices = LongArray(top)
        for (first in 0 until manifest.knownItems step program.chunk) {
            fillItems(table, first)
            for ((k, user) in users.withIndex()) {
                val start = System.nanoTime()
                fillUser(table, user)
                hide(user, first, Float.NEGATIVE_INFINITY)
                program.score(values, indices)
                hide(user, first, 0f)
                for (rank in 0 until top) {
                    // An item that is no candidate has -inf, and comes last.
                    if (values[rank] > Float.NEGATIVE_INFINITY) {
                        lists[k].add(values[rank], first + indices[rank].toInt())
                    }
                }
                samples.add(System.nanoTime() - start)
            }
        }
        return average(lists)
    }

    /** Unpacks the chunk's rows, a few at a time: whole lines cost less than single numbers. */
    private fun fillItems(table: PackedTable, first: Int) {
        program.items.rewind()
        var slot = 0
        while (slot < program.chunk) {
            val count = minOf(LINES, program.chunk - slot)
            lines.fill(0f)
            for (line in 0 until minOf(count, manifest.knownItems - first - slot)) {
                val row = manifest.numUsers + first + slot + line
                for (entry in table.start(row) until table.end(row)) {
                    lines[line * manifest.dim + table.col(entry)] = table.vals.get(entry)
                }
            }
            program.items.put(lines, 0, count * manifest.dim)
            slot += count
        }
        for (k in 0 until program.chunk) {
            val real = first + k < manifest.knownItems
            program.penalty.put(k, if (real) 0f else Float.NEGATIVE_INFINITY)
        }
    }

    private fun fillUser(table: PackedTable, user: Int) {
        for (col in 0 until manifest.dim) program.user.put(col, 0f)
        for (entry in table.start(user) until table.end(user)) {
            program.user.put(table.col(entry), table.vals.get(entry))
        }
    }

    /** Puts [penalty] on the items of this chunk that the user has had. */
    private fun hide(user: Int, first: Int, penalty: Float) {
        for (past in arrayOf(interactions.seen, interactions.log)) {
            var place = past.lowerBound(user, first)
            while (place < past.end(user) && past.item(place) < first + program.chunk) {
                program.penalty.put(past.item(place++) - first, penalty)
            }
        }
    }

    private fun average(lists: Array<TopList>): Quality {
        if (users.isEmpty()) return Quality(null, null, 0)
        var recall = 0.0
        var ndcg = 0.0
        for ((k, user) in users.withIndex()) {
            val relevant = interactions.later.count(user)
            var hits = 0
            var gain = 0.0
            for (rank in 0 until lists[k].size) {
                if (interactions.later.contains(user, lists[k].item(rank))) {
                    hits++
                    gain += discount(rank)
                }
            }
            recall += hits.toDouble() / relevant
            ndcg += gain / (0 until min(top, relevant)).sumOf { discount(it) }
        }
        return Quality(recall / users.size, ndcg / users.size, users.size)
    }

    private fun discount(rank: Int): Double = ln(2.0) / ln(rank + 2.0)

    private companion object {
        /** Items unpacked together: few enough for the innermost cache. */
        const val LINES = 32
    }
}

/** The best [capacity] items of a user: by value, then the smaller item. */
private class TopList(private val capacity: Int) {
    private val values = FloatArray(capacity)
    private val items = IntArray(capacity)

    var size = 0
        private set

    fun item(rank: Int): Int = items[rank]

    fun add(value: Float, item: Int) {
        var rank = size
        while (rank > 0 && isBetter(value, item, rank - 1)) rank--
        if (rank == capacity) return
        if (size < capacity) size++
        for (k in size - 1 downTo rank + 1) {
            values[k] = values[k - 1]
            items[k] = items[k - 1]
        }
        values[rank] = value
        items[rank] = item
    }

    private fun isBetter(value: Float, item: Int, rank: Int): Boolean =
        value > values[rank] || value == values[rank] && item < items[rank]
}
