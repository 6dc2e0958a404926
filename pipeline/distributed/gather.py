"""Putting shards together again: items for evaluation, and all at the end."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.data.split import Pairs
from pipeline.distributed.partition import Partition
from pipeline.distributed.ranks import Ranks
from pipeline.evaluate import Quality, evaluate, metrics, users_of
from pipeline.recommender import Recommender
from pipeline.table import F32, I64, U8, PackedTable


def whole_table(ranks: Ranks, partition: Partition, table: PackedTable) -> PackedTable | None:
    """Put all shards together at the first rank; the others get None."""
    counts = ranks.gather_first(np.diff(table.row_ptr))
    cols, vals = ranks.gather_first(table.cols), ranks.gather_first(table.vals)
    if ranks.rank:
        return None
    return _joined(partition, counts, cols, vals, table.dim)


def _joined(
    partition: Partition, counts: list[I64], cols: list[U8], vals: list[F32], dim: int
) -> PackedTable:
    """Join shards, given by rank: all users, then all items."""
    sides: list[list[tuple[I64, U8, F32]]] = [[], []]
    for rank, (of_rank, col, val) in enumerate(zip(counts, cols, vals, strict=True)):
        users = partition.sizes(rank)[0]
        cut = int(of_rank[:users].sum())
        sides[0].append((of_rank[:users], col[:cut], val[:cut]))
        sides[1].append((of_rank[users:], col[cut:], val[cut:]))
    parts = sides[0] + sides[1]
    row_ptr = np.zeros(partition.num_rows + 1, np.int64)
    np.cumsum(np.concatenate([part[0] for part in parts]), out=row_ptr[1:])
    return PackedTable(
        row_ptr,
        np.concatenate([part[1] for part in parts]),
        np.concatenate([part[2] for part in parts]),
        partition.num_users,
        int(partition.items[-1]),
        dim,
    )


def scoring_table(ranks: Ranks, partition: Partition, table: PackedTable) -> PackedTable:
    """Give a table with this rank's users and all items; other ranks' users have no entries."""
    users = table.num_users
    cut = int(table.row_ptr[users])
    of_items = np.diff(table.row_ptr[users:])
    counts = [np.zeros(n, np.int64) for n in np.diff(partition.users)]
    counts[ranks.rank] = np.diff(table.row_ptr[: users + 1])
    counts += ranks.gather(of_items)
    cols = [table.cols[:cut], *ranks.gather(table.cols[cut:])]
    vals = [table.vals[:cut], *ranks.gather(table.vals[cut:])]
    row_ptr = np.zeros(partition.num_rows + 1, np.int64)
    np.cumsum(np.concatenate(counts), out=row_ptr[1:])
    num_items = int(partition.items[-1])
    return PackedTable(
        row_ptr,
        np.concatenate(cols),
        np.concatenate(vals),
        partition.num_users,
        num_items,
        table.dim,
    )


def evaluate_together(
    ranks: Ranks,
    partition: Partition,
    recommender: Recommender,
    relevant: Pairs,
    seen: Pairs | Sequence[Pairs],
    known_items: int,
    users: I64 | None = None,
) -> Quality:
    """Do what ``pipeline.evaluate.evaluate`` does; each rank ranks items for its own users.

    Args:
        ranks: the peers.
        partition: who owns what.
        recommender: of this rank's shard.
        relevant: held-out pairs to find.
        seen: pairs that are never recommended, in one part or several.
        known_items: items that are candidates.
        users: only these, if given.

    Returns:
        The quality over all ranks' users, on every rank.
    """
    table = scoring_table(ranks, partition, recommender.table)
    start, stop = partition.users[ranks.rank : ranks.rank + 2]
    mine = users_of(relevant, int(partition.users[-1]))
    mine = mine[(mine >= start) & (mine < stop)]
    if users is not None:
        mine = np.intersect1d(mine, users)
    depth = 0
    hits, counts = np.zeros((0, 0), np.bool_), np.zeros(0, np.int64)
    if len(mine):
        scored = Recommender(table, recommender.model, recommender.dense)
        quality = evaluate(scored, relevant, seen, known_items, mine)
        hits, counts, depth = quality.hits, quality.relevant, quality.hits.shape[1]
    depth = max(int(part[0]) for part in ranks.gather(np.array([depth])))
    all_hits = np.concatenate(ranks.gather(hits.reshape(-1, depth)))
    all_counts = np.concatenate(ranks.gather(counts))
    return metrics(all_hits, all_counts, np.concatenate(ranks.gather(mine)))
