"""Locks on a device: one holder, takeover of the dead, release on every way out."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from device_bench import keys, lock
from device_bench.adb import Device, ShellResult, Socket
from device_bench.lock import LockedError, hold
from device_bench.paths import LOCKS
from device_bench.virtual import VirtualDevice

pytestmark = pytest.mark.usefixtures("_no_pauses")


@pytest.fixture
def folder(virtual: VirtualDevice) -> Path:
    """The lock's directory, seen from the host."""
    return virtual.device.files.root / LOCKS.lstrip("/") / "state-x"


def other(virtual: VirtualDevice) -> Device:
    return Device("other", Socket(virtual.host, virtual.port), [keys.virtual_key()])


def leave(folder: Path, age: float = 0, **owner: Any) -> Path:
    """A lock that someone holds or has left behind."""
    folder.mkdir(parents=True)
    file = folder / ("ab" * 16)
    values = {"host": "elsewhere", "pid": 1, "what": "run 7"} | owner
    file.write_text(json.dumps(values) + "\n")
    when = file.stat().st_mtime - age
    os.utime(file, (when, when))
    return file


def test_second_holder_is_told_who_the_first_is(device: Device, virtual: VirtualDevice) -> None:
    with hold(device, "state-x", "run 1"), other(virtual) as second:
        with pytest.raises(LockedError, match="run 1") as caught, hold(second, "state-x", "run 2"):
            pass
        assert str(os.getpid()) in caught.value.message
        assert socket.gethostname() in caught.value.message
        with hold(second, "state-y", "run 3"):
            pass


def test_lock_is_gone_afterwards(device: Device, folder: Path) -> None:
    with hold(device, "state-x", "run 1"):
        assert folder.is_dir()
    assert not folder.exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_lock_is_released_when_the_block_fails(
    device: Device, folder: Path, error: type[BaseException]
) -> None:
    def fail() -> None:
        device.close()  # as in the middle of a message
        raise error

    with pytest.raises(error), hold(device, "state-x", "run 1"):
        fail()
    assert not folder.exists()


