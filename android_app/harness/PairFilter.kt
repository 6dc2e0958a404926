package org.sparserec.harness

/**
 * Says of most pairs of user and item, with one access to memory, that they are in none of [sets];
 * of the others, one in twenty or so by mistake, that they may be (Bloom, CACM 1970; here both bits
 * of a pair are in one word). About two bytes a pair.
 */
class PairFilter(vararg sets: UserItems) {
    private val words: LongArray
    private val shift: Int

    init {
        val pairs = sets.sumOf { it.size.toLong() }
        val wanted = (pairs * BITS_PER_PAIR / Long.SIZE_BITS).coerceIn(1, MAX_WORDS)
        words = LongArray(wanted.takeHighestOneBit().toInt() * 2)
        shift = Long.SIZE_BITS - words.size.countTrailingZeroBits()
        for (set in sets) {
            for (user in 0 until set.numUsers) {
                for (place in set.start(user) until set.end(user)) add(user, set.item(place))
            }
        }
    }

    fun mayHave(user: Int, item: Int): Boolean {
        val hash = hash(user, item)
        return words[(hash ushr shift).toInt()].inv() and bits(hash) == 0L
    }

    private fun add(user: Int, item: Int) {
        val hash = hash(user, item)
        val word = (hash ushr shift).toInt()
        words[word] = words[word] or bits(hash)
    }

    private fun hash(user: Int, item: Int): Long = Draws.draw(user.toLong(), item.toLong())

    /** Shifts of a Long look at six bits. */
    private fun bits(hash: Long): Long = (1L shl hash.toInt()) or (1L shl (hash ushr 6).toInt())

    private companion object {
        const val BITS_PER_PAIR = 8
        const val MAX_WORDS = 1L shl 27
    }
}
