"""Matrix factorisation with the BPR loss (Rendle et al., UAI 2009): its maths, defined once.

Training, the exported gradient program, evaluation and the exported score program all call these.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

SLOTS_PER_EXAMPLE = 3
"""A triple's slots: user, positive item, negative item."""


def bpr_loss(rows: Tensor, weight: Tensor, l2: float) -> Tensor:
    """Weighted mean of the BPR loss with L2 on the triple's own rows.

    Args:
        rows: float32 (3B, d), masked: slots [0, B) users, [B, 2B) positives, [2B, 3B) negatives.
        weight: float32 (B,): 1 for a real triple, 0 for padding; at least one is not 0.
        l2: strength of the penalty on the squared norms.

    Returns:
        float32 (): sum_b w_b (softplus(-u.(p - n)) + l2/2 (|u|^2 + |p|^2 + |n|^2)) / sum_b w_b.
    """
    user, positive, negative = rows.chunk(SLOTS_PER_EXAMPLE)  # each (B, d)
    margin = (user * (positive - negative)).sum(dim=1)  # (B,)
    squared = (user * user + positive * positive + negative * negative).sum(dim=1)  # (B,)
    per_triple = F.softplus(-margin) + (0.5 * l2) * squared
    return (weight * per_triple).sum() / weight.sum()


def scores(users: Tensor, items: Tensor) -> Tensor:
    """Score every item for every user.

    Args:
        users: float32 (1, A, d).
        items: float32 (1, C, d).

    Returns:
        float32 (1, A, C). A batched product, because ExecuTorch's XNNPACK takes both of bmm's
        operands as run-time inputs, which it does not for mm or linear.
    """
    return torch.bmm(users, items.transpose(1, 2))
