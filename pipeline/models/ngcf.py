"""NGCF (Wang et al., SIGIR 2019): message passing with weights and an interaction term."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

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

GRAPH: Literal["none", "linear", "layers"] = "layers"
LAYERS = 3
SLOPE = 0.2
"""Of LeakyReLU below 0, as in the authors' code."""


def initial(dim: int, seed: int) -> dict[str, F32]:
    """Draw W1, W2 (d, d) of each layer by Glorot's rule, with zero biases (d,)."""
    rng = np.random.default_rng(seed)
    bound = np.sqrt(6 / (2 * dim))
    dense: dict[str, F32] = {}
    for layer in range(LAYERS):
        for kind in ("sum", "product"):
            weight = rng.uniform(-bound, bound, (dim, dim))
            dense[f"{kind}{layer}.weight"] = weight.astype(np.float32)
            dense[f"{kind}{layer}.bias"] = np.zeros(dim, np.float32)
    return dense


def propagate(
    rows: Tensor,
    aggregate: Callable[[Tensor], Tensor],
    dense: dict[str, Tensor],
    recompute: bool = False,
    size: int | None = None,
) -> Tensor:
    """Concatenate the table and the normalised outputs of each layer (equations 7 and 9).

    No message or node dropout: a run is a function of its seed and step alone.

    Args:
        rows: float32 (N, d).
        aggregate: the product with the symmetrically normalised adjacency A, without self-loops.
        dense: from ``initial``.
        recompute: keep a layer's input alone, and compute the rest again in the backward pass.
        size: how many of the first vectors are wanted; None means all.

    Returns:
        float32 (size, (LAYERS + 1) d).
    """

    def layer(rows: Tensor, i: int) -> Tensor:
        around = aggregate(rows)
        if i == LAYERS - 1:  # nothing looks at the others' outputs
            around, rows = first(around, size), first(rows, size)
        # Both products in one: [sum, product] by [W1, W2].
        messages = torch.cat([around + rows, around * rows], dim=1)  # (N, 2d)
        weight = torch.cat([dense[f"sum{i}.weight"], dense[f"product{i}.weight"]], dim=1)
        bias = dense[f"sum{i}.bias"] + dense[f"product{i}.bias"]
        return F.leaky_relu(F.linear(messages, weight, bias), SLOPE)

    outputs = [first(rows, size)]
    for i in range(LAYERS):
        rows = checkpoint(layer, rows, i, use_reentrant=False) if recompute else layer(rows, i)
        outputs.append(normalize(first(rows, size)))
    return torch.cat(outputs, dim=1)


def normalize(rows: Tensor) -> Tensor:
    """Scale rows (N, w) to length 1. The bound under the root is TensorFlow's l2_normalize's."""
    return rows * torch.rsqrt((rows * rows).sum(dim=1, keepdim=True).clamp_min(1e-12))
