"""A whole host run: start, train, select on validation, and survive being stopped."""

from __future__ import annotations

import hashlib
import json
import math
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from pipeline.checkpoint import Best, Progress, load_checkpoint, save_checkpoint
from pipeline.data.split import Pairs, Split
from pipeline.evaluate import Quality, evaluate
from pipeline.exchange import Schedule
from pipeline.graph import Graph
from pipeline.models import MODELS
from pipeline.nmf import factorise, nmf_table, random_table
from pipeline.recipes import Recipe
from pipeline.recommender import Recommender
from pipeline.sampling import TripleSampler, join
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
            ``exchanged`` entries so far.
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


def initial_table(recipe: Recipe, split: Split) -> PackedTable:
    """Build the table that training starts from, for the users and items of the past."""
    num_users, num_items = split.known_users, split.known_items
    floor, scale = recipe.step.floor, recipe.value_scale
    if recipe.start == "random":
        return random_table(
            num_users, num_items, recipe.dim, recipe.density, floor, scale, recipe.seed
        )
    factors = factorise(split.train, num_users, num_items, recipe.dim, recipe.seed)
    table = nmf_table(factors, recipe.density, floor, recipe.rescale, scale)
    if recipe.start == "nmf-mask":
        rng = np.random.default_rng(recipe.seed)
        table.vals = rng.normal(0.0, scale, table.nnz).astype(np.float32)
    return table


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
) -> Fitted:
    """Train by ``recipe``, evaluating on validation after each epoch.

    Args:
        recipe: of the run.
        split: train and validation parts are the host's; the test part is looked at once, last.
        checkpoint: written after each epoch and on Ctrl-C; resumed from if it is there.
        progress: gets epochs done, with the last validation Recall@20.
        start: what ``initial_table`` gives for this recipe, if the caller has it already.

    Raises:
        KeyboardInterrupt: on Ctrl-C, after the checkpoint is written.
        SparseRecError: if the checkpoint is damaged or of another run.
    """
    progress(f"{recipe.method}: start", 0, recipe.epochs)
    trainer, steps_per_epoch = _trainer(recipe, split, start or initial_table(recipe, split))
    fingerprint = _fingerprint(recipe, split)
    state = Progress()
    if checkpoint is not None and checkpoint.exists():
        state = load_checkpoint(checkpoint, fingerprint, trainer)
    with _stop_between_steps() as stop:
        while not _finished(recipe, state):
            end = (len(state.history) + 1) * steps_per_epoch
            while trainer.step < end and not stop.is_set():
                state.loss_sum += trainer.run_step()
            if trainer.step == end:
                _end_epoch(trainer, recipe, split, state, steps_per_epoch)
                _tell(progress, recipe, state)
            if checkpoint is not None:
                save_checkpoint(checkpoint, fingerprint, trainer, state)
            if stop.is_set():
                raise KeyboardInterrupt
    assert state.best is not None
    past = join(split.train, split.valid)
    best = Recommender(state.best.table, recipe.step.model, state.best.dense, trainer.graph)
    test = evaluate(best, held_out(split), past, split.known_items)
    return Fitted(best, state.best.epoch, state.history, test)


def _trainer(recipe: Recipe, split: Split, start: PackedTable) -> tuple[Trainer, int]:
    users, items = split.known_users, split.known_items
    sampler = TripleSampler.of(split.train, None, items, items, recipe.seed)
    steps_per_epoch = math.ceil(len(split.train) / recipe.step.batch_size)
    schedule = None
    if recipe.window:
        schedule = Schedule(
            recipe.epochs * steps_per_epoch,
            recipe.window,
            recipe.exchange_fraction,
            recipe.exchange_stop,
        )
    model = MODELS[recipe.step.model]
    graph = None if model.GRAPH == "none" else Graph.of(split.train, users, items)
    dense = model.initial(start.dim, recipe.seed)
    trainer = Trainer(start.copy(), sampler, recipe.step, schedule, graph, dense)
    return trainer, steps_per_epoch


def _validation_users(recipe: Recipe, split: Split) -> I64:
    """Draw the users that choose the epoch: the same for every method and seed."""
    users = np.unique(split.valid.users).astype(np.int64)
    if 0 < recipe.valid_users < len(users):
        users = np.random.default_rng(0).choice(users, recipe.valid_users, replace=False)
    return np.sort(users)


def _end_epoch(trainer: Trainer, recipe: Recipe, split: Split, state: Progress, steps: int) -> None:
    current = Recommender(trainer.table, recipe.step.model, trainer.dense, trainer.graph)
    users = _validation_users(recipe, split)
    quality = evaluate(current, split.valid, split.train, split.known_items, users)
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
    state.loss_sum = 0.0
    if state.best is None or quality.recall[20] > state.best.recall:
        dense = {name: values.copy() for name, values in trainer.dense.items()}
        state.best = Best(epoch, quality.recall[20], trainer.table.copy(), dense)


def _finished(recipe: Recipe, state: Progress) -> bool:
    """Tell whether the epochs are done, or validation has not improved for long enough."""
    done = len(state.history)
    waited = done - state.best.epoch if state.best is not None else 0
    return done >= recipe.epochs or 0 < recipe.patience <= waited


def _tell(progress: report.Progress, recipe: Recipe, state: Progress) -> None:
    recall = state.history[-1]["recall@20"]
    text = f"{recipe.method}: validation Recall@20 {recall:.4f}"
    progress(text, len(state.history), recipe.epochs)


def _fingerprint(recipe: Recipe, split: Split) -> str:
    digest = hashlib.sha256(json.dumps(asdict(recipe), sort_keys=True).encode())
    for part in (split.train, split.valid):
        digest.update(np.ascontiguousarray(part.users).tobytes())
        digest.update(np.ascontiguousarray(part.items).tobytes())
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
