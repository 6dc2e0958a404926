"""What our step is held against: PyTorch eager, and ExecuTorch's own training of a dense table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from export.dense import split
from export.dense_trainers import training_pte
from export.step import Step, tile_loss
from pipeline.aggregate import Lists
from pipeline.optimizers import STATE, moved
from pipeline.optimizers import rates as optimizer_rates


def write_training_program(path: Path, rows: int, dim: int, batch: int, l2: float) -> None:
    """Write a dense table's program for ExecuTorch's TrainingModule: method ``training``."""
    path.write_bytes(training_pte(0.1 * torch.randn(rows, dim), batch, l2))


def eager_step(
    batch: int, dim: int, entries: int, l2: float
) -> Callable[[], tuple[Tensor, Tensor, Tensor]]:
    """Give the step's arithmetic on one tile, as autograd does it: gradients, then the update."""
    mask = (torch.rand(3 * batch, dim) < 0.1).float()
    rows = 0.1 * torch.randn(3 * batch, dim) * mask
    sampled = (torch.rand(3 * batch, 1) < 0.25).float()
    weight = torch.ones(batch)
    vals, grads, rate = torch.randn(entries), torch.randn(entries), torch.tensor([0.1])

    def step() -> tuple[Tensor, Tensor, Tensor]:
        masked = (rows * mask).requires_grad_()
        loss = tile_loss(masked, weight, l2)
        (gradient,) = torch.autograd.grad(loss, masked)
        return loss.detach(), gradient * (mask + sampled * (1 - mask)), vals - rate * grads

    return step


def eager_model_step(step: Step) -> Callable[[], object]:
    """Give the arithmetic of a model's step on one tile, as autograd does it, and its update."""
    rates = {name: torch.tensor([0.1]) for name in optimizer_rates(step.optimizer, 0, 0)}
    mask = (torch.rand(step.slots, step.dim) < 0.1).float()
    rows = 0.1 * torch.randn(step.slots, step.dim) * mask
    sampled = (torch.rand(step.slots, 1) < 0.25).float()
    weight = torch.ones(step.batch_size)
    lists = None
    if step.has_graph:
        shape = (step.slots, step.fanout)
        indices = [torch.randint(0, step.slots, shape, dtype=torch.int32) for _ in range(2)]
        lists = Lists(indices[0], torch.rand(shape), indices[1], torch.rand(shape))
    flat = 0.1 * torch.randn(step.dense_size)

    def packed(size: int) -> dict[str, Tensor]:
        return {name: torch.rand(size) for name in STATE[step.optimizer]}

    vals, grads, of_vals = torch.randn(step.chunk), torch.randn(step.chunk), packed(step.chunk)
    of_flat = packed(step.dense_size)

    def run() -> object:
        masked = (rows * mask).requires_grad_()
        dense = flat.detach().requires_grad_()
        loss = step.value(masked, weight, lists, split(dense, step.dense))
        if step.dense:
            gradient, slope = torch.autograd.grad(loss, (masked, dense))
            new = moved(step.optimizer, flat, slope, of_flat, rates)
        else:
            (gradient,) = torch.autograd.grad(loss, masked)
            new = None
        wanted = gradient * (mask + sampled * (1 - mask))
        return loss.detach(), wanted, new, moved(step.optimizer, vals, grads, of_vals, rates)

    return run


def eager_top(users: int, items: int, dim: int, top: int) -> Callable[[], object]:
    """Give the ranking of all items for one user by a dense product and ``topk``."""
    table = torch.randn(users + items, dim)
    seen = torch.randint(0, items, (50,))

    @torch.no_grad()
    def rank() -> object:
        scores = table[users:] @ table[7]
        scores[seen] = -torch.inf
        return torch.topk(scores, top)

    return rank
