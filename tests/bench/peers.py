"""What our step is held against: PyTorch eager, and ExecuTorch's own training of a dense table."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.dense import split
from export.dense_trainers import joint_pte, training_pte
from export.step import Step, tile_loss
from pipeline.aggregate import Lists
from pipeline.optimizers import STATE, OptimizerName, moved
from pipeline.optimizers import rates as optimizer_rates


class _Dense(nn.Module):
    """MF with BPR on dense tables, each role looked up for itself, as a textbook has it.

    The last table has the items, the first the users; there may be one for both. Takes int64 (3B,):
    users, positive and negative items, as rows of their tables.
    """

    def __init__(self, l2: float, dim: int, *rows: int) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(size, dim) for size in rows)
        self.l2 = l2

    def forward(self, rows: Tensor) -> Tensor:
        users, positives, negatives = rows.chunk(3)
        u = self.tables[0](users)
        p, n = self.tables[-1](positives), self.tables[-1](negatives)
        squares = (u * u).sum(1) + (p * p).sum(1) + (n * n).sum(1)
        margins = (u * n).sum(1) - (u * p).sum(1)
        return (F.softplus(margins) + 0.5 * self.l2 * squares).mean()


def joint_table(rows: int, dim: int, batch: int, l2: float) -> bytes:
    """Make the program of one table of all rows, as SparseRec's: one ``nn.Embedding``."""
    return joint_pte(_Dense(l2, dim, rows), batch)


def two_tables(users: int, items: int, dim: int, batch: int, l2: float) -> bytes:
    """Make the program of a table of users and one of items."""
    return joint_pte(_Dense(l2, dim, users, items), batch)


def one_lookup(rows: int, dim: int, batch: int, l2: float) -> bytes:
    """Make the program of a table whose 3B rows are looked up at once: one gradient to write."""
    return training_pte(0.1 * torch.randn(rows, dim), batch, l2)


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


def eager_update(optimizer: OptimizerName, entries: int) -> Callable[[], object]:
    """Give the update of packed entries by an optimizer."""
    vals, grads, *numbers = (torch.rand(entries) for _ in range(2 + len(STATE[optimizer])))
    state = dict(zip(STATE[optimizer], numbers, strict=True))
    rates = {name: torch.tensor([0.1]) for name in optimizer_rates(optimizer, 0, 0)}
    return lambda: moved(optimizer, vals, grads, state, rates)


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


def eager_top(users: int, items: int, dim: int, top: int, ranked: int = 1) -> Callable[[], object]:
    """Give the ranking of all items for so many users by a dense product and ``topk``."""
    table = torch.randn(users + items, dim)
    seen = torch.randint(0, items, (ranked, 50))

    @torch.no_grad()
    def rank() -> object:
        scores = table[:ranked] @ table[users:].T
        scores.scatter_(1, seen, -torch.inf)
        return torch.topk(scores, top)

    return rank
