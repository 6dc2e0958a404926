"""Devices behind an adb server: the stock one with a virtual device, and servers that break."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from device_bench import adb, adb_server, keys
from device_bench.adb import Device, UsbPhone
from device_bench.adb_server import ServerPhone, ThroughServer
from device_bench.bundle import Bundle
from device_bench.deploy import deploy
from device_bench.device_errors import ConnectionLostError, DeviceError
from device_bench.devices import choose, merge, survey
from device_bench.paths import bundle_path
from device_bench.virtual import VirtualDevice

needs_adb = pytest.mark.skipif(shutil.which("adb") is None, reason="stock adb is not installed")


def stock(*arguments: str) -> str:
    run = subprocess.run(["adb", *arguments], capture_output=True, text=True, check=False)
    return run.stdout


@pytest.fixture
def _server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A stock adb server of the test's own, which trusts in our key."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(port))
    monkeypatch.setenv("ADB_VENDOR_KEYS", str(keys.virtual_key()))
    Path.home().mkdir(exist_ok=True)
    stock("start-server")
    yield
    stock("kill-server")


@pytest.fixture
def served(_server: None, virtual: VirtualDevice) -> str:
    """The virtual device, connected to that server."""
    name = f"{virtual.host}:{virtual.port}"
    assert "connected" in stock("connect", name)
    return name


@needs_adb
def test_device_of_a_server_is_found_and_used_through_it(served: str, bundle: Bundle) -> None:
    assert adb_server.version() == 41
    assert adb_server.phones() == [ServerPhone(served, "device", None)]
    with choose() as device:
        assert (device.name, device.transport.kind) == (served, "adb server")
        assert device.shell("echo hi; false") == adb.ShellResult(1, "hi\n")
        assert list(device.stream("echo one; printf two", 10)) == ["one", "two"]
        assert device.facts().kind == "virtual-device"
        deploy(device, bundle)
        listed = device.shell(f"ls {bundle_path(bundle.bundle_id)}").output.split()
        assert sorted(listed) == sorted(file.name for file in bundle.files)


@needs_adb
def test_files_go_there_and_back(served: str, tmp_path: Path) -> None:
    data = os.urandom(3_000_001)
    (tmp_path / "file").write_bytes(data)
    sent: list[int] = []
    with Device(served, ThroughServer(served)) as device:
        device.push(tmp_path / "file", "/sdcard/file", sent.append)
        device.pull("/sdcard/file", tmp_path / "back")
        assert sent[-1] == len(data)
        assert (tmp_path / "back").read_bytes() == data
        with pytest.raises(DeviceError, match="the device says"):
            device.pull("/sdcard/none", tmp_path / "none")
        with pytest.raises(DeviceError, match="the device says"):
            device.push(tmp_path / "file", "/sdcard/\n", sent.append)
        assert not (tmp_path / "none").exists()


@needs_adb
def test_silence_is_told_and_ticks(served: str) -> None:
    ticks: list[int] = []
    with (
        Device(served, ThroughServer(served)) as device,
        pytest.raises(ConnectionLostError, match="no answer within 1 s"),
    ):
        list(device.stream("sleep 5", 1.0, lambda: ticks.append(1)))
    assert ticks


@needs_adb
@pytest.mark.usefixtures("_no_pauses")
def test_device_that_goes_away_from_its_server(served: str, virtual: VirtualDevice) -> None:
    with Device(served, ThroughServer(served)) as device:
        virtual.stop()
        with pytest.raises(ConnectionLostError):
            device.shell("echo hi")
        with pytest.raises(DeviceError, match=r"offline|does not know"):
            device.connect(timeout=0.5)


@needs_adb
@pytest.mark.usefixtures("_server")
def test_key_that_the_device_does_not_trust(tmp_path: Path, app: Path) -> None:
    with VirtualDevice(tmp_path / "stranger", authorized_keys=[], harness=app) as phone:
        stock("connect", f"{phone.host}:{phone.port}")
        found, _ = survey([])
    assert [device.state for device in found] == ["unauthorised"]
    assert found[0].problem is not None
    assert "Allow USB debugging" in found[0].problem.fix


def test_without_a_server_there_is_none_and_none_is_started() -> None:
    assert adb_server.phones() == []
    assert adb_server.version() is None
    with pytest.raises(DeviceError, match="does not know"):
        ThroughServer("S").connect(0.1)


@contextmanager
def broken_server(
    monkeypatch: pytest.MonkeyPatch, answer: Callable[[bytes], bytes | None]
) -> Iterator[None]:
    """A server that answers each request with what ``answer`` gives, and hangs up on None."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(server.getsockname()[1]))

        def client(connection: socket.socket) -> None:
            with connection:
                while request := connection.recv(1 << 16):
                    data = answer(request)
                    if data is None:
                        return
                    connection.sendall(data)

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=client, args=(connection,), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400\r\n\r\n", b"OKAYzzzz", b"OKAY", b"", b"FAIL0004nono", b"OKAYffff"]
)
def test_server_that_babbles_is_taken_for_none(
    monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    monkeypatch.setattr(adb_server, "ANSWER_SECONDS", 0.3)
    with broken_server(monkeypatch, lambda _: answer):
        assert adb_server.phones() == []
        assert adb_server.version() is None


@pytest.mark.parametrize(
    ("listed", "state", "words"),
    [
        ("S1\tdevice", None, ""),
        ("S1\toffline", "offline", "adb connect"),
        ("S1\tunauthorized", "unauthorised", "accept"),
        (
            "S1\tno permissions (user in plugdev group; are your udev rules wrong?)",
            "no permission",
            "udev",
        ),
        ("S1\trecovery", "offline", "adb reboot"),
        ("S2\tdevice", "offline", "sparserec devices"),
    ],
)
def test_states_of_a_server(
    monkeypatch: pytest.MonkeyPatch, listed: str, state: str | None, words: str
) -> None:
    text = listed.encode()
    reply = b"OKAY" + f"{len(text):04x}".encode() + text
    with broken_server(monkeypatch, lambda _: reply):
        if state is None:
            ThroughServer("S1").connect(0.1)
            return
        with pytest.raises(DeviceError) as caught:
            ThroughServer("S1").connect(0.1)
    assert caught.value.state == state
    assert words in caught.value.fix


@pytest.mark.parametrize("cut", [b"DATA\xff\xff\xff\x7f", b"WHAT\x01\0\0\0", b"FA", b""])
def test_sync_answers_that_make_no_sense(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cut: bytes
) -> None:
    def answer(request: bytes) -> bytes | None:
        if b"RECV" in request or b"DONE" in request:
            return cut or None
        return b"OKAY" if b"host:" in request or b"sync:" in request else b""

    (tmp_path / "file").write_bytes(b"x" * 100)
    device = Device("S1", ThroughServer("S1"))
    monkeypatch.setattr(adb, "SHELL_SECONDS", 0.5)
    with broken_server(monkeypatch, answer):
        with pytest.raises(ConnectionLostError):
            device.pull("/x", tmp_path / "back")
        with pytest.raises(ConnectionLostError):
            device.push(tmp_path / "file", "/x", lambda _: None)
    assert not (tmp_path / "back").exists()


def test_phone_is_listed_once_and_by_the_one_that_holds_it() -> None:
    def usb(serial: str) -> UsbPhone:
        return UsbPhone(serial, None)  # type: ignore[arg-type]

    held = ServerPhone("A", "device", "usb:1-2")
    assert merge([usb("A"), usb("B")], [held]) == [usb("B"), held]
    assert merge([usb("usb:1-2")], [held]) == [held]  # busy, so not even its serial could be read
    shut = ServerPhone("A", "no", "usb:1-2")  # "no permissions": the server has it not
    assert merge([usb("A")], [shut]) == [usb("A")]
    wireless = ServerPhone("10.0.0.7:5555", "device", None)
    assert merge([usb("A")], [wireless]) == [usb("A"), wireless]
