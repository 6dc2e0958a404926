"""The k best of many scores, with one rule for equal ones, on the host and on a device."""

from __future__ import annotations

import torch
from torch import Tensor


def best(scores: Tensor, k: int) -> Tensor:
    """Choose the k greatest scores of each line; of equal ones, those of smaller index.

    ``topk`` alone leaves open which of equal scores it gives, and PyTorch, and ExecuTorch with
    one C++ library or another, differ in it. Equal scores are common: rows that nobody trained
    are zeros, and sparse rows need not meet in any column. What is used here exists in
    ExecuTorch's runtime, which has no stable sort.

    Args:
        scores: float32 (A, C), C at least k; -inf for what is no candidate.
        k: how many.

    Returns:
        int64 (A, k): indices; those of equal scores ascend, the rest is in no order.
    """
    count = scores.shape[1]
    least = torch.topk(scores, k).values[:, -1:]  # (A, 1)
    early = torch.arange(count, 0, -1, dtype=torch.int32)  # (C,), greater the smaller the index
    key = torch.where(scores > least, early + count, torch.where(scores == least, early, 0))
    return torch.topk(key, k).indices
