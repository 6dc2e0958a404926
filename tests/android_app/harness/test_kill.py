"""A harness that is killed at any instant goes on from its newest checkpoint, bit for bit."""

from __future__ import annotations

import random
import subprocess
import time
from pathlib import Path

import pytest

from tests.android_app.harness.bundles import change_manifest
from tests.android_app.harness.conftest import Harness

KILLS = 50
STEPS = 4000
CHECKPOINT_EVERY = 3
MAX_DELAY = 0.1
"""Seconds of training before a kill: some tens of steps and checkpoints."""


@pytest.fixture
def harness(launcher: Path, own_bundle: Path, tmp_path: Path) -> Harness:
    """With a bundle whose mask is exchanged every 10 steps nearly all the way."""
    change_manifest(own_bundle, lambda manifest: manifest["training"].update(steps=STEPS))
    return Harness(launcher, own_bundle, tmp_path)


def test_kills_at_random_instants_change_nothing(harness: Harness, tmp_path: Path) -> None:
    undisturbed = Harness(harness.launcher, harness.bundle, tmp_path / "undisturbed").run(
        evaluate="false", steps=STEPS, checkpoint_every=STEPS
    )
    assert undisturbed.code == 0, undisturbed.errors
    assert undisturbed.report["metrics"]["exchange_ns"]["count"] == 0.75 * STEPS / 10 - 1

    instants = random.Random(20261123)
    resumed: list[int] = []
    mid_write = 0
    for _ in range(KILLS):
        newest = _newest(harness)
        kill_in_training(
            harness,
            instants.uniform(0, MAX_DELAY),
            evaluate="false",
            steps=STEPS,
            checkpoint_every=CHECKPOINT_EVERY,
        )
        report = harness.report()  # valid, whenever the kill came
        assert (report["exit_status"], report["phase"]) == ("started", "train")
        assert (report["resumed_from_step"] or 0) == newest
        assert report["warnings"] == []  # no checkpoint was damaged
        resumed.append(newest)
        mid_write += any(harness.state.glob("*.part"))
    assert len(set(resumed)) > KILLS // 2  # most of them got somewhere
    assert mid_write > 0  # some were hit while they wrote a checkpoint

    newest = _newest(harness)
    ended = harness.run(evaluate="false", steps=STEPS, checkpoint_every=CHECKPOINT_EVERY)
    assert ended.code == 0, ended.errors
    assert ended.report["resumed_from_step"] == newest > 0
    assert ended.report["losses"] == undisturbed.report["losses"]
    assert ended.report["state"] == undisturbed.report["state"]
    assert ended.report["correctness"] == undisturbed.report["correctness"]
    kept = sorted(path.name for path in harness.state.iterdir())
    assert kept == [".lock", "gen-0000003999.safetensors", "gen-0000004000.safetensors"]


def _newest(harness: Harness) -> int:
    """The newest generation, 0 if there is none."""
    names = [path.stem for path in harness.state.glob("gen-*.safetensors")]
    return max((int(name.removeprefix("gen-")) for name in names), default=0)


def kill_in_training(harness: Harness, delay: float, **keys: object) -> None:
    """Start the harness and kill it ``delay`` seconds after it said that it trains."""
    with subprocess.Popen(harness.command(**keys), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "INSTRUMENTATION_STATUS: phase=train\n" in iter(process.stdout.readline, "")
        time.sleep(delay)
        assert process.poll() is None  # still at it
        process.kill()
