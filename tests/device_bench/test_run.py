"""Running on a virtual device whose app behaves, fails, crashes or hangs."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from device_bench.adb import Device
from device_bench.bundle import Bundle
from device_bench.deploy import deploy
from device_bench.endings import State
from device_bench.paths import ROOT
from device_bench.run import Options, RunFailedError, perform, run
from device_bench.virtual import VirtualDevice
from device_bench.watchdog import Limits, Watchdog
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


def test_what_killed_and_lost_runs_left_is_removed_by_the_next(
    device: Device, deployed: str, tmp_path: Path, virtual: VirtualDevice
) -> None:
    runs = virtual.device.files.root / ROOT.lstrip("/") / "runs"
    (runs / "old" / "state").mkdir(parents=True)
    (runs / "old" / "state" / "generation").write_text("of a run in a folder of its own")
    (runs / "old" / "report.json.part").write_text("half a rep")
    (runs / "old" / "report.json").write_text("{}")
    run(device, deployed, tmp_path / "report.json")
    assert [path.name for path in (runs / "old").iterdir()] == ["report.json"]


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


def test_success_with_another_runs_report_is_no_success(
    device: Device, deployed: str, tmp_path: Path, app: Path
) -> None:
    app.write_text(app.read_text().replace('values["run_id"]', '"another"', 1))
    with pytest.raises(SparseRecError, match="report says run another succeeded"):
        run(device, deployed, tmp_path / "report.json")


def test_sensors_come_with_the_report(
    device: Device, deployed: str, tmp_path: Path, app: Path
) -> None:
    run(device, deployed, tmp_path / "without" / "report.json")
    assert not (tmp_path / "without" / "sensors.json").exists()
    sampled = 'open(values["out"] + "/sensors.json", "w").write("{}")'
    app.write_text(app.read_text().replace("\nwrite()\n", f"\nwrite()\n{sampled}\n", 1))
    run(device, deployed, tmp_path / "with" / "report.json")
    assert (tmp_path / "with" / "sensors.json").read_text() == "{}"


def test_from_scratch_leaves_the_devices_state_alone(
    device: Device, deployed: str, tmp_path: Path, virtual: VirtualDevice
) -> None:
    report = run(device, deployed, tmp_path / "report.json", Options(scratch=True))
    given = report["parameters"]["given"]
    assert given["state"] == given["out"] + "/state"
    assert "fresh" not in given
    assert not Path(given["out"]).exists()
    places = virtual.device.files.root / "sdcard/Android/media/org.sparserec.app"
    assert not (places / "state" / deployed).exists()


@pytest.mark.parametrize(
    ("behaviour", "state", "said"),
    [
        ("succeed", State.SUCCEEDED, ""),
        ("fail", State.CRASHED, "the run failed in phase train: table.safetensors: row_ptr"),
        ("crash", State.CRASHED, "the run crashed in phase train: Process crashed."),
        ("hang", State.TIMED_OUT, "the run timed out in phase train: the run took longer than 2 s"),
    ],
)
def test_states(
    behaviour: str,
    state: State,
    said: str,
    device: Device,
    deployed: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("APP_BEHAVIOUR", behaviour)
    limits = Limits(30.0, 2.0 if behaviour == "hang" else None)
    ended = perform(device, deployed, tmp_path / "report.json", None, Watchdog(limits))
    assert ended.state is state
    assert ended.message.startswith(said)
    assert ended.report is not None
    assert (tmp_path / "logcat.txt").exists() == (state is not State.SUCCEEDED)


def test_out_of_memory_by_the_harness_own_words(
    device: Device,
    deployed: str,
    tmp_path: Path,
    app: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("APP_BEHAVIOUR", "fail")
    app.write_text(app.read_text().replace("table.safetensors: row_ptr", "out of memory: row_ptr"))
    ended = perform(device, deployed, tmp_path / "report.json", None, Watchdog())
    assert ended.state is State.LOW_MEMORY


def test_cancelled_in_the_middle_of_a_silence(
    device: Device,
    deployed: str,
    tmp_path: Path,
    virtual: VirtualDevice,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("APP_BEHAVIOUR", "hang")
    cancelled = threading.Event()

    def stop_soon(what: str, done: int, total: int | None) -> None:
        if what.startswith("train"):
            threading.Timer(0.5, cancelled.set).start()

    watchdog = Watchdog(cancelled=cancelled)
    ended = perform(device, deployed, tmp_path / "report.json", None, watchdog, stop_soon)
    assert ended.state is State.CANCELLED
    assert virtual.device.harness.pid is None
