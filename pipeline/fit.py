"""A whole host run: start, train, select on validation, and survive being stopped."""

from __future__ import annotations

import hashlib
import json
import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from pipeline.allocator import keep_freed_memory
from pipeline.annealing import Annealing
from pipeline.backward import CPU
from pipeline.checkpoint import Best, Progress, load_checkpoint, save_checkpoint
from pipeline.data.split import Pairs, Split
from pipeline.evaluate import NOT_TESTED, Quality, evaluate, users_of
from pipeline.exchange import Schedule
from pipeline.graph import Graph
from pipeline.history import History, epochs_done
from pipeline.models import MODELS, source_sha256
from pipeline.nmf import Factors
from pipeline.pep import PepTrainer
from pipeline.prune import gradual_density, magnitude_prune
from pipeline.recipes import Recipe
from pipeline.recommender import Recommender
from pipeline.regrowth import set_schedule
from pipeline.sampling import TripleSampler, join
from pipeline.start import initial_table
from pipeline.table import I64, PackedTable
from pipeline.train import Trainer
from sparserec import progress as report
from sparserec.errors import SparseRecError


@dataclass(frozen=True)
class Fitted:
    """What a run ends with.

    Attributes:
        recommender: of the epoch with the best validation Recall@20; with ``refit`` trained anew
            for as many epochs.
        best_epoch: 1-based; 0 is a start from factors that no epoch bettered.
        history: see ``pipeline.history``.
        test: its quality on interactions that selection never saw.
    """

    recommender: Recommender
    best_epoch: int
    history: History
    test: Quality

    @property
    def table(self) -> PackedTable:
        """The recommender's table."""
        return self.recommender.table


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
    factors: Factors | None = None,
    factors_sha256: str = "",
) -> Fitted:
    """Train by ``recipe``, evaluating on validation after each epoch.

    A start from factors ranks before any step, so it is evaluated too, and kept if training does
    not better it.

    Args:
        recipe: of the run.
        split: train and validation parts are the host's; the test part is looked at once, last.
        checkpoint: written after each epoch and on Ctrl-C; resumed from if it is there. A refit has
            its own beside it.
        progress: gets epochs done, with the last validation Recall@20.
        start: what ``initial_table`` gives for this recipe, if the caller has it already.
        observe: called after each epoch; what it returns joins the epoch's entry in the history.
        device: where gradients are computed; see ``pipeline.compute``.
        factors: that ``start`` was made of, if they were made elsewhere: a refit's is, too.
        factors_sha256: their ``checksum``: a checkpoint of a run from others is another run's.

    Raises:
        KeyboardInterrupt: on Ctrl-C, after the checkpoint is written.
        SparseRecError: the recipe cannot be trained, nothing is held out for validation, training
            diverges, or the checkpoint is damaged or of another run, or cannot be written.
    """
    checked(recipe, split)
    keep_freed_memory()
    progress(f"{recipe.method}: start", 0, recipe.epochs)

    def begin() -> PackedTable:
        return start or initial_table(recipe, split, progress=progress)

    fingerprint = fingerprint_of(recipe, split, factors_sha256)
    found = _train(recipe, split, begin, device, checkpoint, fingerprint, progress, observe)
    if recipe.refit:
        found = _refit(recipe, split, factors, factors_sha256, device, checkpoint, progress, found)
    past, relevant = (split.train, split.valid), held_out(split)
    if len(relevant) == 0:
        return found
    return replace(found, test=evaluate(found.recommender, relevant, past, split.known_items))


def _refit(
    recipe: Recipe,
    split: Split,
    factors: Factors | None,
    factors_sha256: str,
    device: torch.device,
    checkpoint: Path | None,
    progress: report.Progress,
    chosen: Fitted,
) -> Fitted:
    """Train anew on train and validation, start and all, for the epochs that were chosen.

    Mask updates keep the schedule of the whole run, of which that was the best part.
    """
    nothing = Pairs(split.valid.users[:0], split.valid.items[:0], None)
    both = join(split.train, split.valid)
    whole = replace(split, train=both, valid=nothing, train_keys=None)
    before, epochs = epochs_done(chosen.history), chosen.best_epoch

    def told(what: str, done: int, total: int | None) -> None:
        progress(what, before + done, before + epochs)

    def begin() -> PackedTable:
        return initial_table(recipe, whole, factors=factors, progress=progress)

    again = None if checkpoint is None else refit_checkpoint(checkpoint)
    fingerprint = fingerprint_of(recipe, whole, factors_sha256)
    last = _train(recipe, whole, begin, device, again, fingerprint, told, epochs=epochs)
    return replace(chosen, recommender=last.recommender)


