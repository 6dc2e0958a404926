"""The mask update over all ranks' rows: docs/formats.md section 5, and no rank sees all scores.

What ``pipeline.exchange`` finds by sorting is found digit by digit: two sums over ranks of
histograms with 65,536 bins give the score at which the choice ends, as in ``pipeline.masks``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from pipeline.distributed.ranks import Ranks
from pipeline.exchange import CHUNK_ROWS, I32, magnitude, repack, strongest
from pipeline.masks import HALF, last_bin
from pipeline.table import F32, I64, Entries, PackedTable

Keys = Callable[[], Iterator[I32]]
"""Starts over: yields this rank's candidates, chunk by chunk, the same every time. Keys are not
negative; the largest are chosen."""
MOST = np.int32(0x7FFFFFFF)


def exchange(
    ranks: Ranks,
    table: PackedTable,
    sampled: I64,
    sums: F32,
    fraction: float,
    floor: int,
    state: dict[str, F32],
) -> tuple[PackedTable, dict[str, F32], int]:
    """Do what ``pipeline.exchange.exchange`` does, on shards: every rank calls it with its own.

    Args:
        ranks: the peers.
        table: this rank's shard; it is not changed.
        sampled: int64, ascending: the sampled rows of this shard.
        sums: float32 (len(sampled), d), theirs.
        fraction: part of S's active entries to exchange, over all ranks.
        floor: no row falls below this many active entries.
        state: optimizer state, arrays (nnz,) of this shard.

    Returns:
        The repacked shard, its state, and the number of entries exchanged over all ranks. A shard
        may grow or shrink; the number of active entries of all of them is unchanged.
    """
    dim, found = table.dim, table.entries(sampled)
    strength = magnitude(table.vals[found.index])
    free = np.flatnonzero(~strongest(strength, found.slot, len(sampled), floor))
    weakness = MOST - strength[free]

    def grow() -> Iterator[I32]:
        return _candidates(sums, found, dim)

    growing = sum(int(np.count_nonzero(chunk)) for chunk in grow())
    active, grows, drops = ranks.total(np.array([len(found.index), growing, len(free)], np.int64))
    count = min(math.floor(fraction * int(active)), int(grows), int(drops))
    if count == 0:
        return table, state, 0
    users = int(np.searchsorted(sampled, table.num_users))
    of_user = users * dim, int(np.count_nonzero(found.slot[free] < users))
    keys: tuple[Keys, Keys] = grow, lambda: iter([weakness])
    chosen = largest(ranks, keys, count, of_user)
    rows, cols = sampled[chosen[0] // dim], chosen[0] % dim
    table, state = repack(table, state, found.index[free[chosen[1]]], rows, cols)
    return table, state, count


def _candidates(sums: F32, found: Entries, dim: int) -> Iterator[I32]:
    """Give ``|sums|`` as integers, 0 where an entry is active."""
    for start in range(0, len(sums), CHUNK_ROWS):
        chunk = magnitude(sums[start : start + CHUNK_ROWS]).ravel()
        inside = slice(*np.searchsorted(found.slot, [start, start + CHUNK_ROWS]))
        chunk[(found.slot[inside] - start) * dim + found.col[inside]] = 0
        yield chunk


def largest(
    ranks: Ranks, lists: tuple[Keys, Keys], count: int, of_user: tuple[int, int]
) -> list[I64]:
    """Choose the ``count`` largest keys of all ranks, from two lists at once.

    Of equal keys the first of the whole table are chosen: users' before items', those of a rank
    before those of the next.

    Args:
        ranks: the peers.
        lists: of this rank's keys.
        count: to choose from each; each list has as many over all ranks.
        of_user: how many of this rank's keys are of users' rows; they come first.

    Returns:
        For each list, the places chosen here, int64, ascending.
    """
    bins = np.stack([_histogram(chunk >> 16 for chunk in keys()) for keys in lists])
    high = [last_bin(of_list, count) for of_list in ranks.total(bins)]
    for which, (top, _) in enumerate(high):
        inside = (chunk[chunk >> 16 == top] & (HALF - 1) for chunk in lists[which]())
        bins[which] = _histogram(inside)
    both = zip(ranks.total(bins), high, strict=True)
    low = [last_bin(of_list, left) for of_list, (_, left) in both]
    bounds = [top * HALF + bottom for (top, _), (bottom, _) in zip(high, low, strict=True)]

    picked = [_pick(keys, bound) for keys, bound in zip(lists, bounds, strict=True)]
    equals = [equal for _, equal in picked]
    users = [int(np.searchsorted(e, end)) for e, end in zip(equals, of_user, strict=True)]
    mine = np.array([[u, len(e) - u] for u, e in zip(users, equals, strict=True)], np.int64)
    all_ties = np.stack(ranks.gather(mine))  # (world, 2 lists, 2 sides)
    chosen = []
    for which, ((above, equal), (_, left)) in enumerate(zip(picked, low, strict=True)):
        in_order = all_ties[:, which].T.ravel()  # users' of each rank, then items'
        before = (np.cumsum(in_order) - in_order).reshape(2, -1)[:, ranks.rank]
        quota = np.clip(left - before, 0, mine[which])
        items = equal[users[which] :]
        taken = equal[: quota[0]], items[: quota[1]]
        chosen.append(np.sort(np.concatenate([above, *taken])))
    return chosen


def _histogram(chunks: Iterator[I32]) -> I64:
    bins = np.zeros(HALF, np.int64)
    for chunk in chunks:
        bins += np.bincount(chunk, minlength=HALF)
    return bins


def _pick(keys: Keys, bound: int) -> tuple[I64, I64]:
    """Find the places of keys above the bound, and of those that equal it."""
    above, equal, start = [np.empty(0, np.int64)], [np.empty(0, np.int64)], 0
    for chunk in keys():
        above.append(start + np.flatnonzero(chunk > bound))
        equal.append(start + np.flatnonzero(chunk == bound))
        start += len(chunk)
    return np.concatenate(above), np.concatenate(equal)
