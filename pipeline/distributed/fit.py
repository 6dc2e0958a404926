"""A whole run on several ranks: what ``pipeline.fit`` does, step for step."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import torch

from pipeline.allocator import keep_freed_memory
from pipeline.backward import CPU
from pipeline.checkpoint import Progress, load_checkpoint
from pipeline.data.split import Split
from pipeline.distributed import shards
from pipeline.distributed.gather import evaluate_together, whole_table
from pipeline.distributed.partition import Partition
from pipeline.distributed.ranks import Ranks
from pipeline.distributed.trainer import ShardTrainer, check
from pipeline.evaluate import NOT_TESTED, Quality
from pipeline.fit import (
    Fitted,
    annealing_of,
    checked,
    empty_table,
    end_epoch,
    enter_start,
    epoch_steps,
    fingerprint_of,
    finished,
    held_out,
    judges_start,
    sampler_of,
    schedule_of,
    stop_between_steps,
    tell,
    trainer_of,
    validation_users,
)
from pipeline.history import epochs_done
from pipeline.models import MODELS
from pipeline.recipes import Recipe
from pipeline.recommender import Recommender
from pipeline.start import initial_table
from pipeline.table import PackedTable
from sparserec import progress as report


def fit(
    ranks: Ranks,
    recipe: Recipe,
    split: Split,
    out: Path,
    progress: report.Progress = report.silent,
    device: torch.device = CPU,
    start: PackedTable | None = None,
    factors_sha256: str = "",
) -> Fitted | None:
    """Train by ``recipe`` on all ranks, evaluating on validation after each epoch.

    Args:
        ranks: the peers; each calls this with the same recipe and split.
        recipe: of the run.
        split: as for ``pipeline.fit.fit``; every rank has it all.
        out: folder of the run, which the caller keeps others from. ``checkpoint/`` in it is written
            after each epoch and on SIGINT and SIGTERM; any number of ranks goes on from it, or from
            a single process's ``checkpoint.safetensors``.
        progress: as there.
        device: where this rank computes gradients.
        start: what ``initial_table`` gives, if the first rank has it already.
        factors_sha256: as there, at the first rank.

    Returns:
        At the first rank what ``pipeline.fit.fit`` returns, else None.

    Raises:
        KeyboardInterrupt: on SIGINT or SIGTERM at some rank, after the checkpoint is written.
        SparseRecError: ranks cannot train this recipe, or nobody can; nothing is held out for
            validation; or a checkpoint is damaged or of another run.
    """
    keep_freed_memory()
    check(recipe, ranks.world)
    checked(recipe, split)
    launcher, folder = os.getppid(), out / "checkpoint"
    of_first = ranks.gather(np.frombuffer(bytearray(factors_sha256.encode()), np.uint8))[0]
    fingerprint = fingerprint_of(recipe, split, of_first.tobytes().decode())
    with stop_between_steps(signal.SIGINT, signal.SIGTERM) as stop:
        if ranks.rank == 0 and shards.newest(folder) is None:
            progress(f"{recipe.method}: start", 0, recipe.epochs)
            _start(out, folder, fingerprint, recipe, split, start)
        ranks.wait()
        trainer, state = _resumed(ranks, folder, fingerprint, recipe, split)
        assert trainer.partition is not None
        trainer.device = device
        steps_per_epoch = epoch_steps(recipe, split)
        if judges_start(recipe, trainer, state):
            enter_start(trainer, state, _validate(ranks, trainer, recipe, split))
            tell(progress, recipe, state)
        while not finished(recipe, state):
            end = (epochs_done(state.history) + 1) * steps_per_epoch
            while trainer.step < end and not trainer.stopped:
                # Without its launcher a rank is on its own: a new run may have begun.
                trainer.stop = stop.is_set() or os.getppid() != launcher
                state.loss_sum += trainer.run_step()
            if trainer.step == end:
                quality = _validate(ranks, trainer, recipe, split)
                end_epoch(trainer, state, quality, steps_per_epoch, within=True)
                tell(progress, recipe, state)
            if os.getppid() != launcher:
                raise SystemExit("the launcher is gone")
            shards.save(folder, fingerprint, ranks, trainer, state)
            if trainer.stopped:
                raise KeyboardInterrupt
        return _fitted(ranks, trainer.partition, recipe, split, state)


def _start(
    out: Path,
    folder: Path,
    fingerprint: str,
    recipe: Recipe,
    split: Split,
    start: PackedTable | None,
) -> None:
    """Write the first checkpoint: a single process's, if it left one, else the start."""
    single, progress = out / "checkpoint.safetensors", Progress()
    if single.exists():
        shell = empty_table(split.known_users, split.known_items, recipe.width)
        trainer, _ = trainer_of(recipe, split, shell)
        progress = load_checkpoint(single, fingerprint, trainer)
    else:
        trainer, _ = trainer_of(recipe, split, start or initial_table(recipe, split))
    shards.save_start(folder, fingerprint, trainer, progress)


def _resumed(
    ranks: Ranks, folder: Path, fingerprint: str, recipe: Recipe, split: Split
) -> tuple[ShardTrainer, Progress]:
    """Make this rank's trainer from the newest checkpoint."""
    generation = shards.newest(folder)
    assert generation is not None
    partition = shards.partition_for(generation, ranks.world)
    steps_per_epoch = epoch_steps(recipe, split)
    trainer = ShardTrainer(
        empty_table(*partition.sizes(ranks.rank), recipe.width),
        sampler_of(recipe, split),
        recipe.step,
        schedule_of(recipe, steps_per_epoch),
        dense=MODELS[recipe.step.model].initial(recipe.width, recipe.seed),
        ranks=ranks,
        partition=partition,
        ema=recipe.ema,
        annealing=annealing_of(recipe, steps_per_epoch),
    )
    return trainer, shards.load(generation, fingerprint, partition, trainer, ranks.rank)


def _validate(ranks: Ranks, trainer: ShardTrainer, recipe: Recipe, split: Split) -> Quality:
    assert trainer.partition is not None
    table, dense = trainer.averaged()
    current = Recommender(table, recipe.step.model, dense)
    users = validation_users(recipe, split)
    return evaluate_together(
        ranks, trainer.partition, current, split.valid, split.train, split.known_items, users
    )


def _fitted(
    ranks: Ranks, partition: Partition, recipe: Recipe, split: Split, state: Progress
) -> Fitted | None:
    """Test the best epoch's shards, and put them together at the first rank."""
    assert state.best is not None
    best, model = state.best, recipe.step.model
    past, relevant, test = (split.train, split.valid), held_out(split), NOT_TESTED
    if len(relevant):
        shard = Recommender(best.table, model, best.dense)
        test = evaluate_together(ranks, partition, shard, relevant, past, split.known_items)
    table = whole_table(ranks, partition, best.table)
    if table is None:
        return None
    return Fitted(Recommender(table, model, best.dense), best.epoch, state.history, test)
