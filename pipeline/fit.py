"""A whole host run: start, train, select on validation, and survive being stopped."""

from __future__ import annotations

import hashlib
import json
import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pipeline.allocator import keep_freed_memory
from pipeline.backward import CPU
from pipeline.checkpoint import Best, Progress, load_checkpoint, save_checkpoint
from pipeline.data.split import Pairs, Split
from pipeline.evaluate import NOT_TESTED, Quality, evaluate, users_of
from pipeline.exchange import Schedule
from pipeline.graph import Graph
from pipeline.models import MODELS
from pipeline.nmf import (
    Factors,
    factorise,
    factorise_cached,
    nmf_table,
    random_table,
    side_by_side,
)
from pipeline.pep import PepTrainer
from pipeline.prune import gradual_density, magnitude_prune, small_dim
from pipeline.recipes import Recipe
from pipeline.recommender import Recommender
from pipeline.regrowth import set_schedule
from pipeline.sampling import TripleSampler
from pipeline.table import I64, PackedTable
from pipeline.train import Trainer
from sparserec import progress as report


@dataclass(frozen=True)
class Fitted:
    """What a run ends with.

    Attributes:
        recommender: of the epoch with the best validation Recall@20.
        best_epoch: 1-based.
        history: per epoch: ``epoch``, ``loss``, ``recall@20`` and ``ndcg@20`` on validation,
            ``exchanged`` entries so far; of PEP also ``left``, the density it has come to.
        test: its quality on interactions that selection never saw.
    """

    recommender: Recommender
    best_epoch: int
    history: list[dict[str, float]]
    test: Quality

    @property
    def table(self) -> PackedTable:
        """The recommender's table."""
        return self.recommender.table


def initial_table(
    recipe: Recipe, split: Split, cache: Path | None = None, factors: Factors | None = None
) -> PackedTable:
    """Build the table that training starts from, for the users and items of the past.

    Args:
        recipe: of the run.
        split: of the data.
        cache: folder where factors are kept for other runs on the same interactions.
        factors: of the same interactions, made elsewhere; no others are computed then.
    """
    users, items, seed = split.known_users, split.known_items, recipe.seed
    floor, scale = recipe.step.floor, recipe.value_scale
    if recipe.method == "small":
        dim = small_dim(recipe.dim, recipe.density)
        return random_table(users, items, dim, 1.0, 0, scale, seed)
    if recipe.start == "random":
        density = 1.0 if recipe.method in ("magnitude", "pep") else recipe.density
        return random_table(users, items, recipe.dim, density, floor, scale, seed)
    if factors is None:
        factors = _factors(recipe, split, cache)
    table = nmf_table(factors, recipe.density, floor, recipe.rescale, scale, recipe.sides)
    if recipe.start == "nmf-mask":
        rng = np.random.default_rng(seed)
        table.vals = rng.normal(0.0, scale, table.nnz).astype(np.float32)
    return table


def _factors(recipe: Recipe, split: Split, cache: Path | None) -> Factors:
    """Factor the training interactions; NeuMF's two halves get the same factors each."""
    users, items = split.known_users, split.known_items
    halves = 2 if recipe.step.model == "neumf" else 1
    rank = recipe.dim // halves
    if cache is None:
        found = factorise(split.train, users, items, rank, recipe.seed, recipe.nmf)
    else:
        found = factorise_cached(split.train, users, items, rank, recipe.seed, recipe.nmf, cache)
    return side_by_side([found] * halves)


def held_out(split: Split) -> Pairs:
    """Give what the host is tested on: the device's log, or a published split's test part.

    Newcomers are left out.
    """
    return known_only(split.log if len(split.log) else split.later, split)


def known_only(pairs: Pairs, split: Split) -> Pairs:
    """Leave out pairs of newcomers, for whom the host's table has no rows."""
    known = (pairs.users < split.known_users) & (pairs.items < split.known_items)
    return Pairs(pairs.users[known], pairs.items[known], None)


