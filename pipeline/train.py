"""The training step on packed tables, for the host and for the golden losses of a device.

No tensor of N d is made: parameters, gradients, optimizer state and accumulators are packed or as
small as one batch's tile (SparseRec's sampled backward, arXiv 2411.12205).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch.nn import functional as F

from pipeline.exchange import Schedule, exchange
from pipeline.models import mf
from pipeline.optimizers import STATE, OptimizerName, update
from pipeline.sampling import TripleSampler, sampled_rows
from pipeline.table import F32, I64, PackedTable


@dataclass(frozen=True)
class StepConfig:
    """What one training step does; the same fields are in a bundle's ``manifest.training``.

    Attributes:
        optimizer: ``sgd`` or ``adam``.
        learning_rate: of the optimizer.
        l2: penalty on the rows of a triple.
        batch_size: triples a step.
        sampled_fraction: |S| / N, rows that get a dense gradient in a window.
        floor: least active entries of a row.
        grow: gradients that growing looks at: ``cumulative`` over the window, or of its last
            batch only (``instant``, as SET's successors do; the baseline).
    """

    optimizer: OptimizerName = "adam"
    learning_rate: float = 0.01
    l2: float = 0.01
    batch_size: int = 1024
    sampled_fraction: float = 0.5
    floor: int = 2
    grow: Literal["cumulative", "instant"] = "cumulative"


@dataclass
class Trainer:
    """Trains a packed table step by step; ``step`` counts the steps done.

    Attributes:
        table: replaced at each exchange, changed in place otherwise.
        sampler: draws triples.
        config: of a step.
        schedule: of the mask updates; None keeps the mask.
        state: optimizer state, arrays (nnz,) in the order of the table's entries.
        sampled: int64 (|S|,), this window's rows.
        sums: float32 (|S|, d), their gradients so far.
        exchanged: entries exchanged over the whole run.
    """

    table: PackedTable
    sampler: TripleSampler
    config: StepConfig
    schedule: Schedule | None
    step: int = 0
    state: dict[str, F32] = field(default_factory=dict)
    sampled: I64 = field(default_factory=lambda: np.empty(0, np.int64))
    sums: F32 = field(default_factory=lambda: np.empty((0, 0), np.float32))
    exchanged: int = 0

    def __post_init__(self) -> None:
        for name in STATE[self.config.optimizer]:
            self.state.setdefault(name, np.zeros(self.table.nnz, np.float32))

    def run_step(self) -> float:
        """Do one step and, where a window ends, the mask update. Returns the loss."""
        if self.schedule is not None and self.step % self.schedule.window == 0:
            self._begin_window(self.step // self.schedule.window)
        users, positives, negatives = self.sampler.batch(self.step, self.config.batch_size)
        offset = self.table.num_users
        slots = np.concatenate([users, offset + positives, offset + negatives])
        rows, inverse = np.unique(slots, return_inverse=True)
        tile, _, found = self.table.gather(rows)
        with _one_thread():
            loss, grads = _gradients(tile, inverse, self.config.l2)
        update(
            self.config.optimizer,
            self.table.vals,
            grads[found.slot, found.col],
            found.index,
            self.state,
            self.config.learning_rate,
            self.step,
        )
        if self.schedule is not None:
            self._end_of_step(self.schedule, rows, grads)
        self.step += 1
        return loss

    def _begin_window(self, window: int) -> None:
        size = max(1, math.floor(self.config.sampled_fraction * self.table.num_rows + 0.5))
        self.sampled = sampled_rows(
            self.sampler.log, self.table.num_users, window, size, self.sampler.seed
        )
        self.sums = np.zeros((len(self.sampled), self.table.dim), np.float32)

    def _end_of_step(self, schedule: Schedule, rows: I64, grads: F32) -> None:
        ends = (self.step + 1) % schedule.window == 0
        if self.config.grow == "cumulative" or ends:
            # Both are ascending and distinct, so this finds the sampled rows of this batch.
            place = np.minimum(np.searchsorted(self.sampled, rows), len(self.sampled) - 1)
            here = self.sampled[place] == rows
            self.sums[place[here]] += grads[here]
        fraction = schedule.fraction_after(self.step)
        if fraction > 0:
            self.table, self.state, count = exchange(
                self.table, self.sampled, self.sums, fraction, self.config.floor, self.state
            )
            self.exchanged += count


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep PyTorch to one thread: a tile is too small to share.

    Measured with 1,024 triples at d = 64 on 2 cores that other work kept busy: a step of 3.5 ms
    took 200 ms on two threads, which spin while they wait for each other.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _gradients(tile: F32, inverse: I64, l2: float) -> tuple[float, F32]:
    """Loss and its gradient by the distinct rows of a batch: tile (U, d), inverse (3B,)."""
    rows = torch.from_numpy(tile).requires_grad_()
    # Not rows[inverse]: its backward adds with atomics, in an order that changes from run to run.
    slots = F.embedding(torch.from_numpy(inverse), rows)  # (3B, d)
    weight = torch.ones(len(inverse) // mf.SLOTS_PER_EXAMPLE)
    loss = mf.bpr_loss(slots, weight, l2)
    (grads,) = torch.autograd.grad(loss, rows)
    return float(loss.detach()), grads.numpy()
