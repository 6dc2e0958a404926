"""The whole way with the real harness, where it is built: deploy, train, resume, report."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_bench import adb, page, report
from device_bench.adb import Device
from device_bench.bundle import load
from device_bench.deploy import deploy
from device_bench.devices import choose
from device_bench.results import Result
from device_bench.run import Options, RunFailedError, run
from device_bench.virtual.server import default_harness
from export.manifest import read as read_manifest

pytestmark = pytest.mark.skipif(
    not os.access(default_harness(), os.X_OK),
    reason=f"{default_harness()} is not built: run `make setup`",
)


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    monkeypatch.setattr(adb, "usb_phones", list)
    with choose(virtual_root=tmp_path / "phone") as device:
        yield device


def test_train_resume_and_report(phone: Device, bundle_dir: Path, tmp_path: Path) -> None:
    bundle = load(bundle_dir)
    deploy(phone, bundle)
    target = tmp_path / "report.json"
    steps = read_manifest(bundle_dir / "manifest.json").training.steps

    half = run(phone, bundle.bundle_id, target, Options(steps=steps // 2))
    assert half["resumed_from_step"] is None
    whole = run(phone, bundle.bundle_id, target)
    assert whole["resumed_from_step"] == steps // 2
    again = run(phone, bundle.bundle_id, target, Options(fresh=True))
    assert again["resumed_from_step"] is None
    assert again["state"] == whole["state"]
    assert again["losses"] == whole["losses"]

    assert report.read(target) == again
    _check(again, bundle.golden, steps)
    manifest = next(file for file in bundle.files if file.name == "manifest.json")
    assert again["bundle"]["manifest_sha256"] == manifest.sha256
    page.render_run(Result(target, again, golden=bundle.golden), tmp_path / "report.html")
    assert "They are not a phone’s." in (tmp_path / "report.html").read_text()


def _check(found: dict[str, Any], golden: dict[str, Any], steps: int) -> None:
    assert found["target"]["kind"] == "virtual-device"
    assert found["correctness"]["verdict"] == "passed"
    assert len(found["losses"]) == steps
    error = np.abs(np.subtract(found["losses"][: golden["steps"]], golden["losses"])).max()
    assert error <= golden["tolerance"]
    assert report.inconsistencies(found) == []
    step = found["metrics"]["train_step_ns"]
    assert step["count"] == steps
    for percent in (50, 90, 95, 99):  # whichever way it interpolates, it lies between these
        low, high = (
            np.percentile(step["runs"], percent, method=method) for method in ("lower", "higher")
        )
        assert low <= step[f"p{percent}"] <= high
    deviations = np.abs(np.array(step["runs"]) - np.median(step["runs"]))
    assert step["mad"] == pytest.approx(np.median(deviations), abs=1)


def test_damaged_file_on_the_device_is_reported(
    phone: Device, bundle_dir: Path, tmp_path: Path
) -> None:
    bundle = load(bundle_dir)
    deploy(phone, bundle)
    files = tmp_path / "phone" / "sdcard/Android/media/org.sparserec.app/bundles"
    table = files / bundle.bundle_id / "table.safetensors"
    data = bytearray(table.read_bytes())
    data[-1] ^= 1
    table.write_bytes(data)
    with pytest.raises(RunFailedError, match=r"table\.safetensors") as caught:
        run(phone, bundle.bundle_id, tmp_path / "report.json")
    assert caught.value.report is not None
    assert json.loads((tmp_path / "report.json").read_text())["exit_status"] == "failed"


def test_an_interleaved_plan_trains_the_same_each_time(
    sparserec: Callable[..., Any], bundle_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SPARSEREC_HARNESS")
    Path("plan.toml").write_text(
        f'bundles = ["{bundle_dir}"]\nrepetitions = 2\nthreads = [1, 2]\nevaluate = false\n'
    )
    ran = sparserec("bench", "--plan", "plan.toml", "--device", "virtual", "--out", "out")
    assert ran.code == 0, ran.out
    folders = sorted(Path("out/results").iterdir())
    records = [json.loads((folder / "run.json").read_text()) for folder in folders]
    assert [(one["threads"], one["repetition"]) for one in records] == [
        (1, 1),
        (2, 1),
        (2, 2),
        (1, 2),
    ]
    reports = [report.read(folder / "report.json") for folder in folders]
    for record, found in zip(records, reports, strict=True):
        assert (record["state"], record["correctness"]) == ("succeeded", "passed")
        assert found["resumed_from_step"] is None
        assert found["parameters"]["threads"] == record["threads"]
        assert found["losses"] == reports[0]["losses"]
    assert len({found["run_id"] for found in reports}) == 4
