"""One run in a process of its own, so that its peak memory is its own.

``python -m pipeline.reproduce.worker`` reads a job from standard input and writes JSON lines to
standard output: progress, and last the record. Exit code 130 means that it was stopped and its
checkpoint goes on.
"""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.datasets import Dataset, load
from pipeline.data.split import Split
from pipeline.evaluate import Quality
from pipeline.files import read_json, write_json
from pipeline.fit import Fitted, fit
from pipeline.history import trained
from pipeline.recipes import PLAIN, Recipe
from pipeline.reproduce import environment
from pipeline.reproduce.cells import Cell, digest
from pipeline.reproduce.records import SCHEMA_VERSION, Hits, save_hits
from pipeline.start import initial_table
from pipeline.table import F32, I64, PackedTable
from pipeline.train import Trainer
from sparserec.errors import SparseRecError, writing

SPLIT_SEED = 1
"""Validation is held out alike in all runs, whatever their seed, so that users can be paired."""
WITHOUT_HITS = ("tune", "sensitivity")


@dataclass(frozen=True)
class Job:
    """What a worker is asked to do.

    Attributes:
        cell: to run.
        recipe: to run it with.
        work: folder for checkpoints and factors.
        results: folder of the records, for hits.
        factors_only: factor the interactions and stop.
    """

    cell: Cell
    recipe: Recipe
    work: Path
    results: Path
    factors_only: bool = False

    @property
    def folder(self) -> Path:
        """Where this run's checkpoint is."""
        return self.work / digest(self.cell, self.recipe)

    def as_json(self) -> str:
        """Give what ``from_json`` reads."""
        return json.dumps(
            {
                "cell": self.cell.as_dict(),
                "recipe": self.recipe.as_dict(),
                "work": str(self.work),
                "results": str(self.results),
                "factors_only": self.factors_only,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Read what ``as_json`` wrote."""
        v = json.loads(text)
        cell, recipe = Cell.from_dict(v["cell"]), Recipe.from_dict(v["recipe"])
        return cls(cell, recipe, Path(v["work"]), Path(v["results"]), v["factors_only"])


def perform(job: Job) -> dict[str, Any]:
    """Run a job to its end; returns the record.

    Raises:
        KeyboardInterrupt: on Ctrl-C, after the checkpoint is written.
        SparseRecError: the dataset is not here.
    """
    began = time.monotonic()
    git, machine = environment.git(), environment.machine()
    data = load(job.cell.dataset)
    split = data.split(SPLIT_SEED, job.cell.protocol)
    factors = _factors(job, data)
    job.folder.mkdir(parents=True, exist_ok=True)
    before = environment.reset_peak()
    clock = Clock(job.folder / "seconds.json")
    start = initial_table(job.recipe, split, job.work / "factors")
    watch = Watch(start, split) if job.cell.experiment == "ablation" else None

    def told(what: str, done: int, total: int | None) -> None:
        # Of a refit the start comes in between: it is no epoch, and no part of the next.
        clock.epoch(done if what.startswith(f"{job.recipe.method}: ") else 0)
        print(json.dumps({"progress": [what, done, total]}), flush=True)

    checkpoint = job.folder / "checkpoint.safetensors"
    resumed = checkpoint.exists()
    fitted = fit(job.recipe, split, checkpoint, told, start, watch)
    peak = environment.peak_rss()
    for entry, seconds in zip(trained(fitted.history), clock.seconds, strict=False):
        entry["seconds"] = seconds
    record: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "id": job.cell.id,
        "cell": job.cell.as_dict(),
        "recipe": job.recipe.as_dict(),
        "source_sha256": data.source_sha256,
        "best_epoch": fitted.best_epoch,
        "rows": fitted.table.num_rows,
        "active": fitted.table.nnz,
        "density": fitted.table.nnz / (fitted.table.num_rows * job.recipe.dim),
        "dense_parameters": sum(v.size for v in fitted.recommender.dense.values()),
    }
    record |= _tested(job, fitted)
    return record | {
        "history": fitted.history,
        "seconds": round(time.monotonic() - began, 3),
        "seconds_of_epochs": round(sum(clock.seconds), 3),
        "resumed": resumed,
        "factors": factors,
        "rss_before_bytes": before,
        "peak_rss_bytes": peak,
        "git": git,
        "versions": environment.versions(),
        "machine": machine,
        "finished_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _tested(job: Job, fitted: Fitted) -> dict[str, Any]:
    """Give test metrics and hits; runs that select settings get none, so none is looked at."""
    if job.cell.experiment == "tune":
        return {}
    test: Quality = fitted.test
    found: dict[str, Any] = {"test": test.as_dict()}
    if job.cell.experiment not in WITHOUT_HITS:
        hits = Hits(test.users, test.relevant, test.hits)
        found["hits"] = save_hits(job.results, digest(job.cell, job.recipe), hits)
    return found


class Clock:
    """Seconds of each epoch, kept beside the checkpoint so that a resumed run has them all."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seconds: list[float] = read_json(path) if path.exists() else []
        self.done = 0
        self.last = time.monotonic()

    def epoch(self, done: int) -> None:
        """Note that ``done`` epochs are over; where that is nothing new, only that time went by."""
        now = time.monotonic()
        if done > self.done:
            # A run that was stopped inside an epoch counts that epoch's second part only.
            self.done = done
            self.seconds = [*self.seconds[: done - 1], round(now - self.last, 4)]
            with writing(self.path):
                write_json(self.path, self.seconds)
        self.last = now


class Watch:
    """What changes in the mask over the epochs, for the ablation's plots."""

    def __init__(self, start: PackedTable, split: Split) -> None:
        self.start = _places(start)
        users = np.bincount(split.train.users, minlength=split.known_users)
        items = np.bincount(split.train.items, minlength=split.known_items)
        self.frequency: F32 = np.concatenate([users, items]).astype(np.float32)

    def __call__(self, trainer: Trainer) -> dict[str, float]:
        """Compare the mask with the start's.

        Returns:
            ``jaccard`` of the two; ``grown``, entries that the start did not have; and of these
            the share on rows of items, their rows' mean training frequency, and their mean
            magnitude beside that of all entries.
        """
        table = trainer.table
        grown = ~np.isin(_places(table), self.start, assume_unique=True)
        count = int(grown.sum())
        kept = table.nnz - count
        found: dict[str, float] = {
            "jaccard": kept / (len(self.start) + count),
            "grown": count,
            "magnitude": float(np.abs(table.vals).mean()),
        }
        if count:
            rows = np.repeat(np.arange(table.num_rows), np.diff(table.row_ptr))[grown]
            found["grown_magnitude"] = float(np.abs(table.vals[grown]).mean())
            found["grown_on_items"] = float((rows >= table.num_users).mean())
            found["grown_frequency"] = float(self.frequency[rows].mean())
        return found


def _places(table: PackedTable) -> I64:
    rows = np.repeat(np.arange(table.num_rows), np.diff(table.row_ptr))
    places: I64 = rows * table.dim + table.cols
    return places


def _factors(job: Job, data: Dataset) -> dict[str, float] | None:
    """Factor the interactions in another process, once for all runs that start from them.

    Returns:
        Its seconds and peak memory; None for runs that start otherwise.
    """
    recipe = job.recipe
    if not recipe.starts_from_factors:
        return None
    key = [data.source_sha256, job.cell.protocol, recipe.dim // recipe.halves, recipe.seed]
    name = sha256(json.dumps([*key, asdict(recipe.nmf)]).encode()).hexdigest()[:16]
    path = job.work / "factors" / f"{name}.json"
    if job.factors_only:
        return _factorise(job, data, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a run beside this one may be at the same factors
        if not path.exists():
            again = Job(job.cell, recipe, job.work, job.results, factors_only=True)
            command = [sys.executable, "-m", "pipeline.reproduce.worker"]
            subprocess.run(command, input=again.as_json(), text=True, check=True)
    found: dict[str, float] = read_json(path)
    return found


def _factorise(job: Job, data: Dataset, path: Path) -> dict[str, float]:
    split = data.split(SPLIT_SEED, job.cell.protocol)
    before, began = environment.reset_peak(), time.monotonic()
    initial_table(replace(job.recipe, als=PLAIN), split, path.parent)
    found = {
        "seconds": round(time.monotonic() - began, 3),
        "rss_before_bytes": before or 0,
        "peak_rss_bytes": environment.peak_rss(),
    }
    write_json(path, found)
    return found


def main() -> int:
    """Do the job on standard input."""
    job = Job.from_json(sys.stdin.read())
    try:
        if job.factors_only:
            _factors(job, load(job.cell.dataset))
            return 0
        record = perform(job)
    except KeyboardInterrupt:
        return 130
    except SparseRecError as error:
        print(json.dumps({"error": [error.message, error.fix]}), flush=True)
        return 2
    print(json.dumps({"record": record}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
