"""Rows on their way: from their owners to the rank that trains on them, and gradients back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.backward import Gradients
from pipeline.distributed.partition import Partition
from pipeline.distributed.ranks import Ranks
from pipeline.table import F32, I64, Bool, PackedTable

LOOKED = 1 << 15
"""Set in a row's count of active entries, at most 256, where its whole gradient is wanted."""


@dataclass(frozen=True)
class Fetched:
    """Rows of one step, at the rank that asked for them and at those that own them.

    Attributes:
        table: the rows asked for, (R, d), packed, by owner and then ascending.
        looked: bool (R,), of which of them the whole gradient is wanted.
        asked: int64 (world,), how many were asked of each rank.
        wanted: int64 (Q,), rows of this rank's shard that others asked for, rank after rank.
        wanted_by: int64 (world,), how many each asked for.
    """

    table: PackedTable
    looked: Bool
    asked: I64
    wanted: I64
    wanted_by: I64


def fetch(
    ranks: Ranks, partition: Partition, table: PackedTable, looked: Bool, rows: I64
) -> tuple[Fetched, I64]:
    """Get rows from their owners; every rank calls it, with rows of its own choice.

    Args:
        ranks: the peers.
        partition: who owns what.
        table: this rank's shard.
        looked: bool, of the shard's rows: whose whole gradient is wanted.
        rows: int64 (R,), distinct rows of the whole table, ascending.

    Returns:
        The rows, and int64 (R,): where each of ``rows`` is among them.
    """
    owners = partition.owners(rows)
    order = np.argsort(owners, kind="stable")
    asked = np.bincount(owners, minlength=ranks.world)
    wanted_by = ranks.swap_counts(asked)
    places = partition.local(rows, owners)[order]
    wanted = ranks.swap(places, asked, wanted_by)

    found = table.entries(wanted)
    counts = np.diff(table.row_ptr)[wanted]
    heads = (counts + LOOKED * looked[wanted]).astype(np.uint16)
    heads = ranks.swap(heads, wanted_by, asked)
    got = (heads & (LOOKED - 1)).astype(np.int64)
    leaving, coming = _sums(counts, wanted_by), _sums(got, asked)
    cols = ranks.swap(table.cols[found.index], leaving, coming)
    vals = ranks.swap(table.vals[found.index], leaving, coming)

    row_ptr = np.concatenate([[0], np.cumsum(got)]).astype(np.int64)
    fetched = PackedTable(row_ptr, cols, vals, len(rows), 0, table.dim)
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return Fetched(fetched, heads >= LOOKED, asked, wanted, wanted_by), back


def give_back(
    ranks: Ranks, table: PackedTable, looked: Bool, fetched: Fetched, found: Gradients
) -> Gradients:
    """Send gradients to the rows' owners, who add them up, rank after rank.

    A row whose whole gradient is wanted is sent whole, of another its active entries.

    Args:
        ranks: the peers.
        table: this rank's shard.
        looked: as in ``fetch``.
        fetched: what it gave.
        found: gradients by those rows, all of them whole.

    Returns:
        The sums by this rank's shard; ``loss`` and ``dense`` are as they came.
    """
    dim = table.dim
    lengths = np.where(fetched.looked, dim, np.diff(fetched.table.row_ptr))
    flat = _flatten(fetched, found, lengths)
    rows, slot = np.unique(fetched.wanted, return_inverse=True)
    counts = np.diff(table.row_ptr)[rows]
    whole_here = looked[rows]
    expected = np.where(whole_here, dim, counts)[slot]
    got = ranks.swap(flat, _sums(lengths, fetched.asked), _sums(expected, fetched.wanted_by))

    sizes = np.where(whole_here, dim, counts)
    starts = np.cumsum(sizes) - sizes
    sums = np.zeros(int(sizes.sum()), np.float32)
    # Rows are distinct within a rank's part, so that no place is added to twice at once.
    start = first = 0
    for number in fetched.wanted_by:
        part = slice(first, first + int(number))
        first = part.stop
        length = expected[part]
        place = _ranges(starts[slot[part]], length)
        sums[place] += got[start : start + len(place)]
        start += len(place)
    whole = sums[_ranges(starts[whole_here], sizes[whole_here])].reshape(-1, dim)
    entries = table.entries(rows)
    before = np.cumsum(counts) - counts
    in_row = np.where(
        whole_here[entries.slot], entries.col, np.arange(len(entries.slot)) - before[entries.slot]
    )
    picked = sums[starts[entries.slot] + in_row]
    return Gradients(found.loss, entries.index, picked, found.dense, rows[whole_here], whole)


def _flatten(fetched: Fetched, found: Gradients, lengths: I64) -> F32:
    """Put what is sent of each row after what is sent of the one before."""
    table, looked = fetched.table, fetched.looked
    starts = np.cumsum(lengths) - lengths
    flat = np.empty(int(lengths.sum()), np.float32)
    flat[_ranges(starts[looked], lengths[looked])] = found.whole[looked].reshape(-1)
    slot = np.repeat(np.arange(table.num_rows), np.diff(table.row_ptr))
    packed = ~looked[slot]
    flat[_ranges(starts[~looked], lengths[~looked])] = found.entries[packed]
    return flat


def _ranges(starts: I64, lengths: I64) -> I64:
    """Put the ranges [start, start + length) one after another."""
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))


def _sums(values: I64, parts: I64) -> I64:
    """Add up consecutive parts of ``values``, of the given lengths."""
    ends = np.concatenate([[0], np.cumsum(values)])
    borders = np.concatenate([[0], np.cumsum(parts)])
    found: I64 = np.diff(ends[borders])
    return found
