"""What a host run is: one dataclass, and the recipes that the demo and the command line start from.

The learning rates and penalties below were selected on validation, each table from the same grid,
by ``sparserec demo --tune`` on MovieLens-100K.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from pipeline.train import StepConfig

Method = Literal["sparserec", "dense", "random-instant"]


@dataclass(frozen=True)
class Recipe:
    """One host run.

    Attributes:
        method: ``sparserec``; ``dense``, every entry active; ``random-instant``, a random mask
            regrown by the last batch's gradient.
        step: what one step does.
        dim: d.
        density: active entries / (N d).
        epochs: passes over the training interactions; the best one on validation is kept.
        window: dT, steps between two mask updates; 0 keeps the mask.
        exchange_fraction: part of the sampled rows' entries exchanged at first.
        exchange_stop: no exchange after this part of the run.
        rescale: power of the row norm that NMF entries are divided by before ranking.
        value_scale: root mean square of the starting values.
        seed: of the start and of every draw.
    """

    method: Method
    step: StepConfig
    dim: int = 64
    density: float = 0.1
    epochs: int = 15
    window: int = 60
    exchange_fraction: float = 0.2
    exchange_stop: float = 0.75
    rescale: float = 0.5
    value_scale: float = 0.1
    seed: int = 1


def sparserec() -> Recipe:
    """SparseRec: NMF start, cumulative-gradient regrowth, dense gradients for sampled rows."""
    return Recipe("sparserec", StepConfig(learning_rate=0.003, l2=0.1, grow="cumulative"))


def dense() -> Recipe:
    """Train every entry of the table, from small random values: what sparse tables are held to."""
    step = StepConfig(learning_rate=0.01, l2=0.01)
    return replace(sparserec(), method="dense", step=step, density=1.0, window=0)


def random_instant() -> Recipe:
    """Train from a random mask that grows by one batch's gradient: RigL's rule."""
    step = StepConfig(learning_rate=0.01, l2=0.1, sampled_fraction=1.0, grow="instant")
    return replace(sparserec(), method="random-instant", step=step)


RECIPES = {"sparserec": sparserec, "dense": dense, "random-instant": random_instant}
