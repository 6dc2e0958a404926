"""Learning on from a trained table, as a device does: plain SGD on its own log.

The host runs this for the golden losses that a device is judged by; docs/formats.md sections 2-5
say what each step does, and the harness in android_app does the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipeline.data.split import Pairs
from pipeline.exchange import Schedule
from pipeline.sampling import TripleSampler
from pipeline.table import PackedTable
from pipeline.train import StepConfig, Trainer


@dataclass(frozen=True)
class Incremental:
    """What a device does by default; a bundle's manifest carries it as ``training``.

    The defaults were selected by ``sparserec demo --tune`` inside the host's past: trained on its
    first part, learning on from its middle, judged by its end.

    Attributes:
        learning_rate: of SGD on the batch's mean loss, so it is large: a row's share of a batch
            is about 1 / batch_size.
        l2: penalty on the rows of a triple.
        batch_size: triples a step.
        epochs: passes over the log.
        seed: of the draws.
        window, sampled_fraction, exchange_fraction, exchange_stop: of the mask updates.
        negative_tries: draws for a negative before the last one stands.
        floor: least active entries of a row.
    """

    learning_rate: float = 20.0
    l2: float = 0.003
    batch_size: int = 256
    epochs: int = 14
    seed: int = 1
    window: int = 50
    sampled_fraction: float = 0.25
    exchange_fraction: float = 0.1
    exchange_stop: float = 0.75
    negative_tries: int = 8
    floor: int = 2

    def steps(self, interactions: int) -> int:
        """Steps that pass ``epochs`` times over a log of this many interactions."""
        return self.epochs * math.ceil(interactions / self.batch_size)


def incremental_trainer(
    table: PackedTable, log: Pairs, seen: Pairs, known_items: int, recipe: Incremental, steps: int
) -> Trainer:
    """Set up the run of ``steps`` steps that a device makes from ``table``, which is copied.

    Args:
        table: trained, in the bundle's layout.
        log: interactions to learn from.
        seen: the past; like the log, never negative.
        known_items: items [0, known_items) exist.
        recipe: of the run.
        steps: length of the run, which the exchange schedule depends on.
    """
    known = TripleSampler.of(log, seen, table.num_items, known_items, recipe.seed).known
    sampler = TripleSampler(
        log, known, table.num_items, known_items, recipe.seed, recipe.negative_tries
    )
    config = StepConfig(
        optimizer="sgd",
        learning_rate=recipe.learning_rate,
        l2=recipe.l2,
        batch_size=recipe.batch_size,
        sampled_fraction=recipe.sampled_fraction,
        floor=recipe.floor,
    )
    schedule = Schedule(steps, recipe.window, recipe.exchange_fraction, recipe.exchange_stop)
    return Trainer(table.copy(), sampler, config, schedule)
