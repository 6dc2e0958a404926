"""Baselines that start from a dense table: magnitude pruning, PEP, and a smaller dimension.

All meet a budget of round(density N d) entries exactly, and hand over packed tables that the
trainer goes on with. docs/baselines.md says what their papers do and what differs here.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pipeline.exchange import first, magnitude, strongest
from pipeline.nmf import budget, top_entries
from pipeline.table import F32, PackedTable
from sparserec.errors import SparseRecError

Thresholds = Literal["global", "dimension", "feature", "feature-dimension"]
"""What has a threshold of its own in PEP: the table, a column, a row, or an entry."""

PEP_START = -15.0
"""Thresholds' starting value in PEP's public code for MovieLens-1M: sigmoid(-15) is 3e-7."""


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
    left = 1 - min(max((step - begin) / (end - begin), 0.0), 1.0)
    return density + (start - density) * left**3


def small_dim(dim: int, density: float) -> int:
    """Give d', the columns of a dense table that fits a budget: floor(density d), at least 1.

    Its N d' parameters are at most the budget, or N where the budget is smaller still.
    """
    # The small term keeps 10 * 0.7 at 7 in binary arithmetic.
    return max(1, math.floor(density * dim + 1e-9))


def pep_thresholds(kind: Thresholds, num_rows: int, dim: int, start: float = PEP_START) -> Tensor:
    """Make PEP's trainable s: float32 (1, 1), (1, d), (N, 1) or (N, d), all ``start``."""
    rows = num_rows if kind in ("feature", "feature-dimension") else 1
    cols = dim if kind in ("dimension", "feature-dimension") else 1
    return torch.full((rows, cols), start)


def pep_table(values: Tensor, thresholds: Tensor) -> Tensor:
    """Give the table that PEP trains through: sign(v) relu(|v| - sigmoid(s)).

    Args:
        values: v, float32 (R, d): the dense table or some of its rows.
        thresholds: s, from ``pep_thresholds``; of the same rows, where rows have their own.

    Returns:
        float32 (R, d), differentiable by both. The optimizer updates v and s; no penalty is
        needed, because a gradient that shrinks an entry raises its threshold.
    """
    return torch.sign(values) * torch.relu(torch.abs(values) - torch.sigmoid(thresholds))


def pep_density(values: Tensor, thresholds: Tensor) -> float:
    """Give the part of a dense table (N, d) that its thresholds leave; at the budget, stop."""
    with torch.no_grad():
        left = torch.count_nonzero(values.abs() > torch.sigmoid(thresholds))
    return int(left) / values.numel()


def pep_retrain(
    values: Tensor,
    thresholds: Tensor,
    initial: F32,
    density: float,
    floor: int,
    num_users: int,
) -> PackedTable:
    """Fix PEP's mask at a budget and go back to the initial values, to retrain without thresholds.

    PEP stops its search once at most as many entries are left as wanted; how many it then has is
    up to its gradients. Here entries are ranked by their margin |v| - sigmoid(s), so those left
    come first and those that just fell below their thresholds make up the number. Stopped early,
    the same rank prunes what the thresholds have not.

    Args:
        values: v at the end of the search, float32 (N, d).
        thresholds: s, likewise.
        initial: float32 (N, d), v before the search (its lottery ticket); ``values`` to fine-tune.
        density: the result has round(density N d) active entries.
        floor: least active entries of a row; PEP has none, and its rows may empty.
        num_users: rows [0, num_users) are users.
    """
    num_rows, dim = values.shape
    count = budget(num_rows, dim, density, floor)
    with torch.no_grad():
        margin = (values.abs() - torch.sigmoid(thresholds)).numpy()
    return PackedTable.from_dense(initial, top_entries(margin, count, floor), num_users)
