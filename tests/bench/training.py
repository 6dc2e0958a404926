"""The host's half of the comparison with other training code: ``python -m tests.bench.training``.

docs/performance.md has the peers' commands. Needs Gowalla: ``sparserec data fetch gowalla``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from pipeline.allocator import keep_freed_memory
from pipeline.data.datasets import load
from pipeline.data.split import Split
from pipeline.evaluate import evaluate
from pipeline.graph import Graph
from pipeline.models import MODELS
from pipeline.recipes import VALUE_SCALES, Recipe, dense, sparserec
from pipeline.recommender import Recommender
from pipeline.sampling import TripleSampler
from pipeline.start import initial_table
from pipeline.train import StepConfig, Trainer
from sparserec.errors import SparseRecError

PEER = StepConfig(loss="bpr", learning_rate=1e-3, l2=1e-4, batch_size=2048)
"""What LightGCN-PyTorch and RecBole train by as they come."""
QUICK = StepConfig(
    model="lightgcn",
    loss="softmax",
    learning_rate=0.003,
    l2=0.01,
    batch_size=16_384,
    negatives=512,
)
"""What gets LightGCN to a Recall@20 soonest here."""


def same_work(model: str) -> Recipe:
    """Give the dense table trained as the peers train it: same loss, batch, rate and penalty."""
    return replace(dense(), step=replace(PEER, model=model))


def quick() -> Recipe:
    """Give SparseRec's LightGCN that is timed to a Recall@20: at 10%, without mask updates."""
    return replace(sparserec(), step=QUICK, value_scale=VALUE_SCALES["lightgcn"], window=0)


def trainer_of(recipe: Recipe, split: Split) -> Trainer:
    """Build what a run of the recipe trains with, on the host's train part."""
    users, items = split.known_users, split.known_items
    model = MODELS[recipe.step.model]
    return Trainer(
        initial_table(recipe, split),
        TripleSampler.of(split.train, None, items, items, recipe.seed),
        recipe.step,
        schedule=None,
        graph=None if model.GRAPH == "none" else Graph.of(split.train, users, items),
        dense=model.initial(recipe.dim, recipe.seed),
    )


@dataclass(frozen=True)
class EpochTime:
    """Seconds an epoch, from some of its steps.

    Attributes:
        model: trained.
        batch: examples a step.
        steps: of an epoch.
        seconds: of an epoch: steps times the median step's wall time.
        cpu_seconds: likewise, of the process's CPU time on all threads.
        samples: wall seconds of each step that was timed.
    """

    model: str
    batch: int
    steps: int
    seconds: float
    cpu_seconds: float
    samples: list[float]


def epoch_time(recipe: Recipe, split: Split, timed_steps: int) -> EpochTime:
    """Time some steps of a run, after a first one that is not counted."""
    trainer = trainer_of(recipe, split)
    steps = math.ceil(len(split.train) / recipe.step.batch_size)
    trainer.run_step()
    wall, cpu = [], []
    for _ in range(timed_steps):
        start, cpu_start = time.perf_counter(), time.process_time()
        trainer.run_step()
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - cpu_start)
    step = recipe.step
    return EpochTime(
        step.model, step.batch_size, steps, steps * median(wall), steps * median(cpu), wall
    )


@dataclass(frozen=True)
class Reached:
    """A run up to a wanted validation Recall@20, or to its last epoch.

    Attributes:
        target: the wanted Recall@20.
        seconds: wall time to the end of the epoch that reached it (0: the start), from
            interactions in memory: start, graph and training without evaluation; None where no
            epoch did.
        cpu_seconds: likewise, CPU time.
        curve: for the start (epoch 0) and each epoch: wall seconds so far, those of its
            evaluation, and Recall@20 on all users.
    """

    target: float
    seconds: float | None
    cpu_seconds: float | None
    curve: list[dict[str, float]]


def time_to_recall(recipe: Recipe, split: Split, target: float) -> Reached:
    """Train until validation, over all users, reaches ``target``."""
    wall, cpu = time.perf_counter(), time.process_time()
    trainer = trainer_of(recipe, split)
    steps = math.ceil(len(split.train) / recipe.step.batch_size)
    curve: list[dict[str, float]] = []
    taken = cpu_taken = 0.0
    for epoch in range(recipe.epochs + 1):
        for _ in range(steps if epoch > 0 else 0):
            trainer.run_step()
        taken += time.perf_counter() - wall
        cpu_taken += time.process_time() - cpu
        start = time.perf_counter()
        current = Recommender(trainer.table, recipe.step.model, trainer.dense, trainer.graph)
        recall = evaluate(current, split.valid, split.train, split.known_items).recall[20]
        wall, cpu = time.perf_counter(), time.process_time()
        curve.append(
            {
                "epoch": epoch,
                "seconds": taken,
                "cpu_seconds": cpu_taken,
                "evaluation": wall - start,
                "recall@20": recall,
            }
        )
        print(json.dumps(curve[-1]), flush=True)
        if recall >= target:
            return Reached(target, taken, cpu_taken, curve)
    return Reached(target, None, None, curve)


def main() -> int:
    """Time what was asked for, and write ``training.json``."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.training", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    parser.add_argument("--steps", type=int, default=20, help="steps timed of each epoch")
    parser.add_argument("--recall", type=float, help="also train LightGCN to this Recall@20")
    parser.add_argument("--epochs", type=int, default=10, help="of that training, at most")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    keep_freed_memory()
    try:
        split = load("gowalla").split()
    except SparseRecError as error:
        print(f"training is not measured: {error}")
        return 0
    found: dict[str, Any] = {
        "system": platform.platform(),
        "threads": given.threads,
        "load": os.getloadavg(),
        "epochs": [],
    }
    for model in ("mf", "lightgcn"):
        timing = epoch_time(same_work(model), split, given.steps)
        found["epochs"].append(asdict(timing))
        print(
            f"{model}, batch {timing.batch}: {timing.seconds:.1f} s an epoch of {timing.steps}"
            f" steps (from {given.steps}), CPU {timing.cpu_seconds:.1f} s",
            flush=True,
        )
    if given.recall is not None:
        recipe = replace(quick(), epochs=given.epochs)
        reached = time_to_recall(recipe, split, given.recall)
        found["to_recall"] = {"recipe": recipe.as_dict(), **asdict(reached)}
        took = "not reached" if reached.seconds is None else f"{reached.seconds:.1f} s"
        print(f"LightGCN to validation Recall@20 {given.recall}: {took}")
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "training.json").write_text(json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
