package org.sparserec.harness

import java.nio.ByteBuffer
import java.nio.ByteOrder.LITTLE_ENDIAN
import java.nio.IntBuffer

fun ints(vararg values: Int): ByteBuffer = ByteBuffer.allocateDirect(4 * values.size)
    .order(LITTLE_ENDIAN)
    .also { buffer -> values.forEachIndexed { k, value -> buffer.putInt(4 * k, value) } }

fun floats(vararg values: Float): ByteBuffer =
    ints(*IntArray(values.size) { values[it].toRawBits() })

fun bytes(vararg values: Int): ByteBuffer = ByteBuffer.allocateDirect(values.size)
    .order(LITTLE_ENDIAN)
    .also { buffer -> values.forEachIndexed { k, value -> buffer.put(k, value.toByte()) } }

/** A table from its rows, each a map from column to value. */
fun table(dim: Int, vararg rows: Map<Int, Float>): PackedTable {
    val pointers = IntArray(rows.size + 1)
    rows.forEachIndexed { row, entries -> pointers[row + 1] = pointers[row] + entries.size }
    val entries = rows.flatMap { row -> row.toSortedMap().toList() }
    return PackedTable(
        dim,
        ints(*pointers),
        bytes(*IntArray(entries.size) { entries[it].first }),
        floats(*FloatArray(entries.size) { entries[it].second }),
    )
}

/** The inverse of [table]. */
fun rows(table: PackedTable): List<Map<Int, Float>> = List(table.numRows) { row ->
    val start = table.start(row)
    val size = table.end(row) - start
    val values = FloatArray(size).also { table.read(row, start, size, it, 0) }
    (0 until size).associate { table.col(start + it) to values[it] }
}

fun training(
    steps: Int = 100,
    batchSize: Int = 2,
    window: Int = 10,
    learningRate: Double = 0.5,
    sampledFraction: Double = 0.5,
    optimizer: Optimizer = Optimizer.SGD,
    sharedNegatives: Int = 0,
) = Manifest.Training(
    optimizer,
    learningRate,
    batchSize,
    steps,
    1,
    window,
    sampledFraction,
    0.2,
    0.75,
    3,
    sharedNegatives,
)

fun manifest(
    numUsers: Int,
    numItems: Int,
    dim: Int,
    nnz: Int = 0,
    training: Manifest.Training = training(),
    precision: Precision = Precision.FLOAT32,
    denseSize: Int = 0,
    model: Manifest.Model = Manifest.Model.MF,
) = Manifest(
    bundleId = "test",
    numUsers = numUsers,
    numItems = numItems,
    knownUsers = numUsers,
    knownItems = numItems,
    dim = dim,
    nnz = nnz,
    floor = 1,
    model = model,
    precision = precision,
    denseSize = denseSize,
    training = training,
    programs = emptyMap(),
    files = emptyMap(),
)

/** Interactions from (user, item) pairs. */
fun interactions(
    numUsers: Int,
    log: List<Pair<Int, Int>>,
    later: List<Pair<Int, Int>> = emptyList(),
    seen: List<Pair<Int, Int>> = emptyList(),
): Interactions {
    fun users(pairs: List<Pair<Int, Int>>) =
        IntBuffer.wrap(IntArray(pairs.size) { pairs[it].first })

    fun items(pairs: List<Pair<Int, Int>>) =
        IntBuffer.wrap(IntArray(pairs.size) { pairs[it].second })

    fun grouped(pairs: List<Pair<Int, Int>>) = UserItems.of(numUsers, users(pairs), items(pairs))
    return Interactions(users(log), items(log), grouped(log), grouped(later), grouped(seen))
}
