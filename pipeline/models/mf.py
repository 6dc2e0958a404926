"""Matrix factorisation, for the BPR loss (Rendle et al., UAI 2009) and others."""

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

GRAPH: Literal["none", "linear", "layers"] = "none"


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
    """Use the rows as they are."""
    return first(rows, size)
