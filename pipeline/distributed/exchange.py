"""The mask update over all ranks' rows: docs/formats.md section 5, and no rank sees all scores.

What ``pipeline.exchange`` finds by keeping the best so far is found digit by digit: two sums over
ranks of histograms with 65,536 bins give the score at which the choice ends, as in
``pipeline.masks``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from pipeline.distributed.ranks import Ranks
from pipeline.exchange import I32, growing, leaving, row_means, where_to
from pipeline.masks import HALF, last_bin
from pipeline.table import F32, I64, PackedTable

Keys = Callable[[], Iterator[tuple[I32, I64]]]
"""Starts over: yields this rank's candidates, chunk by chunk, the same every time: keys, not
negative, of which the largest are chosen, and places, ascending."""
MOST = np.int32(0x7FFFFFFF)


def exchange(
    ranks: Ranks,
    table: PackedTable,
    sampled: I64,
    sums: F32,
    fraction: float,
    floor: int,
    state: dict[str, F32],
) -> int:
    """Do what ``pipeline.exchange.exchange`` does, on shards: every rank calls it with its own.

    Args:
        ranks: the peers.
        table: this rank's shard; changed. It may grow or shrink: the number of active entries of
            all shards is unchanged.
        sampled: int64, ascending: the sampled rows of this shard.
        sums: float32 (len(sampled), d), theirs.
        fraction: part of S's active entries to exchange, over all ranks.
        floor: no row falls below this many active entries.
        state: optimizer state, arrays (nnz,) of this shard; changed.

    Returns:
        The number of entries exchanged over all ranks.
    """
    dim = table.dim

    def grow() -> Iterator[tuple[I32, I64]]:
        return growing(table, sampled, sums)

    def drop() -> Iterator[tuple[I32, I64]]:
        return ((MOST - strength, place) for strength, place in leaving(table, sampled, floor))

    active = int(np.diff(table.row_ptr)[sampled].sum())
    here = [active, *(sum(len(keys) for keys, _ in each()) for each in (grow, drop))]
    active, grows, drops = (int(n) for n in ranks.total(np.array(here, np.int64)))
    count = min(math.floor(fraction * active), grows, drops)  # one number on all ranks
    if count == 0:
        return 0
    users = int(np.searchsorted(sampled, table.num_users))
    borders = users * dim, int(table.row_ptr[table.num_users])
    grown, dropped = largest(ranks, (grow, drop), count, borders)
    rows = sampled[grown // dim]
    starts = {"v": row_means(table, state["v"], rows)} if "v" in state else {}
    _repack(table, state, dropped, rows, grown % dim, starts)
    return count


def largest(
    ranks: Ranks, lists: tuple[Keys, Keys], count: int, borders: tuple[int, int]
) -> tuple[I64, I64]:
    """Choose the ``count`` largest keys of all ranks, from two lists at once.

    Of equal keys the first of the whole table are chosen: users' before items', those of a rank
    before those of the next.

    Args:
        ranks: the peers.
        lists: of this rank's keys.
        count: to choose from each; each list has as many over all ranks.
        borders: of each list the first place that is of an item's row.

    Returns:
        For each list, the places chosen here, int64, ascending.
    """
    bins = np.stack([_histogram(keys >> 16 for keys, _ in each()) for each in lists])
    high = [last_bin(of_list, count) for of_list in ranks.total(bins)]
    for which, (top, _) in enumerate(high):
        chunks = (keys for keys, _ in lists[which]())
        bins[which] = _histogram(keys[keys >> 16 == top] & (HALF - 1) for keys in chunks)
    both = zip(ranks.total(bins), high, strict=True)
    low = [last_bin(of_list, left) for of_list, (_, left) in both]
    bounds = [top * HALF + bottom for (top, _), (bottom, _) in zip(high, low, strict=True)]

    picked = [_pick(each, bound) for each, bound in zip(lists, bounds, strict=True)]
    cuts = [int(np.searchsorted(p[1], end)) for p, end in zip(picked, borders, strict=True)]
    mine = np.array([[u, len(p[1]) - u] for u, p in zip(cuts, picked, strict=True)], np.int64)
    ties = np.stack(ranks.gather(mine))  # (world, 2 lists, 2 sides)
    chosen = []
    for which, ((above, equal), (_, left)) in enumerate(zip(picked, low, strict=True)):
        in_order = ties[:, which].T.ravel()  # users' of each rank, then items'
        before = (np.cumsum(in_order) - in_order).reshape(2, -1)[:, ranks.rank]
        quota = np.clip(left - before, 0, mine[which])
        taken = equal[: quota[0]], equal[cuts[which] :][: quota[1]]
        chosen.append(np.sort(np.concatenate([above, *taken])))
    return chosen[0], chosen[1]


def _histogram(chunks: Iterator[I32]) -> I64:
    bins = np.zeros(HALF, np.int64)
    for chunk in chunks:
        bins += np.bincount(chunk, minlength=HALF)
    return bins


def _pick(each: Keys, bound: int) -> tuple[I64, I64]:
    """Find the places of keys above the bound, and of those that equal it."""
    above, equal = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for keys, places in each():
        above.append(places[keys > bound])
        equal.append(places[keys == bound])
    return np.concatenate(above), np.concatenate(equal)


def _repack(
    table: PackedTable,
    state: dict[str, F32],
    dropped: I64,
    rows: I64,
    cols: I64,
    starts: dict[str, F32],
) -> None:
    """Do what ``pipeline.exchange.repack`` does where not as many grow here as are dropped.

    One array at a time is copied.
    """
    at = where_to(table, rows, cols)
    at -= np.searchsorted(dropped, at)
    table.cols = np.insert(np.delete(table.cols, dropped), at, cols.astype(np.uint8))
    table.vals = np.insert(np.delete(table.vals, dropped), at, np.float32(0))
    for name, values in state.items():
        state[name] = np.insert(np.delete(values, dropped), at, starts.get(name, np.float32(0)))
    grown = np.searchsorted(rows, np.arange(len(table.row_ptr)))
    table.row_ptr = table.row_ptr + grown - np.searchsorted(dropped, table.row_ptr)
