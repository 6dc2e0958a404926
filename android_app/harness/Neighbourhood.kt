package org.sparserec.harness

import java.nio.FloatBuffer
import java.nio.IntBuffer
import kotlin.math.sqrt

/** Inputs of a program that hold, for each slot, a list of slots and one of weights: (T, F) each. */
class SlotLists(val slots: IntBuffer, val weights: FloatBuffer)

/**
 * The sampled neighbourhood of the rows in a tile: docs/formats.md section 2.3.
 *
 * Both lists of an edge are filled together, so that the backward pass gathers as the forward pass
 * does. Nothing is allocated after the constructor.
 *
 * @param numSlots T, slots of the tile
 * @param width F, most neighbours of a slot
 */
class Neighbourhood(
    private val graph: Graph,
    private val seed: Long,
    private val stream: Int,
    private val numSlots: Int,
    private val width: Int,
) {
    private val neighbours = IntArray(numSlots * width)
    private val neighbourWeights = FloatArray(numSlots * width)
    private val neighbourCounts = IntArray(numSlots)
    private val readers = IntArray(numSlots * width)
    private val readerWeights = FloatArray(numSlots * width)
    private val readerCounts = IntArray(numSlots)

    /** Of each edge: its place among [neighbours] and among [readers]. */
    private val neighbourPlaces = IntArray(numSlots * width)
    private val readerPlaces = IntArray(numSlots * width)
    private var numEdges = 0

    /** Of each slot: where its row's list begins, how long it is, and one over the root of that. */
    private val starts = IntArray(numSlots)
    private val degrees = DoubleArray(numSlots)
    private val inverses = DoubleArray(numSlots)

    /** Of each slot: a draw from [0, 1), and the length of a part of its row's list. */
    private val chances = DoubleArray(numSlots)
    private val parts = DoubleArray(numSlots)

    /** (F, T) the rows that slots ask for, -1 where a slot asks for fewer. */
    private val asked = Array(width) { IntArray(numSlots) }

    /** Of each slot that leads: the last with its row, which takes readers while it has room. */
    private val open = IntArray(numSlots)
    private var size = 0

    /** Once there is room for no more: 1 at the last bits of each row that has a slot. */
    private val marks = ByteArray((MARKS * numSlots).takeHighestOneBit())
    private val sifted = IntArray(numSlots)

    /**
     * Draws for [step] the neighbours of the first [given] rows of [tile], of their neighbours, and
     * so on while there are slots; they are written behind the given rows.
     */
    fun draw(step: Int, tile: TileRows, given: Int) {
        clear()
        size = given
        tile.lead(given)
        for (slot in 0 until given) open[slot] = slot
        val base = Draws.base(seed, stream, step)
        var first = 0
        var marked = false
        while (first < size) {
            val end = size
            aim(first, end, tile.rowOf, base)
            // By turns, for there is rarely room for all.
            for (k in 0 until width) {
                if (size < numSlots) {
                    for (slot in first until end) connect(slot, asked[k][slot], tile)
                } else {
                    if (!marked) mark(tile.rowOf)
                    marked = true
                    connectInside(first, end, asked[k], tile)
                }
            }
            first = end
        }
        weigh()
    }

    /** Writes a program's inputs; [backward] where it has them. */
    fun write(forward: SlotLists, backward: SlotLists?) {
        put(forward, neighbours, neighbourWeights)
        if (backward != null) put(backward, readers, readerWeights)
    }

    private fun put(to: SlotLists, slots: IntArray, weights: FloatArray) {
        to.slots.rewind()
        to.slots.put(slots)
        to.weights.rewind()
        to.weights.put(weights)
    }

    private fun clear() {
        neighbours.fill(0)
        neighbourWeights.fill(0f)
        neighbourCounts.fill(0)
        readers.fill(0)
        readerWeights.fill(0f)
        readerCounts.fill(0)
        numEdges = 0
    }

    /**
     * Draws the rows that the slots from [first] to [end] ask for: one in each of equal parts of a
     * row's list, by a single draw (systematic sampling), so that each is as likely as any other
     * and none comes twice. Parts of one are all of the list.
     *
     * All slots do one thing before any does the next: accesses to memory that nothing waits for
     * run side by side.
     */
    private fun aim(first: Int, end: Int, rowOf: IntArray, base: Long) {
        for (slot in first until end) {
            val row = rowOf[slot]
            starts[slot] = if (row < 0) 0 else graph.start(row)
            degrees[slot] = if (row < 0) 0.0 else graph.degree(row).toDouble()
        }
        for (slot in first until end) {
            chances[slot] = Draws.unit(Draws.draw(base, slot.toLong()))
            parts[slot] = maxOf(1.0, degrees[slot] / width)
        }
        for (k in 0 until width) {
            val rows = asked[k]
            for (slot in first until end) {
                rows[slot] = if (k < degrees[slot]) {
                    graph.rowAt(starts[slot] + ((chances[slot] + k) * parts[slot]).toInt())
                } else {
                    -1
                }
            }
        }
    }

    /** Makes [slot] a reader of [row]'s slot, a new one where there is none or its list is full. */
    private fun connect(slot: Int, row: Int, tile: TileRows) {
        if (row < 0) return
        val leader = tile.leader(row)
        var other = if (leader < 0) -1 else open[leader]
        if (other < 0 || readerCounts[other] == width) {
            if (size == numSlots) return
            other = size++
            tile.add(other, row, leader)
            open[tile.leaderOf[other]] = other
        }
        val edge = slot * width + neighbourCounts[slot]++
        val reader = other * width + readerCounts[other]++
        neighbours[edge] = other
        readers[reader] = slot
        neighbourPlaces[numEdges] = edge
        readerPlaces[numEdges++] = reader
    }

    private fun mark(rowOf: IntArray) {
        marks.fill(0)
        for (row in rowOf) if (row >= 0) marks[row and marks.size - 1] = 1
    }

    /**
     * Does what [connect] does for each of the slots from [first] to [end], once there is room for
     * no more: most of the [rows] that they ask for have no slot then, and no processor foretells
     * which. So they are sifted first, without a branch.
     */
    private fun connectInside(first: Int, end: Int, rows: IntArray, tile: TileRows) {
        var found = 0
        for (slot in first until end) {
            sifted[found] = slot
            found += marks[rows[slot] and marks.size - 1].toInt()
        }
        for (k in 0 until found) connect(sifted[k], rows[sifted[k]], tile)
    }

    /** Weighs the edges, so that the sum over a slot's estimates that over all of its row's. */
    private fun weigh() {
        for (slot in 0 until size) inverses[slot] = 1 / sqrt(degrees[slot])
        for (k in 0 until numEdges) {
            val edge = neighbourPlaces[k]
            val reader = readerPlaces[k]
            val slot = readers[reader]
            val scale = inverses[slot] * (degrees[slot] / neighbourCounts[slot])
            val weight = (scale * inverses[neighbours[edge]]).toFloat()
            neighbourWeights[edge] = weight
            readerWeights[reader] = weight
        }
    }

    private companion object {
        /** Marks a slot, so that few rows share one with a row that they are not. */
        const val MARKS = 16
    }
}
