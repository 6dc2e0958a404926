"""Ways to a device behind one small interface, and the direct one: adb-shell over USB or TCP.

Traits of adb-shell 0.4.4 that this file makes up for (device_bench/wire.py has more): default
timeouts are wrong for large files, so every call passes its own; what a push callback raises is
swallowed, Ctrl-C included, so a stream is pushed that reports what is read from it; a message's
checksum is added up in the interpreter.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Protocol

from adb_shell import adb_device, adb_message, constants, exceptions
from adb_shell.adb_device import AdbDevice
from adb_shell.transport.base_transport import BaseTransport
from adb_shell.transport.tcp_transport import TcpTransport

from device_bench.device_errors import (
    RefusedError,
    connect_error,
    is_device_fault,
    is_silence,
    unauthorised,
)
from device_bench.keys import signer
from device_bench.virtual.protocol import checksum
from device_bench.wire import Wire, nothing

FILE_MODE = 0o100644

# Added up in the interpreter, checksums keep a push to less than half of stock adb's rate
# (docs/devices.md has the figures).
adb_message.checksum = checksum
adb_device.checksum = checksum


class Transport(Protocol):
    """A way to one device. Not for several threads.

    Besides what is said below, ``run``, ``push`` and ``pull`` raise TimeoutError where the device
    is silent for longer than allowed and ConnectionError where the connection is lost; after
    either, and after leaving a method early, only ``connect`` and ``close`` may be called.
    """

    kind: str
    """How ``sparserec devices`` shows it: ``USB``, ``TCP`` or ``adb server``."""

    def connect(self, timeout: float) -> None:
        """Connect and authenticate, anew if there is a connection.

        Raises:
            DeviceError: the device cannot be reached or used.
        """

    def close(self) -> None:
        """Close the connection, if there is one."""

    def run(
        self, command: str, silence: float, tick: Callable[[], None] = nothing
    ) -> Iterator[bytes]:
        """Run a shell command line and yield its output as it comes.

        ``tick`` is called every TICK_SECONDS while nothing comes; what it raises is passed on.
        """

    def push(self, data: Source, target: str, timeout: float) -> None:
        """Write ``data`` to the file ``target`` on the device, replacing it.

        Raises:
            RefusedError: the device did not take it.
        """

    def pull(self, source: str, target: BinaryIO, timeout: float) -> None:
        """Write the device's file ``source`` to ``target``.

        Raises:
            RefusedError: the device did not give it.
        """


class Source(BytesIO):  # adb-shell takes a stream only if it is one of these
    """At most ``size`` bytes of ``file`` from where it stands; ``sent`` hears of each piece.

    It ends after ``seconds``, but not before something was read.
    """

    def __init__(
        self, file: BinaryIO, size: int, sent: Callable[[int], None], seconds: float
    ) -> None:
        super().__init__()
        self._file, self._left, self._sent = file, size, sent
        self._seconds, self._end = seconds, math.inf

    def read(self, size: int | None = -1, /) -> bytes:
        """The next ``size`` bytes at most."""
        if time.monotonic() >= self._end:
            return b""
        self._end = min(self._end, time.monotonic() + self._seconds)
        wanted = self._left if size is None or size < 0 else min(size, self._left)
        data = self._file.read(wanted)
        self._left -= len(data)
        if data:
            self._sent(len(data))
        return data


class Direct:
    """A Transport of our own, by adb-shell over one of its transports.

    Args:
        name: how users name the device.
        wire: adb-shell's transport to it.
        keys: private key files to authenticate with; the first one's public half is offered to a
            device that knows none of them.
        wait_for_owner: seconds that a phone's owner has for the "Allow debugging?" dialog.
        on_dialog: called when the phone shows that dialog.
    """

    def __init__(
        self,
        name: str,
        wire: BaseTransport,
        keys: Sequence[Path],
        wait_for_owner: float = 30.0,
        on_dialog: Callable[[], None] = lambda: None,
    ) -> None:
        self.kind = "TCP" if isinstance(wire, TcpTransport) else "USB"
        self._name = name
        self._wire = Wire(wire)
        self._adb = AdbDevice(self._wire, banner="sparserec")
        self._keys = keys
        self._wait_for_owner = wait_for_owner
        self._on_dialog = on_dialog

    def connect(self, timeout: float) -> None:
        """See Transport; the errors tell apart refused, busy, unauthorised and silent.

        Raises:
            DeviceError: as Transport says, or a key cannot be used.
        """
        asked = False

        def dialog(_: AdbDevice) -> None:
            nonlocal asked
            asked = True
            self._on_dialog()

        signers = [signer(key) for key in self._keys]
        try:
            self._adb.connect(signers, timeout, self._wait_for_owner, timeout, dialog)
            # adb-shell allocates as much as the device claims to take, up to 4 GiB.
            self._adb._maxdata = min(self._adb._maxdata, constants.MAX_ADB_DATA)
        except BaseException as error:
            self._adb.close()
            if asked and isinstance(error, Exception):
                raise unauthorised(self._name) from None
            if isinstance(error, OSError) or is_device_fault(error):
                raise connect_error(self._name, error) from None
            raise

    def close(self) -> None:
        """See Transport."""
        self._adb.close()

    def run(
        self, command: str, silence: float, tick: Callable[[], None] = nothing
    ) -> Iterator[bytes]:
        """See Transport."""
        self._wire.tick = tick
        try:
            with _plain_errors():
                yield from self._adb.streaming_shell(command, silence, silence, decode=False)
        finally:
            self._wire.tick = nothing

    def push(self, data: Source, target: str, timeout: float) -> None:
        """See Transport."""
        with _plain_errors():
            self._adb.push(data, target, FILE_MODE, 0, None, timeout, timeout)

    def pull(self, source: str, target: BinaryIO, timeout: float) -> None:
        """See Transport."""
        with _plain_errors():
            self._adb.pull(source, _Sink(target), None, timeout, timeout)


class _Sink(BytesIO):
    """Passes on what adb-shell pulls."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        return self._file.write(data)


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Turn adb-shell's and libusb's exceptions into those that Transport names."""
    try:
        yield
    except (exceptions.PushFailedError, exceptions.AdbCommandFailureException) as error:
        detail = error.args[0] if error.args else error
        if isinstance(detail, (bytes, bytearray)):
            detail = bytes(detail).decode(errors="replace")
        raise RefusedError(str(detail).removeprefix("Command failed: ")) from None
    except KeyError as error:  # how adb-shell takes a sync message that it does not know
        raise ConnectionError(f"the device sent an unknown message {error}") from None
    except Exception as error:
        if isinstance(error, OSError) or not is_device_fault(error):
            raise
        if is_silence(error):
            raise TimeoutError(str(error)) from None
        raise ConnectionError(str(error)) from None
