"""Whole runs: as one process's, and through real kills of a rank and of the launcher."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.data.datasets import load
from pipeline.data.logs import write_csv
from pipeline.data.split import Split, temporal_split
from pipeline.data.synthetic import generate
from pipeline.distributed.fit import fit
from pipeline.distributed.ranks import Ranks
from pipeline.fit import Fitted
from pipeline.fit import fit as alone
from pipeline.history import epochs_done
from pipeline.recipes import RECIPES, Recipe
from pipeline.run import load_run, save_run
from sparserec.errors import SparseRecError
from tests.pipeline.distributed.peers import on_ranks


def small(model: str = "mf") -> Recipe:
    recipe = RECIPES["sparserec"]()
    step = replace(recipe.step, model=model, batch_size=128, learning_rate=0.01)
    if model == "neumf":
        # Adam would move entries behind closed ReLUs as the rounding of their gradients points.
        step = replace(step, optimizer="sgd")
    return replace(recipe, dim=32, epochs=3, window=7, step=step)


@pytest.fixture(scope="module")
def split() -> Split:
    return temporal_split(generate(80, 120, 3000, seed=3))


def assert_alike(one: Fitted, other: Fitted) -> None:
    """Compare runs that differ in the order of sums alone."""
    np.testing.assert_array_equal(one.table.row_ptr, other.table.row_ptr)
    np.testing.assert_array_equal(one.table.cols, other.table.cols)
    np.testing.assert_allclose(one.table.vals, other.table.vals, atol=1e-3)
    assert one.best_epoch == other.best_epoch
    for mine, theirs in zip(one.history, other.history, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-2)
    assert one.test.recall[20] == pytest.approx(other.test.recall[20], rel=1e-2)
    assert len(one.test.relevant) == len(other.test.relevant)


@pytest.mark.parametrize(("world", "model"), [(2, "mf"), (4, "mf"), (2, "neumf")])
def test_a_run_is_that_of_one_process(world: int, model: str, split: Split, tmp_path: Path) -> None:
    found, *others = on_ranks(world, fit, small(model), split, tmp_path)
    assert_alike(found, alone(small(model), split))
    assert others == [None] * (world - 1)


def test_one_rank_is_one_process(split: Split, tmp_path: Path) -> None:
    found, expected = on_ranks(1, fit, small(), split, tmp_path)[0], alone(small(), split)
    assert found.history == expected.history
    np.testing.assert_array_equal(found.table.vals, expected.table.vals)
    assert found.test.recall == expected.test.recall


def said(ranks: Ranks, recipe: Recipe, split: Split, out: Path, factors_sha256: str) -> str:
    """Fit with what only the first rank knows of given factors."""
    of_rank = factors_sha256 if ranks.rank == 0 else ""
    try:
        fit(ranks, recipe, split, out, factors_sha256=of_rank)
    except SparseRecError as error:
        return error.message
    return ""


def test_ranks_go_on_from_the_same_factors_alone(split: Split, tmp_path: Path) -> None:
    recipe = replace(small(), epochs=1)
    for factors_sha256 in ("a" * 64, "a" * 64):
        assert on_ranks(2, said, recipe, split, tmp_path, factors_sha256) == ["", ""]
    for message in on_ranks(2, said, recipe, split, tmp_path, "b" * 64):
        assert "another recipe, model file, data or factors" in message


def fit_and_stop(ranks: Ranks, recipe: Recipe, split: Split, out: Path, steps: int) -> Any:
    """Ask the last rank alone to stop after some steps."""
    from pipeline.distributed.trainer import ShardTrainer

    run_step = ShardTrainer.run_step

    def stopping(self: ShardTrainer) -> float:
        if ranks.rank == ranks.world - 1 and self.step == steps:
            signal.raise_signal(signal.SIGTERM)
        return run_step(self)

    ShardTrainer.run_step = stopping  # type: ignore[method-assign]
    try:
        return fit(ranks, recipe, split, out)
    except KeyboardInterrupt:
        return "stopped"
    finally:
        ShardTrainer.run_step = run_step  # type: ignore[method-assign]


@pytest.mark.parametrize(("model", "ema", "least"), [("mf", 0, 1), ("neumf", 0.8, 0.1)])
def test_ranks_go_on_from_one_process_and_from_other_ranks(
    model: str, ema: float, least: float, split: Split, tmp_path: Path
) -> None:
    """Three quarters of a run each on another number of ranks."""
    from pipeline.train import Trainer

    recipe = replace(small(model), ema=ema, learning_rate_least=least)
    expected = alone(recipe, split)
    run_step = Trainer.run_step

    def stopping(self: Trainer) -> float:
        if self.step == 9:
            signal.raise_signal(signal.SIGINT)
        return run_step(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "run_step", stopping)
        with pytest.raises(KeyboardInterrupt):
            alone(recipe, split, tmp_path / "checkpoint.safetensors")
    for world, steps in ((2, 17), (3, 30)):
        assert on_ranks(world, fit_and_stop, recipe, split, tmp_path, steps) == ["stopped"] * world
    assert_alike(on_ranks(1, fit, recipe, split, tmp_path)[0], expected)


def processes_under(pid: int) -> list[int]:
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found += [int(child), *processes_under(int(child))]
    return found


def ranks_of(launcher: int) -> list[int]:
    return [
        pid
        for pid in processes_under(launcher)
        if b"-m\0pipeline.distributed" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


def until(condition: Any, what: str) -> None:
    deadline = time.monotonic() + 400
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def epochs_saved(out: Path) -> int:
    """Read how many epochs the newest whole checkpoint has."""
    from pipeline.checkpoint import opened
    from pipeline.distributed.shards import newest
    from sparserec.errors import SparseRecError

    try:
        generation = newest(out / "checkpoint")
        if generation is None:
            return 0
        with opened(generation.shard(0)) as (scalars, _):
            return epochs_done(scalars["history"])
    except SparseRecError:
        return 0  # it has just been replaced


EPOCHS = 100
"""So many that an idle machine is still at it when something is killed."""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes by Linux' /proc")
def test_a_killed_launcher_and_a_killed_rank_lose_nothing(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    write_csv(generate(200, 500, 10_000, seed=3), log)
    data, recipe = load(str(log)), replace(RECIPES["sparserec"](), dim=32, epochs=EPOCHS)
    split = data.split(recipe.seed, "lightgcn")
    whole = on_ranks(2, fit, recipe, split, tmp_path / "whole")[0]
    save_run(tmp_path / "whole", data.name, data.source_sha256, recipe, split, whole)

    train = [sys.executable, "-c", "from sparserec.cli import main; main()", "train", str(log)]
    train += ["--dim", "32", "--epochs", str(EPOCHS), "--ranks", "2", "--out"]
    cut = tmp_path / "cut"
    with (tmp_path / "first.txt").open("w") as said:
        launcher = subprocess.Popen([*train, str(cut)], stdout=said, stderr=said)
    until(lambda: epochs_saved(cut) >= 2, "no checkpoint before the launcher is killed")
    assert len(processes_under(launcher.pid)) >= 2
    os.kill(launcher.pid, signal.SIGKILL)
    launcher.wait()
    assert not (cut / "run.json").exists()

    with (tmp_path / "second.txt").open("w") as said:
        launcher = subprocess.Popen([*train, str(cut)], stdout=said, stderr=said)
    until(lambda: len(ranks_of(launcher.pid)) == 2, "the second launcher starts no ranks")
    reached = epochs_saved(cut)
    until(lambda: epochs_saved(cut) > reached, "the second launcher does not go on")
    os.kill(ranks_of(launcher.pid)[0], signal.SIGKILL)
    assert launcher.wait(timeout=400) == 0, (tmp_path / "second.txt").read_text()
    for name in ("table.safetensors", "split.safetensors"):
        assert (cut / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert load_run(cut).history == load_run(tmp_path / "whole").history
    left = [path.name for path in (cut / "checkpoint").iterdir()]
    assert len(left) == 3, left
    assert json.loads((cut / "run.json").read_text())["recipe"]["epochs"] == EPOCHS
