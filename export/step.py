"""The train step, ``step.pte``: docs/formats.md section 2."""

from __future__ import annotations

import torch
from torch import Tensor

from export.methods import Method, TensorSpec
from pipeline.losses import SLOTS_PER_EXAMPLE, batch_loss
from pipeline.models import mf


def tile_loss(rows: Tensor, weight: Tensor, l2: float) -> Tensor:
    """BPR on a tile (3B, d) of masked rows, with its examples' weights (B,): float32 ()."""
    return batch_loss("bpr", mf, rows, rows, {}, weight, l2, num_items=1)


def step_methods(batch_size: int, dim: int, l2: float, chunk: int) -> dict[str, Method]:
    """Describe the methods of ``step.pte`` for MF.

    Args:
        batch_size: B, triples in a step.
        dim: d, columns of the table.
        l2: strength of the loss's penalty.
        chunk: E, entries that one call of ``update`` takes.
    """

    def gradients(
        rows: Tensor, mask: Tensor, sampled: Tensor, weight: Tensor
    ) -> tuple[Tensor, Tensor]:
        masked = rows * mask  # (3B, d)
        grads, loss = torch.func.grad_and_value(lambda tile: tile_loss(tile, weight, l2))(masked)
        # Where a gradient is wanted: 1 inside the mask, and everywhere in a sampled row. Products
        # broadcast (T, 1) cheaply in ExecuTorch's portable kernels; maximum and where do not.
        wanted = mask * (1 - sampled) + sampled  # (3B, d)
        return loss, grads * wanted

    slots = SLOTS_PER_EXAMPLE * batch_size
    tile = (slots, dim)
    return {
        "gradients": Method(
            gradients,
            inputs=(
                TensorSpec("rows", "float32", tile, "tile"),
                TensorSpec("mask", "float32", tile, "mask"),
                TensorSpec("sampled", "float32", (slots, 1), "sampled"),
                TensorSpec("weight", "float32", (batch_size,), "weight"),
            ),
            outputs=(
                TensorSpec("loss", "float32", (), "loss"),
                TensorSpec("grads", "float32", tile, "gradient"),
            ),
        ),
        "update": Method(
            _sgd,
            inputs=(
                TensorSpec("vals", "float32", (chunk,), "values"),
                TensorSpec("grads", "float32", (chunk,), "gradient"),
                TensorSpec("lr", "float32", (1,), "learning_rate"),
            ),
            outputs=(TensorSpec("vals", "float32", (chunk,), "values"),),
        ),
    }


def update_chunk(batch_size: int, entries: int, rows: int) -> int:
    """Choose E: a power of two that holds the entries of a batch whose rows are all distinct.

    Args:
        batch_size: B.
        entries: active entries of the table.
        rows: of the table.
    """
    expected = SLOTS_PER_EXAMPLE * batch_size * entries / rows
    return 1 << max(8, int(expected).bit_length())


def _sgd(vals: Tensor, grads: Tensor, lr: Tensor) -> tuple[Tensor]:
    return (vals - lr * grads,)
