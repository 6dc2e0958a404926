package org.sparserec.harness

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import java.util.Random

class SmallestTest {
    private fun Smallest.kept() = List(count) { name(it) }

    @Test
    fun `what sorting would put first is kept, however narrow or wide the keys are`() {
        val random = Random(3)
        val smallest = Smallest()
        for (range in listOf(1, 3, 1000, 1 shl 20, Smallest.LARGEST)) {
            repeat(20) {
                val offset = random.nextInt(Smallest.LARGEST - range + 1)
                val keys = IntArray(4000) { offset + random.nextInt(range) }
                val wanted = random.nextInt(1500)
                smallest.begin(wanted)
                do {
                    for (k in keys.indices) smallest.offer(keys[k], k)
                } while (!smallest.finish())
                val expected = keys.indices.sortedBy { keys[it] }.take(wanted).sorted()
                assertEquals(expected, smallest.kept())
            }
        }
    }

    @Test
    fun `what is kept does not depend on the guess`() {
        val random = Random(6)
        val smallest = Smallest()
        val keys = IntArray(4000) { random.nextInt(1000) }
        val expected = keys.indices.sortedBy { keys[it] }.take(800).sorted()
        // Guesses by keys like the others, smaller and larger, and by too few to tell.
        val kinds = listOf<(Int) -> Int>({ keys[it] }, { keys[it] / 9 }, { 5000 + it })
        val parts = kinds.flatMap { of -> listOf(IntArray(400, of), IntArray(20, of)) }
        for (part in parts) {
            smallest.beginGuess(800, 10)
            for (key in part) smallest.offer(key, 0)
            smallest.endGuess()
            smallest.begin(800)
            do {
                for (k in keys.indices) smallest.offer(keys[k], k)
            } while (!smallest.finish())
            assertEquals(expected, smallest.kept())
        }
    }

    @Test
    fun `a guess leaves out most of what is not wanted, and lasts for one time`() {
        val random = Random(7)
        val smallest = Smallest()
        val keys = IntArray(64_000) { random.nextInt(1 shl 20) }
        smallest.beginGuess(10_000, 32)
        for (k in keys.indices step 32) smallest.offer(keys[k], k)
        smallest.endGuess()
        smallest.begin(10_000)
        val passing = keys.count { it < smallest.limit }
        assertTrue(passing in 10_000..16_000) { "$passing pass" }
        for (k in keys.indices) smallest.offer(keys[k], k)
        assertTrue(smallest.finish())
        smallest.begin(10_000)
        assertEquals(Smallest.LARGEST, smallest.limit)
    }

    @Test
    fun `many at a time are kept as one by one`() {
        val random = Random(4)
        val both = List(2) { Smallest() }
        repeat(20) {
            val groups = List(400) { IntArray(random.nextInt(20)) { random.nextInt(500) } }
            both.forEach { it.begin(300) }
            do {
                for (keys in groups) for (k in keys.indices) both[0].offer(keys[k], k)
            } while (!both[0].finish())
            do {
                for (keys in groups) both[1].offer(keys, keys.size, 0)
            } while (!both[1].finish())
            assertEquals(both[0].kept(), both[1].kept())
        }
    }

    @Test
    fun `the largest of the last few is forgotten, of equal ones the last`() {
        val smallest = Smallest()
        smallest.begin(10)
        assertEquals(5, smallest.offer(intArrayOf(9, 5, 7, 7, 1), 5, 20))
        smallest.forgetLargest(4)
        assertEquals(listOf(20, 21, 22, 24), smallest.kept())
        smallest.forgetLargest(3)
        assertEquals(listOf(20, 21, 24), smallest.kept())
    }
}
