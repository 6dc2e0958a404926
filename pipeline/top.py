"""The k best of many scores, with one rule for equal ones, on the host and on a device."""

from __future__ import annotations

import torch
from torch import Tensor


def best(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Choose the k greatest scores of each line; of equal ones, those of smaller index.

    ``topk`` alone leaves open which of equal scores it gives, and PyTorch, and ExecuTorch with
    one C++ library or another, differ in it. Equal scores are common: rows that nobody trained
    are zeros, and sparse rows need not meet in any column. What is used here exists in
    ExecuTorch's runtime, which has no stable sort.

    Args:
        scores: float32 (A, C), C at least k; -inf for what is no candidate.
        k: how many.

    Returns:
        float32 (A, k): the scores, descending; int64 (A, k): their indices. Equal scores above the
        least of the k are all there, in any order.
    """
    top = torch.topk(scores, k)
    least = top.values[:, -1:]  # (A, 1)
    early = torch.arange(scores.shape[1], 0, -1, dtype=torch.int32)  # greater where index smaller
    ties = torch.topk(torch.where(scores == least, early, 0), k).indices  # (A, k), ascending
    above = top.values > least  # (A, k); from the first that is not, ties fill the list
    place = torch.arange(k) - above.sum(dim=1, keepdim=True)
    filled = torch.gather(ties, 1, torch.clamp(place, min=0))
    return top.values, torch.where(above, top.indices, filled)


def ranked(scores: Tensor, k: int) -> Tensor:
    """Rank as ``best`` chooses, equal scores by index.

    For the host: only lines with more equal scores than fit are looked at twice.

    Returns:
        int64 (A, k): indices, best first.
    """
    top = torch.topk(scores, min(k + 1, scores.shape[1]))
    chosen = top.indices[:, :k]
    tied = top.values[:, k - 1] == top.values[:, -1]
    if bool(tied.any()):
        chosen[tied] = best(scores[tied], k)[1]
    chosen = chosen.sort(dim=1).values
    order = scores.gather(1, chosen).sort(dim=1, descending=True, stable=True).indices
    return chosen.gather(1, order)
