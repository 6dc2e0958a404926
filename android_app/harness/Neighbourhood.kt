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

    /** Of each slot: its row's degree, one over its root, and the rows that become its neighbours. */
    private val degrees = IntArray(numSlots)
    private val inverses = DoubleArray(numSlots)
    private val drawn = IntArray(numSlots * width)

    /** Of each edge among [neighbours]: its place among [readers]. */
    private val readerPlaces = IntArray(numSlots * width)

    /** The slot of each row that still takes readers. */
    private val open = RowMap(numSlots)
    private var size = 0

    /**
     * Draws for [step] the neighbours of the first [given] of [rowOf] (T,), of their neighbours,
     * and so on while there are slots; they are written behind the given rows, then -1.
     */
    fun draw(step: Int, rowOf: IntArray, given: Int) {
        clear()
        size = given
        for (slot in 0 until given) {
            val row = rowOf[slot]
            if (row < 0) continue
            val place = open.find(row)
            if (open.number(place) < 0) open.put(place, row, slot)
        }
        val base = Draws.base(seed, stream, step)
        var first = 0
        while (first < size) {
            // All rows are looked up before any is judged, with as little as can be in between:
            // accesses to memory that no branch waits for run side by side.
            val end = size
            for (slot in first until end) aim(slot, rowOf[slot], base)
            for (slot in first until end) look(slot)
            // By turns, for there is rarely room for all.
            for (k in 0 until width) {
                for (slot in first until end) connect(slot, k, rowOf)
            }
            first = end
        }
        for (slot in 0 until size) weigh(slot)
        rowOf.fill(-1, size, numSlots)
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
        open.clear()
        neighbours.fill(0)
        neighbourWeights.fill(0f)
        neighbourCounts.fill(0)
        readers.fill(0)
        readerWeights.fill(0f)
        readerCounts.fill(0)
    }

    /**
     * Draws where in the graph what may become a neighbour of [slot], which has [row], is: one in
     * each of equal parts of the row's list, by a single draw (systematic sampling), so that each
     * is as likely as any other and none comes twice. Parts of one are all of the list.
     */
    private fun aim(slot: Int, row: Int, base: Long) {
        val degree = if (row < 0) 0 else graph.degree(row)
        degrees[slot] = degree
        inverses[slot] = 1 / sqrt(degree.toDouble())
        if (degree == 0) return
        val start = graph.start(row)
        val part = maxOf(1.0, degree.toDouble() / width)
        val chance = Draws.unit(Draws.draw(base, slot.toLong()))
        for (k in 0 until minOf(degree, width)) {
            drawn[slot * width + k] = start + ((chance + k) * part).toInt()
        }
    }

    private fun look(slot: Int) {
        val first = slot * width
        for (place in first until first + minOf(degrees[slot], width)) {
            drawn[place] = graph.rowAt(drawn[place])
        }
    }

    /** Makes [slot] a reader of the [k]-th that was drawn for it, if there are so many. */
    private fun connect(slot: Int, k: Int, rowOf: IntArray) {
        if (k < degrees[slot]) read(slot, drawn[slot * width + k], rowOf)
    }

    /** Makes [slot] a reader of [row]'s slot, a new one where there is none or its list is full. */
    private fun read(slot: Int, row: Int, rowOf: IntArray) {
        val place = open.find(row)
        var other = open.number(place)
        if (other < 0 || readerCounts[other] == width) {
            if (size == numSlots) return
            other = size++
            rowOf[other] = row
            open.put(place, row, other)
        }
        val edge = slot * width + neighbourCounts[slot]++
        val reader = other * width + readerCounts[other]++
        neighbours[edge] = other
        readers[reader] = slot
        readerPlaces[edge] = reader
    }

    /** Weighs the edges of [slot], so that their sum estimates that over all of its row's. */
    private fun weigh(slot: Int) {
        val count = neighbourCounts[slot]
        val scale = inverses[slot] * (degrees[slot].toDouble() / count)
        for (edge in slot * width until slot * width + count) {
            val weight = (scale * inverses[neighbours[edge]]).toFloat()
            neighbourWeights[edge] = weight
            readerWeights[readerPlaces[edge]] = weight
        }
    }
}
