package org.sparserec.harness

import org.junit.jupiter.api.Assertions.assertEquals
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
                do keys.forEachIndexed { k, key -> smallest.offer(key, k) } while (!smallest.finish())
                val expected = keys.indices.sortedBy { keys[it] }.take(wanted).sorted()
                assertEquals(expected, smallest.kept())
            }
        }
    }

    @Test
    fun `many at a time are kept as one by one`() {
        val random = Random(4)
        val both = List(2) { Smallest() }
        repeat(20) {
            val groups = List(400) { IntArray(random.nextInt(20)) { random.nextInt(500) } }
            both.forEach { it.begin(300) }
            do {
                for (keys in groups) keys.forEachIndexed { k, key -> both[0].offer(key, k) }
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
