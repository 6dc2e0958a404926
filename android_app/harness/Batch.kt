package org.sparserec.harness

import java.nio.FloatBuffer

/**
 * The rows of one batch, once dense in a tile and once packed: docs/formats.md section 2.
 *
 * A tile's line is a slot; the first slot with a row leads the others with the same row. Packed are
 * the active entries of the distinct rows, in the order of their first slots.
 *
 * @param states the optimizer's numbers of each of the table's entries
 */
class Batch(
    private val program: StepProgram,
    private val table: PackedTable,
    states: List<FloatBuffer> = emptyList(),
) {
    private val dim = table.dim
    private val slots = program.slots

    /** (T,) the table's row in each slot, -1 for padding. */
    val rowOf = IntArray(slots) { -1 }

    /** (T,) the number of each slot's row, -1 for padding. */
    private val numberOf = IntArray(slots)

    /** Distinct rows, which have the numbers `[0, numRows)`. */
    var numRows = 0
        private set

    /** Of each distinct row: its first slot, its entries in the table, its place in S or -1. */
    val firstSlot = IntArray(slots)
    val start = IntArray(slots)
    val size = IntArray(slots)
    val sampledPlace = IntArray(slots)

    /** The numbers of the rows in S are the first [numSampled] of [sampledNumbers]. */
    val sampledNumbers = IntArray(slots)
    var numSampled = 0
        private set

    /** Packed entries: those of row k begin at [firstEntry]`[k]`. */
    var numEntries = 0
        private set
    private val firstEntry = IntArray(slots)

    /** Of each packed entry: its place in the tile, in the row's first slot, and its value. */
    var places = IntArray(0)
        private set
    var values = FloatArray(0)
        private set

    /** The same for each of the optimizer's numbers. */
    private val stateBuffers = states.toTypedArray()
    val states = Array(states.size) { FloatArray(0) }

    /** A few lines of the tile, small enough for the innermost cache. */
    private val rows = FloatArray(LINES * dim)
    private val mask = FloatArray(LINES * dim)
    private val sampledFlags = FloatArray(slots)

    /** Keeps the accesses that only warm a cache from being left out. */
    private var touched = 0

    private val numbers = RowMap(slots)

    /** Gathers the rows in [rowOf] into the program's inputs and into the packed entries. */
    fun gather(sampled: SampledRows) {
        number()
        locate(sampled)
        makeRoom()
        fillTile()
        flagSampled()
    }

    /** Adds the lines of [gradients] (T, d) of a row in the row's first slot, in slot order. */
    fun sumSlots(gradients: FloatArray) {
        for (slot in 0 until slots) {
            val number = numberOf[slot]
            if (number < 0 || firstSlot[number] == slot) continue
            val to = firstSlot[number] * dim
            val from = slot * dim
            for (col in 0 until dim) gradients[to + col] += gradients[from + col]
        }
    }

    /** Numbers the distinct rows. */
    private fun number() {
        numbers.clear()
        numRows = 0
        for (slot in 0 until slots) numberOf[slot] = if (rowOf[slot] < 0) -1 else numberAt(slot)
    }

    private fun numberAt(slot: Int): Int {
        val row = rowOf[slot]
        val place = numbers.find(row)
        val number = numbers.number(place)
        if (number >= 0) return number
        numbers.put(place, row, numRows)
        firstSlot[numRows] = slot
        return numRows++
    }

    /**
     * Finds the rows in the table and in S, and touches their entries. No branch depends on what is
     * read, so that the accesses to many rows are under way at once: a big table is in no cache.
     */
    private fun locate(sampled: SampledRows) {
        var entries = 0
        var inS = 0
        for (k in 0 until numRows) {
            val row = rowOf[firstSlot[k]]
            val from = table.start(row)
            start[k] = from
            size[k] = table.end(row) - from
            firstEntry[k] = entries
            entries += size[k]
            sampledPlace[k] = sampled.place(row)
            sampledNumbers[inS] = k
            inS += sampledPlace[k] ushr Int.SIZE_BITS - 1 xor 1
        }
        numEntries = entries
        numSampled = inS
        touchEntries()
    }

    /** Has the rows' entries brought near: before they are read, and again before they change. */
    private fun touchEntries() {
        val last = table.nnz - 1
        for (k in 0 until numRows) touched += table.touch(minOf(start[k], last))
    }

    private fun makeRoom() {
        if (numEntries <= values.size) return
        val room = minOf(numEntries + numEntries / SPARE, slots * dim)
        places = IntArray(room)
        values = FloatArray(room)
        for (state in states.indices) states[state] = FloatArray(room)
    }

    /** Writes the entries into the table; what is rounded is rounded by draws of [noise]. */
    fun writeBack(noise: Long) {
        touchEntries()
        for (k in 0 until numRows) {
            val to = start[k]
            val from = firstEntry[k]
            table.write(rowOf[firstSlot[k]], to, size[k], values, from, noise)
            for (state in states.indices) {
                for (j in 0 until size[k]) {
                    stateBuffers[state].put(to + j, states[state][from + j])
                }
            }
        }
    }

    /** Reads the rows' entries and writes them into the program's inputs, a few lines at a time. */
    private fun fillTile() {
        program.rows.rewind()
        program.mask.rewind()
        var first = 0
        while (first < slots) {
            val lines = minOf(LINES, slots - first)
            rows.fill(0f)
            mask.fill(0f)
            for (slot in first until first + lines) {
                val number = numberOf[slot]
                if (number < 0) continue
                if (firstSlot[number] == slot) read(number)
                fillLine(number, (slot - first - firstSlot[number]) * dim)
            }
            program.rows.put(rows, 0, lines * dim)
            program.mask.put(mask, 0, lines * dim)
            first += lines
        }
    }

    /** Reads the entries of row [k]. */
    private fun read(k: Int) {
        val from = start[k]
        val to = firstEntry[k]
        val line = firstSlot[k] * dim
        table.read(rowOf[firstSlot[k]], from, size[k], values, to)
        for (j in 0 until size[k]) places[to + j] = line + table.col(from + j)
        for (state in states.indices) {
            val numbers = states[state]
            for (j in 0 until size[k]) numbers[to + j] = stateBuffers[state].get(from + j)
        }
    }

    /** Writes row [k] into the lines under way, [shift] away from its places in the tile. */
    private fun fillLine(k: Int, shift: Int) {
        for (entry in firstEntry[k] until firstEntry[k] + size[k]) {
            rows[places[entry] + shift] = values[entry]
            mask[places[entry] + shift] = 1f
        }
    }

    private fun flagSampled() {
        for (slot in 0 until slots) {
            val number = numberOf[slot]
            sampledFlags[slot] = if (number >= 0 && sampledPlace[number] >= 0) 1f else 0f
        }
        program.sampled.rewind()
        program.sampled.put(sampledFlags)
    }

    private companion object {
        /** Slots whose lines are made together. */
        const val LINES = 16

        /** A part of the entries is left for a batch with more. */
        const val SPARE = 4
    }
}
