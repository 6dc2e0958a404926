"""Which device is chosen, and virtual devices as child processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from adb_shell.transport.base_transport import BaseTransport

from device_bench import adb, device_errors, keys, virtual_process
from device_bench.adb import UsbPhone
from device_bench.device_errors import DeviceError
from device_bench.devices import choose, pick, survey
from device_bench.virtual import VirtualDevice
from device_bench.virtual_process import Running
from sparserec.errors import SparseRecError


class Unplugged(BaseTransport):  # type: ignore[misc]
    """A phone on USB that answers nothing."""

    def close(self) -> None:
        pass

    def connect(self, transport_timeout_s: float) -> None:
        raise TimeoutError("nothing came")

    def bulk_read(self, numbytes: int, transport_timeout_s: float) -> bytes:
        raise TimeoutError

    def bulk_write(self, data: bytes, transport_timeout_s: float) -> int:
        raise TimeoutError


ONE, TWO = UsbPhone("AAA", Unplugged()), UsbPhone("BBB", Unplugged())
RUNNING = Running("127.0.0.1", 4000, "sparserec-virtual", 1, "/x")
OTHER = Running("127.0.0.1", 4001, "sparserec-virtual", 2, "/y")


def test_the_only_phone_is_taken() -> None:
    assert pick(None, [ONE], [RUNNING]) is ONE


def test_several_phones_are_listed() -> None:
    with pytest.raises(SparseRecError, match="AAA, BBB") as caught:
        pick(None, [ONE, TWO], [])
    assert "--device AAA" in caught.value.fix
    assert pick("BBB", [ONE, TWO], []) is TWO


def test_without_a_phone_a_virtual_device_is_used() -> None:
    assert pick(None, [], []) is None
    assert pick(None, [], [RUNNING]) is RUNNING
    with pytest.raises(SparseRecError, match=r"127\.0\.0\.1:4000, 127\.0\.0\.1:4001"):
        pick(None, [], [RUNNING, OTHER])


def test_virtual_is_taken_though_a_phone_is_there() -> None:
    assert pick("virtual", [ONE], [RUNNING]) is RUNNING
    assert pick("virtual", [ONE], []) is None


def test_address_and_unknown_serial() -> None:
    assert pick("10.0.0.7:5555", [ONE], []) == ("10.0.0.7", 5555)
    with pytest.raises(SparseRecError, match=r"'CCC' is connected \(connected: AAA\)"):
        pick("CCC", [ONE], [])


@pytest.fixture
def _no_usb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adb, "usb_phones", list)


@pytest.mark.usefixtures("_no_usb")
def test_survey_tells_states_apart(virtual: VirtualDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    denied = UsbPhone("usb:1-2", Unplugged(), device_errors.no_permission("usb:1-2"))
    monkeypatch.setattr(adb, "usb_phones", lambda: [ONE, denied])
    found, problem = survey([(virtual.host, virtual.port)])
    assert problem is None
    assert [device.state for device in found] == ["offline", "no permission", "ready"]
    assert found[2].facts is not None


def test_damaged_key_does_not_hide_the_other_devices(
    virtual: VirtualDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys.ensure_key(keys.user_key_path()).write_text("damaged")
    running = Running(virtual.host, virtual.port, "sparserec-virtual", os.getpid(), "/")
    monkeypatch.setattr(virtual_process, "running", lambda: [running])
    monkeypatch.setattr(adb, "usb_phones", lambda: [ONE])
    (phone, other), _ = survey([])
    assert phone.problem is not None
    assert str(keys.user_key_path()) in phone.problem.message
    assert other.state == "ready"


def test_missing_libusb_is_said_and_does_not_stop(
    virtual: VirtualDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> list[UsbPhone]:
        raise DeviceError("USB cannot be searched: no libusb", "install libusb 1.0")

    monkeypatch.setattr(adb, "usb_phones", fail)
    found, problem = survey([(virtual.host, virtual.port)])
    assert [device.state for device in found] == ["ready"]
    assert problem is not None
    assert "libusb" in problem.message


def test_real_usb_search_gives_a_list_or_a_clear_error() -> None:
    found, problem = survey([])
    assert problem is None or (not found and "libusb" in problem.fix)


@pytest.mark.usefixtures("_no_usb")
def test_choose_starts_a_virtual_device_and_stops_it(tmp_path: Path) -> None:
    said: list[str] = []
    with choose(say=said.append, virtual_root=tmp_path / "files") as device:
        assert device.shell("getprop ro.sparserec.virtual").output == "1\n"
        assert len(said) == 1
        assert said[0].startswith("no phone is connected: using a virtual device")
        host, _, port = device.name.partition(":")
    refused = adb.Device("gone", adb.Socket(host, int(port)), [keys.virtual_key()])
    with pytest.raises(DeviceError, match="refused"):
        refused.connect()
    assert not keys.user_key_path().exists()


def test_two_devices_on_the_same_files_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "files"
    with (
        virtual_process.start(root),
        pytest.raises(SparseRecError, match="another virtual device"),
        virtual_process.start(root),
    ):
        pass
    with virtual_process.start(root):
        pass


def test_device_that_cannot_start_says_why(tmp_path: Path) -> None:
    root = tmp_path / "files"
    root.write_text("a file, no directory")
    with pytest.raises(SparseRecError, match="did not start"), virtual_process.start(root):
        pass


def test_records_of_dead_devices_are_forgotten() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    dead = Running("127.0.0.1", 4000, "s", child.pid, "/x")
    alive = Running("127.0.0.1", 4001, "s", os.getpid(), "/y")
    records = virtual_process._records()
    for device in (dead, alive):
        (records / f"{device.pid}.json").write_text(json.dumps(asdict(device)))
    (records / "9.json").write_text("{")
    assert virtual_process.running() == [alive]
    assert [record.stem for record in records.iterdir()] == [str(os.getpid())]


def test_record_that_goes_while_the_devices_are_listed_is_none() -> None:
    alive = Running("127.0.0.1", 4001, "s", os.getpid(), "/y")
    records = virtual_process._records()
    (records / "1.json").write_text(json.dumps(asdict(alive)))
    (records / "2.json").symlink_to(records / "that is gone")
    assert virtual_process.running() == [alive]


def test_devices_are_listed_oldest_first() -> None:
    records = virtual_process._records()
    for age in (1, 3, 2):
        record = records / f"{age}.json"
        record.write_text(json.dumps(asdict(Running("h", age, "s", os.getpid(), "/"))))
        os.utime(record, (1e9 - age, 1e9 - age))
    assert [device.port for device in virtual_process.running()] == [3, 2, 1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.usefixtures("_no_usb")
def test_command_in_the_foreground(tmp_path: Path, number: signal.Signals) -> None:
    code = "import sys; from sparserec.cli import main; sys.argv = ['sparserec', 'virtual-device']"
    command = subprocess.Popen(
        [sys.executable, "-c", f"{code}; main()"], stdout=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 20
    while not virtual_process.running():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with choose("virtual") as device:
        assert device.facts().kind == "virtual-device"
    device_pid = virtual_process.running()[0].pid
    command.send_signal(number)
    output, _ = command.communicate(timeout=20)
    assert device.name in output
    assert virtual_process.running() == []
    with pytest.raises(ProcessLookupError):
        os.kill(device_pid, 0)
