"""Where the recipes' learning rates and penalties come from: small grids, judged on validation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from pipeline.data.interactions import Interactions
from pipeline.data.split import Split, temporal_split
from pipeline.evaluate import evaluate
from pipeline.fit import fit, known_only
from pipeline.history import best_trained
from pipeline.incremental import Incremental, incremental_trainer
from pipeline.recipes import Recipe
from pipeline.recommender import Recommender
from pipeline.sampling import join
from sparserec.errors import SparseRecError

HOST_GRID = tuple(product((0.001, 0.003, 0.01, 0.03), (0.01, 0.03, 0.1)))
DEVICE_GRID = tuple(product((2.5, 5.0, 10.0, 20.0), (0.003, 0.01, 0.03)))
"""Learning rates x penalties."""


@dataclass(frozen=True)
class Trial:
    """One point of a grid: its settings and the Recall@20 that it is judged by."""

    learning_rate: float
    l2: float
    epoch: int
    recall: float


def host_trials(recipe: Recipe, split: Split) -> Iterator[Trial]:
    """Train ``recipe`` at each point of the grid; yield its best epoch of training."""
    for learning_rate, l2 in HOST_GRID:
        tried = replace(recipe, step=replace(recipe.step, learning_rate=learning_rate, l2=l2))
        fitted = fit(tried, split)
        best = best_trained(fitted.history, fitted.best_epoch)
        yield Trial(learning_rate, l2, int(best["epoch"]), best["recall@20"])


def device_trials(recipe: Recipe, device: Incremental, split: Split) -> Iterator[Trial]:
    """Play the device's part inside the host's past; yield each point's best epoch.

    The past is cut by time as the whole data is: a table is trained on its first part, learns on
    from its third, and is judged by its end. Nothing after the past is looked at.

    Raises:
        SparseRecError: if the interactions have no times.
    """
    inner = _past_alone(split)
    table = fit(recipe, inner).table
    known_items = inner.known_items
    past = join(inner.train, inner.valid)
    log, later = known_only(inner.log, inner), known_only(inner.later, inner)
    for learning_rate, l2 in DEVICE_GRID:
        tried = replace(device, learning_rate=learning_rate, l2=l2)
        steps = tried.steps(len(log))
        trainer = incremental_trainer(table, log, past, known_items, tried, steps)
        best = Trial(learning_rate, l2, 0, 0.0)
        for epoch in range(1, tried.epochs + 1):
            while trainer.step < epoch * (steps // tried.epochs):
                trainer.run_step()
            recall = evaluate(
                Recommender(trainer.table), later, join(past, log), known_items
            ).recall[20]
            if recall > best.recall:
                best = Trial(learning_rate, l2, epoch, recall)
        yield best


def past_of(split: Split) -> Interactions:
    """Give the host's past as a log of its own, with times if it has them."""
    train, valid = split.train, split.valid
    past, times = join(train, valid), None
    if train.timestamps is not None and valid.timestamps is not None:
        times = np.concatenate([train.timestamps, valid.timestamps])
    users, items = split.user_ids[: split.known_users], split.item_ids[: split.known_items]
    return Interactions(past.users, past.items, times, users, items)


def _past_alone(split: Split) -> Split:
    past = past_of(split)
    if past.timestamps is None:
        raise SparseRecError(
            "the device's part can only be tuned on interactions with times",
            "use a log with a time column",
        )
    return temporal_split(past)
