package org.sparserec.harness

import java.nio.IntBuffer
import java.util.Arrays

/** For each user a set of items: user u has `items[ptr[u]] .. items[ptr[u + 1]]`, ascending. */
class UserItems(private val ptr: IntBuffer, private val items: IntBuffer) {
    val numUsers: Int get() = ptr.capacity() - 1

    /** Pairs of user and item. */
    val size: Int get() = items.capacity()

    fun start(user: Int): Int = ptr.get(user)

    fun end(user: Int): Int = ptr.get(user + 1)

    fun item(place: Int): Int = items.get(place)

    fun count(user: Int): Int = end(user) - start(user)

    fun contains(user: Int, item: Int): Boolean {
        val place = lowerBound(user, item)
        return place < end(user) && items.get(place) == item
    }

    /** The first place of [user] whose item is at least [item]. */
    fun lowerBound(user: Int, item: Int): Int {
        var low = start(user)
        var high = end(user)
        while (low < high) {
            val middle = (low + high) ushr 1
            if (items.get(middle) < item) low = middle + 1 else high = middle
        }
        return low
    }

    companion object {
        /** Groups pairs by user. */
        fun of(numUsers: Int, users: IntBuffer, items: IntBuffer): UserItems {
            val ptr = IntArray(numUsers + 1)
            for (k in 0 until users.capacity()) ptr[users.get(k) + 1]++
            for (user in 0 until numUsers) ptr[user + 1] += ptr[user]
            // Filled from the back, every user's end falls to the start.
            for (user in 0 until numUsers) ptr[user] = ptr[user + 1]
            val grouped = IntArray(users.capacity())
            for (k in 0 until users.capacity()) grouped[--ptr[users.get(k)]] = items.get(k)
            for (user in 0 until numUsers) Arrays.sort(grouped, ptr[user], ptr[user + 1])
            return UserItems(IntBuffer.wrap(ptr), IntBuffer.wrap(grouped))
        }
    }
}

/**
 * `interactions.safetensors` (docs/formats.md section 1.2).
 *
 * [logUsers] and [logItems] are the pairs to train on; [log] has them by user. [seen] is the host's
 * past, [later] what the trained table is judged by.
 */
class Interactions(
    val logUsers: IntBuffer,
    val logItems: IntBuffer,
    val log: UserItems,
    val later: UserItems,
    val seen: UserItems,
) {
    private val filter = PairFilter(seen, log)

    /** Whether [user] has [item] in the past or in the log. */
    fun isKnown(user: Int, item: Int): Boolean =
        mayBeKnown(user, item) && (seen.contains(user, item) || log.contains(user, item))

    /** False of most items that [isKnown] denies, and of no other; one access to memory. */
    fun mayBeKnown(user: Int, item: Int): Boolean = filter.mayHave(user, item)

    companion object {
        fun read(file: Safetensors, manifest: Manifest): Interactions {
            fun pairs(name: String): Pair<IntBuffer, IntBuffer> {
                val users = file.vector("${name}_users", DType.I32).asIntBuffer()
                val items = file.map("${name}_items", DType.I32, users.capacity()).asIntBuffer()
                checkRange("${name}_users", users, manifest.knownUsers)
                checkRange("${name}_items", items, manifest.knownItems)
                return users to items
            }
            val (logUsers, logItems) = pairs("log")
            if (logUsers.capacity() == 0) fail("log_users: empty, there is nothing to train on")
            val (laterUsers, laterItems) = pairs("later")
            val seen = readSeen(file, manifest)
            val log = UserItems.of(manifest.numUsers, logUsers, logItems)
            val later = UserItems.of(manifest.numUsers, laterUsers, laterItems)
            for (user in 0 until manifest.numUsers) {
                checkNew("log_items", user, log, seen)
                checkNew("later_items", user, later, seen, log)
            }
            return Interactions(logUsers, logItems, log, later, seen)
        }

        /** A pair occurs once: not twice in [part], and in none of the parts [before] it. */
        private fun checkNew(name: String, user: Int, part: UserItems, vararg before: UserItems) {
            for (place in part.start(user) until part.end(user)) {
                val item = part.item(place)
                val again = place > part.start(user) && part.item(place - 1) == item
                if (again || before.any { it.contains(user, item) }) {
                    fail("$name: user $user has item $item twice among seen, log and later")
                }
            }
        }

        private fun readSeen(file: Safetensors, manifest: Manifest): UserItems {
            val ptr = file.map("seen_ptr", DType.I32, manifest.numUsers + 1).asIntBuffer()
            val items = file.vector("seen_items", DType.I32).asIntBuffer()
            checkRange("seen_items", items, manifest.knownItems)
            val runs = ptr.get(0) == 0 && ptr.get(manifest.numUsers) == items.capacity()
            if (!runs) fail("seen_ptr: must run from 0 to ${items.capacity()}")
            for (user in 0 until manifest.numUsers) {
                val start = ptr.get(user)
                val end = ptr.get(user + 1)
                if (start > end || end > items.capacity()) fail("seen_ptr: falls at user $user")
                if ((start + 1 until end).any { items.get(it - 1) >= items.get(it) }) {
                    fail("seen_items: user $user is not strictly ascending")
                }
            }
            return UserItems(ptr, items)
        }

        private fun checkRange(name: String, values: IntBuffer, known: Int) {
            for (k in 0 until values.capacity()) {
                if (values.get(k) !in 0 until known) {
                    fail("$name: ${values.get(k)} at $k is not in [0, $known)")
                }
            }
        }

        private fun fail(problem: String): Nothing =
            throw HarnessError("interactions.safetensors: $problem", EXPORT_AGAIN)
    }
}