def fit(
    recipe: Recipe,
    split: Split,
    checkpoint: Path | None = None,
    progress: report.Progress = report.silent,
    start: PackedTable | None = None,
    observe: Callable[[Trainer], dict[str, float]] | None = None,
    device: torch.device = CPU,
) -> Fitted:
    """Train by ``recipe``, evaluating on validation after each epoch.

    Args:
        recipe: of the run.
        split: train and validation parts are the host's; the test part is looked at once, last.
        checkpoint: written after each epoch and on Ctrl-C; resumed from if it is there.
        progress: gets epochs done, with the last validation Recall@20.
        start: what ``initial_table`` gives for this recipe, if the caller has it already.
        observe: called after each epoch; what it returns joins the epoch's entry in the history.
        device: where gradients are computed; see ``pipeline.compute``.

    Raises:
        KeyboardInterrupt: on Ctrl-C, after the checkpoint is written.
        SparseRecError: if the checkpoint is damaged or of another run.
    """
    keep_freed_memory()
    progress(f"{recipe.method}: start", 0, recipe.epochs)
    trainer, steps_per_epoch = trainer_of(recipe, split, start or initial_table(recipe, split))
    trainer.device = device
    fingerprint = fingerprint_of(recipe, split)
    state = Progress()
    if checkpoint is not None and checkpoint.exists():
        state = load_checkpoint(checkpoint, fingerprint, trainer)
    with _stop_between_steps() as stop:
        while not finished(recipe, state):
            end = (len(state.history) + 1) * steps_per_epoch
            while trainer.step < end and not stop.is_set():
                state.loss_sum += trainer.run_step()
                _prune(trainer, recipe, steps_per_epoch)
            if trainer.step == end:
                quality = _validate(trainer, recipe, split)
                within = trainer.table.density <= recipe.density + 1e-3 or recipe.method == "small"
                end_epoch(trainer, state, quality, steps_per_epoch, within)
                state.history[-1] |= observe(trainer) if observe is not None else {}
                tell(progress, recipe, state)
            if checkpoint is not None:
                save_checkpoint(checkpoint, fingerprint, trainer, state)
            if stop.is_set():
                raise KeyboardInterrupt
    assert state.best is not None
    past = (split.train, split.valid)
    best = Recommender(state.best.table, recipe.step.model, state.best.dense, trainer.graph)
    relevant = held_out(split)
    test = evaluate(best, relevant, past, split.known_items) if len(relevant) else NOT_TESTED
    return Fitted(best, state.best.epoch, state.history, test)


def trainer_of(recipe: Recipe, split: Split, start: PackedTable) -> tuple[Trainer, int]:
    """Make the trainer of a run that begins, and count the steps of an epoch."""
    users, items = split.known_users, split.known_items
    if split.train_keys is None:
        sampler = TripleSampler.of(split.train, None, items, items, recipe.seed)
    else:
        sampler = TripleSampler(split.train, split.train_keys, items, items, recipe.seed)
    steps_per_epoch = math.ceil(len(split.train) / recipe.step.batch_size)
    schedule = schedule_of(recipe, steps_per_epoch)
    model = MODELS[recipe.step.model]
    graph = None if model.GRAPH == "none" else Graph.of(split.train, users, items)
    dense = model.initial(start.dim, recipe.seed)
    parts = start.copy(), sampler, recipe.step, schedule, graph, dense
    if recipe.method == "pep":
        return PepTrainer(*parts, pep=recipe.pep, seed=recipe.seed), steps_per_epoch
    return Trainer(*parts), steps_per_epoch


def schedule_of(recipe: Recipe, steps_per_epoch: int) -> Schedule | None:
    """Give the mask updates of a recipe, or None."""
    if recipe.window == 0 or recipe.method in ("magnitude", "pep"):
        return None
    steps, fraction = recipe.epochs * steps_per_epoch, recipe.exchange_fraction
    if recipe.method == "set":
        return set_schedule(steps, steps_per_epoch, fraction)
    return Schedule(steps, recipe.window, fraction, recipe.exchange_stop, recipe.exchange_least)


