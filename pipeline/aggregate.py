"""Aggregation over neighbour lists of a tile, whose backward pass is a gather as well.

The transposed lists come with the tile (docs/formats.md section 2.3), so neither pass scatters:
ExecuTorch's scatter_add and index_put take ten times as long as the gather.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

GROUP = 4
"""Neighbours of a slot gathered at a time."""


@dataclass(frozen=True)
class Lists:
    """Neighbours of T slots, F at most.

    Attributes:
        neighbours: int32 (T, F), slots that slot t sums over; 0 where there is none.
        neighbour_weights: float32 (T, F); 0 where there is none.
        readers: int32 (T, F), the transposed lists: slots that sum over slot t.
        reader_weights: float32 (T, F).
    """

    neighbours: Tensor
    neighbour_weights: Tensor
    readers: Tensor
    reader_weights: Tensor

    def aggregate(self, rows: Tensor) -> Tensor:
        """Sum each slot's neighbours, weighted: float32 (T, w) to (T, w)."""
        lists = (self.neighbours, self.neighbour_weights, self.readers, self.reader_weights)
        total: Tensor = _Aggregate.apply(rows, *lists)  # type: ignore[no-untyped-call]
        return total


def weighted_sum(rows: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """Sum ``weights[t, k] * rows[index[t, k]]`` over k: float32 (T, w).

    A few neighbours at a time, so that the gathered rows take GROUP tiles and not F.
    """
    width = index.shape[1]
    if width <= GROUP:
        return (F.embedding(index, rows) * weights[:, :, None]).sum(dim=1)
    total = weighted_sum(rows, index[:, :GROUP], weights[:, :GROUP])
    return total + weighted_sum(rows, index[:, GROUP:], weights[:, GROUP:])


class _Aggregate(torch.autograd.Function):
    """A X by the lists, and A^T G by the transposed lists. The lists are constants."""

    @staticmethod
    def forward(
        rows: Tensor, neighbours: Tensor, weights: Tensor, readers: Tensor, back: Tensor
    ) -> Tensor:
        return weighted_sum(rows, neighbours, weights)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[3:])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        readers, back = ctx.saved_tensors
        return weighted_sum(grads[0], readers, back), None, None, None, None