def refit_checkpoint(checkpoint: Path) -> Path:
    """Name the checkpoint of a run's refit."""
    return checkpoint.with_name(f"refit-{checkpoint.name}")


def _train(
    recipe: Recipe,
    split: Split,
    begin: Callable[[], PackedTable],
    device: torch.device,
    checkpoint: Path | None,
    fingerprint: str,
    progress: report.Progress,
    observe: Callable[[Trainer], dict[str, float]] | None = None,
    epochs: int | None = None,
) -> Fitted:
    """Train, and keep the epoch that validation likes best, or the one that is asked for."""
    resumed = checkpoint if checkpoint is not None and checkpoint.exists() else None
    if resumed is None or recipe.method == "pep":  # whose search ends where it started
        start = begin()
    else:
        start = empty_table(split.known_users, split.known_items, recipe.width)
    trainer, steps_per_epoch = trainer_of(recipe, split, start)
    del start  # the trainer has a copy
    trainer.device = device
    state = Progress()
    if resumed is not None:
        state = load_checkpoint(resumed, fingerprint, trainer)
    with stop_between_steps(signal.SIGINT) as stop:
        if judges_start(recipe, trainer, state):
            enter_start(trainer, state, _validate(trainer, recipe, split))
            tell(progress, recipe, state)
        while not finished(recipe, state, epochs):
            end = (epochs_done(state.history) + 1) * steps_per_epoch
            while trainer.step < end and not stop.is_set():
                state.loss_sum += trainer.run_step()
                _prune(trainer, recipe, steps_per_epoch)
            if trainer.step == end:
                quality = _validate(trainer, recipe, split)
                end_epoch(trainer, state, quality, steps_per_epoch, _within(recipe, trainer.table))
                state.history[-1] |= observe(trainer) if observe is not None else {}
                tell(progress, recipe, state)
            if checkpoint is not None:
                save_checkpoint(checkpoint, fingerprint, trainer, state)
            if stop.is_set():
                raise KeyboardInterrupt
    assert state.best is not None
    best = Recommender(state.best.table, recipe.step.model, state.best.dense, trainer.graph)
    return Fitted(best, state.best.epoch, state.history, NOT_TESTED)


def checked(recipe: Recipe, split: Split) -> None:
    """Refuse, before any work, what would come to no model.

    Raises:
        SparseRecError: as ``Recipe.check``; or nothing is held out to choose the epoch by.
    """
    recipe.check()
    if not len(split.valid):
        raise SparseRecError(
            "no user has the interactions it takes to hold one out for validation,"
            " so no epoch can be chosen",
            "give more interactions of each user",
        )


def empty_table(num_users: int, num_items: int, dim: int) -> PackedTable:
    """Make a table without entries, for a checkpoint to be read into."""
    row_ptr = np.zeros(num_users + num_items + 1, np.int64)
    empty = np.empty(0, np.uint8), np.empty(0, np.float32)
    return PackedTable(row_ptr, *empty, num_users, num_items, dim)


def trainer_of(recipe: Recipe, split: Split, start: PackedTable) -> tuple[Trainer, int]:
    """Make the trainer of a run that begins, and count the steps of an epoch."""
    users, items = split.known_users, split.known_items
    sampler = sampler_of(recipe, split)
    steps_per_epoch = epoch_steps(recipe, split)
    schedule = schedule_of(recipe, steps_per_epoch)
    model = MODELS[recipe.step.model]
    graph = None if model.GRAPH == "none" else Graph.of(split.train, users, items)
    dense = model.initial(start.dim, recipe.seed)
    parts = start.copy(), sampler, recipe.step, schedule, graph, dense
    if recipe.method == "pep":
        return PepTrainer(*parts, pep=recipe.pep, seed=recipe.seed), steps_per_epoch
    annealing = annealing_of(recipe, steps_per_epoch)
    return Trainer(*parts, ema=recipe.ema, annealing=annealing), steps_per_epoch


