package org.sparserec.harness

import com.sun.management.ThreadMXBean
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import java.lang.management.ManagementFactory
import java.nio.FloatBuffer
import java.nio.IntBuffer
import java.util.Random
import kotlin.math.sqrt

class NeighbourhoodTest {
    /** A graph of users and items in which each pair is there with probability 1/2. */
    private fun graph(numUsers: Int, numItems: Int, random: Random): List<List<Int>> {
        val lists = List(numUsers + numItems) { mutableListOf<Int>() }
        for (user in 0 until numUsers) {
            for (item in numUsers until numUsers + numItems) {
                if (random.nextBoolean()) {
                    lists[user].add(item)
                    lists[item].add(user)
                }
            }
        }
        return lists
    }

    private fun csr(lists: List<List<Int>>): Graph {
        val ends = lists.runningFold(0) { end, list -> end + list.size }
        val rows = lists.flatten().toIntArray()
        return Graph(IntBuffer.wrap(ends.toIntArray()), IntBuffer.wrap(rows))
    }

    private class Lists(size: Int) {
        val slots: IntBuffer = IntBuffer.allocate(size)
        val weights: FloatBuffer = FloatBuffer.allocate(size)
        val both = SlotLists(slots, weights)
    }

    @Test
    fun `lists and their transposes hold the same edges, and all where there is room`() {
        val random = Random(3)
        repeat(100) { round ->
            val lists = graph(2 + random.nextInt(6), 2 + random.nextInt(6), random)
            val width = 1 + random.nextInt(7)
            val given = 1 + random.nextInt(6)
            val slots = given + random.nextInt(30)
            val tile = TileRows(slots)
            val rowOf = tile.rowOf
            for (slot in rowOf.indices) rowOf[slot] = random.nextInt(lists.size + 1) - 1
            val batch = rowOf.take(given)
            val (forward, backward) = List(2) { Lists(slots * width) }
            val neighbourhood = Neighbourhood(csr(lists), 1, Draws.NEIGHBOURS, slots, width)
            repeat(2) {
                // the second draw has nothing left of the first
                neighbourhood.draw(round + it, tile, given)
                neighbourhood.write(forward.both, backward.both)
            }
            assertEquals(batch, rowOf.take(given))
            val leaders = rowOf.map { if (it < 0) -1 else rowOf.indexOf(it) }
            assertEquals(leaders, tile.leaderOf.toList())
            val edges = edges(forward, width)
            assertEquals(edges, edges(backward, width).map { (a, b, w) -> Triple(b, a, w) }.toSet())
            for ((slot, of) in edges.groupBy { it.first }) {
                val row = rowOf[slot]
                assertTrue(lists[row].containsAll(of.map { rowOf[it.second] }))
                assertEquals(of.size, of.map { rowOf[it.second] }.toSet().size)
                for ((_, other, weight) in of) {
                    val degree = lists[row].size.toDouble()
                    val own = 1 / sqrt(degree)
                    val others = 1 / sqrt(lists[rowOf[other]].size.toDouble())
                    assertEquals((own * (degree / of.size) * others).toFloat(), weight)
                }
            }
            val full = rowOf.last() >= 0
            for (slot in rowOf.indices) {
                val degree = if (rowOf[slot] < 0) 0 else lists[rowOf[slot]].size
                val count = edges.count { it.first == slot }
                val most = minOf(width, degree)
                if (full) assertTrue(count <= most) else assertEquals(most, count)
            }
        }
    }

    /** (slot, the slot in its list, the weight); an unused place has weight 0. */
    private fun edges(lists: Lists, width: Int): Set<Triple<Int, Int, Float>> =
        (0 until lists.slots.capacity()).filter { lists.weights.get(it) != 0f }
            .map { Triple(it / width, lists.slots.get(it), lists.weights.get(it)) }
            .toSet()

    @Test
    fun `drawing allocates nothing`() {
        val lists = graph(20, 30, Random(1))
        val tile = TileRows(200)
        for (slot in 0 until 30) tile.rowOf[slot] = slot
        val neighbourhood = Neighbourhood(csr(lists), 1, Draws.NEIGHBOURS, 200, 5)
        val threads = ManagementFactory.getThreadMXBean() as ThreadMXBean
        fun allocated() = threads.getThreadAllocatedBytes(Thread.currentThread().id)
        for (step in 0 until 2000) neighbourhood.draw(step, tile, 30)
        val before = allocated()
        for (step in 0 until 1000) neighbourhood.draw(step, tile, 30)
        assertTrue(allocated() - before < 1000)
    }
}
