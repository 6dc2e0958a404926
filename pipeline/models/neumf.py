"""NeuMF (He et al., WWW 2017): generalised matrix factorisation beside a multi-layer perceptron.

A row's first half serves GMF, its second half the perceptron, so that one table holds both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.models.parts import first
from pipeline.table import F32
from sparserec.errors import SparseRecError

GRAPH: Literal["none", "linear", "layers"] = "none"
PAIR_FLOATS = 64
LAYERS = 3
BLOCK = 2048
"""Pairs at a time on a host: their first layer, 256 KiB at d = 64, stays in a core's cache."""


def initial(dim: int, seed: int) -> dict[str, F32]:
    """Draw the perceptron (d -> d/2 -> d/4 -> d/8) by He's rule; the output sums GMF's products.

    Args:
        dim: d, a multiple of 8.
        seed: of the draw.

    Raises:
        SparseRecError: d is none.
    """
    if dim % 8:
        raise SparseRecError(
            f"NeuMF halves its layers three times: dim {dim} is not a multiple of 8",
            "choose a dim (and, of the method small, a density) whose columns are",
        )
    rng = np.random.default_rng(seed)
    dense: dict[str, F32] = {}
    for layer in range(LAYERS):
        width = dim >> layer
        weight = rng.normal(0.0, np.sqrt(2 / width), (width // 2, width))
        dense[f"layer{layer}.weight"] = weight.astype(np.float32)
        dense[f"layer{layer}.bias"] = np.zeros(width // 2, np.float32)
    # Equal weights start GMF as plain MF, which the start of the table was made for.
    dense["output.gmf"] = np.ones(dim // 2, np.float32)
    dense["output.mlp"] = rng.normal(0.0, np.sqrt(8 / dim), dim // 8).astype(np.float32)
    return dense


def propagate(
    rows: Tensor,
    aggregate: Callable[[Tensor], Tensor],
    dense: dict[str, Tensor],
    recompute: bool = False,
    size: int | None = None,
) -> Tensor:
    """Use the rows as they are."""
    return first(rows, size)


def pair_scores(users: Tensor, items: Tensor, dense: dict[str, Tensor]) -> Tensor:
    """Score users (B, d) with items (B, d), row by row: float32 (B,) (equation 12, no sigmoid)."""
    user, item = users.chunk(2, dim=1), items.chunk(2, dim=1)
    left, right = _first_layer(user[1], item[1], dense)
    return _pair_output(user[0] * item[0], left + right, dense)


def example_scores(vectors: Tensor, size: int, dense: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Score users, slots [0, B) of (3B, d), with the two blocks of items after them: (B,) each.

    Both go through the perceptron at once, and a user's half of the first layer is made once.
    """
    gmf, mlp = vectors.chunk(2, dim=1)
    left, right = _first_layer(mlp[:size], mlp[size:], dense)
    products = gmf[:size].repeat(2, 1) * gmf[size:]
    found = _pair_output(products, left.repeat(2, 1) + right, dense)
    return found[:size], found[size:]


def example_margins(vectors: Tensor, size: int, dense: dict[str, Tensor]) -> Tensor:
    """Score users with their negative less their positive item: (B,)."""
    positive, negative = example_scores(vectors, size, dense)
    return negative - positive


def _first_layer(users: Tensor, items: Tensor, dense: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Multiply each side (R, d/2) by its half of the first layer, which is linear in the pair."""
    to_user, to_item = dense["layer0.weight"].chunk(2, dim=1)
    return F.linear(users, to_user, dense["layer0.bias"]), F.linear(items, to_item)


def _pair_output(products: Tensor, hidden: Tensor, dense: dict[str, Tensor]) -> Tensor:
    """Finish pairs from GMF's products and the first layer's sums, (P, d/2) each: (P,)."""
    hidden = F.relu(hidden)
    for layer in range(1, LAYERS):
        weight, bias = dense[f"layer{layer}.weight"], dense[f"layer{layer}.bias"]
        hidden = F.relu(F.linear(hidden, weight, bias))
    output = torch.cat([dense["output.gmf"], dense["output.mlp"]])[:, None]
    return (torch.cat([products, hidden], dim=1) @ output).squeeze(1)


def scores(users: Tensor, items: Tensor, dense: dict[str, Tensor]) -> Tensor:
    """Score users (1, A, d) with items (1, C, d): (1, A, C).

    The first layer is linear in the pair's two halves: each side is multiplied once.
    """
    user, item = users[0].chunk(2, dim=1), items[0].chunk(2, dim=1)
    gmf = (user[0] * dense["output.gmf"]) @ item[0].T  # (A, C)
    left, right = _first_layer(user[1], item[1], dense)
    hidden = F.relu(left[:, None] + right[None])  # (A, C, d/2)
    for layer in range(1, LAYERS):
        weight, bias = dense[f"layer{layer}.weight"], dense[f"layer{layer}.bias"]
        hidden = F.relu(F.linear(hidden, weight, bias))
    return (gmf + hidden @ dense["output.mlp"])[None]


def catalogue_scores(users: Tensor, items: Tensor, dense: dict[str, Tensor]) -> Tensor:
    """Score users (A, d) with items (C, d) on a host: float32 (A, C), as ``scores`` does.

    Each side's part of the first layer is made once; the rest is done by blocks of pairs that stay
    in cache, a pair a column, which the small products are fastest in.
    """
    user, item = users.chunk(2, dim=1), items.chunk(2, dim=1)
    found = (user[0] * dense["output.gmf"]) @ item[0].T
    left, right = _first_layer(user[1], item[1], dense)
    weights = [dense[f"layer{layer}.weight"] for layer in range(1, LAYERS)]
    biases = [dense[f"layer{layer}.bias"][:, None] for layer in range(1, LAYERS)]
    for start in range(0, len(items), BLOCK):
        block = right[start : start + BLOCK].T.contiguous()  # (d/2, P)
        for a in range(len(users)):
            hidden = (block + left[a, :, None]).relu_()
            for weight, bias in zip(weights, biases, strict=True):
                hidden = torch.addmm(bias, weight, hidden).relu_()
            found[a, start : start + BLOCK] += dense["output.mlp"] @ hidden
    return found
