"""The mask update, cumulative-gradient regrowth: docs/formats.md section 5, arXiv 2411.12205.

Four small things, after RigL's code: when and how much (``Schedule``), where (the sampled rows),
what to drop (the weakest), what to grow (the largest accumulated gradient). The peers' rules are
in ``pipeline.regrowth`` and share the pieces below.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.annealing import half_cosine
from pipeline.table import F32, I64, Bool, PackedTable

I32 = npt.NDArray[np.int32]

CHUNK_ROWS, CHUNK_ENTRIES = 4096, 1 << 18
"""Rows, or entries, that are looked at in one go, so that what that takes does not grow with N."""


@dataclass(frozen=True)
class Schedule:
    """When the mask changes, and by how much.

    Attributes:
        steps: length of the whole run.
        window: dT, steps between two mask updates.
        fraction: part of the active entries exchanged at the start; it falls along a cosine
            (RigL's annealing).
        stop: no exchange at or after this part of the run.
        least: what the fraction falls to; equal to ``fraction`` it is constant, as in SET.
    """

    steps: int
    window: int
    fraction: float
    stop: float = 0.75
    least: float = 0.0

    def fraction_after(self, step: int) -> float:
        """Give the fraction to exchange after ``step`` (0-based); 0 where no window ends there."""
        done, end = step + 1, self.stop * self.steps
        if done % self.window or done >= end:
            return 0.0
        return half_cosine(self.fraction, self.least, done, end)


def exchange(
    table: PackedTable,
    sampled: I64,
    sums: F32,
    fraction: float,
    floor: int,
    state: dict[str, F32],
) -> int:
    """Drop the weakest active entries of the sampled rows and grow as many where gradients add up.

    Args:
        table: the table; changed in place.
        sampled: int64 (|S|,), ascending rows.
        sums: float32 (|S|, d), over the window: gradients, whose signs then cancel, or their
            magnitudes; their size alone is looked at, and active columns are ignored.
        fraction: part of S's active entries to exchange.
        floor: no row falls below this many active entries.
        state: optimizer state, arrays (nnz,) in the order of the table's entries; changed in place.

    Returns:
        The number of entries exchanged. The number of active entries is unchanged; grown entries
        and their state are 0, but for a second moment (Adam's and Adagrad's ``v``), which starts
        at its row's mean: from 0 the first steps of Adam would be three times the learning rate,
        whatever the gradient. On Gowalla that cost more than regrowth gained.
    """
    wanted = math.floor(fraction * int((table.row_ptr[sampled + 1] - table.row_ptr[sampled]).sum()))
    size, place = largest(sums, table, sampled, wanted)
    _, dropped = weakest(table, sampled, floor, min(wanted, len(place)))
    count = len(dropped)
    grown = place[first(-size, count)]
    rows = sampled[grown // table.dim]
    starts = {"v": row_means(table, state["v"], rows)} if "v" in state else {}
    repack(table, state, dropped, rows, grown % table.dim, starts)
    return count


def row_means(table: PackedTable, values: F32, rows: I64) -> F32:
    """Average each row's ``values`` (nnz,), in float64 and in their order; 0 for an empty row.

    Args:
        table: the table.
        values: float32 (nnz,).
        rows: int64 (n,), ascending, with repeats.
    """
    means = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), CHUNK_ROWS):
        part = slice(start, start + CHUNK_ROWS)
        distinct, slot = np.unique(rows[part], return_inverse=True)
        found = table.entries(distinct)
        totals = np.bincount(found.slot, values[found.index], len(distinct))
        sizes = table.row_ptr[distinct + 1] - table.row_ptr[distinct]
        means[part] = (totals / np.maximum(sizes, 1))[slot]
    return means


def magnitude(values: F32) -> I32:
    """Give integers, int32 of the same shape, that are ordered as ``|values|`` is.

    The bits of a float that is not negative, read as an integer, rise with it.
    """
    return np.abs(values).view(np.int32)


def first(keys: I32, count: int) -> I64:
    """Find the ``count`` smallest keys; of equal ones the first. Places, int64, ascending.

    They are those that a stable sort would put in front, without the sort.
    """
    if count >= len(keys):
        return np.arange(len(keys))
    if count <= 0:
        return np.empty(0, np.int64)
    bound = np.partition(keys, count - 1)[count - 1]
    chosen = keys < bound
    left = count - int(np.count_nonzero(chosen))
    chosen[np.flatnonzero(keys == bound)[:left]] = True
    return np.flatnonzero(chosen)


def strongest(strength: I32, slot: I64, num_rows: int, floor: int) -> Bool:
    """Mark each row's ``floor`` strongest entries, bool (E,), which may not go.

    Walking entries from the weakest on and passing over those whose row would fall below the
    floor takes exactly the others: of equal entries the last is the strongest.

    Args:
        strength: int32 (E,), from ``magnitude``, row after row.
        slot: int64 (E,), ascending: the row of each entry, in [0, num_rows).
        num_rows: rows that the entries are of.
        floor: entries to keep in a row.
    """
    kept = np.zeros(len(slot), np.bool_)
    sizes = np.bincount(slot, minlength=num_rows)
    starts = (np.cumsum(sizes) - sizes)[sizes > 0]
    # Distinct keys: strength, then place. A kept entry's key sinks below all others.
    key = (strength.astype(np.int64) << 32) + np.arange(len(slot))
    for _ in range(floor):
        best = np.maximum.reduceat(key, starts)
        best = best[best >= 0] & 0xFFFFFFFF
        kept[best] = True
        key[best] = -1
    return kept


def weakest(table: PackedTable, rows: I64, floor: int, count: int) -> tuple[I32, I64]:
    """Find the ``count`` weakest entries of some rows that the floor lets go, or all of these.

    Args:
        table: the table.
        rows: int64 (R,), ascending.
        floor: entries to keep in a row.
        count: how many.

    Returns:
        Strengths, from ``magnitude``, and places in ``table.vals``, ascending. Of equal strengths
        the first places are taken.
    """
    found = _Least(count)
    for strength, places in leaving(table, rows, floor):
        found.add(strength, places)
    return found.keys, found.places


def leaving(table: PackedTable, rows: I64, floor: int) -> Iterator[tuple[I32, I64]]:
    """Give the entries of some rows that the floor lets go, chunk by chunk.

    Yields:
        Strengths, from ``magnitude``, and places in ``table.vals``, ascending.
    """
    for start in range(0, len(rows), CHUNK_ROWS):
        chunk = rows[start : start + CHUNK_ROWS]
        entries = table.entries(chunk)
        strength = magnitude(table.vals[entries.index])
        free = ~strongest(strength, entries.slot, len(chunk), floor)
        yield strength[free], entries.index[free]


def largest(sums: F32, table: PackedTable, rows: I64, count: int) -> tuple[I32, I64]:
    """Find the ``count`` largest ``|sums|`` among inactive entries, leaving out zeros.

    Args:
        sums: float32 (R, d).
        table: the table.
        rows: int64 (R,), ascending: what the sums are of.
        count: how many, or fewer where fewer are not 0.

    Returns:
        Sizes, from ``magnitude``, and places in the flattened ``sums``, ascending. Of equal sizes
        the first places are taken.
    """
    found = _Least(count)
    for size, places in growing(table, rows, sums):
        found.add(-size, places)
    return -found.keys, found.places


def growing(table: PackedTable, rows: I64, sums: F32) -> Iterator[tuple[I32, I64]]:
    """Give the inactive entries of some rows whose sums are not 0, chunk by chunk.

    Yields:
        Sizes, from ``magnitude``, and places in the flattened ``sums``, ascending.
    """
    for start in range(0, len(sums), CHUNK_ROWS):
        chunk = magnitude(sums[start : start + CHUNK_ROWS]).ravel()
        entries = table.entries(rows[start : start + CHUNK_ROWS])
        chunk[entries.slot * table.dim + entries.col] = 0
        new = np.flatnonzero(chunk)
        yield chunk[new], start * table.dim + new


class _Least:
    """The ``count`` smallest of keys that come chunk by chunk; of equal ones the first."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.keys, self.places = np.empty(0, np.int32), np.empty(0, np.int64)

    def add(self, keys: I32, places: I64) -> None:
        """Take one more chunk; places ascend from chunk to chunk."""
        if 0 < self.count <= len(self.keys):  # only smaller ones can matter: equal ones come later
            below = keys < self.keys.max()
            keys, places = keys[below], places[below]
        keys, places = np.concatenate([self.keys, keys]), np.concatenate([self.places, places])
        if len(keys) > self.count:
            chosen = first(keys, self.count)
            keys, places = keys[chosen], places[chosen]
        self.keys, self.places = keys, places


def repack(
    table: PackedTable,
    state: dict[str, F32],
    dropped: I64,
    rows: I64,
    cols: I64,
    starts: Mapping[str, F32] = MappingProxyType({}),
) -> None:
    """Take entries out of a table and its state, and put as many others in at value 0, in place.

    In place and chunk by chunk: a mask update takes no second table, not even for a moment.

    Args:
        table: the table; changed.
        state: optimizer state, arrays (nnz,); changed.
        dropped: int64 (n,), ascending: places in ``table.vals``.
        rows: int64 (n,), of the entries that grow.
        cols: int64 (n,), theirs; (row, col) ascend. None is active now.
        starts: float32 (n,) by the state's names: what theirs is, where it is not 0.
    """
    at = where_to(table, rows, cols)
    at -= np.searchsorted(dropped, at)
    _move(table.cols, dropped, at, cols.astype(np.uint8))
    zeros = np.zeros(len(at), np.float32)
    _move(table.vals, dropped, at, zeros)
    for name, values in state.items():
        _move(values, dropped, at, starts.get(name, zeros))
    for start in range(0, len(table.row_ptr), CHUNK_ENTRIES):
        part = table.row_ptr[start : start + CHUNK_ENTRIES]
        grown = np.searchsorted(rows, np.arange(start, start + len(part)))
        part += grown - np.searchsorted(dropped, part)


def where_to(table: PackedTable, rows: I64, cols: I64) -> I64:
    """Find the places (n,) of ``table.vals`` before which the entries that grow belong."""
    at = np.empty(len(rows), np.int64)
    for start in range(0, len(rows), CHUNK_ROWS):
        part = slice(start, start + CHUNK_ROWS)
        touched, slot = np.unique(rows[part], return_inverse=True)
        found = table.entries(touched)
        before = np.searchsorted(found.slot * table.dim + found.col, slot * table.dim + cols[part])
        sizes = table.row_ptr[touched + 1] - table.row_ptr[touched]
        at[part] = table.row_ptr[rows[part]] + before - (np.cumsum(sizes) - sizes)[slot]
    return at


def _move(values: npt.NDArray[Any], dropped: I64, at: I64, added: npt.NDArray[Any]) -> None:
    """Do ``np.insert(np.delete(values, dropped), at, added)`` in place.

    What has no room yet, where more was put in than taken out so far, waits for the next chunk.
    """
    waiting, done = values[:0], 0
    for start in range(0, len(values), CHUNK_ENTRIES):
        stop = min(start + CHUNK_ENTRIES, len(values))
        gone = slice(*np.searchsorted(dropped, [start, stop]))
        left, end = start - gone.start, stop - gone.stop  # of what is kept, what is in the chunk
        new = slice(*np.searchsorted(at, [left, end + (stop == len(values))]))
        kept = np.delete(values[start:stop], dropped[gone] - start)
        piece = np.concatenate([waiting, np.insert(kept, at[new] - left, added[new])])
        room = min(stop - done, len(piece))
        values[done : done + room] = piece[:room]
        waiting, done = piece[room:], done + room
