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

    /** What the caller fills, leaders and all. */
    val tile = TileRows(slots)
    private val rowOf = tile.rowOf

    /** (T,) the number of each slot's row, -1 for padding. */
    private val numberOf = IntArray(slots)

    /** The slots whose row has come before, ascending. */
    private val repeats = IntArray(slots)
    private var numRepeats = 0

    /** Distinct rows, which have the numbers `[0, numRows)`. */
    var numRows = 0
        private set

    /** Of each distinct row: its first slot, its entries in the table, its place in S or -1. */
    val firstSlot = IntArray(slots)
    private val start = IntArray(slots)
    private val end = IntArray(slots)
    val sampledPlace = IntArray(slots)

    /** The numbers of the rows in S are the first [numSampled] of [sampledNumbers]. */
    val sampledNumbers = IntArray(slots)
    var numSampled = 0
        private set

    /** Packed entries: those of row k begin at [firstEntry]`[k]`. */
    var numEntries = 0
        private set
    private val firstEntry = IntArray(slots)

    /**
     * Of each packed entry: its place in the table, in the tile (in the row's first slot), and its
     * value. There is room for a few more.
     */
    private var entries = IntArray(0)
    var places = IntArray(0)
        private set
    var values = FloatArray(0)
        private set

    /** The same for each of the optimizer's numbers. */
    private val stateBuffers = states.toTypedArray()
    val states = Array(states.size) { FloatArray(0) }

    /** A few lines of the tile, few enough for the innermost cache. */
    private val zeros = FloatArray(LINES * dim)
    private val sampledFlags = FloatArray(slots)

    /** Keeps the accesses that only warm a cache from being left out. */
    private var touched = 0

    /** Gathers the rows of [tile] into the program's inputs and into the packed entries. */
    fun gather(sampled: SampledRows) {
        number()
        locate(sampled)
        makeRoom()
        pack()
        fillTile()
        flagSampled()
    }

    /** Adds the lines of [gradients] (T, d) of a row in the row's first slot, in slot order. */
    fun sumSlots(gradients: FloatArray) {
        for (k in 0 until numRepeats) {
            val to = firstSlot[numberOf[repeats[k]]] * dim
            val from = repeats[k] * dim
            for (col in 0 until dim) gradients[to + col] += gradients[from + col]
        }
    }

    /** Numbers the distinct rows. */
    private fun number() {
        numRows = 0
        numRepeats = 0
        for (slot in 0 until slots) {
            val leader = tile.leaderOf[slot]
            numberOf[slot] = when (leader) {
                -1 -> -1
                slot -> numRows
                else -> numberOf[leader]
            }
            if (leader == slot) {
                firstSlot[numRows++] = slot
            } else if (leader >= 0) {
                repeats[numRepeats++] = slot
            }
        }
    }

    /**
     * Finds the rows in the table and in S, and touches their entries. No branch depends on what is
     * read, so that the accesses to many rows are under way at once: a big table is in no cache.
     */
    private fun locate(sampled: SampledRows) {
        for (k in 0 until numRows) {
            val row = rowOf[firstSlot[k]]
            start[k] = table.start(row)
            end[k] = table.end(row)
            sampledPlace[k] = sampled.place(row)
        }
        for (k in 0 until numRows) touched += table.touch(start[k], end[k])
        numEntries = 0
        var inS = 0
        for (k in 0 until numRows) {
            firstEntry[k] = numEntries
            numEntries += end[k] - start[k]
            sampledNumbers[inS] = k
            inS += 1 + (sampledPlace[k] shr SIGN)
        }
        numSampled = inS
    }

    private fun makeRoom() {
        if (numEntries + NAMED_AT_ONCE <= values.size) return
        val room = numEntries + numEntries / SPARE + NAMED_AT_ONCE
        entries = IntArray(room)
        places = IntArray(room)
        values = FloatArray(room)
        for (state in states.indices) states[state] = FloatArray(room)
    }

    /** Reads the rows' entries, all of them by one loop: a row has so few that its own would cost. */
    private fun pack() {
        for (k in 0 until numRows) {
            name(start[k], end[k] - start[k], firstSlot[k] * dim, firstEntry[k])
        }
        table.addCols(entries, numEntries, places)
        if (table.precision == Precision.INT8) {
            for (k in 0 until numRows) {
                val row = rowOf[firstSlot[k]]
                table.read(row, start[k], end[k] - start[k], values, firstEntry[k])
            }
        } else {
            table.gather(entries, numEntries, values)
        }
        for (n in states.indices) {
            val buffer = stateBuffers[n]
            val numbers = states[n]
            for (k in 0 until numEntries) numbers[k] = buffer.get(entries[k])
        }
    }

    /**
     * Names a row's entries, [size] from [from] on, whose line begins at [line]; several at a time,
     * beyond its end: no processor foretells where a loop over a few of them ends.
     */
    private fun name(from: Int, size: Int, line: Int, to: Int) {
        var k = 0
        while (k < size) {
            for (j in 0 until NAMED_AT_ONCE) {
                entries[to + k + j] = from + k + j
                places[to + k + j] = line
            }
            k += NAMED_AT_ONCE
        }
    }

    /** Writes the entries into the table; what is rounded is rounded by draws of [noise]. */
    fun writeBack(noise: Long) {
        if (table.precision == Precision.INT8) {
            for (k in 0 until numRows) {
                val row = rowOf[firstSlot[k]]
                table.write(row, start[k], end[k] - start[k], values, firstEntry[k], noise)
            }
        } else {
            table.scatter(entries, numEntries, values)
        }
        for (n in states.indices) {
            val buffer = stateBuffers[n]
            val numbers = states[n]
            for (k in 0 until numEntries) buffer.put(entries[k], numbers[k])
        }
    }

    /** Writes the program's inputs, a few lines at a time. */
    private fun fillTile() {
        program.rows.rewind()
        program.mask.rewind()
        var first = 0
        var number = 0
        var repeat = 0
        while (first < slots) {
            val last = minOf(first + LINES, slots)
            program.rows.put(zeros, 0, (last - first) * dim)
            program.mask.put(zeros, 0, (last - first) * dim)
            val from = entriesBefore(number)
            while (number < numRows && firstSlot[number] < last) number++
            fill(from, entriesBefore(number), 0)
            while (repeat < numRepeats && repeats[repeat] < last) {
                val slot = repeats[repeat++]
                val of = numberOf[slot]
                fill(firstEntry[of], entriesBefore(of + 1), (slot - firstSlot[of]) * dim)
            }
            first = last
        }
    }

    /** Packed entries of the rows before [number]. */
    private fun entriesBefore(number: Int): Int =
        if (number < numRows) firstEntry[number] else numEntries

    /** Writes packed entries [shift] away from their places. */
    private fun fill(first: Int, end: Int, shift: Int) {
        val rows = program.rows
        val mask = program.mask
        for (entry in first until end) {
            val place = places[entry] + shift
            rows.put(place, values[entry])
            mask.put(place, 1f)
        }
    }

    private fun flagSampled() {
        for (slot in 0 until slots) {
            val number = numberOf[slot]
            val place = if (number < 0) -1 else sampledPlace[number]
            // No branch depends on S, which would be foretold wrong.
            sampledFlags[slot] = (1 + (place shr SIGN)).toFloat()
        }
        program.sampled.rewind()
        program.sampled.put(sampledFlags)
    }

    private companion object {
        /** Slots whose lines are made together. */
        const val LINES = 16

        /** Entries named together: most rows have no more. */
        const val NAMED_AT_ONCE = 8

        /** Shifts an Int to -1 where it is negative, else to 0. */
        const val SIGN = Int.SIZE_BITS - 1

        /** A part of the entries is left for a batch with more. */
        const val SPARE = 4
    }
}
