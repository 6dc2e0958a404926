"""Baselines that start from a dense table: magnitude pruning and a smaller dimension.

Both hand over packed tables that the trainer goes on with. docs/baselines.md says what their papers
do and what differs here.
"""

from __future__ import annotations

import math

import numpy as np

from pipeline.exchange import first, magnitude, strongest
from pipeline.nmf import budget
from pipeline.table import F32, PackedTable
from sparserec.errors import SparseRecError


def magnitude_prune(
    table: PackedTable, density: float, floor: int, state: dict[str, F32]
) -> tuple[PackedTable, dict[str, F32]]:
    """Keep each row's ``floor`` strongest entries, then the strongest of all rows.

    Global magnitude pruning: one shot of a trained dense table, or, with ``gradual_density``,
    again and again while it trains. Of equal entries the last one (row, col) is kept.

    Args:
        table: the table, usually of density 1; it is not changed.
        density: of the result: it has round(density N d) active entries.
        floor: least active entries of a row.
        state: optimizer state, arrays (nnz,).

    Raises:
        SparseRecError: if the budget is below N * floor or above what is active now.
    """
    count = budget(table.num_rows, table.dim, density, floor)
    if count > table.nnz:
        raise SparseRecError(
            f"a table of density {table.density:g} cannot be pruned to density {density:g}",
            "give a lower density; pruning only removes entries",
        )
    strength = magnitude(table.vals)
    slot = np.repeat(np.arange(table.num_rows), np.diff(table.row_ptr))
    free = np.flatnonzero(~strongest(strength, slot, table.num_rows, floor))
    kept = np.ones(table.nnz, np.bool_)
    kept[free[first(strength[free], table.nnz - count)]] = False
    row_ptr = np.zeros(table.num_rows + 1, np.int64)
    np.cumsum(np.bincount(slot[kept], minlength=table.num_rows), out=row_ptr[1:])
    pruned = PackedTable(
        row_ptr, table.cols[kept], table.vals[kept], table.num_users, table.num_items, table.dim
    )
    return pruned, {name: values[kept] for name, values in state.items()}


def gradual_density(step: int, begin: int, end: int, density: float, start: float = 1.0) -> float:
    """Give the density after ``step`` in gradual pruning (Zhu and Gupta, 2017, equation 1).

    The inactive part rises as s_f + (s_i - s_f) (1 - (t - t_0) / (n dT))^3: fast at first.

    Args:
        step: t.
        begin: t_0, the first pruning step; before it the density is ``start``.
        end: t_0 + n dT; from it on the density is ``density``.
        density: 1 - s_f.
        start: 1 - s_i.
    """
    if step >= end:  # though it is the beginning, too, as in a run of a few steps
        return density
    if step <= begin:
        return start
    left = 1 - (step - begin) / (end - begin)
    return density + (start - density) * left**3


def small_dim(dim: int, density: float) -> int:
    """Give d', the columns of a dense table that fits a budget: floor(density d), at least 1.

    Its N d' parameters are at most the budget, or N where the budget is smaller still.
    """
    # The small term keeps 100 * 0.29 at 29 in binary arithmetic.
    return max(1, math.floor(density * dim + 1e-9))