def sampler_of(recipe: Recipe, split: Split) -> TripleSampler:
    """Draw from the interactions to train on; a prepared log has its sorted keys on the disk."""
    items = split.known_items
    return TripleSampler.of(split.train, None, items, items, recipe.seed, split.train_keys)


def epoch_steps(recipe: Recipe, split: Split) -> int:
    """Count the steps of a pass over the training interactions."""
    return math.ceil(len(split.train) / recipe.step.batch_size)


def schedule_of(recipe: Recipe, steps_per_epoch: int) -> Schedule | None:
    """Give the mask updates of a recipe, or None."""
    if recipe.window == 0 or recipe.method in ("magnitude", "pep"):
        return None
    steps, fraction = recipe.epochs * steps_per_epoch, recipe.exchange_fraction
    if recipe.method == "set":
        return set_schedule(steps, steps_per_epoch, fraction)
    return Schedule(steps, recipe.window, fraction, recipe.exchange_stop, recipe.exchange_least)


def annealing_of(recipe: Recipe, steps_per_epoch: int) -> Annealing:
    """Give how a recipe's learning rate falls over the whole run."""
    return Annealing(recipe.epochs * steps_per_epoch, recipe.learning_rate_least)


PRUNING = (0.1, 0.5)
"""A table over its budget is pruned between these parts of a run; the rest is fine-tuning."""


def _prune(trainer: Trainer, recipe: Recipe, steps_per_epoch: int) -> None:
    """Prune by magnitude, every window, down to the recipe's density, or end PEP's search."""
    steps = recipe.epochs * steps_per_epoch
    if isinstance(trainer, PepTrainer):
        over = trainer.step >= int(recipe.pep.search * steps)
        reached = trainer.step % recipe.window == 0 and trainer.left <= recipe.density
        if trainer.searching and (over or reached):
            trainer.fix_mask(recipe.density)
        return
    if not recipe.shrinks:
        return
    begin, end = (max(1, int(part * steps)) for part in PRUNING)
    # What a mask update has just grown is still 0 and would go first.
    since_update = 0 if trainer.schedule is None else recipe.window // 2
    # The last time at the end itself: a short run has no window that ends there.
    if trainer.step % recipe.window != since_update and trainer.step != end:
        return
    density = gradual_density(trainer.step, begin, end, recipe.density, recipe.first_density)
    if density < trainer.table.density:
        floor = recipe.step.floor
        trainer.replace_table(*magnitude_prune(trainer.table, density, floor, trainer.state))


def _within(recipe: Recipe, table: PackedTable) -> bool:
    """Tell whether a table keeps to its budget; while it is pruned it is over it."""
    half = 0.5 / (table.num_rows * table.dim)  # an entry: a budget is rounded to whole ones
    return recipe.method == "small" or table.density <= recipe.density + 1e-3 + half


def validation_users(recipe: Recipe, split: Split) -> I64:
    """Draw the users that choose the epoch: the same for every method and seed."""
    users = users_of(split.valid, split.num_users)
    if 0 < recipe.valid_users < len(users):
        users = np.random.default_rng(0).choice(users, recipe.valid_users, replace=False)
    return np.sort(users)


def _validate(trainer: Trainer, recipe: Recipe, split: Split) -> Quality | None:
    """Evaluate on validation; a refit has none."""
    if not len(split.valid):
        return None
    table, dense = trainer.averaged()
    current = Recommender(table, recipe.step.model, dense, trainer.graph)
    users = validation_users(recipe, split)
    return evaluate(current, split.valid, split.train, split.known_items, users)


