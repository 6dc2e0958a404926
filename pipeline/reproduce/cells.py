"""A cell is one run of an experiment: what sets it apart from others, and the recipe it runs.

A recipe is put together from four layers, each of which overrides the one before:
``pipeline.recipes`` (the method), ``BUDGETS`` (what all methods on a dataset share), the settings
that ``sparserec reproduce tune`` selected on validation, and the cell's own overrides.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from pipeline.data.datasets import Protocol
from pipeline.models import ModelName
from pipeline.recipes import RECIPES, VALUE_SCALES, Method, Recipe

Experiment = Literal["tune", "grid", "ablation", "sensitivity", "domains", "width", "long"]
EXPERIMENTS: tuple[Experiment, ...] = get_args(Experiment)
Override = tuple[str, str | float]
"""A dotted field of ``Recipe`` and its value: ``("step.l2", 0.01)``."""


@dataclass(frozen=True)
class Cell:
    """One run.

    Attributes:
        experiment: the file that its record goes to.
        dataset: a name that ``pipeline.data.datasets.load`` takes.
        protocol: how the dataset is split.
        model: the base recommender.
        method: a key of ``RECIPES``.
        density: active entries / (N d); 1 for dense.
        seed: of the start and every draw. The split is the same for all seeds.
        variant: what is special, in words; empty for a method as it is.
        overrides: fields of the recipe that make it so.
        tuned_as: the method whose tuned settings are used; empty: its own.
    """

    experiment: Experiment
    dataset: str
    protocol: Protocol
    model: ModelName
    method: Method
    density: float
    seed: int
    variant: str = ""
    overrides: tuple[Override, ...] = ()
    tuned_as: str = ""

    @property
    def id(self) -> str:
        """What a record is found by; the experiment is the file's name."""
        parts = [self.dataset, self.protocol, self.model, self.method, f"{self.density:g}"]
        return "/".join([*parts, f"seed{self.seed}", *([self.variant] if self.variant else [])])

    @property
    def setting(self) -> tuple[str, str, str, float]:
        """What methods are compared in: dataset, protocol, model, density."""
        return self.dataset, self.protocol, self.model, self.density

    @property
    def tuned_by(self) -> Tuned:
        """Which tuning its settings come from."""
        return self.dataset, self.protocol, self.model, self.tuned_as or self.method

    @property
    def is_tuned(self) -> bool:
        """Tell whether it has a learning rate and a penalty of its own, as tuning runs have."""
        return dict(self.overrides).keys() >= {"step.learning_rate", "step.l2"}

    def as_dict(self) -> dict[str, Any]:
        """Give what ``from_dict`` reads, for JSON."""
        return asdict(self) | {"overrides": [list(pair) for pair in self.overrides]}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Cell:
        """Read what ``as_dict`` wrote.

        Raises:
            TypeError: a field is missing or unknown.
        """
        pairs = tuple((name, value) for name, value in values["overrides"])
        return cls(**values | {"overrides": pairs})


Tuned = tuple[str, str, str, str]
"""Dataset, protocol, model and method that settings are selected for."""


@dataclass(frozen=True)
class Budget:
    """What every method on a dataset gets.

    Attributes:
        epochs: at most; validation ends a run earlier.
        patience: epochs without a better validation Recall@20 before a run ends.
        batch_size: examples a step. Large, because a graph model's propagation costs the same for
            any batch.
        negatives: that a batch shares. The loss is sampled softmax for all methods: on Gowalla's
            validation it was better than BPR for SparseRec, in fewer epochs.
        tune_epochs: epochs of a run that only selects settings.
        penalties: that tuning tries with each of ``LEARNING_RATES``.
        valid_users: users drawn for validation; selection needs no more, and time counts.
    """

    epochs: int
    patience: int
    batch_size: int
    negatives: int
    tune_epochs: int
    penalties: tuple[float, ...] = (0.01, 0.1)
    valid_users: int = 10_000


