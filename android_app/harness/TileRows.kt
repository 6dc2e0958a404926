package org.sparserec.harness

/**
 * The rows of a tile, one in each of its T slots. Of the slots with the same row, the first leads.
 * Nothing is allocated after the constructor.
 */
class TileRows(val slots: Int) {
    /** (T,) the table's row in each slot, -1 for padding. */
    val rowOf = IntArray(slots) { -1 }

    /** (T,) the slot that leads each slot, itself perhaps; -1 for padding. */
    val leaderOf = IntArray(slots) { -1 }

    private val leaders = RowMap(slots)

    /** Finds the leaders of the first [given] slots, whose rows the caller has set; pads the rest. */
    fun lead(given: Int) {
        leaders.clear()
        for (slot in 0 until given) leaderOf[slot] = leader(slot, rowOf[slot])
        pad(given)
    }

    private fun leader(slot: Int, row: Int): Int {
        if (row < 0) return -1
        val place = leaders.find(row)
        val leader = leaders.number(place)
        if (leader >= 0) return leader
        leaders.put(place, row, slot)
        return slot
    }

    /** The slot that leads those of [row], or -1. */
    fun leader(row: Int): Int = leaders.number(leaders.find(row))

    /** Puts [row] into [slot], the first behind those that are set; its [leader] is as above. */
    fun add(slot: Int, row: Int, leader: Int) {
        rowOf[slot] = row
        leaderOf[slot] = if (leader < 0) slot else leader
        if (leader < 0) leaders.put(leaders.find(row), row, slot)
    }

    /** Makes all slots from [used] on padding. */
    fun pad(used: Int) {
        rowOf.fill(-1, used, slots)
        leaderOf.fill(-1, used, slots)
    }
}
