"""What a host run is: one dataclass, and the recipes that the demo and the command line start from.

The learning rates and penalties of ``RECIPES`` were selected on validation, each table from the
same grid, by ``sparserec demo --tune`` on MovieLens-100K.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from pipeline.train import StepConfig

Method = Literal["sparserec", "dense", "static", "set", "rigl", "dsl", "magnitude", "pep", "small"]
Start = Literal["nmf", "nmf-mask", "random"]


@dataclass(frozen=True)
class Recipe:
    """One host run.

    Attributes:
        method: ``sparserec`` or a baseline: ``dense``, every entry active; ``static``, a random
            mask that stays; ``set``, ``rigl`` and ``dsl``, masks that change by the rules of
            these papers; ``magnitude``, a dense table pruned as it trains; ``pep``, learned
            thresholds; ``small``, a dense table of fewer columns. docs/baselines.md
        step: what one step does.
        start: ``nmf``: mask and values; ``nmf-mask``: the mask, with random values; ``random``.
        dim: d.
        density: active entries / (N d).
        epochs: passes over the training interactions; the best one on validation is kept.
        patience: epochs without a better validation Recall@20 before training ends; 0: never.
        valid_users: users drawn for validation where there are more; 0 takes all.
        window: dT, steps between two mask updates; 0 keeps the mask.
        exchange_fraction: part of the sampled rows' entries exchanged at first.
        exchange_stop: no exchange after this part of the run.
        rescale: power of the row norm that NMF entries are divided by before ranking.
        value_scale: root mean square of the starting values.
        seed: of the start and of every draw.
    """

    method: Method
    step: StepConfig
    start: Start = "nmf"
    dim: int = 64
    density: float = 0.1
    epochs: int = 15
    patience: int = 0
    valid_users: int = 10_000
    window: int = 60
    exchange_fraction: float = 0.2
    exchange_stop: float = 0.75
    rescale: float = 0.5
    value_scale: float = 0.1
    seed: int = 1


def sparserec() -> Recipe:
    """SparseRec: NMF start, cumulative-gradient regrowth, dense gradients for sampled rows."""
    return Recipe("sparserec", StepConfig(learning_rate=0.003, l2=0.1))


def dense() -> Recipe:
    """Train every entry of the table, from small random values: what sparse tables are held to."""
    step = StepConfig(learning_rate=0.01, l2=0.01)
    return replace(sparserec(), method="dense", step=step, start="random", density=1.0, window=0)


def static() -> Recipe:
    """Train under a random mask that stays as it is."""
    step = StepConfig(learning_rate=0.01, l2=0.1)
    return replace(sparserec(), method="static", step=step, start="random", window=0)


def set_() -> Recipe:
    """SET (Mocanu et al., 2018): drop the weakest entries, grow at random."""
    step = StepConfig(learning_rate=0.01, l2=0.1, grow="random", importance="all")
    return replace(sparserec(), method="set", step=step, start="random")


def rigl() -> Recipe:
    """RigL (Evci et al., 2020): drop the weakest, grow by the dense gradient of one batch."""
    step = StepConfig(learning_rate=0.01, l2=0.1, grow="instant", importance="all")
    return replace(sparserec(), method="rigl", step=step, start="random")


RECIPES = {
    "sparserec": sparserec,
    "dense": dense,
    "static": static,
    "set": set_,
    "rigl": rigl,
}
