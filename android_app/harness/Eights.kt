package org.sparserec.harness

import java.nio.FloatBuffer

/**
 * Reads a row's few entries eight at a time, some more than it has: a loop of eight has no end that a
 * processor could foretell wrong, which costs as much as reading several entries. The arrays read
 * into need room for it.
 */
object Eights {
    const val COUNT = 8
    const val LAST = COUNT - 1

    /** The multiple that has room for [size]. */
    fun up(size: Int): Int = size + LAST and LAST.inv()

    fun read(from: FloatBuffer, start: Int, size: Int, to: FloatArray, at: Int) {
        val last = from.capacity() - COUNT
        var k = 0
        while (k < size && start + k <= last) {
            for (j in 0..LAST) to[at + k + j] = from.get(start + k + j)
            k += COUNT
        }
        while (k < size) { // at the buffer's end
            to[at + k] = from.get(start + k)
            k++
        }
    }
}