def test_dead_process_on_this_computer_is_replaced_at_once(device: Device, folder: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    old = leave(folder, host=socket.gethostname(), pid=child.pid)
    with hold(device, "state-x", "run 2"):
        assert not old.exists()
        (file,) = folder.iterdir()
        assert json.loads(file.read_text())["what"] == "run 2"
    assert not folder.exists()


def test_lock_that_this_process_left_on_a_lost_device_is_replaced_at_once(
    device: Device, virtual: VirtualDevice, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> None:
        raise lock.DeviceError("the device is gone")

    def lose(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(Device, "connect", gone)
        gone()

    with (
        monkeypatch.context() as patch,
        pytest.raises(lock.DeviceError, match="gone"),
        hold(device, "state-x", "run 1"),
    ):
        lose(patch)
    assert len(list(folder.iterdir())) == 1
    with other(virtual) as second, hold(second, "state-x", "run 2"):
        (file,) = folder.iterdir()
        assert json.loads(file.read_text())["what"] == "run 2"
    assert not folder.exists()


def test_silent_holder_elsewhere_is_replaced_after_the_lease(device: Device, folder: Path) -> None:
    leave(folder, age=lock.LEASE_SECONDS / 2)
    with pytest.raises(LockedError, match="run 7"), hold(device, "state-x", "run 2"):
        pass
    folder.joinpath("ab" * 16).unlink()
    folder.rmdir()
    leave(folder, age=lock.LEASE_SECONDS + 5)
    with (
        pytest.raises(LockedError),
        hold(device, "state-x", "run 2", in_use=lambda _: True),
    ):
        pass
    with hold(device, "state-x", "run 2", in_use=lock.app_running):
        pass


class Answers:
    """As much of a device as is asked: the same answer to all commands, which are counted."""

    name = "d"

    def __init__(self, output: str = "") -> None:
        self.output, self.count = output, 0

    def shell(self, command: str, timeout: float = 30.0) -> ShellResult:
        self.count += 1
        return ShellResult(0, self.output)


def test_a_holder_shows_itself_well_within_its_lease_and_no_more_often() -> None:
    device, now = Answers(), time.monotonic()
    held = lock.Held(device, "/locks/x", "ab" * 16, now)  # type: ignore[arg-type]
    held.refresh()
    assert device.count == 0
    held.shown = now - lock.LEASE_SECONDS / 4
    held.refresh()
    held.refresh()
    assert device.count == 1


@pytest.mark.parametrize(("state", "trains"), [("true", True), ("false", False)])
def test_only_a_service_in_the_foreground_trains_by_hand(state: str, trains: bool) -> None:
    services = f"  * ServiceRecord{{1 u0 x}}\n    isForeground={state} foregroundId=1\n"
    assert lock.trains_by_hand(Answers(services)) == trains  # type: ignore[arg-type]


def test_a_time_in_the_future_says_as_little_as_an_old_one(device: Device, folder: Path) -> None:
    leave(folder, age=-lock.LEASE_SECONDS - 5)
    with hold(device, "state-x", "run 2"):
        (file,) = folder.iterdir()
        assert json.loads(file.read_text())["what"] == "run 2"


@pytest.mark.parametrize("step", range(1, 7))
def test_of_two_who_take_over_from_the_dead_one_holds(
    device: Device,
    virtual: VirtualDevice,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: int,
) -> None:
    leave(folder, age=lock.LEASE_SECONDS + 5)
    shell, asked = device.shell, 0
    holders: list[lock.Held] = []
    with contextlib.ExitStack() as stack:
        second = stack.enter_context(other(virtual))

        def interrupted(command: str, timeout: float = 30.0) -> ShellResult:
            """The second takes the lock after so many of the first one's commands."""
            nonlocal asked
            result = shell(command, timeout)
            asked += 1
            if asked == step:
                with contextlib.suppress(LockedError):
                    holders.append(stack.enter_context(hold(second, "state-x", "run 2")))
            return result

        monkeypatch.setattr(device, "shell", interrupted)
        with contextlib.suppress(LockedError):
            holders.append(stack.enter_context(hold(device, "state-x", "run 1")))
        (holder,) = holders
        assert [file.name for file in folder.iterdir()] == [holder.token]
    assert not folder.exists()


def test_lock_that_another_made_at_the_same_time_is_not_held(
    device: Device, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell = device.shell
    late = json.dumps({"host": "elsewhere", "pid": 1, "what": "run 7"})

    def beside(command: str, timeout: float = 30.0) -> ShellResult:
        """Let one write who had made the directory before it was removed as an empty one."""
        write = f"&& echo '{late}' > {LOCKS}/state-x/{'cd' * 16}"
        return shell(command.replace("&& ls", f"{write} && ls"), timeout)

    monkeypatch.setattr(device, "shell", beside)
    with pytest.raises(LockedError, match="run 7"), hold(device, "state-x", "run 2"):
        pass
    assert [file.name for file in folder.iterdir()] == ["cd" * 16]


def test_holder_that_was_replaced_does_not_come_back(
    device: Device, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "LEASE_SECONDS", 0)
    with hold(device, "state-x", "run 1") as held:
        next(folder.iterdir()).unlink()
        with pytest.raises(LockedError, match="took over"):
            held.refresh()
        assert list(folder.iterdir()) == []


def test_directory_that_was_left_empty_is_no_lock(device: Device, folder: Path) -> None:
    folder.mkdir(parents=True)
    with hold(device, "state-x", "run 1"):
        assert len(list(folder.iterdir())) == 1
    assert not folder.exists()


@pytest.mark.parametrize("pid", [-3, 0, 2**70, "1"])
def test_a_process_that_cannot_be_is_not_taken_for_dead(
    device: Device, folder: Path, pid: object
) -> None:
    leave(folder, host=socket.gethostname(), pid=pid)
    with pytest.raises(LockedError), hold(device, "state-x", "run 1"):
        pass


def test_a_process_of_another_computer_is_not_looked_for_on_this_one(
    device: Device, folder: Path
) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    leave(folder, pid=child.pid)
    with pytest.raises(LockedError, match="run 7"), hold(device, "state-x", "run 1"):
        pass


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": -3, "host": 7}', "\0\xff"])
def test_owner_that_cannot_be_read_is_a_holder(device: Device, folder: Path, text: str) -> None:
    leave(folder).write_text(text)
    with pytest.raises(LockedError), hold(device, "state-x", "run 1"):
        pass


def test_holder_that_was_replaced_learns_of_it(
    device: Device, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "LEASE_SECONDS", 0)
    with hold(device, "state-x", "run 1") as held:
        held.refresh()
        (file,) = folder.iterdir()
        file.rename(folder / ("cd" * 16))
        with pytest.raises(LockedError, match="took over"):
            held.refresh()
    assert [file.name for file in folder.iterdir()] == ["cd" * 16]


def test_waiting_says_for_whom_once_and_keeps_other_locks(device: Device, folder: Path) -> None:
    old = leave(folder)
    said: list[str] = []
    waited: list[int] = []

    def alive() -> None:
        waited.append(len(waited))
        if len(waited) == 3:
            old.unlink()
            folder.rmdir()

    with hold(device, "state-x", "run 2", wait=True, say=said.append, alive=alive):
        pass
    assert said == ["waiting for run 7 by process 1 on elsewhere"]
    assert len(waited) == 3


def test_storage_that_cannot_be_written_is_no_holder(
    phone_with: Callable[..., tuple[Device, VirtualDevice]],
) -> None:
    device, phone = phone_with()
    locks = phone.device.files.root / LOCKS.lstrip("/")
    locks.write_text("a file where the folder should be")
    with pytest.raises(lock.DeviceError, match="cannot make") as caught, hold(device, "x", "run 1"):
        pass
    assert not isinstance(caught.value, LockedError)


def test_full_storage_is_no_holder(
    phone_with: Callable[..., tuple[Device, VirtualDevice]],
) -> None:
    device, phone = phone_with(storage={"bytes": 0})
    with pytest.raises(lock.DeviceError, match="No space left") as caught, hold(device, "x", "run"):
        pass
    assert not isinstance(caught.value, LockedError)
    assert not (phone.device.files.root / LOCKS.lstrip("/") / "x").exists()


@pytest.mark.usefixtures("trains_by_hand")
def test_training_by_hand_is_not_ended(device: Device, folder: Path) -> None:
    trains = pytest.raises(lock.DeviceError, match="the app trains there")
    with trains as caught, lock.harness(device, "a bench"):
        pass
    assert "press Stop" in caught.value.fix
    assert not folder.with_name("harness").exists()


def test_app_that_does_not_train_is_in_nobodys_way(device: Device) -> None:
    assert device.shell("dumpsys activity services org.sparserec.app").exit_code == 0
    with lock.harness(device, "a bench"):
        pass


def _count(port: int, key: Path, file: Path, rounds: int) -> None:
    """Add to a number in a file, which only works out if nobody else does at the same time."""
    with Device("d", Socket("127.0.0.1", port), [key]) as device:
        for _ in range(rounds):
            with hold(device, "counter", "count", wait=True):
                value = int(file.read_text())
                device.shell("sleep 0.005")
                file.write_text(str(value + 1))


def test_processes_exclude_each_other(virtual: VirtualDevice, tmp_path: Path) -> None:
    file = tmp_path / "number"
    file.write_text("0")
    context = multiprocessing.get_context("spawn")
    with context.Pool(3) as pool:
        pool.starmap(_count, [(virtual.port, keys.virtual_key(), file, 5)] * 3)
    assert file.read_text() == "15"
