"""The non-negative factorisation on Spark: users in blocks, items broadcast."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import factors
from pipeline.data.prepared import batches, describe
from pipeline.files import whole_folder
from pipeline.nmf import NmfOptions, balanced
from pipeline.spark.blocks import (
    F32,
    Block,
    Start,
    Svd,
    add,
    batch_of,
    gram,
    spread,
    squares,
    sums,
    sweep,
    update_rows,
)
from sparserec.progress import Progress, silent

PAIRS_A_BLOCK = 4_000_000
"""There are at least as many blocks as Spark has cores; of large data, one for this many."""
OVERSAMPLES, SUBSPACE_ITERATIONS = 10, 7
"""Of the start's SVD, as scikit-learn's ``randomized_svd`` has them for such ranks."""


def factorise(
    spark: Any,
    prepared: Path,
    out: Path,
    dim: int,
    iterations: int,
    seed: int,
    progress: Progress = silent,
) -> None:
    """Factor the train part of a prepared folder; ``out`` appears whole or not at all.

    The same arithmetic as ``pipeline.nmf.factorise`` with its default options, on the
    degree-normalised matrix. In memory are, on the driver and on each worker, H^T (num_items, d)
    and one block at a time; Spark keeps the blocks in its memory or on its disks.

    Args:
        spark: a session.
        prepared: what ``sparserec data prepare`` or ``sparserec spark prepare`` wrote.
        out: a new folder; ``pipeline.factors`` reads it.
        dim: rank d; at most the numbers of users and of items.
        iterations: of coordinate descent.
        seed: of the start.
        progress: iterations done.

    Raises:
        SparseRecError: the prepared folder is damaged, or ``out`` is there already.
    """
    about = describe(prepared)
    users, items, num_train = about.known_users, about.known_items, about.interactions["train"]
    parts = [batch["degree"].to_numpy() for batch in batches(prepared, "items", ["degree"])]
    degrees = np.concatenate(parts)[:items]
    rank = min(dim, users, items)
    with whole_folder(out) as folder:
        matrix = _matrix(spark, prepared.absolute(), num_train, degrees)
        start, h = _start(matrix, rank, seed, users * items, progress)
        shared = spark.sparkContext.broadcast(start)
        w = _kept(matrix.map(lambda block: shared.value.rows(block)))  # noqa: PLW0108 on a worker
        for k in range(iterations):
            w, h = _iterate(matrix, w, h)
            progress("coordinate descent", k + 1, iterations)
        rows = _write(spark, folder, matrix, w, h, dim)
        how = {
            "method": "coordinate descent over blocks of users",
            "normalisation": "degree",
            "power": NmfOptions.power,
            "start": "nndsvda",
            "rank": dim,
            "rows": rows,
            "iterations": iterations,
            "seed": seed,
            "source_sha256": about.source_sha256,
        }
        factors.write_description(folder, users, items, how)


def _matrix(spark: Any, prepared: Path, num_train: int, item_degrees: Any) -> Any:
    """Give the train part as an RDD of blocks, kept; each user's interactions are in one."""
    context = spark.sparkContext
    count = max(context.defaultParallelism, -(-num_train // PAIRS_A_BLOCK))
    pairs = spark.read.parquet(f"{prepared}/train.parquet").select("user", "item")
    degrees, power = context.broadcast(item_degrees), NmfOptions.power

    def packed(parts: Iterator[Any]) -> Iterator[Any]:
        batches = list(parts)
        if batches:
            table = pa.Table.from_batches(batches)
            columns = [[table[name].to_numpy().tobytes()] for name in ("user", "item")]
            yield pa.record_batch(columns, names=["user", "item"])

    def block(row: Any) -> Block:
        user, item = (np.frombuffer(row[name], np.int32) for name in ("user", "item"))
        return Block.of(user, item, degrees.value, power)

    found = pairs.repartition(count, "user").mapInArrow(packed, "user binary, item binary")
    return found.rdd.map(block).persist(_level())


def _total(matrix: Any, function: Callable[[Block, Any], Any], argument: Any) -> Any:
    """Sum ``function(block, argument)`` over the blocks; the argument is broadcast."""
    shared = matrix.context.broadcast(argument)
    found = matrix.map(lambda block: function(block, shared.value)).treeReduce(np.add)
    shared.destroy()
    return found


def _start(
    matrix: Any, rank: int, seed: int, entries: int, progress: Progress
) -> tuple[Start, F32]:
    """Make NNDSVDA's start of W, block by block, and of H^T (num_items, d)."""
    total: float = matrix.map(lambda block: float(block.matrix.sum())).sum()
    items = matrix.map(lambda block: block.matrix.shape[1]).first()
    columns = min(rank + OVERSAMPLES, items)
    basis = np.random.default_rng(seed).standard_normal((items, columns), np.float32)
    for k in range(SUBSPACE_ITERATIONS):
        basis = np.linalg.qr(_total(matrix, spread, basis))[0].astype(np.float32)
        progress("singular vectors", k + 1, SUBSPACE_ITERATIONS)
    svd = Svd.of(basis, _total(matrix, gram, basis), rank)
    return Start.of(svd, _total(matrix, squares, svd), total / entries)


def _iterate(matrix: Any, w: Any, h: F32) -> tuple[Any, F32]:
    """Do one round on W, then one on H^T."""
    shared = matrix.context.broadcast(h)
    new = _kept(matrix.zip(w).map(lambda pair: update_rows(pair[0], pair[1], shared.value)))
    cross, square = matrix.zip(new).map(lambda pair: sums(*pair)).treeReduce(add)
    w.unpersist()
    shared.unpersist()  # destroyed, it could not be sent along with what it made
    return new, sweep(h, cross, square)


def _kept(rdd: Any) -> Any:
    """Compute an RDD now and keep it, without what it was made of.

    A worker lost in the middle fails the job: to go back over all iterations would be as slow as
    to run it again.
    """
    rdd = rdd.persist(_level())
    rdd.localCheckpoint()
    rdd.count()
    return rdd


def _level() -> Any:
    from pyspark import StorageLevel

    return StorageLevel.MEMORY_AND_DISK


def _write(spark: Any, folder: Path, matrix: Any, w: Any, h: F32, dim: int) -> int:
    """Write both factors with columns of equal norm, ``dim`` wide; returns their rows."""
    norms = w.map(lambda rows: (rows.astype(np.float64) ** 2).sum(axis=0)).treeReduce(np.add)
    scale = balanced(np.sqrt(norms), np.linalg.norm(h, axis=0)).astype(np.float32)

    def packed(pair: tuple[Block, F32]) -> tuple[bytearray, bytearray]:
        return bytearray(pair[0].users.tobytes()), bytearray((pair[1] * scale).tobytes())

    def unpacked(parts: Iterator[Any]) -> Iterator[Any]:
        for part in parts:
            for row in part.to_pylist():
                users = np.frombuffer(row["user"], np.int32)
                yield batch_of(users, np.frombuffer(row["rows"], np.float32), dim)

    packed_rows = matrix.zip(w).map(packed)
    kinds = "user binary, rows binary"
    found = spark.createDataFrame(packed_rows, kinds).mapInArrow(
        unpacked, "index int, vector array<float>"
    )
    found.write.parquet(f"{folder.absolute()}/users.parquet")
    pq.write_table(
        pa.Table.from_batches([batch_of(np.arange(len(h), dtype=np.int32), h / scale, dim)]),
        folder / "items.parquet",
    )
    return len(h) + int(w.map(len).sum())
