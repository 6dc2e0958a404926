"""The inverse of propagation: a table that a linear graph model turns into given vectors.

LightGCN scores by P E, the table E smoothed over the graph; a good E is not a table whose own
products are good. From vectors F that are, E is the solution of the ridge regression
``min |F - P E|^2 + RIDGE |E|^2`` over E's active entries, as graph signals are deconvolved. Columns
do not mix: each is a problem of its own, solved by conjugate gradients, a block of them at a time.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from pipeline.graph import BLOCK
from pipeline.table import F32, Bool

RIDGE = 0.01
"""On squared entries: P's norm is 1, and what it shrinks to less than a tenth is noise to F."""
STEPS = 10
"""Of conjugate gradients: with 20 the start of LightGCN is no better on validation."""


def deconvolve(vectors: F32, rows: F32, active: Bool, propagate: Callable[[Tensor], Tensor]) -> F32:
    """Find rows that propagate into ``vectors`` by their active entries alone.

    Args:
        vectors: float32 (N, d), wanted.
        rows: float32 (N, d), to begin from; 0 where they are not active.
        active: bool (N, d).
        propagate: linear and self-adjoint, columns apart: (N, w) to (N, w).

    Returns:
        float32 (N, d).
    """
    found = np.empty_like(rows)
    for start in range(0, rows.shape[1], BLOCK):
        part = slice(start, start + BLOCK)
        wanted, begun, mask = (
            torch.from_numpy(np.ascontiguousarray(array[:, part], np.float32))
            for array in (vectors, rows, active)
        )
        found[:, part] = _solved(wanted, begun, mask, propagate).numpy()
    return found


def _solved(
    wanted: Tensor, rows: Tensor, mask: Tensor, propagate: Callable[[Tensor], Tensor]
) -> Tensor:
    """Take ``STEPS`` steps of conjugate gradients, each column (N,) its own."""
    left = mask * (propagate(wanted - propagate(rows)) - RIDGE * rows)
    way, size = left, _squared(left)
    for _ in range(STEPS):
        product = mask * (propagate(propagate(way)) + RIDGE * way)
        step = _ratio(size, (way * product).sum(0))
        rows = rows + step * way
        left = left - step * product
        before, size = size, _squared(left)
        way = left + _ratio(size, before) * way
    return rows


def _squared(columns: Tensor) -> Tensor:
    return (columns * columns).sum(0)


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    """Divide; 0 for a column that is solved."""
    return torch.where(below > 0, above / below.clamp(min=1e-30), 0.0)
