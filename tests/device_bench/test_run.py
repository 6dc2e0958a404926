"""Running on a virtual device whose app behaves, fails, crashes or hangs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from device_bench.adb import Device
from device_bench.bundle import Bundle
from device_bench.deploy import deploy
from device_bench.run import Options, RunFailedError, run
from device_bench.virtual import VirtualDevice
from sparserec.errors import SparseRecError

Seen = list[tuple[str, int, int | None]]


@pytest.fixture
def deployed(device: Device, bundle: Bundle) -> str:
    deploy(device, bundle)
    return bundle.bundle_id


def test_good_run(device: Device, deployed: str, tmp_path: Path) -> None:
    seen: Seen = []
    target = tmp_path / "out" / "report.json"
    options = Options(steps=30, threads=2, checkpoint_every=10, fresh=True)
    report = run(device, deployed, target, options, lambda *args: seen.append(args))
    assert report == json.loads(target.read_text())
    given = report["parameters"]["given"]
    assert given["run_id"] == report["run_id"]
    assert given["bundle"].endswith(f"/org.sparserec.app/bundles/{deployed}")
    assert {key: given.get(key) for key in ("steps", "threads", "checkpoint_every", "fresh")} == {
        "steps": "30",
        "threads": "2",
        "checkpoint_every": "10",
        "fresh": "true",
    }
    assert "evaluate" not in given
    train = [(done, total) for what, done, total in seen if what == "train: loss 0.5"]
    assert train == [(10, 30), (20, 30), (30, 30)]
    assert ("load", 1, 1) in seen


def failed(device: Device, bundle_id: str, folder: Path) -> RunFailedError:
    with pytest.raises(RunFailedError) as caught:
        run(device, bundle_id, folder / "report.json")
    return caught.value


def test_failure_has_the_harness_words_and_the_report(
    device: Device, deployed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APP_BEHAVIOUR", "fail")
    error = failed(device, deployed, tmp_path)
    assert "failed in phase train: table.safetensors: row_ptr is not ascending" in error.message
    assert error.report is not None
    assert error.report["exit_status"] == "failed"
    assert error.exit_code == 1


def test_crash_leaves_a_report_that_shows_it(
    device: Device, deployed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APP_BEHAVIOUR", "crash")
    error = failed(device, deployed, tmp_path)
    assert "crashed in phase train: Process crashed." in error.message
    assert "a library is missing" in error.message  # the app's stderr, by way of the device's log
    assert json.loads((tmp_path / "report.json").read_text())["exit_status"] == "started"


def test_app_that_is_not_there(device: Device, deployed: str, tmp_path: Path, app: Path) -> None:
    app.unlink()
    error = failed(device, deployed, tmp_path)
    assert "could not be started" in error.message
    assert error.report is None
    assert not (tmp_path / "report.json").exists()


def test_ctrl_c_stops_the_app(
    device: Device,
    deployed: str,
    tmp_path: Path,
    virtual: VirtualDevice,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("APP_BEHAVIOUR", "hang")

    def interrupt(what: str, done: int, total: int | None) -> None:
        if what.startswith("train"):
            assert virtual.device.harness.pid is not None
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(device, deployed, tmp_path / "report.json", progress=interrupt)
    assert virtual.device.harness.pid is None
    assert device.shell("pidof org.sparserec.app").exit_code == 1


def test_success_with_a_damaged_report_is_no_success(
    device: Device, deployed: str, tmp_path: Path, app: Path
) -> None:
    app.write_text(
        app.read_text().replace('exit_status="succeeded", phase', 'exit_status="odd", phase')
    )
    with pytest.raises(SparseRecError, match="exit_status: 'odd' is not one of"):
        run(device, deployed, tmp_path / "report.json")