PRUNING = (0.1, 0.5)
"""Gradual pruning begins and ends at these parts of a run; the rest is fine-tuning."""


def _prune(trainer: Trainer, recipe: Recipe, steps_per_epoch: int) -> None:
    """Prune by magnitude, every window, down to the recipe's density, or end PEP's search."""
    steps = recipe.epochs * steps_per_epoch
    if isinstance(trainer, PepTrainer):
        over = trainer.step >= int(recipe.pep.search * steps)
        reached = trainer.step % recipe.window == 0 and trainer.left <= recipe.density
        if trainer.searching and (over or reached):
            trainer.fix_mask(recipe.density)
        return
    if recipe.method != "magnitude" or trainer.step % recipe.window:
        return
    begin, end = (int(part * steps) for part in PRUNING)
    density = gradual_density(trainer.step, begin, end, recipe.density)
    if density < trainer.table.density:
        floor = recipe.step.floor
        trainer.replace_table(*magnitude_prune(trainer.table, density, floor, trainer.state))


def validation_users(recipe: Recipe, split: Split) -> I64:
    """Draw the users that choose the epoch: the same for every method and seed."""
    users = users_of(split.valid, split.num_users)
    if 0 < recipe.valid_users < len(users):
        users = np.random.default_rng(0).choice(users, recipe.valid_users, replace=False)
    return np.sort(users)


def _validate(trainer: Trainer, recipe: Recipe, split: Split) -> Quality:
    current = Recommender(trainer.table, recipe.step.model, trainer.dense, trainer.graph)
    users = validation_users(recipe, split)
    return evaluate(current, split.valid, split.train, split.known_items, users)


def end_epoch(
    trainer: Trainer, state: Progress, quality: Quality, steps: int, within: bool
) -> None:
    """Enter an epoch of so many steps in the history, and keep its table if it is the best.

    Args:
        trainer: at its end.
        state: of the run, which is changed.
        quality: on validation.
        steps: in an epoch.
        within: the table keeps to its budget; while it is pruned it is over it, and no answer.
    """
    epoch = len(state.history) + 1
    state.history.append(
        {
            "epoch": epoch,
            "loss": state.loss_sum / steps,
            "recall@20": quality.recall[20],
            "ndcg@20": quality.ndcg[20],
            "exchanged": trainer.exchanged,
        }
    )
    if isinstance(trainer, PepTrainer):
        state.history[-1]["left"] = trainer.left
    state.loss_sum = 0.0
    if within and (state.best is None or quality.recall[20] > state.best.recall):
        dense = {name: values.copy() for name, values in trainer.dense.items()}
        state.best = Best(epoch, quality.recall[20], trainer.table.copy(), dense)


def finished(recipe: Recipe, state: Progress) -> bool:
    """Tell whether the epochs are done, or validation has not improved for long enough."""
    done = len(state.history)
    waited = done - state.best.epoch if state.best is not None else 0
    return done >= recipe.epochs or 0 < recipe.patience <= waited


def tell(progress: report.Progress, recipe: Recipe, state: Progress) -> None:
    """Report the epoch that has just ended."""
    recall = state.history[-1]["recall@20"]
    text = f"{recipe.method}: validation Recall@20 {recall:.4f}"
    progress(text, len(state.history), recipe.epochs)


def fingerprint_of(recipe: Recipe, split: Split) -> str:
    """Give what tells a checkpoint of this run from another's: a hash of recipe and data."""
    digest = hashlib.sha256(json.dumps(recipe.as_dict(), sort_keys=True).encode())
    for part in (split.train, split.valid):
        digest.update(np.ascontiguousarray(part.users).data)
        digest.update(np.ascontiguousarray(part.items).data)
    return digest.hexdigest()


@contextmanager
def _stop_between_steps() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C into a request to stop after the step; the second one is immediate."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # signals reach the main thread only
        return
    previous = signal.getsignal(signal.SIGINT)

    def request(signum: int, frame: object) -> None:
        stop.set()
        signal.signal(signal.SIGINT, previous)

    signal.signal(signal.SIGINT, request)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, previous)
