"""Losses over a batch's scores; each model brings the scores, each loss is written once."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from pipeline.models import Model

LossName = Literal["bpr", "bce", "bpr-shared", "softmax"]
SLOTS_PER_EXAMPLE = 3
"""Of ``bpr`` and ``bce``: user, positive item, negative item."""
SHARED: tuple[LossName, ...] = ("bpr-shared", "softmax")
"""Losses whose negatives are drawn once, for the whole batch."""


def batch_slots(name: LossName, size: int, negatives: int) -> int:
    """Count the slots of a batch of ``size`` examples, with ``negatives`` where it shares them."""
    return 2 * size + negatives if name in SHARED else SLOTS_PER_EXAMPLE * size


def bpr(margins: Tensor) -> Tensor:
    """Bayesian personalised ranking (Rendle et al., UAI 2009): float32 (B,).

    Args:
        margins: (B,), a user's negative item's score less the positive one's.
    """
    return F.softplus(margins)


def bpr_shared(positive: Tensor, negatives: Tensor) -> Tensor:
    """``bpr`` against each of K items, their mean: float32 (B,).

    With a uniform draw it has the mean of ``bpr`` against one, and its gradient less noise.

    Args:
        positive: scores (B,).
        negatives: scores (B, K) of K items that the whole batch shares.
    """
    return bpr(negatives - positive[:, None]).mean(dim=1)


def bce(positive: Tensor, negative: Tensor) -> Tensor:
    """Binary cross-entropy with one negative a positive, scores (B,) each: float32 (B,)."""
    return F.softplus(-positive) + F.softplus(negative)


def softmax(positive: Tensor, negatives: Tensor, num_items: int) -> Tensor:
    """Sampled softmax over items drawn uniformly (Jean et al., ACL 2015): float32 (B,).

    Args:
        positive: scores (B,).
        negatives: scores (B, K) of K items that the whole batch shares.
        num_items: that they were drawn from; each stands for num_items / K of them.
    """
    others = torch.logsumexp(negatives, dim=1) + math.log(num_items / negatives.shape[1])
    return torch.logaddexp(positive, others) - positive


def batch_loss(
    name: LossName,
    model: Model,
    vectors: Tensor,
    rows: Tensor,
    dense: dict[str, Tensor],
    weight: Tensor,
    l2: float,
    num_items: int,
) -> Tensor:
    """Weighted mean of a batch's losses, with L2 on the rows that each example uses.

    Args:
        name: of the loss.
        model: whose scores are taken.
        vectors: float32 (S, w'), what ``model.propagate`` made of the batch's slots: [0, B) users,
            [B, 2B) positive items, then the negatives: B, one for each example, or for a loss in
            ``SHARED`` any number.
        rows: float32 (S, d), the same slots' rows of the table, which the penalty is on.
        dense: the model's dense parameters.
        weight: float32 (B,): 1 for a real example, 0 for padding; at least one is not 0.
        l2: strength: l2/2 times the squared norms of user, positive and (mean) negative.
        num_items: that negatives are drawn from.

    Returns:
        float32 ().
    """
    size = weight.shape[0]
    if name in SHARED:
        user, negative = vectors[:size], vectors[2 * size :]
        positives = model.pair_scores(user, vectors[size : 2 * size], dense)
        negatives = model.scores(user[None], negative[None], dense).squeeze(0)
        losses = (
            softmax(positives, negatives, num_items)
            if name == "softmax"
            else bpr_shared(positives, negatives)
        )
    elif name == "bce":
        losses = bce(*model.example_scores(vectors, size, dense))
    else:
        losses = bpr(model.example_margins(vectors, size, dense))
    squared = (rows * rows).sum(dim=1)
    penalty = squared[:size] + squared[size : 2 * size]
    others = squared[2 * size :]
    penalty = penalty + (others.mean() if name in SHARED else others)
    return (weight * (losses + (0.5 * l2) * penalty)).sum() / weight.sum()
