package org.sparserec.harness

/**
 * Keeps the smallest of many keys, and of equal keys the first: what sorting all of them would put
 * at the front, in memory for a few times as many as are wanted.
 *
 * ```
 * smallest.beginGuess(wanted, part)
 * for (... one in part ...) smallest.offer(key, name)
 * smallest.endGuess()
 * smallest.begin(wanted)
 * do { for (...) smallest.offer(key, name) } while (!smallest.finish())
 * ```
 *
 * After a guess it looks only at keys below what the limit will be, going by a part of them. Where
 * that gives too few, [finish] asks for everything once more; what is kept does not depend on it.
 */
class Smallest {
    private var wanted = 0
    private var guess = LARGEST
    private var keys = IntArray(0)
    private var names = IntArray(0)
    private var kept = 0
    private var scratch = IntArray(0)
    private val histogram = IntArray(BUCKETS)

    /** A key that is not below this is not among the smallest. */
    var limit = LARGEST
        private set

    /** How many are kept; after [finish] no more than wanted. */
    val count: Int get() = kept

    /** The name of one of those kept, in the order in which they were offered. */
    fun name(k: Int): Int = names[k]

    /** Begins a guess at the limit of [wanted] keys by one in [part] of them, to be offered now. */
    fun beginGuess(wanted: Int, part: Int) {
        val few = wanted / part
        begin(few + few / MARGIN + LEAST_MARGIN)
    }

    fun endGuess() {
        finish()
        guess = if (kept < wanted) LARGEST else limit
    }

    /** Begins anew: the [wanted] smallest keys are to be kept. */
    fun begin(wanted: Int) {
        this.wanted = wanted
        kept = 0
        limit = if (wanted == 0) 0 else guess
        val room = maxOf(LEAST_ROOM, ROOM_PER_WANTED * wanted)
        if (keys.size < room) {
            keys = IntArray(room)
            names = IntArray(room)
            scratch = IntArray(room)
        }
    }

    /** Offers a [key] that is not negative and is called [name]. */
    fun offer(key: Int, name: Int) {
        if (key >= limit) return
        keys[kept] = key
        names[kept++] = name
        if (kept == keys.size) prune()
    }

    /**
     * Offers the first [size] of [from], called [name], `name + 1` and so on; returns how many are
     * below the limit. No branch depends on a key, so this is the quicker way if many of them are.
     */
    fun offer(from: IntArray, size: Int, name: Int): Int {
        if (kept + size >= keys.size) prune()
        val before = kept
        var to = before
        for (k in 0 until size) {
            keys[to] = from[k]
            names[to] = name + k
            to += from[k] - limit ushr Int.SIZE_BITS - 1 // 1 if below
        }
        kept = to
        return to - before
    }

    /** Of the last [size] that were kept, forgets the largest, of equal ones the last. */
    fun forgetLargest(size: Int) {
        var largest = kept - 1
        for (k in kept - 2 downTo kept - size) if (keys[k] > keys[largest]) largest = k
        kept--
        for (k in largest until kept) {
            keys[k] = keys[k + 1]
            names[k] = names[k + 1]
        }
    }

    /** Whether it is done; otherwise every key is to be offered again. */
    fun finish(): Boolean {
        val guessed = guess < LARGEST
        guess = LARGEST
        if (kept < wanted && guessed) {
            kept = 0
            limit = LARGEST
            return false
        }
        if (kept > wanted) prune()
        return true
    }

    /** Leaves the [wanted] smallest, in order. */
    private fun prune() {
        limit = smallest(wanted)
        var below = 0
        for (k in 0 until kept) below += keys[k] - limit ushr Int.SIZE_BITS - 1
        var ties = wanted - below
        var to = 0
        for (k in 0 until kept) {
            val key = keys[k]
            keys[to] = key
            names[to] = names[k]
            to += when {
                key == limit -> if (ties-- > 0) 1 else 0 // rare; below the limit is half of them
                else -> key - limit ushr Int.SIZE_BITS - 1
            }
        }
        kept = to
    }

    /** The key that is [rank]-th of those kept, from 1: by counting, in ever narrower ranges. */
    private fun smallest(rank: Int): Int {
        keys.copyInto(scratch, 0, 0, kept)
        var size = kept
        var left = rank
        while (true) {
            var least = scratch[0]
            var most = scratch[0]
            for (k in 1 until size) {
                least = minOf(least, scratch[k])
                most = maxOf(most, scratch[k])
            }
            if (least == most) return least
            val bits = Int.SIZE_BITS - (most - least).countLeadingZeroBits()
            val shift = maxOf(0, bits - DIGIT)
            histogram.fill(0)
            for (k in 0 until size) histogram[scratch[k] - least ushr shift]++
            var bucket = 0
            while (histogram[bucket] < left) left -= histogram[bucket++]
            var to = 0
            for (k in 0 until size) {
                if (scratch[k] - least ushr shift == bucket) scratch[to++] = scratch[k]
            }
            size = to
        }
    }

    companion object {
        /** Above every key that is ever kept. */
        const val LARGEST = Int.MAX_VALUE - 1

        /** A guess is for so many more, as a part and at least. */
        private const val MARGIN = 8
        private const val LEAST_MARGIN = 64

        private const val DIGIT = 11
        private const val BUCKETS = 1 shl DIGIT
        private const val ROOM_PER_WANTED = 3
        private const val LEAST_ROOM = 1024
    }
}
