"""LightGCN (He et al., SIGIR 2020): the mean of the table and its neighbourhood averages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from pipeline.models.inner_product import (
    PAIR_FLOATS,
    example_margins,
    example_scores,
    pair_scores,
    scores,
)
from pipeline.models.parts import first
from pipeline.table import F32

__all__ = [
    "GRAPH",
    "PAIR_FLOATS",
    "example_margins",
    "example_scores",
    "initial",
    "pair_scores",
    "propagate",
    "scores",
]

GRAPH: Literal["none", "linear", "layers"] = "linear"
LAYERS = 3


def initial(dim: int, seed: int) -> dict[str, F32]:
    """Give no dense parameters."""
    return {}


def propagate(
    rows: Tensor,
    aggregate: Callable[[Tensor], Tensor],
    dense: dict[str, Tensor],
    recompute: bool = False,
    size: int | None = None,
) -> Tensor:
    """Average e, A e, A^2 e and A^3 e (equations 3, 4 and 8, with equal layer weights).

    Columns do not mix, so any part of them can be propagated by itself. With a symmetric A the map
    is its own adjoint: the same function takes gradients back.

    Args:
        rows: float32 (N, w), the table or some of its columns.
        aggregate: the product with the symmetrically normalised adjacency A.
        dense: not used.
        recompute: not used; a linear layer keeps nothing.
        size: how many of the first vectors are wanted; None means all.
    """
    layer = total = rows
    for _ in range(LAYERS):
        layer = aggregate(layer)
        total = total + layer
    return first(total, size) / (LAYERS + 1)
