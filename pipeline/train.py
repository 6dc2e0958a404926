"""The training step on packed tables, for the host and for the golden losses of a device.

No tensor of N d is made for MF and NeuMF: parameters, gradients, optimizer state and accumulators
are packed or as small as one batch's tile (SparseRec's sampled backward, arXiv 2411.12205).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np
import torch

from pipeline.annealing import CONSTANT, Annealing
from pipeline.backward import (
    CPU,
    Gradients,
    Objective,
    layered_gradients,
    linear_gradients,
    sampled_gradients,
    tile_gradients,
)
from pipeline.exchange import Schedule, exchange
from pipeline.graph import ColumnBlocks, Graph
from pipeline.losses import SHARED, LossName
from pipeline.models import MODELS, ModelName
from pipeline.neighbourhood import Neighbourhood
from pipeline.optimizers import STATE, OptimizerName, update
from pipeline.precision import Precision, Rounding, round_rows
from pipeline.regrowth import importance_rows, regrow_at_random, regrow_by_gradient
from pipeline.sampling import TripleSampler, sampled_rows, uniform_rows
from pipeline.table import F32, I64, PackedTable

Grow = Literal["cumulative", "magnitude", "instant", "rigl", "set"]
Importance = Literal["frequency", "uniform", "gradient", "all"]
Backward = Literal["packed", "literal"]
EMA = "ema"
"""The moving average's name in a trainer's state, beside the optimizer's: what moves entries moves
their averages, and a checkpoint has them."""


@dataclass(frozen=True)
class StepConfig:
    """What one training step does; the same fields are in a bundle's ``manifest.training``.

    Attributes:
        model: the base recommender.
        loss: ``bpr``, ``bce`` (one negative an example), ``bpr-shared`` or ``softmax`` (shared).
        optimizer: ``sgd``, ``momentum``, ``adagrad`` or ``adam``.
        learning_rate: of the optimizer.
        l2: penalty on the rows of an example.
        batch_size: examples a step.
        negatives: K, items that the batch shares, where the loss is of such.
        sampled_fraction: |S| / N, rows that get a dense gradient in a window.
        importance: how S is drawn: in proportion to the rows' training frequency, uniformly, in
            proportion to the norms of their gradients in the window before (by frequency in the
            first), or not at all: every row.
        backward: ``packed``: active entries of every touched row are trained, and only regrowth
            looks at S. ``literal``: rows outside S get no gradient at all.
        floor: least active entries of a row.
        grow: the mask update. SparseRec's looks at the sampled rows and at gradients summed over
            the window (``cumulative``), their absolute values (``magnitude``), or those of its
            last batch (``instant``). ``rigl`` and ``set`` are these papers' own rules.
        precision: what values are rounded to as they are written back.
        rounding: how int8 values are.
    """

    model: ModelName = "mf"
    loss: LossName = "bpr"
    optimizer: OptimizerName = "adam"
    learning_rate: float = 0.01
    l2: float = 0.01
    batch_size: int = 1024
    negatives: int = 1024
    sampled_fraction: float = 0.5
    importance: Importance = "frequency"
    backward: Backward = "packed"
    floor: int = 2
    grow: Grow = "cumulative"
    precision: Precision = "float32"
    rounding: Rounding = "stochastic"


@dataclass
class Trainer:
    """Trains a packed table step by step; ``step`` counts the steps done.

    Attributes:
        table: changed in place.
        sampler: draws the examples.
        config: of a step.
        schedule: of the mask updates; None keeps the mask.
        graph: of the training interactions, for models that need one.
        dense: the model's dense parameters, changed in place.
        state: optimizer state, arrays (nnz,) in the order of the table's entries, and ``EMA``.
        dense_state: the same for each dense parameter.
        sampled: int64 (|S|,), this window's rows, ascending.
        sums: float32 (|S|, d), their gradients so far.
        norms: float32 (N,), norms of each row's gradients, summed over this window; where S is
            drawn by them, else (0,).
        exchanged: entries exchanged over the whole run.
        neighbourhood: in place of a graph: what each step's sampled neighbourhood is drawn by.
        ema: decay of the moving average of the weights that ``averaged`` gives; 0: none is kept.
        annealing: of the learning rate.
        device: where gradients of models without a graph are computed; see ``pipeline.compute``.
    """

    table: PackedTable
    sampler: TripleSampler
    config: StepConfig
    schedule: Schedule | None
    graph: Graph | None = None
    dense: dict[str, F32] = field(default_factory=dict)
    step: int = 0
    state: dict[str, F32] = field(default_factory=dict)
    dense_state: dict[str, dict[str, F32]] = field(default_factory=dict)
    sampled: I64 = field(default_factory=lambda: np.empty(0, np.int64))
    sums: F32 = field(default_factory=lambda: np.empty((0, 0), np.float32))
    norms: F32 = field(default_factory=lambda: np.empty(0, np.float32))
    exchanged: int = 0
    neighbourhood: Neighbourhood | None = None
    ema: float = 0.0
    annealing: Annealing = CONSTANT
    device: torch.device = CPU

    def __post_init__(self) -> None:
        names = STATE[self.config.optimizer]
        for name in names:
            self.state.setdefault(name, np.zeros(self.table.nnz, np.float32))
        for key, values in self.dense.items():
            self.dense_state.setdefault(key, {name: np.zeros_like(values) for name in names})
        if self.ema:
            self.state.setdefault(EMA, self.table.vals.copy())
            for key, values in self.dense.items():
                self.dense_state[key].setdefault(EMA, values.copy())
        graphs = (self.graph is not None) + (self.neighbourhood is not None)
        if (MODELS[self.config.model].GRAPH != "none") != graphs:
            raise ValueError(f"model {self.config.model}: its graph is missing, or it has none")

    @property
    def learning_rate(self) -> float:
        """This step's."""
        return self.config.learning_rate * self.annealing.part_at(self.step)

    def run_step(self) -> float:
        """Do one step and, where a window ends, the mask update. Returns the loss."""
        config = self.config
        if self.schedule is not None and self.step % self.schedule.window == 0:
            self._begin_window(self.step // self.schedule.window)
        found = self._gradients(self._slots())
        self._update_entries(found)
        for name, values in self.dense.items():
            state = self.dense_state[name]
            grads = found.dense[name]
            update(config.optimizer, values, grads, None, state, self.learning_rate, self.step)
        if self.ema:
            self._average()
        if self.schedule is not None:
            if self.config.importance == "gradient":
                self._add_norms(found)
            self._end_of_step(self.schedule, found)
        self.step += 1
        return found.loss

    def replace_table(self, table: PackedTable, state: dict[str, F32]) -> None:
        """Go on with another table of the same rows, and the optimizer state of its entries."""
        self.table, self.state = table, state
        self.__dict__.pop("_blocks", None)

    def averaged(self) -> tuple[PackedTable, dict[str, F32]]:
        """Give the table and the dense parameters to judge and to keep.

        They are the current ones, not copied, or their exponential moving averages over the steps
        (after Polyak and Juditsky, 1992), begun at the start. An entry that a mask update grows
        begins at 0, in its average too.
        """
        if not self.ema:
            return self.table, self.dense
        dense = {name: state[EMA] for name, state in self.dense_state.items()}
        return replace(self.table, vals=self.state[EMA]), dense

    def _average(self) -> None:
        part = np.float32(1 - self.ema)
        pairs = [(self.state[EMA], self.table.vals)]
        pairs += [(self.dense_state[name][EMA], values) for name, values in self.dense.items()]
        for average, values in pairs:
            np.add(average, part * (values - average), out=average)

    @cached_property
    def _blocks(self) -> ColumnBlocks:
        return ColumnBlocks(self.table)

    def _slots(self) -> I64:
        """Draw the batch: the rows of users, of positives and of negatives."""
        return self._drawn(0, self.config.batch_size, self.table.num_users)

    def _drawn(self, first: int, size: int, offset: int) -> I64:
        """Draw ``size`` of the batch's examples from ``first`` on, items as ``offset`` and more."""
        sampler = self.sampler
        if self.config.loss in SHARED:
            users, positives = sampler.positives(self.step, size, first)
            negatives = sampler.shared_negatives(self.step, self.config.negatives)
        else:
            users, positives, negatives = sampler.batch(self.step, size, first)
        return np.concatenate([users, offset + positives, offset + negatives])

    @property
    def _objective(self) -> Objective:
        config, known_items = self.config, self.sampler.known_items
        return Objective(config.model, config.loss, config.l2, known_items, self.device)

    def _gradients(self, slots: I64) -> Gradients:
        config, size, objective = self.config, self.config.batch_size, self._objective
        if self.neighbourhood is not None:
            tile = self.neighbourhood.tile(slots, self.sampler.seed, self.step)
            return sampled_gradients(objective, self.table, tile, len(slots), self.dense, size)
        if self.graph is None:
            return tile_gradients(objective, self.table, slots, self.dense, size)
        wanted = self.sampled if self._looks() else self.sampled[:0]
        if MODELS[config.model].GRAPH == "linear":
            return linear_gradients(objective, self.graph, self._blocks, slots, wanted, size)
        return layered_gradients(objective, self.graph, self.table, slots, wanted, self.dense, size)

    def _update_entries(self, found: Gradients) -> None:
        index, grads = found.index, found.entries
        if self.config.backward == "literal" and self.schedule is not None:
            index = np.arange(self.table.nnz) if index is None else index
            rows = np.searchsorted(self.table.row_ptr, index, side="right") - 1
            chosen = _contains(self.sampled, rows)
            index, grads = index[chosen], grads[chosen]
        config, vals = self.config, self.table.vals
        update(config.optimizer, vals, grads, index, self.state, self.learning_rate, self.step)
        rows = found.rows if found.index is not None else np.arange(self.table.num_rows)
        seed = self.sampler.seed
        round_rows(self.table, rows, config.precision, seed, self.step, config.rounding)

    def _begin_window(self, window: int) -> None:
        num_rows, seed = self.table.num_rows, self.sampler.seed
        size = max(1, math.floor(self.config.sampled_fraction * num_rows + 0.5))
        if self.config.importance == "all":
            self.sampled = np.arange(num_rows)
        elif self.config.importance == "uniform":
            self.sampled = uniform_rows(num_rows, window, size, seed)
        elif self.config.importance == "gradient" and self.norms.any():
            self.sampled = importance_rows(self.norms, size, seed, window)
        else:
            log, num_users = self.sampler.log, self.table.num_users
            self.sampled = sampled_rows(log, num_users, window, size, seed, num_rows)
        self.sums = np.zeros((0, self.table.dim), np.float32)
        if self.config.importance == "gradient":
            self.norms = np.zeros(num_rows, np.float32)

    def _add_norms(self, found: Gradients) -> None:
        """Add the norm of each row's gradient; of its active entries, where a graph spreads it."""
        if found.index is None:
            rows = np.repeat(np.arange(self.table.num_rows), np.diff(self.table.row_ptr))
            squares = np.bincount(rows, found.entries * found.entries, self.table.num_rows)
            self.norms += np.sqrt(squares).astype(np.float32)
        else:
            self.norms[found.rows] += np.linalg.norm(found.whole, axis=1)

    def _looks(self) -> bool:
        """Tell whether growing looks at this step's gradients: all of a window's, or its last."""
        if self.schedule is None or self.config.grow == "set":
            return False
        every = self.config.grow in ("cumulative", "magnitude")
        return every or (self.step + 1) % self.schedule.window == 0

    def _end_of_step(self, schedule: Schedule, found: Gradients) -> None:
        if self.config.grow not in ("rigl", "set") and self._looks():
            self._accumulate(found)
        fraction = schedule.fraction_after(self.step)
        if fraction == 0:
            return
        self.__dict__.pop("_blocks", None)  # stale once entries move, and not held while they do
        table, state, floor = self.table, self.state, self.config.floor
        if self.config.grow == "set":
            seed, window = self.sampler.seed, self.step // schedule.window
            self.exchanged += regrow_at_random(table, fraction, floor, state, seed, window)
        elif self.config.grow == "rigl":
            rows, grads = found.rows, found.whole
            self.exchanged += regrow_by_gradient(table, rows, grads, fraction, floor, state)
        else:
            self.exchanged += exchange(table, self.sampled, self.sums, fraction, floor, state)

    def _accumulate(self, found: Gradients) -> None:
        if len(self.sums) == 0:  # not before, so that an instant gradient needs no window of it
            self.sums = np.zeros((len(self.sampled), self.table.dim), np.float32)
        _, place, here = np.intersect1d(
            self.sampled, found.rows, assume_unique=True, return_indices=True
        )
        whole = found.whole[here]
        self.sums[place] += np.abs(whole) if self.config.grow == "magnitude" else whole


def _contains(sorted_values: I64, values: I64) -> np.ndarray:
    if len(sorted_values) == 0:  # a rank may own none of the rows sampled
        return np.zeros(len(values), np.bool_)
    place = np.minimum(np.searchsorted(sorted_values, values), len(sorted_values) - 1)
    found: np.ndarray = sorted_values[place] == values
    return found
