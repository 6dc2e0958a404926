"""The five workloads on the real library: what they compute, and what they say without programs."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from export.comparison import comparison_bundle
from tests.android_app.harness.conftest import Harness

ROWS, DIM, BATCH, STEPS = 120, 8, 16, 120
TRAINERS = ("sparse_step", "dense_step", "training_module")


@pytest.fixture(scope="session")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose table is full, so that all trainers train the same."""
    folder = tmp_path_factory.mktemp("full") / "bundle"
    return comparison_bundle(folder, ROWS, 1.0, DIM, BATCH, STEPS).path


def repeated(launcher: Path, bundle: Path, folder: Path, workload: str) -> dict[str, Any]:
    ended = Harness(launcher, bundle, folder / workload).run(workload=workload)
    assert ended.code == 0, ended.errors
    report = ended.report
    assert report["exit_status"] == "succeeded"
    assert report["parameters"]["workload"] == workload
    return report


def test_all_trainers_have_the_losses_of_the_host(
    launcher: Path, full: Path, tmp_path: Path
) -> None:
    golden = json.loads((full / "golden.json").read_text())["losses"]
    assert golden[0] - golden[-1] > 1e-3  # it learns, so equal losses mean something
    for workload in TRAINERS:
        report = repeated(launcher, full, tmp_path, workload)
        assert len(report["losses"]) == STEPS
        assert report["losses"][: len(golden)] == pytest.approx(golden, abs=1e-5)
        assert report["metrics"]["train_step_ns"]["count"] == STEPS - STEPS // 2
        assert not list((tmp_path / workload / "state").glob("*"))  # nothing is kept


def test_forward_alone_changes_nothing(launcher: Path, full: Path, tmp_path: Path) -> None:
    sparse = repeated(launcher, full, tmp_path, "sparse_forward")
    dense = repeated(launcher, full, tmp_path, "dense_forward")
    assert sparse["losses"] == pytest.approx(dense["losses"], abs=1e-6)
    golden = json.loads((full / "golden.json").read_text())["losses"]
    assert sparse["losses"][0] == pytest.approx(golden[0], abs=1e-6)
    assert sparse["losses"][1:20] != pytest.approx(golden[1:20], abs=1e-6)
    assert [phase["name"] for phase in sparse["phases"]] == [
        "idle",
        "load",
        "warm_up",
        "train",
        "done",
    ]


@pytest.mark.parametrize("phase", ["warm_up", "train"])
def test_terminated_workload_ends_after_its_step(
    launcher: Path, full: Path, tmp_path: Path, phase: str
) -> None:
    harness = Harness(launcher, full, tmp_path)
    steps = 20_000_000 if phase == "warm_up" else 200_000
    command = harness.command(workload="sparse_forward", steps=steps)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any(f"phase={phase}" in line for line in process.stdout)
        process.send_signal(signal.SIGTERM)
        rest = process.stdout.read()
    error = harness.report()["error"]
    assert "stopped at step" in error
    assert error.endswith("; run it again")  # nothing was saved that it could resume from
    assert "INSTRUMENTATION_CODE: 0\n" in rest


def test_bundle_without_the_program(harness: Harness) -> None:
    ended = harness.run(workload="dense_step")
    assert ended.code == 1
    assert "dense_step needs the program dense_step" in ended.value("error")
    assert "sparserec sparse-vs-dense" in ended.value("error")


def test_workload_that_is_none(harness: Harness) -> None:
    ended = harness.run(workload="dense")
    assert ended.code == 1
    assert "workload: 'dense' is none" in ended.value("error")
