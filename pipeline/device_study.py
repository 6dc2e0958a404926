"""What a device's settings gain and cost: ``python -m pipeline.device_study DATASET [CHANGE...]``.

A table is trained on seven tenths of each user's train interactions and learns on from two tenths
as a device does; the last tenth judges. Where there are times the past is cut by them, as the whole
is. The dataset's test part is not used. A change is one more row, such as ``window=800`` or
``learning_rate=20,l2=0.01``: fields of ``Incremental``, but for the seed, which is varied anyway,
and the model, which is the table's.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields, replace
from statistics import mean
from typing import Any, get_args

import numpy as np

from pipeline.data.datasets import Dataset, load
from pipeline.data.split import Pairs, Split, leave_out, temporal_split
from pipeline.evaluate import evaluate
from pipeline.fit import fit, known_only
from pipeline.incremental import Incremental, device_recommender, incremental_trainer
from pipeline.losses import LossName
from pipeline.models import MODELS, ModelName
from pipeline.optimizers import OptimizerName
from pipeline.precision import Precision
from pipeline.recipes import Recipe, sparserec, suited
from pipeline.recommender import Recommender
from pipeline.sampling import join
from pipeline.table import F32, PackedTable
from pipeline.tune import past_of
from sparserec.errors import SparseRecError

SEEDS = (1, 2, 3)
EPOCHS = 6
MOST_USERS = 4000
NAMES = {
    "loss": get_args(LossName),
    "optimizer": get_args(OptimizerName),
    "precision": get_args(Precision),
}
COUNTS = ("window", "batch_size", "negatives", "epochs", "negative_tries", "fanout", "tile")
"""Fields that are 1 or more."""


def host_recipe(model: ModelName = "mf") -> Recipe:
    """Give the host's run: short, because the device's is what is looked at."""
    recipe = sparserec()
    step = replace(recipe.step, model=model, batch_size=8192)
    return suited(replace(recipe, step=step, epochs=5, valid_users=4000))


def split_of(dataset: Dataset) -> Split:
    """Cut what the host may look at: a published train file, or else the past of a split."""
    past = dataset.interactions if dataset.test is not None else past_of(dataset.split())
    if past.timestamps is not None:
        return temporal_split(past)
    return leave_out(past, valid=0.1, log=0.2, later=0.1)


def changed(recipe: Incremental, text: str) -> Incremental:
    """Change fields of a recipe: ``name=value,...``.

    Raises:
        ValueError: there is no such field, its value is no number or no name of one, or it is
            the model's or the seed's, or a count is below 1.
    """
    kinds: dict[str, Any] = {one.name: type(getattr(recipe, one.name)) for one in fields(recipe)}
    kinds |= {"window": int, "sampled_fraction": float}  # None by default
    del kinds["model"], kinds["seed"]
    values = {}
    for pair in text.split(","):
        name, _, value = pair.partition("=")
        if name not in kinds:
            raise ValueError(f"{name!r} is none of {', '.join(kinds)}")
        try:
            values[name] = kinds[name](value)
        except ValueError:
            raise ValueError(f"{pair!r}: {value!r} is no {kinds[name].__name__}") from None
        if value not in (names := NAMES.get(name, (value,))):
            raise ValueError(f"{pair!r}: {value!r} is none of {', '.join(names)}")
        if name in COUNTS and values[name] < 1:
            raise ValueError(f"{pair!r}: give 1 or more")
    return replace(recipe, **values)


class Device:
    """A device that learns on from a table, and what judges it."""

    def __init__(self, fitted: Recommender, split: Split) -> None:
        self.table, self.dense, self.known_items = fitted.table, fitted.dense, split.known_items
        self.past = join(split.train, split.valid)
        self.log, self.later = known_only(split.log, split), known_only(split.later, split)
        users = np.random.default_rng(0).permutation(np.unique(self.later.users))
        self.users = np.sort(users[:MOST_USERS])

    def recall(self, recipe: Incremental, table: PackedTable, dense: dict[str, F32]) -> float:
        """Give Recall@20 on what comes after the log."""
        hidden: Pairs = join(self.past, self.log)
        scorer = device_recommender(table, recipe, self.past, dense)
        return evaluate(scorer, self.later, hidden, self.known_items, self.users).recall[20]

    def learn(self, recipe: Incremental) -> tuple[float, int]:
        """Learn from the log.

        Returns:
            Recall@20 after it, and the entries exchanged.
        """
        steps = recipe.steps(len(self.log))
        trainer = incremental_trainer(
            self.table, self.log, self.past, self.known_items, recipe, steps, self.dense
        )
        for _ in range(steps):
            trainer.run_step()
        return self.recall(recipe, trainer.table, trainer.dense), trainer.exchanged


def main() -> None:
    """Print a table."""
    from rich.console import Console
    from rich.table import Table

    parser = argparse.ArgumentParser(prog="python -m pipeline.device_study", description=__doc__)
    parser.add_argument("dataset")
    parser.add_argument("changes", nargs="*")
    parser.add_argument("--value-scale", type=float)
    parser.add_argument("--model", choices=list(MODELS), default="mf")
    given = parser.parse_intermixed_args()
    usual = replace(Incremental.of(given.model), epochs=EPOCHS)
    rows = {"as it is": usual, "no mask updates": replace(usual, exchange_stop=0.0)}
    try:
        rows |= {text: changed(usual, text) for text in given.changes}
    except ValueError as error:
        parser.error(str(error))
    split = split_of(load(given.dataset))
    recipe = host_recipe(given.model)
    if given.value_scale is not None:
        recipe = replace(recipe, value_scale=given.value_scale)
    device = Device(fit(recipe, split).recommender, split)
    before, num_rows = device.recall(usual, device.table, device.dense), device.table.num_rows
    about = f"{given.dataset}, {given.model}, {num_rows:,} rows"
    title = f"{about}: Recall@20 {before:.4f} before the log"
    shown = Table("", "window", "exchanged", "after it, mean of seeds", title=title)
    console = Console()
    for text, one in rows.items():
        found = [device.learn(replace(one, seed=seed)) for seed in SEEDS]
        after = [recall for recall, _ in found]
        spread = f"{mean(after):.4f} ({min(after):.4f} to {max(after):.4f})"
        window = one.window_of(num_rows, one.steps(len(device.log)))
        shown.add_row(text, str(window) if one.exchange_stop else "", f"{found[0][1]:,}", spread)
        console.print(f"{text}: {spread}", style="dim")
    console.print(shown)


if __name__ == "__main__":
    try:
        main()
    except SparseRecError as error:
        sys.exit(str(error))
