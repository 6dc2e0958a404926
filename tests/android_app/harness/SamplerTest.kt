package org.sparserec.harness

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test

class SamplerTest {
    @Test
    fun `negatives avoid what the user is known to like`() {
        val liked = (0 until 10).map { 0 to it }
        val interactions = interactions(1, log = liked.take(3), seen = liked.drop(3).take(4))
        val manifest = manifest(1, 10, 4, training = training(batchSize = 40))
        val slots = IntArray(3 * 50) { -1 }
        Sampler(interactions, manifest).batch(5, slots, 50)
        assertTrue(slots.slice(0 until 40).all { it == 0 })
        assertTrue(slots.slice(50 until 90).all { it - 1 in 0..2 })
        val negatives = slots.slice(100 until 140).map { it - 1 }
        // Three tries each: 7 in 10 are liked, so about a third of the last tries are, too.
        val unknown = negatives.count { it in 7..9 }
        assertTrue(unknown in 18..36, "$unknown")
        assertTrue(slots.slice(40 until 50).all { it == -1 }, "padding is left alone")
    }

    @Test
    fun `a batch's shared negatives are any known items`() {
        val training = training(batchSize = 2, sharedNegatives = 300)
        val manifest = manifest(1, 10, 4, training = training)
        val slots = IntArray(2 * 3 + 300) { -1 }
        Sampler(interactions(1, log = listOf(0 to 0)), manifest).batch(5, slots, 3)
        assertEquals(listOf(0, 0, -1, 1, 1, -1), slots.take(6))
        assertEquals((1..10).toSet(), slots.drop(6).toSet())
    }

    @Test
    fun `sampled rows are distinct, ascending and of the log`() {
        val log = listOf(3 to 1, 3 to 2, 5 to 2)
        val manifest = manifest(8, 4, 4, training = training(sampledFraction = 0.3))
        val sampler = Sampler(interactions(8, log), manifest)
        assertEquals(4, sampler.sampledSize) // floor(0.3 * 12 + 0.5)
        val logRows = setOf(3, 5, 8 + 1, 8 + 2)
        assertEquals(logRows, (0 until 50).flatMap { drawn(sampler, it) }.toSet())
        val everything = manifest(8, 4, 4, training = training(sampledFraction = 1.0))
        val all = drawn(Sampler(interactions(8, log), everything), 0)
        assertEquals(logRows.sorted(), all)
    }

    @Test
    fun `more sums of gradients than a checkpoint can hold are refused`() {
        val log = List(1 shl 21) { it to 0 }
        val interactions = interactions(log.size, log)
        fun sampler(fraction: Double) = Sampler(
            interactions,
            manifest(log.size, 1, 256, training = training(sampledFraction = fraction)),
        )
        val error = assertThrows(HarnessError::class.java) { sampler(1.0) }
        assertTrue("training.sampled_fraction: 1.0 samples 2097153 rows" in error.message!!)
        sampler(0.9)
    }

    private fun drawn(sampler: Sampler, window: Int): List<Int> {
        val sampled = SampledRows(12, sampler.sampledSize)
        sampler.sampledRows(window, sampled)
        return List(sampled.size) { sampled[it] }
    }
}
