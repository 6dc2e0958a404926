"""Many devices at once, some of which fail, die, hang or fill up."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from device_bench import cooldown, fleet, keys, lock, plan, records, stability, transfer
from device_bench.adb import Device, Socket
from device_bench.board import Board
from device_bench.bundle import Bundle
from device_bench.cooldown import Heat
from device_bench.device_errors import ConnectionLostError
from device_bench.endings import Ended, State
from device_bench.plan import BundleRef, Plan, Request
from device_bench.records import BundleInfo
from device_bench.run import Options
from device_bench.virtual import VirtualDevice
from sparserec.errors import SparseRecError
from tests.device_bench.conftest import build_report

QUICK = {"silence_seconds": 20.0, "reconnect_seconds": 0.0}
Faults = dict[str, Any]


class Fleet:
    """Virtual devices by name, and what to run on them."""

    def __init__(self, folder: Path, bundle: Bundle, devices: dict[str, VirtualDevice]) -> None:
        self.folder, self.bundle, self.devices = folder, bundle, devices
        self.output = StringIO()

    def plan(self, **changes: Any) -> Plan:
        asked: dict[str, Any] = {"bundles": [str(self.bundle.path)], "time_out": QUICK} | changes
        ref = BundleRef(
            id=self.bundle.bundle_id,
            path=str(self.bundle.path),
            sha256=self.bundle.files[-1].sha256,
            model="mf",
            dim=8,
            density=0.1,
            batch_size=16,
        )
        made = plan.lay_down(Request.model_validate(asked), [ref], list(self.devices))
        records.create(self.folder, made)
        return made

    def open(self, name: str, say: Callable[[str], None]) -> AbstractContextManager[Device]:
        device = self.devices[name]
        way = Socket(device.host, device.port)
        return Device(name, way, [keys.virtual_key()], wait_for_owner=0.5)

    def run(self, made: Plan, opener: fleet.Opener | None = None) -> bool:
        left = records.pending(self.folder, made)
        board = Board(Console(file=self.output), [(name, len(left)) for name in made.devices])
        return fleet.execute(made, [self.bundle], self.folder, left, opener or self.open, board)

    def record(self, made: Plan, device: str, order: int = 1) -> records.Record | None:
        (run,) = [run for run in made.of(device) if run.order == order]
        path = records.place(self.folder, run) / records.NAME
        return records.read(path) if path.exists() else None

    def state(self, made: Plan, device: str, order: int = 1) -> State | None:
        record = self.record(made, device, order)
        return None if record is None else record.state


@pytest.fixture
def slow_app(app: Path) -> Path:
    """The test's app, with time for faults between its statuses."""
    said = 'say("STATUS_CODE: 2")'
    app.write_text(app.read_text().replace(said, said + "; time.sleep(0.2)"))
    return app


@pytest.fixture
def make(
    tmp_path: Path, slow_app: Path, bundle: Bundle
) -> Iterator[Callable[[dict[str, Faults | None]], Fleet]]:
    """Start a virtual device for each name, with those faults."""
    with ExitStack() as stack:

        def start(devices: dict[str, Faults | None]) -> Fleet:
            key = keys.public(keys.virtual_key())
            running = {
                name: stack.enter_context(
                    VirtualDevice(
                        tmp_path / "phones" / name,
                        authorized_keys=[key],
                        harness=slow_app,
                        serial=name,
                        faults=faults,
                    )
                )
                for name, faults in devices.items()
            }
            return Fleet(tmp_path / "bench", bundle, running)

        yield start


def test_sixteen_devices_of_which_four_are_faulty(make: Callable[..., Fleet]) -> None:
    faulty: dict[str, Faults] = {
        "killed": {"kill": [{"at_status": 2, "reason": "low memory"}]},
        "crashing": {"kill": [{"at_status": 3, "reason": "signal"}]},
        "vanishing": {"offline": [{"at_status": 2}]},
        "strange": {"unauthorised": True},
    }
    good = [f"good-{number}" for number in range(12)]
    found = make(dict.fromkeys(good) | faulty)
    made = found.plan()
    assert found.run(made)

    assert {name: found.state(made, name) for name in good} == dict.fromkeys(good, State.SUCCEEDED)
    assert found.state(made, "killed") is State.LOW_MEMORY
    assert found.state(made, "crashing") is State.CRASHED
    assert found.state(made, "vanishing") is State.INFRASTRUCTURE_ERROR
    assert found.state(made, "strange") is State.INFRASTRUCTURE_ERROR


