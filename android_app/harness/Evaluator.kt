package org.sparserec.harness

import java.nio.ByteBuffer
import kotlin.math.ln
import kotlin.math.min

/** Averages over [users] users; null if there is nobody to average over. */
class Quality(val recall: Double?, val ndcg: Double?, val users: Int)

/**
 * Full-ranking quality on the later interactions: docs/formats.md section 3. Candidates are all
 * known items that are neither in the user's past nor in the log.
 *
 * @param graph of a model that has one
 */
class Evaluator(
    private val manifest: Manifest,
    private val program: ScoreProgram,
    private val interactions: Interactions,
    private val samples: Samples,
    private val graph: Graph? = null,
) {
    private val top = program.top
    private val users =
        (0 until manifest.numUsers).filter { interactions.later.count(it) > 0 }.toIntArray()
    private val lastRow = manifest.numUsers + manifest.knownItems

    /**
     * Ranks for every user who has a later item, by a [table] and [dense] parameters (P,). The
     * catalogue is walked chunk by chunk.
     */
    fun evaluate(table: PackedTable, dense: ByteBuffer?): Quality {
        dense?.let { program.setDense(it.asFloatBuffer()) }
        val source = source(table)
        source.readUsers(users)
        val lists = Array(users.size) { TopList(top) }
        val values = FloatArray(top)
        val indices = LongArray(top)
        for (firstRow in source.firstRow(manifest.numUsers) until lastRow step program.chunk) {
            source.fillItems(firstRow)
            allow(firstRow)
            val first = firstRow - manifest.numUsers
            for ((k, user) in users.withIndex()) {
                val start = System.nanoTime()
                source.fillUser(user, k)
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

    private fun source(table: PackedTable): Scored {
        val vectors = program.vectors ?: return ScoredRows(table, program)
        val neighbourhood = Neighbourhood(
            graph!!,
            manifest.training.seed,
            Draws.SCORED_NEIGHBOURS,
            vectors.slots,
            vectors.width,
        )
        return ScoredVectors(table, program, vectors, neighbourhood)
    }

    /** Lets the known items among the chunk's rows, from [firstRow] on, be candidates. */
    private fun allow(firstRow: Int) {
        for (k in 0 until program.chunk) {
            val isItem = firstRow + k in manifest.numUsers until lastRow
            program.penalty.put(k, if (isItem) 0f else Float.NEGATIVE_INFINITY)
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
