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
        var slot = 0
        while (slot < size) {
            if (rowOf[slot] >= 0) expand(slot, rowOf, base)
            slot++
        }
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

    private fun expand(slot: Int, rowOf: IntArray, base: Long) {
        val row = rowOf[slot]
        val degree = graph.degree(row)
        val all = degree <= width
        for (k in 0 until minOf(degree, width)) {
            val index = when {
                all -> k
                else -> Draws.bounded(Draws.draw(base, slot.toLong() * width + k), degree)
            }
            val other = graph.neighbour(row, index)
            if (all || !isNeighbour(slot, other, rowOf)) connect(slot, other, rowOf)
        }
        weigh(slot, degree, rowOf)
    }

    private fun isNeighbour(slot: Int, row: Int, rowOf: IntArray): Boolean {
        for (k in 0 until neighbourCounts[slot]) {
            if (rowOf[neighbours[slot * width + k]] == row) return true
        }
        return false
    }

    /** Makes [slot] a reader of [row]'s slot, a new one where there is none or its list is full. */
    private fun connect(slot: Int, row: Int, rowOf: IntArray) {
        val place = open.find(row)
        var other = open.number(place)
        if (other < 0 || readerCounts[other] == width) {
            if (size == numSlots) return
            other = size++
            rowOf[other] = row
            open.put(place, row, other)
        }
        neighbours[slot * width + neighbourCounts[slot]++] = other
        readers[other * width + readerCounts[other]++] = slot
    }

    /** Weighs the edges of [slot], so that their sum estimates that over all [degree] of them. */
    private fun weigh(slot: Int, degree: Int, rowOf: IntArray) {
        val count = neighbourCounts[slot]
        for (k in slot * width until slot * width + count) {
            val other = neighbours[k]
            val ratio = degree.toDouble() / graph.degree(rowOf[other])
            val weight = (sqrt(ratio) / count).toFloat()
            neighbourWeights[k] = weight
            readerWeights[other * width + readerCounts[other] - 1] = weight
        }
    }
}