def test_a_slow_device_holds_nobody_up(
    make: Callable[..., Fleet], slow_app: Path, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    waiting = (
        f'import os\nwhile values["out"].count("/slow/") and not os.path.exists({str(gate)!r}): '
    )
    slow_app.write_text(
        slow_app.read_text().replace("\nwrite()\n", f"\nwrite()\n{waiting}time.sleep(0.05)\n", 1)
    )
    found = make({"slow": None, "quick": None, "dead": {"offline": [{"after_seconds": 0}]}})
    made = found.plan(repetitions=2)
    thread = threading.Thread(target=found.run, args=(made,))
    thread.start()
    _until(lambda: found.state(made, "quick", 2) is not None)
    _until(lambda: found.state(made, "dead") is not None)
    assert found.state(made, "quick", 2) is State.SUCCEEDED
    assert found.state(made, "dead") is State.INFRASTRUCTURE_ERROR
    assert found.state(made, "slow") is None
    gate.touch()
    thread.join(60)
    assert found.state(made, "slow", 2) is State.SUCCEEDED
    assert found.state(made, "dead", 2) is None  # it was given up, so --resume can have it
    assert len(records.pending(found.folder, made)) == 2


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_one_run_that_crashes_leaves_the_others_alone(make: Callable[..., Fleet]) -> None:
    found = make({"phone": {"kill": [{"at_status": 2, "run": 2, "reason": "low memory"}]}})
    made = found.plan(threads=[1, 2], repetitions=2)
    assert found.run(made)
    ended = [found.record(made, "phone", order) for order in range(1, 5)]
    assert [one.state for one in ended if one] == [
        State.SUCCEEDED,
        State.LOW_MEMORY,
        State.SUCCEEDED,
        State.SUCCEEDED,
    ]
    assert [(one.threads, one.repetition) for one in ended if one] == [
        (1, 1),
        (2, 1),
        (2, 2),
        (1, 2),
    ]
    killed = ended[1]
    assert killed is not None
    assert killed.message is not None
    assert "low memory" in killed.message
    assert killed.files.logcat is not None
    log = records.place(found.folder, made.runs[1]) / killed.files.logcat
    assert "lowmemorykiller: Kill 'org.sparserec.app'" in log.read_text()
    given = [_given(found, run) for run in (made.runs[0], made.runs[2])]
    assert given[0]["state"] != given[1]["state"]  # each trains from the bundle
    left = found.devices["phone"].device.files.root.glob("sdcard/Android/media/*/runs/*")
    assert list(left) == []
    assert records.pending(found.folder, made) == []  # a crash is a result


def _given(found: Fleet, run: plan.Run) -> dict[str, str]:
    report = json.loads((records.place(found.folder, run) / "report.json").read_text())
    return dict(report["parameters"]["given"])


def test_a_connection_that_breaks_off_is_tried_again(make: Callable[..., Fleet]) -> None:
    found = make({"phone": {"offline": [{"at_status": 2, "seconds": 0.5}]}})
    made = found.plan(time_out=QUICK | {"reconnect_seconds": 30.0})
    assert found.run(made)
    record = found.record(made, "phone")
    assert record is not None
    assert (record.state, record.attempts) == (State.SUCCEEDED, 2)
    assert (record.device.virtual, record.device.kind) == (True, "virtual-device")
    assert record.correctness == "passed"


def test_a_run_keeps_nothing_of_the_attempt_before(
    make: Callable[..., Fleet], monkeypatch: pytest.MonkeyPatch
) -> None:
    made_so_far = []

    def perform(device: Device, bundle_id: str, report: Path, *_: object) -> Ended:
        made_so_far.append(bundle_id)
        if len(made_so_far) == 1:
            report.write_text(json.dumps(build_report()))
            raise ConnectionLostError("lost after the report was fetched")
        return Ended(State.CRASHED, "the process died", "see logcat.txt")

    monkeypatch.setattr(fleet, "perform", perform)
    found = make({"phone": None})
    made = found.plan()
    assert found.run(made)
    record = found.record(made, "phone")
    assert record is not None
    assert (record.state, record.attempts, record.files.report) == (State.CRASHED, 2, None)
    assert not (records.place(found.folder, made.runs[0]) / "report.json").exists()


@pytest.mark.parametrize("state", ["continue", "fresh", "scratch"])
def test_a_record_tells_what_the_last_attempt_took_and_met(
    make: Callable[..., Fleet], monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    now, given = [1000.0], []
    took = iter([9.5, 2.25])
    heat = iter([(Heat(3, 41.5), 3.0), (Heat(1, 31.5), 4.25)])
    report = build_report()

    def cool_down(*_: object) -> tuple[Heat, float]:
        now[0] += 100
        return next(heat)

    def perform(device: Device, bundle_id: str, path: Path, options: Options, *_: object) -> Ended:
        given.append((bundle_id, options))
        now[0] += next(took)
        if len(given) == 1:
            raise ConnectionLostError("lost in the first attempt")
        path.write_text(json.dumps(report))
        return Ended(State.SUCCEEDED, report=report)

    monkeypatch.setattr(fleet, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(cooldown, "wait", cool_down)
    monkeypatch.setattr(fleet, "perform", perform)
    found = make({"phone": None})
    golden = b'{"losses": [0.5]}'
    (found.bundle.path / "golden.json").write_bytes(golden)
    made = found.plan(threads=[2], steps=400, checkpoint_every=50, evaluate=False)
    assert found.run(made.model_copy(update={"state": state}))
    record = found.record(made, "phone")
    assert record is not None
    options = Options(400, 2, 50, False, fresh=state == "fresh", scratch=state == "scratch")
    assert given == [(found.bundle.bundle_id, options)] * 2
    assert (record.attempts, record.seconds, record.cooldown_seconds) == (2, 2.25, 7.25)
    assert (record.thermal_before, record.battery_celsius_before) == (1, 31.5)
    assert record.stable == stability.stable(report["metrics"]["train_step_ns"]["runs"])
    assert record.state is State.SUCCEEDED
    assert (record.correctness, record.message) == ("passed", None)
    assert (record.files.report, record.files.golden) == ("report.json", "golden.json")
    assert (records.place(found.folder, made.runs[0]) / "golden.json").read_bytes() == golden
    bundle = made.bundles[0]
    assert record.bundle == BundleInfo(id=bundle.id, path=bundle.path, sha256=bundle.sha256)
    assert (record.device.serial, record.device.transport) == ("phone", "TCP")


def test_a_connection_that_breaks_off_between_runs_is_made_again(
    make: Callable[..., Fleet], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = make({"phone": None})
    made = found.plan(repetitions=2, attempts=1)
    refresh, breaks = lock.Held.refresh, [1]

    def broken(held: lock.Held) -> None:
        if found.state(made, "phone", 1) is not None and breaks:
            breaks.pop()
            held.device.close()
            raise ConnectionLostError("lost between two runs")
        refresh(held)

    monkeypatch.setattr(lock.Held, "refresh", broken)
    assert found.run(made)
    assert breaks == []
    assert [found.state(made, "phone", order) for order in (1, 2)] == [State.SUCCEEDED] * 2


def test_the_lock_is_kept_while_a_bundle_is_pushed(
    make: Callable[..., Fleet], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "PIECE_SECONDS", 0.0)
    refresh, kept = lock.Held.refresh, []

    def noted(held: lock.Held) -> None:
        if held.folder.endswith("/harness"):
            kept.append(held)
        refresh(held)

    monkeypatch.setattr(lock.Held, "refresh", noted)
    found = make({"phone": None})
    made = found.plan()
    assert found.run(made)
    assert found.state(made, "phone") is State.SUCCEEDED
    assert len(kept) > 10


def test_silence_is_a_time_out_and_stops_the_app(
    make: Callable[..., Fleet], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APP_BEHAVIOUR", "hang")
    found = make({"phone": None})
    made = found.plan(time_out=QUICK | {"silence_seconds": 1.5})
    assert found.run(made)
    record = found.record(made, "phone")
    assert record is not None
    assert record.state is State.TIMED_OUT
    assert record.message == "the run timed out in phase train: the harness said nothing for 1.5 s"
    assert record.files.report == "report.json"
    assert found.devices["phone"].device.harness.pid is None
    assert records.pending(found.folder, made) == list(made.runs)


def test_ctrl_c_stops_every_device_and_resume_goes_on(
    make: Callable[..., Fleet], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APP_BEHAVIOUR", "hang")
    names = ["one", "two", "three"]
    found = make(dict.fromkeys(names))
    made = found.plan(repetitions=2)

    def interrupt() -> None:
        _until(lambda: all(d.device.harness.pid is not None for d in found.devices.values()))
        time.sleep(0.5)  # so that they wait in the middle of a silence
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    assert not found.run(made)
    thread.join()
    for name in names:
        assert found.devices[name].device.harness.pid is None
        assert found.state(made, name, 1) is State.CANCELLED
        assert found.state(made, name, 2) is None

    monkeypatch.delenv("APP_BEHAVIOUR")
    assert len(records.pending(found.folder, made)) == 6
    assert found.run(made)
    assert records.pending(found.folder, made) == []
    assert {found.state(made, name, order) for name in names for order in (1, 2)} == {
        State.SUCCEEDED
    }


def test_resume_repeats_only_what_is_missing_or_worth_it(make: Callable[..., Fleet]) -> None:
    found = make({"phone": {"kill": [{"at_status": 2, "run": 1, "reason": "signal"}]}})
    made = found.plan(repetitions=3)
    assert found.run(made)
    assert found.state(made, "phone", 1) is State.CRASHED
    third = records.place(found.folder, made.runs[2])
    (third / records.NAME).unlink()
    (third / "leftover").touch()
    before = (records.place(found.folder, made.runs[1]) / records.NAME).read_bytes()
    assert [run.order for run in records.pending(found.folder, made)] == [3]
    assert found.run(made)
    assert found.state(made, "phone", 3) is State.SUCCEEDED
    assert not (third / "leftover").exists()
    assert (records.place(found.folder, made.runs[1]) / records.NAME).read_bytes() == before


@pytest.fixture
def fill(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the disk be full when a file of the runs with that place in the order is written."""
    clear, write = records.clear, records.write_atomic

    def full(name: str, order: int) -> None:
        def fill(target: Path) -> None:
            if target.name.startswith(f"{order:03d}-"):
                part = target / f"{name}.part"
                part.unlink(missing_ok=True)
                part.symlink_to("/dev/full")

        def cleared(target: Path) -> None:
            clear(target)
            fill(target)

        def written(path: Path, data: bytes) -> None:
            fill(path.parent)  # a write that failed took its part away, and the disk is full still
            write(path, data)

        monkeypatch.setattr(records, "clear", cleared)
        monkeypatch.setattr(records, "write_atomic", written)

    return full


def infrastructure_error(found: Fleet, made: Plan) -> str:
    """Why the phone's first run came to nothing, by no fault of its own."""
    record = found.record(made, "phone")
    assert record is not None
    assert record.state is State.INFRASTRUCTURE_ERROR
    assert record.message is not None
    return record.message


def test_report_that_the_disk_has_no_room_for_fails_its_run_alone(
    make: Callable[..., Fleet], fill: Callable[..., None]
) -> None:
    found = make({"phone": None})
    made = found.plan(repetitions=2, attempts=1)
    fill("report.json", order=1)
    assert found.run(made)
    message = infrastructure_error(found, made)
    assert "report.json: cannot be written: No space left on device" in message
    assert found.state(made, "phone", 2) is State.SUCCEEDED


def test_run_that_cannot_be_recorded_is_left_for_another_time(
    make: Callable[..., Fleet], fill: Callable[..., None]
) -> None:
    found = make({"phone": None, "other": None})
    made = found.plan(repetitions=2)
    fill("run.json", order=1)
    assert found.run(made)
    said = " ".join(found.output.getvalue().split())
    assert "run.json: cannot be written: No space left on device; free space" in said
    assert "its other runs (2) are left for --resume" in said
    assert [run.device for run in records.pending(found.folder, made)] == ["phone", "phone"]


def test_a_device_that_another_bench_uses_is_left_alone(make: Callable[..., Fleet]) -> None:
    found = make({"phone": None})
    made = found.plan()
    with found.open("phone", print) as other, lock.hold(other, "harness", "a bench of others"):
        assert found.run(made)
    assert "a bench of others" in infrastructure_error(found, made)


def test_a_defect_is_not_hidden(make: Callable[..., Fleet]) -> None:
    found = make({"phone": None})

    @contextmanager
    def broken(name: str, say: Callable[[str], None]) -> Iterator[Device]:
        raise ZeroDivisionError
        yield

    with pytest.raises(ZeroDivisionError):
        found.run(found.plan(), broken)


def test_a_bench_folder_is_not_begun_twice(make: Callable[..., Fleet]) -> None:
    found = make({"phone": None})
    found.plan()
    with pytest.raises(SparseRecError, match="--resume"):
        found.plan()
