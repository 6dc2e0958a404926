"""The mask update, cumulative-gradient regrowth: docs/formats.md section 5, arXiv 2411.12205.

Four small things, after RigL's code: when and how much (``Schedule``), where (the sampled rows),
what to drop (the weakest), what to grow (the largest accumulated gradient). The peers' rules are
in ``pipeline.regrowth`` and share the pieces below.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.table import F32, I64, Bool, Entries, PackedTable

I32 = npt.NDArray[np.int32]

CHUNK_ROWS = 16_384
"""Rows of accumulators looked at in one go, so that no second (|S|, d) array is made."""


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
        span = self.fraction - self.least
        return self.least + span / 2 * (1 + math.cos(math.pi * done / end))


def exchange(
    table: PackedTable,
    sampled: I64,
    sums: F32,
    fraction: float,
    floor: int,
    state: dict[str, F32],
) -> tuple[PackedTable, dict[str, F32], int]:
    """Drop the weakest active entries of the sampled rows and grow as many where gradients add up.

    Args:
        table: the table; it is not changed.
        sampled: int64 (|S|,), ascending rows.
        sums: float32 (|S|, d), over the window: gradients, whose signs then cancel, or their
            magnitudes; their size alone is looked at, and active columns are ignored.
        fraction: part of S's active entries to exchange.
        floor: no row falls below this many active entries.
        state: optimizer state, arrays (nnz,) in the order of the table's entries.

    Returns:
        The repacked table, its state, and the number of entries exchanged. The number of active
        entries is unchanged; grown entries and their state are 0.
    """
    found = table.entries(sampled)
    wanted = math.floor(fraction * len(found.index))
    size, place = largest(sums, found, wanted)
    strength = magnitude(table.vals[found.index])
    free = np.flatnonzero(~strongest(strength, found.slot, len(sampled), floor))
    count = min(wanted, len(place), len(free))
    if count == 0:
        return table, state, 0
    dropped = found.index[free[first(strength[free], count)]]
    grown = np.sort(place[first(-size, count)])
    rows = sampled[grown // table.dim]
    table, state = repack(table, state, np.sort(dropped), rows, grown % table.dim)
    return table, state, count


def magnitude(values: F32) -> I32:
    """Give integers, int32 of the same shape, that are ordered as ``|values|`` is.

    The bits of a float that is not negative, read as an integer, rise with it.
    """
    return np.abs(values).view(np.int32)


def first(keys: I32, count: int) -> I64:
    """Find the ``count`` smallest keys; of equal ones the first. Places, int64, in no order.

    It is what a stable sort would put in front, without the sort.
    """
    if count >= len(keys):
        return np.arange(len(keys))
    if count <= 0:
        return np.empty(0, np.int64)
    bound = np.partition(keys, count - 1)[count - 1]
    below = np.flatnonzero(keys < bound)
    return np.concatenate([below, np.flatnonzero(keys == bound)[: count - len(below)]])


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
    if len(starts) == 0 or floor <= 0:
        return kept
    # Distinct keys: strength, then place. A kept entry's key sinks below all others.
    key = (strength.astype(np.int64) << 32) + np.arange(len(slot))
    for _ in range(min(floor, int(sizes.max()))):
        best = np.maximum.reduceat(key, starts)
        best = best[best >= 0] & 0xFFFFFFFF
        kept[best] = True
        key[best] = -1
    return kept


def largest(sums: F32, found: Entries, count: int) -> tuple[I32, I64]:
    """Find the ``count`` largest ``|sums|`` among inactive entries, leaving out zeros.

    Args:
        sums: float32 (|S|, d).
        found: the active entries of the same rows.
        count: how many, or fewer where fewer are not 0.

    Returns:
        Sizes, from ``magnitude``, and places in the flattened ``sums``, ascending. Of equal sizes
        the first places are taken.
    """
    dim = sums.shape[1]
    sizes, places = np.empty(0, np.int32), np.empty(0, np.int64)
    for start in range(0, len(sums), CHUNK_ROWS):
        chunk = magnitude(sums[start : start + CHUNK_ROWS]).ravel()
        inside = slice(*np.searchsorted(found.slot, [start, start + CHUNK_ROWS]))
        chunk[(found.slot[inside] - start) * dim + found.col[inside]] = 0
        # Once there are enough, only larger ones can matter: equal ones come later.
        enough = 0 < count <= len(sizes)
        new = np.flatnonzero(chunk > (sizes.min() if enough else 0))
        sizes = np.concatenate([sizes, chunk[new]])
        places = np.concatenate([places, start * dim + new])
        if len(sizes) > count:
            chosen = np.sort(first(-sizes, count))
            sizes, places = sizes[chosen], places[chosen]
    return sizes, places


def repack(
    table: PackedTable, state: dict[str, F32], dropped: I64, rows: I64, cols: I64
) -> tuple[PackedTable, dict[str, F32]]:
    """Take entries out of a table and its state, and put others in at value 0.

    Args:
        table: the table; it is not changed.
        state: optimizer state, arrays (nnz,).
        dropped: int64, ascending: places in ``table.vals``.
        rows: int64 (n,), of the entries that grow.
        cols: int64 (n,), theirs; (row, col) ascend. None is active now.
    """
    touched, slot = np.unique(rows, return_inverse=True)
    found = table.entries(touched)
    before = np.searchsorted(found.slot * table.dim + found.col, slot * table.dim + cols)
    sizes = table.row_ptr[touched + 1] - table.row_ptr[touched]
    at = table.row_ptr[rows] + before - (np.cumsum(sizes) - sizes)[slot]
    at -= np.searchsorted(dropped, at)
    kept = np.ones(table.nnz, np.bool_)
    kept[dropped] = False
    change = np.bincount(rows, minlength=table.num_rows)
    left = np.searchsorted(table.row_ptr, dropped, side="right") - 1
    change -= np.bincount(left, minlength=table.num_rows)
    row_ptr = table.row_ptr.copy()
    row_ptr[1:] += np.cumsum(change)
    repacked = PackedTable(
        row_ptr=row_ptr,
        cols=np.insert(table.cols[kept], at, cols.astype(np.uint8)),
        vals=np.insert(table.vals[kept], at, np.float32(0)),
        num_users=table.num_users,
        num_items=table.num_items,
        dim=table.dim,
    )
    return repacked, {
        name: np.insert(values[kept], at, np.float32(0)) for name, values in state.items()
    }
