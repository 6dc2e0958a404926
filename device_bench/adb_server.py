"""Reaching a device through an adb server that runs already, by adbutils.

A server has every USB device that it found to itself, so this is the only way to those; it also
knows emulators and devices that were connected with ``adb connect`` or paired over Wi-Fi. No
server is ever started here. adbutils 2.12 has a sync client of its own, which sends 4 KiB at a time
and does not look whether all of it went; ours is a few lines.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from device_bench.device_errors import (
    ConnectionLostError,
    DeviceError,
    RefusedError,
    no_permission,
    offline,
    unauthorised,
)
from device_bench.transport import FILE_MODE, Source
from device_bench.wire import TICK_SECONDS, nothing

if TYPE_CHECKING:
    from adbutils import AdbClient, AdbConnection

ANSWER_SECONDS = 2.0
"""How long the server itself may take: it is on this computer."""
CHUNK = 64 * 1024
"""The sync protocol's largest DATA chunk."""

_HEADER = struct.Struct("<4sI")


@dataclass(frozen=True)
class ServerPhone:
    """A device that an adb server knows."""

    serial: str
    state: str
    """The server's word: ``device`` where it can be used, ``unauthorized``, ``offline``, ..."""
    usb_port: str | None
    """``usb:1-2.3`` where it is connected by USB."""

    @property
    def held(self) -> bool:
        """Whether the server has the device to itself."""
        return self.state != "no"  # the first word of "no permissions (...)"


def phones() -> list[ServerPhone]:
    """The devices of the adb server; none where no server runs or it does not answer."""
    try:
        found = _client().list(extended=True)
    except (OSError, _adb_error(), ValueError):
        return []
    return [ServerPhone(item.serial, item.state, _port(item.tags)) for item in found]


def version() -> int | None:
    """The protocol version of the running server (41 is adb 1.0.41), None where there is none."""
    try:
        return int(_client().server_version())
    except (OSError, _adb_error(), ValueError):
        return None


def _port(tags: dict[str, str]) -> str | None:
    return f"usb:{tags['usb']}" if "usb" in tags else None


def _adb_error() -> type[Exception]:
    from adbutils import AdbError

    found: type[Exception] = AdbError
    return found


def _client() -> AdbClient:
    """The client of the server that runs, at adb's own address or $ANDROID_ADB_SERVER_PORT.

    Raises:
        ConnectionError, TimeoutError: no server runs there.
    """
    from adbutils import AdbClient

    client = AdbClient(socket_timeout=ANSWER_SECONDS)
    # adbutils would start one, which would take every USB device.
    socket.create_connection((client.host, client.port), ANSWER_SECONDS).close()
    return client


class ThroughServer:
    """A Transport (device_bench/transport.py) through the running adb server."""

    kind = "adb server"

    def __init__(self, serial: str) -> None:
        self._serial = serial

    def connect(self, timeout: float) -> None:
        """See Transport; a device that comes back, as after a lost connection, is waited for."""
        deadline = time.monotonic() + timeout
        while True:
            state = next((phone.state for phone in phones() if phone.serial == self._serial), None)
            if state == "device":
                return
            if state not in (None, "offline", "connecting", "authorizing"):
                break
            if state is None:
                self._reconnect()
            if time.monotonic() > deadline:
                break
            time.sleep(0.2)
        raise problem(self._serial, state)

    def _reconnect(self) -> None:
        """Ask for a device at HOST:PORT again: the server forgets those that it lost."""
        if ":" in self._serial:
            with contextlib.suppress(OSError, _adb_error(), ValueError):
                _client().connect(self._serial, timeout=ANSWER_SECONDS)

    def close(self) -> None:
        """See Transport: each call has a connection of its own, so there is none to close."""

    def run(
        self, command: str, silence: float, tick: Callable[[], None] = nothing
    ) -> Iterator[bytes]:
        """See Transport."""
        with self._service(f"shell:{command}", silence) as connection:
            while data := _receive(connection.conn, silence, tick):
                yield data

    def push(self, data: Source, target: str, timeout: float) -> None:
        """See Transport."""
        with self._service("sync:", timeout) as connection:
            path = f"{target},{FILE_MODE}".encode()
            connection.conn.sendall(_HEADER.pack(b"SEND", len(path)) + path)
            while chunk := data.read(CHUNK):
                connection.conn.sendall(_HEADER.pack(b"DATA", len(chunk)) + chunk)
            connection.conn.sendall(_HEADER.pack(b"DONE", int(time.time())))
            self._answer(connection, b"OKAY")

    def pull(self, source: str, target: BinaryIO, timeout: float) -> None:
        """See Transport."""
        with self._service("sync:", timeout) as connection:
            path = source.encode()
            connection.conn.sendall(_HEADER.pack(b"RECV", len(path)) + path)
            while size := self._answer(connection, b"DATA", b"DONE"):
                target.write(connection.read_exact(size))

    @contextmanager
    def _service(self, name: str, timeout: float) -> Iterator[AdbConnection]:
        """A service of the device as a connection; its faults are those that Transport names."""
        try:
            with _client().make_connection(timeout) as connection:
                for command in (f"host:transport:{self._serial}", name):
                    connection.send_command(command)
                    connection.check_okay()
                yield connection
        except (EOFError, ValueError) as error:
            raise ConnectionError(str(error)) from None
        except _adb_error() as error:
            if isinstance(error.__context__, TimeoutError):
                raise TimeoutError(str(error)) from None
            raise ConnectionError(f"the adb server says: {error}") from None

    def _answer(self, connection: AdbConnection, *expected: bytes) -> int:
        """The size that comes with the next sync message; 0 at the end.

        Raises:
            RefusedError: the device reports a failure.
        """
        name, size = _HEADER.unpack(connection.read_exact(_HEADER.size))
        if name == b"FAIL":
            raise RefusedError(connection.read_exact(min(size, CHUNK)).decode(errors="replace"))
        if name not in expected or (name == b"DATA" and size > CHUNK):
            raise ConnectionError(f"the device sent {name!r}, expected {expected}")
        return int(size) if name == b"DATA" else 0


def _receive(connection: socket.socket, silence: float, tick: Callable[[], None]) -> bytes:
    """What comes next, empty at the end; ``tick`` is called while nothing does.

    Raises:
        TimeoutError: nothing came for ``silence`` seconds.
    """
    end = time.monotonic() + silence
    connection.settimeout(min(silence, TICK_SECONDS))
    while True:
        try:
            return connection.recv(CHUNK)
        except TimeoutError:
            tick()
            if time.monotonic() > end:
                raise


def problem(serial: str, state: str | None) -> DeviceError:
    """What keeps a device from being used that the server shows in ``state``; None: not there."""
    if state is None:
        return ConnectionLostError(
            f"{serial}: the adb server does not know this device any more",
            "connect it again; `sparserec devices` lists what there is",
        )
    if state == "unauthorized":
        return unauthorised(serial)
    if state == "no":
        return no_permission(serial)
    if state in ("offline", "connecting", "authorizing"):
        return offline(serial)
    return DeviceError(
        f"{serial}: the device is not running Android but in state '{state}'",
        "restart it: adb reboot",
    )
