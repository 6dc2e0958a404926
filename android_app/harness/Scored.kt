package org.sparserec.harness

import java.nio.FloatBuffer

/** What is scored: rows of the table, or vectors made from them. */
interface Scored {
    /** The first row of the chunk that [row] is scored in. */
    fun firstRow(row: Int): Int

    /** Makes [fillUser] possible for these users. */
    fun readUsers(users: IntArray)

    /** Puts the [k]-th of them, [user], into the program. */
    fun fillUser(user: Int, k: Int)

    /** Puts the chunk of rows from [firstRow] on into the program. */
    fun fillItems(firstRow: Int)
}

/** The table's rows themselves. */
class ScoredRows(private val table: PackedTable, private val program: ScoreProgram) : Scored {
    private val unpacked = Unpacked(table)
    private val line = FloatArray(table.dim)

    override fun firstRow(row: Int): Int = row

    override fun readUsers(users: IntArray) = Unit

    override fun fillUser(user: Int, k: Int) {
        line.fill(0f)
        unpacked.row(user, line, 0)
        program.user.rewind()
        program.user.put(line)
    }

    override fun fillItems(firstRow: Int) = fillItems(program.chunk) { firstRow + it }

    /** Puts the [count] rows that [rowOf] names into the program. */
    fun fillItems(count: Int, rowOf: (Int) -> Int) = unpacked.fill(program.items, count, rowOf)
}

/** Vectors from a sampled neighbourhood, chunk by chunk: docs/formats.md section 3. */
class ScoredVectors(
    private val table: PackedTable,
    private val program: ScoreProgram,
    private val vectors: VectorsProgram,
    private val neighbourhood: Neighbourhood,
) : Scored {
    private val unpacked = Unpacked(table)
    private val width = program.user.capacity()
    private val tile = TileRows(vectors.slots)
    private val chunk = FloatArray(program.chunk * width)
    private val chunkOut = FloatBuffer.wrap(chunk)
    private var userVectors = FloatArray(0)

    override fun firstRow(row: Int): Int = row / program.chunk * program.chunk

    override fun readUsers(users: IntArray) {
        userVectors = FloatArray(Math.multiplyExact(users.size, width))
        var made = -1
        for ((k, user) in users.withIndex()) {
            val first = firstRow(user)
            if (first != made) make(first)
            made = first
            val from = (user - first) * width
            chunk.copyInto(userVectors, k * width, from, from + width)
        }
    }

    override fun fillUser(user: Int, k: Int) {
        program.user.rewind()
        program.user.put(userVectors, k * width, width)
    }

    override fun fillItems(firstRow: Int) {
        make(firstRow)
        program.items.rewind()
        program.items.put(chunk)
    }

    /** Makes the vectors of the chunk that begins with [firstRow]. */
    private fun make(firstRow: Int) {
        val given = program.chunk
        for (k in 0 until given) {
            tile.rowOf[k] = if (firstRow + k < table.numRows) firstRow + k else -1
        }
        neighbourhood.draw(firstRow / given, tile, given)
        neighbourhood.write(vectors.neighbours, null)
        unpacked.fill(vectors.rows, vectors.slots) { tile.rowOf[it] }
        vectors.vectors(chunkOut)
    }
}

/** Rows of a table made dense, a few at a time: whole lines cost less than single numbers. */
private class Unpacked(private val table: PackedTable) {
    private val dim = table.dim
    private val lines = FloatArray(LINES * dim)
    private val values = FloatArray(dim)

    /** Writes into [to] [count] lines, the rows that [rowOf] names; zeros where there is none. */
    inline fun fill(to: FloatBuffer, count: Int, rowOf: (Int) -> Int) {
        to.rewind()
        var slot = 0
        while (slot < count) {
            val some = minOf(LINES, count - slot)
            lines.fill(0f)
            for (line in 0 until some) {
                val row = rowOf(slot + line)
                if (row in 0 until table.numRows) row(row, lines, line * dim)
            }
            to.put(lines, 0, some * dim)
            slot += some
        }
    }

    /** Writes the entries of [row] into [to], which holds zeros, from [at] on. */
    fun row(row: Int, to: FloatArray, at: Int) {
        val start = table.start(row)
        val size = table.end(row) - start
        table.read(row, start, size, values, 0)
        for (k in 0 until size) to[at + table.col(start + k)] = values[k]
    }

    private companion object {
        /** Lines made together: few enough for the innermost cache. */
        const val LINES = 32
    }
}
