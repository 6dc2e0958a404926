"""Learning on from a trained table, as a device does, from its own log.

The host runs this for the golden losses that a device is judged by; docs/formats.md sections 2-5
say what each step does, and the harness in android_app does the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from pipeline.data.split import Pairs
from pipeline.exchange import Schedule
from pipeline.losses import LossName, batch_slots
from pipeline.models import MODELS, ModelName
from pipeline.neighbourhood import Chunks, Neighbourhood, Neighbours
from pipeline.optimizers import OptimizerName
from pipeline.precision import Precision
from pipeline.recommender import Recommender
from pipeline.sampling import TripleSampler
from pipeline.table import F32, PackedTable
from pipeline.train import StepConfig, Trainer

LEARNING_RATES: dict[OptimizerName, float] = {
    "sgd": 5.0,
    "momentum": 0.5,
    "adagrad": 0.03,
    "adam": 0.003,
}
"""Where none is given. SGD's is on the batch's mean loss, so it is large: a row's share of a batch
is about 1 / batch_size. MovieLens-100K would have 10, but on Gowalla, where nothing shifts with
time, that learns nothing (docs/method.md)."""
WINDOW, LEAST_UPDATES, SLOTS_A_ROW = 50, 3, 4
"""Of a device's windows: see ``Incremental.window_of``."""
SAMPLED, MOST_SAMPLED = 0.25, 1 << 12
"""S is a quarter of the rows, or so many, whose sums take 1 MiB at d = 64: as much as a second
cache holds. Large tables learn as well by that (docs/method.md)."""
SCORED_ROWS = 256
"""C of models with a graph: rows whose vectors are made at a time."""


@dataclass(frozen=True)
class Incremental:
    """What a device does by default; a bundle's manifest carries it as ``training``.

    The defaults were selected by ``sparserec demo --tune`` inside the host's past (trained on its
    first part, learning on from its middle, judged by its end) and by ``pipeline.device_study``.
    They are MF's; see ``of``.

    Attributes:
        model: the base recommender.
        loss: of the batch.
        optimizer: of entries and dense parameters.
        precision: of the stored values.
        learning_rate: of the optimizer.
        l2: penalty on the rows of an example.
        batch_size: examples a step.
        negatives: K, items that the batch shares under ``softmax``.
        epochs: passes over the log.
        seed: of the draws.
        window: dT, steps between two mask updates; None: what ``window_of`` gives.
        sampled_fraction: |S| / N; None: what ``fraction_of`` gives.
        exchange_fraction, exchange_stop: of the mask updates.
        negative_tries: draws for a negative before the last one stands.
        floor: least active entries of a row.
        fanout: F, neighbours of a slot, for models with a graph.
        tile: T / S, slots of a tile for each of the batch's own, for models with a graph.
    """

    model: ModelName = "mf"
    loss: LossName = "bpr"
    optimizer: OptimizerName = "sgd"
    precision: Precision = "float32"
    learning_rate: float = LEARNING_RATES["sgd"]
    l2: float = 0.003
    batch_size: int = 256
    negatives: int = 256
    epochs: int = 14
    seed: int = 1
    window: int | None = None
    sampled_fraction: float | None = None
    exchange_fraction: float = 0.1
    exchange_stop: float = 0.75
    negative_tries: int = 8
    floor: int = 2
    fanout: int = 4
    tile: int = 4

    @classmethod
    def of(
        cls, model: ModelName, loss: LossName = "bpr", optimizer: OptimizerName | None = None
    ) -> Incremental:
        """Give a model's defaults: MF learns by SGD, the others by Adagrad.

        SGD at a rate that moves single rows would tear weights that every example shares, and
        Adam's rate does not fall as a log grows long. LightGCN's tile has no slots but the
        batch's: sums over a few of many neighbours vary so much that it unlearns by them
        (docs/method.md).
        """
        chosen: OptimizerName = optimizer or ("sgd" if model == "mf" else "adagrad")
        rate, tile = LEARNING_RATES[chosen], 1 if model == "lightgcn" else cls.tile
        return replace(
            cls(), model=model, loss=loss, optimizer=chosen, learning_rate=rate, tile=tile
        )

    def window_of(self, num_rows: int, steps: int) -> int:
        """Give dT for a run: the recipe's own, or else ``WINDOW`` and more for a large table.

        A mask update's time grows with the table. So that its part of a step does not, a window
        has ``SLOTS_A_ROW`` slots for each row; its length hardly matters to quality
        (docs/method.md). A short run still has room for ``LEAST_UPDATES``, if windows are no
        shorter than ``WINDOW``.

        Args:
            num_rows: N.
            steps: of the run.
        """
        if self.window is not None:
            return self.window
        for_table = math.ceil(SLOTS_A_ROW * num_rows / self.batch_slots)
        for_run = int(self.exchange_stop * steps) // (LEAST_UPDATES + 1)
        return max(WINDOW, min(for_table, for_run))

    def fraction_of(self, num_rows: int) -> float:
        """Give |S| / N for a table of N rows: the recipe's own, or else ``SAMPLED``'s."""
        if self.sampled_fraction is not None:
            return self.sampled_fraction
        return min(SAMPLED, MOST_SAMPLED / num_rows)

    @property
    def batch_slots(self) -> int:
        """S: users, positives and negatives of a batch."""
        return batch_slots(self.loss, self.batch_size, self.negatives)

    @property
    def tile_slots(self) -> int:
        """T."""
        return self.batch_slots * (1 if MODELS[self.model].GRAPH == "none" else self.tile)

    @property
    def chunk_fanout(self) -> int:
        """F of a chunk of rows to score: no gradients, so there is time for more neighbours."""
        return 4 * self.fanout

    @property
    def chunk_slots(self) -> int:
        """T of a chunk of rows to score: room for each row's neighbours."""
        return SCORED_ROWS * (1 + self.chunk_fanout)

    def steps(self, interactions: int) -> int:
        """Steps that pass ``epochs`` times over a log of this many interactions."""
        return self.epochs * math.ceil(interactions / self.batch_size)

    def chunks(self, neighbours: Neighbours) -> Chunks:
        """Give how vectors are made for scoring, for models with a graph."""
        return Chunks(neighbours, SCORED_ROWS, self.chunk_slots, self.chunk_fanout, self.seed)