LARGE = Budget(
    epochs=16,
    patience=3,
    batch_size=16_384,
    negatives=512,
    tune_epochs=4,
    penalties=(0.01,),
    valid_users=4000,
)
BUDGETS: dict[str, Budget] = {
    "gowalla": LARGE,
    "yelp2018": LARGE,
    "ml-1m": LARGE,
    "amazon-beauty": replace(LARGE, batch_size=4096),
}
"""What a CPU can pay: an epoch of LightGCN on Gowalla takes 15 s on one core."""
OTHERWISE = Budget(epochs=60, patience=8, batch_size=1024, negatives=512, tune_epochs=60)
"""Tuning runs as long as what it selects for: 12 epochs chose a learning rate of .03 for LightGCN
on lastfm (validation .245 in the end), where .01 comes to .254."""
TUNE_DENSITY = 0.1
SOFTMAX_SCALE, PLAIN_SCALE = 0.7, 0.2
"""Root mean squares of NMF's values, refined by least squares and plain, chosen on validation. The
smaller the values, the more Adam's first steps move them in proportion: lastfm's MF comes to .251,
.248 and .243 at .5, .7 and 1 (.003, 0.1)."""
LEARNING_RATES = (0.003, 0.01, 0.03)


def budget_of(dataset: str, model: str) -> Budget:
    """Give what every method gets that trains this model on this dataset."""
    budget = BUDGETS.get(dataset, OTHERWISE)
    if model in ("mf", "neumf") and dataset in BUDGETS:
        # Tables that start at random need as many: on Gowalla's validation dense MF is at .082 in
        # 16 epochs at penalty .01, at .126 in 34 at .1; NeuMF at .02 after 4.
        budget = replace(budget, epochs=40, patience=6, tune_epochs=8, penalties=(0.01, 0.1))
    if model == "neumf":
        # Each of a batch's examples goes through the perceptron with each negative.
        budget = replace(budget, negatives=64, valid_users=min(budget.valid_users, 2000))
    return budget


def refined_scale(model: str) -> float:
    """Give the root mean square that a start refined by least squares is scaled to."""
    return VALUE_SCALES.get(model, SOFTMAX_SCALE)


def with_overrides(recipe: Recipe, overrides: Sequence[Override]) -> Recipe:
    """Replace fields of a recipe, its step or its NMF options.

    Raises:
        TypeError: there is no such field.
    """
    for name, value in overrides:
        owner, _, inner = name.rpartition(".")
        if owner:
            part = replace(getattr(recipe, owner), **{inner: value})
            recipe = replace(recipe, **{owner: part})
        else:
            recipe = replace(recipe, **{name: value})  # type: ignore[arg-type]
    return recipe


def recipe_of(cell: Cell, tuned: Sequence[Override], epochs: int | None = None) -> Recipe:
    """Put a cell's recipe together.

    Args:
        cell: to run.
        tuned: settings that tuning selected for it.
        epochs: instead of the budget's or the cell's, for a trial.
    """
    budget = budget_of(cell.dataset, cell.model)
    recipe = RECIPES[cell.method]()
    step = replace(
        recipe.step,
        model=cell.model,
        loss="softmax",
        batch_size=budget.batch_size,
        negatives=budget.negatives,
    )
    recipe = replace(recipe, step=step)
    if recipe.start == "nmf":
        scale = refined_scale(cell.model) if recipe.refines else PLAIN_SCALE
        recipe = replace(recipe, value_scale=scale)
    recipe = replace(
        recipe,
        density=cell.density,
        epochs=budget.tune_epochs if cell.experiment == "tune" else budget.epochs,
        patience=budget.patience,
        valid_users=budget.valid_users,
        seed=cell.seed,
    )
    trial: list[Override] = [] if epochs is None else [("epochs", epochs)]
    return with_overrides(recipe, [*tuned, *cell.overrides, *trial])


def digest(cell: Cell, recipe: Recipe) -> str:
    """Name what belongs to one run of a cell: 16 hexadecimal digits."""
    text = json.dumps([cell.experiment, cell.id, recipe.as_dict()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
