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

    private val values = FloatArray(top)
    private val indices = LongArray(top)

    /** Ranks for every user who has a later item, by a [table] and [dense] parameters (P,). */
    fun evaluate(table: PackedTable, dense: ByteBuffer?): Quality {
        dense?.let { program.setDense(it.asFloatBuffer()) }
        val lists = Array(users.size) { TopList(top) }
        if (manifest.model.scoresAreProducts) {
            rankCandidates(table, lists)
        } else {
            rankAll(table, lists)
        }
        return average(lists)
    }

    /** Has the program rank each user's candidates, which are found for several users at once. */
    private fun rankCandidates(table: PackedTable, lists: Array<TopList>) {
        val rows = ScoredRows(table, program)
        val items = IntArray(minOf(program.chunk, CANDIDATES * top))
        val atOnce = min(Candidates.USERS, users.size)
        val candidates = Candidates(manifest, table, interactions, atOnce, items.size)
        for (first in users.indices step Candidates.USERS) {
            val some = min(atOnce, users.size - first)
            val begun = System.nanoTime()
            candidates.find(users, first, some)
            val share = (System.nanoTime() - begun) / some
            for (k in 0 until some) {
                val start = System.nanoTime()
                val size = candidates.copy(k, items)
                rows.fillUser(users[first + k], k)
                rows.fillItems(size) { manifest.numUsers + items[it] }
                for (place in 0 until program.chunk) {
                    program.penalty.put(place, if (place < size) 0f else Float.NEGATIVE_INFINITY)
                }
                rank(lists[first + k]) { items[it] }
                samples.add(share + System.nanoTime() - start)
            }
        }
    }

    /** Has the program rank all items for each user, the catalogue chunk by chunk. */
    private fun rankAll(table: PackedTable, lists: Array<TopList>) {
        val source = source(table)
        val times = LongArray(users.size)
        val begun = System.nanoTime()
        source.readUsers(users)
        var shared = System.nanoTime() - begun
        for (firstRow in source.firstRow(manifest.numUsers) until lastRow step program.chunk) {
            val filled = System.nanoTime()
            source.fillItems(firstRow)
            allow(firstRow)
            shared += System.nanoTime() - filled
            val first = firstRow - manifest.numUsers
            for ((k, user) in users.withIndex()) {
                val start = System.nanoTime()
                source.fillUser(user, k)
                hide(user, first, Float.NEGATIVE_INFINITY)
                rank(lists[k]) { first + it }
                hide(user, first, 0f)
                times[k] += System.nanoTime() - start
            }
        }
        for (own in times) samples.add(own + shared / times.size)
    }

    /** Runs the program, and adds to [list] what it found: the items that [itemAt] has there. */
    private inline fun rank(list: TopList, itemAt: (Int) -> Int) {
        program.score(values, indices)
        for (rank in 0 until top) {
            // What is no candidate has -inf, and comes last.
            if (values[rank] > Float.NEGATIVE_INFINITY) {
                list.add(values[rank], itemAt(indices[rank].toInt()))
            }
        }
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

    private companion object {
        /** Candidates for each place of a top list. */
        const val CANDIDATES = 4
    }
}