def incremental_trainer(
    table: PackedTable,
    log: Pairs,
    seen: Pairs,
    known_items: int,
    recipe: Incremental,
    steps: int,
    dense: dict[str, F32] | None = None,
) -> Trainer:
    """Set up the run of ``steps`` steps that a device makes from ``table``, which is copied.

    Args:
        table: trained, in the bundle's layout.
        log: interactions to learn from.
        seen: the past; like the log, never negative. It is the graph of models that have one.
        known_items: items [0, known_items) exist.
        recipe: of the run.
        steps: length of the run, which the exchange schedule depends on.
        dense: the model's dense parameters, which are copied.
    """
    known = TripleSampler.of(log, seen, table.num_items, known_items, recipe.seed).known
    sampler = TripleSampler(
        log, known, table.num_items, known_items, recipe.seed, recipe.negative_tries
    )
    config = StepConfig(
        model=recipe.model,
        loss=recipe.loss,
        optimizer=recipe.optimizer,
        learning_rate=recipe.learning_rate,
        l2=recipe.l2,
        batch_size=recipe.batch_size,
        negatives=recipe.negatives,
        sampled_fraction=recipe.fraction_of(table.num_rows),
        floor=recipe.floor,
        precision=recipe.precision,
    )
    window = recipe.window_of(table.num_rows, steps)
    schedule = Schedule(steps, window, recipe.exchange_fraction, recipe.exchange_stop)
    neighbourhood = None
    if MODELS[recipe.model].GRAPH != "none":
        neighbours = Neighbours.of(seen, table.num_users, table.num_items)
        neighbourhood = Neighbourhood(neighbours, recipe.tile_slots, recipe.fanout)
    return Trainer(
        table.copy(),
        sampler,
        config,
        schedule,
        neighbourhood=neighbourhood,
        dense={name: values.copy() for name, values in (dense or {}).items()},
    )


def device_recommender(
    table: PackedTable, recipe: Incremental, seen: Pairs, dense: dict[str, F32]
) -> Recommender:
    """Give what scores as a device does: from sampled neighbourhoods where a model has a graph."""
    chunks = None
    if MODELS[recipe.model].GRAPH != "none":
        chunks = recipe.chunks(Neighbours.of(seen, table.num_users, table.num_items))
    return Recommender(table, recipe.model, dense, chunks=chunks)
