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
from pipeline.nmf import factorise, nmf_table, random_table
from pipeline.recipes import Recipe
from pipeline.sampling import TripleSampler, join
from pipeline.table import PackedTable
from pipeline.train import Trainer
from sparserec import progress as report


@dataclass(frozen=True)
class Fitted:
    """What a run ends with.

    Attributes:
        table: of the epoch with the best validation Recall@20.
        best_epoch: 1-based.
        history: per epoch: ``epoch``, ``loss``, ``recall@20`` and ``ndcg@20`` on validation,
            ``exchanged`` entries so far.
        test: quality of ``table`` on interactions that selection never saw.
    """

    table: PackedTable
    best_epoch: int
    history: list[dict[str, float]]
    test: Quality


def initial_table(recipe: Recipe, split: Split) -> PackedTable:
    """Build the table that training starts from, for the users and items of the past."""
    num_users, num_items = split.known_users, split.known_items
    if recipe.method == "sparserec":
        factors = factorise(split.train, num_users, num_items, recipe.dim, recipe.seed)
        return nmf_table(
            factors, recipe.density, recipe.step.floor, recipe.rescale, recipe.value_scale
        )
    return random_table(
        num_users,
        num_items,
        recipe.dim,
        recipe.density,
        recipe.step.floor,
        recipe.value_scale,
        recipe.seed,
    )


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
        while len(state.history) < recipe.epochs:
            end = (len(state.history) + 1) * steps_per_epoch
            while trainer.step < end and not stop.is_set():
                state.loss_sum += trainer.run_step()
            if trainer.step == end:
                _end_epoch(trainer, split, state, steps_per_epoch)
                _tell(progress, recipe, state)
            if checkpoint is not None:
                save_checkpoint(checkpoint, fingerprint, trainer, state)
            if stop.is_set():
                raise KeyboardInterrupt
    assert state.best is not None
    past = join(split.train, split.valid)
    test = evaluate(state.best.table, held_out(split), past, split.known_items)
    return Fitted(state.best.table, state.best.epoch, state.history, test)


def _trainer(recipe: Recipe, split: Split, start: PackedTable) -> tuple[Trainer, int]:
    known = split.known_items
    sampler = TripleSampler.of(split.train, None, known, known, recipe.seed)
    steps_per_epoch = math.ceil(len(split.train) / recipe.step.batch_size)
    schedule = None
    if recipe.window:
        schedule = Schedule(
            recipe.epochs * steps_per_epoch,
            recipe.window,
            recipe.exchange_fraction,
            recipe.exchange_stop,
        )
    return Trainer(start.copy(), sampler, recipe.step, schedule), steps_per_epoch


def _end_epoch(trainer: Trainer, split: Split, state: Progress, steps: int) -> None:
    quality = evaluate(trainer.table, split.valid, split.train, split.known_items)
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
        state.best = Best(epoch, quality.recall[20], trainer.table.copy())


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
