package org.sparserec.harness

/**
 * The items that may be users' best where scores are inner products of rows: those with the
 * largest products over packed entries. No row is made dense, and nothing grows with the catalogue.
 *
 * Nine in ten of the items' entries meet a zero of a user's row. So the items are read in blocks,
 * once for many users, and a block is ordered by columns: a user passes over its own columns alone.
 * One user's scores are summed row by row instead.
 *
 * The program's scores decide among the candidates; both sums have the same terms in the same
 * precision, and there are several times more candidates than places.
 *
 * @param most users at once, at most
 * @param count of a user's candidates at most
 */
class Candidates(
    private val manifest: Manifest,
    private val table: PackedTable,
    private val interactions: Interactions,
    most: Int,
    count: Int,
) {
    private val found = Array(most) { TopList(count) }
    private val users = Array(most) { Rows(1, table.dim) }
    private val items = Rows(ITEMS, table.dim)

    /** The block's entries by column: those of column c are `[c * PITCH, ends[c])`. */
    private val places = IntArray(if (most > 1) table.dim * PITCH else 0)
    private val values = FloatArray(places.size)
    private val ends = IntArray(table.dim)

    /** One user's row, dense. */
    private val query = FloatArray(table.dim)

    /** Of each user: the next of its items in the past and in the log. */
    private val nextSeen = IntArray(most)
    private val nextLogged = IntArray(most)

    /** Of the block's items, for one user. */
    private val scores = FloatArray(ITEMS)

    /** Finds the candidates of [some] of the users in [of] from [first] on. */
    fun find(of: IntArray, first: Int, some: Int) {
        for (k in 0 until some) {
            found[k].clear()
            val user = of[first + k]
            users[k].read(table, user, 1)
            nextSeen[k] = interactions.seen.start(user)
            nextLogged[k] = interactions.log.start(user)
        }
        val alone = some == 1
        if (alone) unpack(users[0])
        var item = 0
        while (item < manifest.knownItems) {
            val size = minOf(ITEMS, manifest.knownItems - item)
            items.read(table, manifest.numUsers + item, size)
            if (alone) scoreByRow() else orderByColumn()
            for (k in 0 until some) {
                if (!alone) scoreByColumn(users[k])
                nextSeen[k] = hide(interactions.seen, of[first + k], nextSeen[k], item)
                nextLogged[k] = hide(interactions.log, of[first + k], nextLogged[k], item)
                offer(found[k], item)
            }
            item += size
        }
    }

    /** Puts the candidates of the [k]-th of the users, ascending, into [to]; returns their number. */
    fun copy(k: Int, to: IntArray): Int {
        found[k].copySorted(to)
        return found[k].size
    }

    private fun orderByColumn() {
        for (col in ends.indices) ends[col] = col * PITCH
        for (place in 0 until items.size) {
            for (entry in items.ptr[place] until items.ptr[place + 1]) {
                val to = ends[items.col(entry)]++
                places[to] = place
                values[to] = items.values[entry]
            }
        }
    }

    /** Scores the block's items for [user]; each sum is over ascending columns. */
    private fun scoreByColumn(user: Rows) {
        scores.fill(0f)
        for (entry in 0 until user.ptr[1]) {
            val col = user.col(entry)
            val value = user.values[entry]
            for (at in col * PITCH until ends[col]) scores[places[at]] += values[at] * value
        }
    }

    private fun unpack(user: Rows) {
        query.fill(0f)
        for (entry in 0 until user.ptr[1]) query[user.col(entry)] = user.values[entry]
    }

    /** The same sums for [query], and zeros in between: quicker than to order a block for one user. */
    private fun scoreByRow() {
        for (place in 0 until items.size) {
            var sum = 0f
            for (entry in items.ptr[place] until items.ptr[place + 1]) {
                sum += items.values[entry] * query[items.col(entry)]
            }
            scores[place] = sum
        }
    }

    /**
     * Rules out what [user] has in [past], from the place [next] on, of the block's items, the first
     * of which is [first]; returns the place of the item after them.
     */
    private fun hide(past: UserItems, user: Int, next: Int, first: Int): Int {
        var place = next
        while (place < past.end(user) && past.item(place) < first + items.size) {
            scores[past.item(place++) - first] = Float.NEGATIVE_INFINITY
        }
        return place
    }

    /** Offers the block's items, the first of which is [first], to [list]. */
    private fun offer(list: TopList, first: Int) {
        var least = list.least
        for (place in 0 until items.size) {
            if (scores[place] > least) {
                list.add(scores[place], first + place)
                least = list.least
            }
        }
    }

    /** The entries of up to [most] rows of the table, one row after the other. */
    private class Rows(most: Int, dim: Int) {
        val ptr = IntArray(most + 1)
        private val cols = ByteArray(most * dim)
        val values = FloatArray(most * dim)

        /** Rows that are here. */
        var size = 0
            private set

        fun col(entry: Int): Int = cols[entry].toInt() and BYTE

        fun read(table: PackedTable, first: Int, count: Int) {
            table.readRows(first, count, ptr, cols, values)
            size = count
        }
    }

    companion object {
        /** Users for whom a block is read once. */
        const val USERS = 64

        /** Items of a block, whose entries fit into the second cache. */
        private const val ITEMS = 512

        /** Room for a column; no power of two, by which all would share a few places of a cache. */
        private const val PITCH = ITEMS + 16
        private const val BYTE = 0xff
    }
}
