"""A running virtual device with a stand-in for the harness, and clients for it."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from adb_shell.adb_device import AdbDeviceTcp
from adb_shell.auth.keygen import keygen
from adb_shell.auth.sign_cryptography import CryptographySigner

from device_bench.virtual import VirtualDevice

# Speaks the harness's language and shows its arguments; "run_id" picks what it does.
FAKE_HARNESS = """#!/bin/sh
run_id=none
all="$*"
while [ $# -gt 1 ]; do
  [ "$1" = run_id ] && run_id="$2"
  [ "$1" = out ] && out="$2"
  shift 2
done
echo "INSTRUMENTATION_STATUS: arguments=$all"
echo "INSTRUMENTATION_STATUS: phase=train"
echo "INSTRUMENTATION_STATUS_CODE: 2"
case "$run_id" in
  crash) echo "a message from the fake harness" >&2; kill -9 $$ ;;
  long) sleep 600 & wait ;;
  fail)
    echo "INSTRUMENTATION_RESULT: error=asked to fail"
    echo "INSTRUMENTATION_CODE: 0"
    exit 1 ;;
esac
mkdir -p "$out" && echo "{}" > "$out/report.json"
echo "INSTRUMENTATION_RESULT: report=$out/report.json"
echo "INSTRUMENTATION_CODE: -1"
"""


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private key whose public half is the device's authorised key."""
    path = tmp_path_factory.mktemp("keys") / "adbkey"
    keygen(str(path))
    return path


@pytest.fixture(scope="session")
def other_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private key that no device knows."""
    path = tmp_path_factory.mktemp("other") / "adbkey"
    keygen(str(path))
    return path


@pytest.fixture
def launcher(tmp_path: Path) -> Path:
    path = tmp_path / "fake-harness"
    path.write_text(FAKE_HARNESS)
    path.chmod(0o755)
    return path


@pytest.fixture
def virtual(tmp_path: Path, key: Path, launcher: Path) -> Iterator[VirtualDevice]:
    (tmp_path / "outside").write_text("not for the device")
    keys = [key.with_suffix(".pub")]
    with VirtualDevice(tmp_path / "root", authorized_keys=keys, harness=launcher) as running:
        yield running


@pytest.fixture
def root(virtual: VirtualDevice) -> Path:
    return virtual.device.files.root


@pytest.fixture
def client(virtual: VirtualDevice, key: Path) -> Iterator[AdbDeviceTcp]:
    """adb-shell, connected and authorised."""
    device = AdbDeviceTcp(virtual.host, virtual.port, default_transport_timeout_s=10)
    assert device.connect(rsa_keys=[CryptographySigner(str(key))], auth_timeout_s=5)
    yield device
    device.close()


class RawClient:
    """The protocol by hand, written without the code under test."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=5)

    def send(self, command: bytes, arg0: int, arg1: int, data: bytes = b"", **wrong: int) -> None:
        magic = wrong.get("magic", int.from_bytes(command, "little") ^ 0xFFFFFFFF)
        total = wrong.get("checksum", sum(data))
        length = wrong.get("length", len(data))
        self.socket.sendall(struct.pack("<4s5I", command, arg0, arg1, length, total, magic) + data)

    def receive_bytes(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            if not part:
                raise EOFError
            data += part
        return data

    def receive(self) -> tuple[bytes, int, int, bytes]:
        header = self.receive_bytes(24)
        command, arg0, arg1, length, _, _ = struct.unpack("<4s5I", header)
        return command, arg0, arg1, self.receive_bytes(length)

    def connect(self, key: Path, version: int = 0x01000000) -> tuple[bytes, int, int, bytes]:
        self.send(b"CNXN", version, 4096, b"host::\0")
        command, kind, _, token = self.receive()
        assert (command, kind, len(token)) == (b"AUTH", 1, 20)
        self.send(b"AUTH", 2, 0, CryptographySigner(str(key)).Sign(token))
        return self.receive()

    def open(self, service: bytes, local: int = 1) -> int:
        self.send(b"OPEN", local, 0, service + b"\0")
        command, remote, mine, _ = self.receive()
        assert (command, mine) == (b"OKAY", local)
        return remote

    def collect(self, remote: int, local: int = 1) -> bytes:
        """Everything a stream says until it is closed."""
        data = b""
        while True:
            command, _, _, payload = self.receive()
            if command == b"CLSE":
                self.send(b"CLSE", local, remote)
                return data
            if command == b"WRTE":
                data += payload
                self.send(b"OKAY", local, remote)

    def closed(self) -> bool:
        """Whether the device has closed the connection (it may say something before)."""
        try:
            while True:
                self.receive()
        except (EOFError, ConnectionError):
            return True
        except TimeoutError:
            return False


@pytest.fixture
def raw_client() -> Iterator[Callable[[int], RawClient]]:
    """Makes clients for a port."""
    made: list[RawClient] = []

    def make(port: int) -> RawClient:
        made.append(RawClient(port))
        return made[-1]

    yield make
    for client in made:
        client.socket.close()


@pytest.fixture
def raw_clients(virtual: VirtualDevice, raw_client: Any) -> Callable[[], RawClient]:
    """Makes clients for the device."""
    return lambda: raw_client(virtual.port)


@pytest.fixture
def raw(raw_clients: Any) -> RawClient:
    """One client for the device."""
    return raw_clients()


@pytest.fixture
def wait_until() -> Callable[[Callable[[], Any]], bool]:
    """Waits, some seconds at most, for something to become true."""

    def wait(condition: Callable[[], Any]) -> bool:
        end = time.monotonic() + 5
        while not (found := bool(condition())) and time.monotonic() < end:
            time.sleep(0.02)
        return found

    return wait
