package org.sparserec.harness

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Test
import java.nio.FloatBuffer
import kotlin.math.ln

/** Scores by an inner product and a stable sort. */
private class PlainScores(override val chunk: Int, override val top: Int, private val dim: Int) :
    ScoreProgram {
    override val user: FloatBuffer = FloatBuffer.allocate(dim)
    override val items: FloatBuffer = FloatBuffer.allocate(chunk * dim)
    override val penalty: FloatBuffer = FloatBuffer.allocate(chunk)

    override val vectors: VectorsProgram? = null

    override fun setDense(dense: FloatBuffer) = Unit

    override fun score(values: FloatArray, indices: LongArray) {
        val scores = List(chunk) { item ->
            val products = (0 until dim).map { user.get(it) * items.get(item * dim + it) }
            products.sum() + penalty.get(item)
        }
        val ranked = scores.indices.sortedByDescending { scores[it] }
        for (rank in 0 until top) {
            values[rank] = scores[ranked[rank]]
            indices[rank] = ranked[rank].toLong()
        }
    }
}

class EvaluatorTest {
    private val items = listOf(0.9f, 0.8f, 0.7f, 0.6f, 0.5f, 0.5f)
    private val users = listOf(1f, -1f, 1f)
    private val table = table(1, *(users + items).map { mapOf(0 to it) }.toTypedArray())

    private fun evaluate(
        chunk: Int,
        later: List<Pair<Int, Int>>,
        model: Manifest.Model = Manifest.Model.MF,
    ): Quality {
        val interactions =
            interactions(3, log = listOf(0 to 0, 1 to 0), later = later, seen = listOf(0 to 2))
        val samples = Samples()
        val scores = PlainScores(chunk, top = 3, dim = 1)
        val manifest = manifest(3, 6, 1, model = model)
        val evaluator = Evaluator(manifest, scores, interactions, samples)
        return evaluator.evaluate(table, null).also {
            // A time for each user, of all chunks.
            assertEquals(later.map { pair -> pair.first }.toSet().size, samples.count)
        }
    }

    @Test
    fun `a case worked by hand, whatever the chunks`() {
        // User 0 has had items 0 and 2, so the best three are 1, 3, 4 (4 before 5, its equal).
        // Of its later 3 and 5 one is found, second. User 1 ranks the other way round: 4, 5, 3; of
        // its later 4, 5, 1, 2 two are found, first and second. User 2 is nobody's concern.
        fun discount(rank: Int) = ln(2.0) / ln(rank + 1.0)
        val first = discount(2) / (1 + discount(2))
        val second = (1 + discount(2)) / (1 + discount(2) + discount(3))
        for (model in listOf(Manifest.Model.MF, Manifest.Model.NEUMF)) {
            for (chunk in listOf(3, 4, 5, 6, 7)) {
                val later = listOf(0 to 3, 0 to 5, 1 to 4, 1 to 5, 1 to 1, 1 to 2)
                val quality = evaluate(chunk, later, model)
                assertEquals((0.5 + 0.5) / 2, quality.recall!!, 1e-12, "$model, chunk $chunk")
                assertEquals((first + second) / 2, quality.ndcg!!, 1e-12, "$model, chunk $chunk")
                assertEquals(2, quality.users)
            }
        }
    }

    @Test
    fun `more users than are looked at together`() {
        val users = 2 * Candidates.USERS + 3
        val values = List(users) { if (it % 2 == 0) 1f else -1f } + items
        // Every user's later item is its best one, but the last user's, whose it is not.
        val interactions = interactions(
            users,
            log = listOf(0 to 5),
            later = List(users) { it to if (it == users - 1 || it % 2 == 1) 4 else 0 },
        )
        val table = table(1, *values.map { mapOf(0 to it) }.toTypedArray())
        val scores = PlainScores(3, top = 1, dim = 1)
        val evaluator = Evaluator(manifest(users, 6, 1), scores, interactions, Samples())
        val quality = evaluator.evaluate(table, null)
        assertEquals((users - 1.0) / users, quality.recall!!, 1e-12)
        assertEquals((users - 1.0) / users, quality.ndcg!!, 1e-12)
        assertEquals(users, quality.users)
    }

    @Test
    fun `without later items there is nothing to average`() {
        val quality = evaluate(6, emptyList())
        assertNull(quality.recall)
        assertEquals(0, quality.users)
    }
}
