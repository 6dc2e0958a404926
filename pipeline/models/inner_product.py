"""Scores that are inner products, as MF, LightGCN and NGCF have them."""

from __future__ import annotations

import torch
from torch import Tensor

PAIR_FLOATS = 1


def pair_scores(users: Tensor, items: Tensor, dense: dict[str, Tensor]) -> Tensor:
    """Score users (B, w) with items (B, w), row by row: float32 (B,)."""
    return (users * items).sum(dim=1)


def example_scores(vectors: Tensor, size: int, dense: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Score users, slots [0, B) of (3B, w), with the two blocks of items after them: (B,) each."""
    user, item, negative = vectors[:size], vectors[size : 2 * size], vectors[2 * size :]
    return pair_scores(user, item, dense), pair_scores(user, negative, dense)


def example_margins(vectors: Tensor, size: int, dense: dict[str, Tensor]) -> Tensor:
    """Score users with their negative less their positive item: (B,). One product, not two."""
    user, item, negative = vectors[:size], vectors[size : 2 * size], vectors[2 * size :]
    return pair_scores(user, negative - item, dense)


def scores(users: Tensor, items: Tensor, dense: dict[str, Tensor]) -> Tensor:
    """Score every item for every user.

    Args:
        users: float32 (1, A, w).
        items: float32 (1, C, w).
        dense: not used.

    Returns:
        float32 (1, A, C). A batched product, because ExecuTorch's XNNPACK takes both of bmm's
        operands as run-time inputs, which it does not for mm or linear.
    """
    return torch.bmm(users, items.transpose(1, 2))