def end_epoch(
    trainer: Trainer, state: Progress, quality: Quality | None, steps: int, within: bool
) -> None:
    """Enter an epoch of so many steps in the history, and keep its table if it is the best.

    Args:
        trainer: at its end.
        state: of the run, which is changed.
        quality: on validation; None keeps each epoch's table in place of the one before.
        steps: in an epoch.
        within: the table keeps to its budget; while it is pruned it is over it, and no answer.

    Raises:
        SparseRecError: the loss, an entry or a dense parameter is infinite or not a number.
    """
    entry = {"epoch": epochs_done(state.history) + 1, "loss": state.loss_sum / steps}
    state.loss_sum = 0.0
    trained = [trainer.table.vals, *trainer.dense.values()]
    if not (math.isfinite(entry["loss"]) and all(np.isfinite(values).all() for values in trained)):
        raise SparseRecError(
            f"training diverged in epoch {entry['epoch']}: its loss ({entry['loss']:g}) or what is"
            " trained is no longer finite",
            "lower --learning-rate or --value-scale",
        )
    _enter(trainer, state, entry, quality, within)


def judges_start(recipe: Recipe, trainer: Trainer, state: Progress) -> bool:
    """Tell whether the table is a start that ranks, made of factors, and has not been judged."""
    ranks = recipe.starts_from_factors and recipe.start == "nmf" and not recipe.shrinks
    return ranks and trainer.step == 0 and not state.history


def enter_start(trainer: Trainer, state: Progress, quality: Quality | None) -> None:
    """Enter the start in the history as epoch 0, to be kept unless training betters it."""
    _enter(trainer, state, {"epoch": 0}, quality, within=True)


def _enter(
    trainer: Trainer,
    state: Progress,
    entry: dict[str, float],
    quality: Quality | None,
    within: bool,
) -> None:
    if quality is not None:
        entry |= {"recall@20": quality.recall[20], "ndcg@20": quality.ndcg[20]}
    entry["exchanged"] = trainer.exchanged
    if isinstance(trainer, PepTrainer):
        entry["left"] = trainer.left
    state.history.append(entry)
    recall = 0.0 if quality is None else quality.recall[20]
    better = state.best is None or quality is None or recall > state.best.recall
    if within and better:
        table, dense = trainer.averaged()
        dense = {name: values.copy() for name, values in dense.items()}
        state.best = Best(int(entry["epoch"]), recall, table.copy(), dense)


def finished(recipe: Recipe, state: Progress, epochs: int | None = None) -> bool:
    """Tell whether the epochs are done, or validation has not improved for long enough."""
    done = epochs_done(state.history)
    if epochs is not None and state.best is not None:
        return done >= epochs
    waited = done - state.best.epoch if state.best is not None else 0
    return done >= recipe.epochs or 0 < recipe.patience <= waited


def tell(progress: report.Progress, recipe: Recipe, state: Progress) -> None:
    """Report the epoch that has just ended, or the start."""
    recall = state.history[-1].get("recall@20")
    text = "refit" if recall is None else f"validation Recall@20 {recall:.4f}"
    progress(f"{recipe.method}: {text}", epochs_done(state.history), recipe.epochs)


def fingerprint_of(recipe: Recipe, split: Split, factors_sha256: str = "") -> str:
    """Give what tells a checkpoint of this run from another's: a hash of recipe and data.

    A model of the user's, which may be edited between two runs, is part of the recipe; so are given
    factors, by their ``checksum``.
    """
    digest = hashlib.sha256(json.dumps(recipe.as_dict(), sort_keys=True).encode())
    digest.update(source_sha256(recipe.step.model).encode())
    digest.update(factors_sha256.encode())
    for part in (split.train, split.valid):
        digest.update(np.ascontiguousarray(part.users).data)
        digest.update(np.ascontiguousarray(part.items).data)
    return digest.hexdigest()


@contextmanager
def stop_between_steps(*numbers: signal.Signals) -> Iterator[threading.Event]:
    """Turn the first of these signals into a request to stop; a second one is immediate."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # signals reach the main thread only
        return
    previous = [signal.getsignal(number) for number in numbers]

    def restore() -> None:
        for number, handler in zip(numbers, previous, strict=True):
            signal.signal(number, handler)

    def request(signum: int, frame: object) -> None:
        stop.set()
        restore()

    for number in numbers:
        signal.signal(number, request)
    try:
        yield stop
    finally:
        restore()
