"""The harness trains like an independent implementation of the same page."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from device_bench import report as report_format
from device_bench.instrumentation import Parser
from tests.android_app.harness.conftest import GOLDEN_STEPS, Ended, Harness
from tests.android_app.harness.reference import Reference, unpack

STEPS = 120
PHASES = ["load", "evaluate_before", "warm_up", "train", "checkpoint", "evaluate_after", "done"]


@pytest.fixture(scope="module")
def trained(
    launcher: Path, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Harness, Ended]:
    harness = Harness(launcher, tiny_bundle, tmp_path_factory.mktemp("trained"))
    return harness, harness.run(checkpoint_every=50, run_id="trained")


@pytest.fixture(scope="module")
def reference(tiny_bundle: Path) -> Reference:
    made = Reference(tiny_bundle)
    made.run(STEPS)
    return made


def test_losses_equal_the_references(trained: tuple[Harness, Ended], reference: Reference) -> None:
    _, ended = trained
    assert ended.code == 0, ended.errors
    np.testing.assert_allclose(ended.report["losses"], reference.losses, atol=1e-4, rtol=0)
    assert reference.losses[-1] < 0.9 * reference.losses[0]  # it did learn something


def test_final_table_equals_the_references(
    trained: tuple[Harness, Ended], reference: Reference, tiny_bundle: Path
) -> None:
    harness, _ = trained
    values, mask = unpack(harness.state / "gen-0000000120.safetensors", 16)
    _, mask_before = unpack(tiny_bundle / "table.safetensors", 16)
    assert (mask != mask_before).sum() > 100  # the exchanges did something
    np.testing.assert_array_equal(mask, reference.mask)
    np.testing.assert_allclose(values, reference.table, atol=1e-4, rtol=0)


def test_quality_equals_the_references(
    trained: tuple[Harness, Ended], reference: Reference, tiny_bundle: Path
) -> None:
    _, ended = trained
    for when, expected in (("before", Reference(tiny_bundle)), ("after", reference)):
        quality = expected.quality()
        assert ended.report["quality"][when] == pytest.approx(quality, abs=1e-9)
        assert quality["recall@20"] > 0


def test_report_is_complete(trained: tuple[Harness, Ended]) -> None:
    harness, _ = trained
    report = report_format.read(harness.report_path)  # checks device_bench's schema
    assert report["exit_status"] == "succeeded"
    assert report["run_id"] == "trained"
    assert [phase["name"] for phase in report["phases"]] == PHASES
    correctness = report["correctness"]
    assert (correctness["verdict"], correctness["steps"]) == ("passed", GOLDEN_STEPS)
    assert 0 <= correctness["max_abs_error"] < 1e-4
    for part in ("train_step_ns", "gradients_ns", "update_ns", "assemble_ns", "write_back_ns"):
        metric = report["metrics"][part]
        assert metric["count"] == len(metric["runs"]) == STEPS
        assert metric["p50"] == pytest.approx(np.percentile(metric["runs"], 50), abs=1)
        assert metric["p99"] == pytest.approx(np.percentile(metric["runs"], 99), abs=1)
    assert report["metrics"]["exchange_ns"]["count"] == 8  # windows that end before step 90
    assert report["metrics"]["checkpoint_ns"]["count"] == 3
    assert all(phase["memory"]["rss_kb"] > 0 for phase in report["phases"])
    assert report["target"]["kind"] == "virtual-device"
    assert len(report["versions"]["runtime_sha256"]) == 64
    assert report["warnings"] == []
    tensors = load_file(harness.state / "gen-0000000120.safetensors")
    data = b"".join(tensors[name].tobytes() for name in ("row_ptr", "cols", "vals"))
    expected = {"generation": 120, "table_sha256": hashlib.sha256(data).hexdigest()}
    assert report["state"] == expected


def test_output_is_that_of_am_instrument(trained: tuple[Harness, Ended]) -> None:
    harness, ended = trained
    parser = Parser()
    statuses = [status for line in ended.lines if (status := parser.feed(line)) is not None]
    assert [s.values["phase"] for s in statuses if "step" not in s.values] == PHASES
    last = [status.values for status in statuses if "step" in status.values][-1]
    assert (last["step"], last["steps"]) == ("120", "120")
    assert float(last["loss"]) == pytest.approx(ended.report["losses"][-1])
    assert ended.value("exit_status") == "succeeded"
    assert ended.value("report") == str(harness.report_path)
    assert ended.lines[-1] == "INSTRUMENTATION_CODE: -1"
