"""Losses against PyTorch's own, and a whole batch's loss against the formula."""

import math
from typing import get_args

import pytest
import torch
from torch.nn import functional as F

from pipeline.losses import SHARED, LossName, batch_loss, bce, bpr, softmax
from pipeline.models import MODELS

MF = MODELS["mf"]


def test_bpr_and_bce_are_pytorchs() -> None:
    positive, negative = torch.randn(50) * 5, torch.randn(50) * 5
    torch.testing.assert_close(bpr(negative - positive), -F.logsigmoid(positive - negative))
    with_logits = F.binary_cross_entropy_with_logits
    expected = with_logits(positive, torch.ones(50), reduction="none")
    expected += with_logits(negative, torch.zeros(50), reduction="none")
    torch.testing.assert_close(bce(positive, negative), expected)


def test_softmax_over_all_items_once_is_cross_entropy() -> None:
    """K = C - 1 draws that miss the positive stand for C items: log(C / K) more than the sum."""
    scores = torch.randn(8, 20)
    positive, others = scores[:, 0], scores[:, 1:]
    corrected = torch.cat([scores[:, :1], others + math.log(20 / 19)], dim=1)
    expected = F.cross_entropy(corrected, torch.zeros(8, dtype=torch.long), reduction="none")
    torch.testing.assert_close(softmax(positive, others, 20), expected)


@pytest.mark.parametrize("name", get_args(LossName))
def test_a_batch_is_the_weighted_mean_with_its_penalty(name: LossName) -> None:
    size, shared, l2 = 6, 9, 0.3
    negatives = shared if name in SHARED else size
    rows = torch.randn(2 * size + negatives, 5)
    weight = torch.tensor([1.0, 1, 0, 1, 0, 1])
    total = torch.tensor(0.0)
    for b in range(size):
        user, item = rows[b], rows[size + b]
        wrong = rows[2 * size :] if name in SHARED else rows[2 * size + b][None]
        score, against = user @ item, wrong @ user
        if name == "softmax":
            loss = softmax(score[None], against[None], 100)[0]
        else:
            loss = bce(score[None], against)[0] if name == "bce" else bpr(against - score).mean()
        squares = user @ user + item @ item + (wrong * wrong).sum(1).mean()
        total += weight[b] * (loss + l2 / 2 * squares)
    got = batch_loss(name, MF, rows, rows, {}, weight, l2, 100)
    torch.testing.assert_close(got, total / weight.sum())
