"""The mask update, cumulative-gradient regrowth: docs/formats.md section 5, arXiv 2411.12205.

Four small things, after RigL's code: when and how much (``Schedule``), where (the sampled rows),
what to drop (the weakest), what to grow (the largest accumulated gradient).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.table import F32, I64, PackedTable


@dataclass(frozen=True)
class Schedule:
    """When the mask changes, and by how much.

    Attributes:
        steps: length of the whole run.
        window: dT, steps between two mask updates.
        fraction: part of the sampled rows' active entries exchanged at the start; it falls along a
            cosine to 0 (SET's and RigL's annealing).
        stop: no exchange at or after this part of the run.
    """

    steps: int
    window: int
    fraction: float
    stop: float = 0.75

    def fraction_after(self, step: int) -> float:
        """Give the fraction to exchange after ``step`` (0-based); 0 where no window ends there."""
        done, end = step + 1, self.stop * self.steps
        if done % self.window or done >= end:
            return 0.0
        return self.fraction / 2 * (1 + math.cos(math.pi * done / end))


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
        sums: float32 (|S|, d), gradients summed over the window; active columns are ignored.
        fraction: part of S's active entries to exchange.
        floor: no row falls below this many active entries.
        state: optimizer state, arrays (nnz,) in the order of the table's entries.

    Returns:
        The repacked table, its state, and the number of entries exchanged. The number of active
        entries is unchanged; grown entries and their state are 0.
    """
    dim = table.dim
    found = table.entries(sampled)
    wanted = math.floor(fraction * len(found.index))
    inactive = np.ones((len(sampled), dim), np.bool_)
    inactive[found.slot, found.col] = False

    candidates = np.flatnonzero(inactive.ravel() & (sums.ravel() != 0))
    size = np.abs(sums.ravel()[candidates])
    # A stable sort of candidates that are in (row, col) order breaks ties the way the page says.
    grown = candidates[np.argsort(-size, kind="stable")]

    weakest = np.argsort(np.abs(table.vals[found.index]), kind="stable")
    dropped = weakest[_droppable(found.slot[weakest], len(sampled), floor)]

    count = min(wanted, len(grown), len(dropped))
    if count == 0:
        return table, state, 0
    kept = np.ones(table.nnz, np.bool_)
    kept[found.index[dropped[:count]]] = False
    rows = np.repeat(np.arange(table.num_rows), np.diff(table.row_ptr))[kept]
    flat = np.concatenate(
        [
            rows * dim + table.cols[kept],
            sampled[grown[:count] // dim] * dim + grown[:count] % dim,
        ]
    )
    order = np.argsort(flat, kind="stable")
    grown_zeros = np.zeros(count, np.float32)

    def repack(values: F32) -> F32:
        return np.concatenate([values[kept], grown_zeros])[order]

    row_ptr = np.zeros(table.num_rows + 1, np.int64)
    np.cumsum(np.bincount(flat // dim, minlength=table.num_rows), out=row_ptr[1:])
    repacked = PackedTable(
        row_ptr=row_ptr,
        cols=(flat[order] % dim).astype(np.uint8),
        vals=repack(table.vals),
        num_users=table.num_users,
        num_items=table.num_items,
        dim=dim,
    )
    return repacked, {name: repack(values) for name, values in state.items()}, count


def _droppable(slots: I64, num_rows: int, floor: int) -> npt.NDArray[np.bool_]:
    """Walk entries (given by their rows' slots) and pass over those that would break the floor.

    The k-th entry of a row in the walk may go while k <= size of the row - floor.
    """
    sizes = np.bincount(slots, minlength=num_rows)
    by_row = np.argsort(slots, kind="stable")
    starts = np.cumsum(sizes) - sizes
    rank = np.empty(len(slots), np.int64)
    rank[by_row] = np.arange(len(slots)) - np.repeat(starts, sizes)
    allowed: npt.NDArray[np.bool_] = rank < sizes[slots] - floor
    return allowed
