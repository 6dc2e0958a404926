"""The connection to a device: everything that touches adb-shell is here.

Traits of adb-shell 0.4.4 that this file makes up for: shell commands have no exit code (a marker
carries it); default timeouts are wrong for large files, so every call passes its own; a TCP write
may send only a part, and nothing notices the peer's end; what a push callback raises is swallowed,
Ctrl-C included; a "line" of a streaming shell is whatever arrived in one packet.
"""

from __future__ import annotations

import codecs
import posixpath
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from adb_shell import exceptions
from adb_shell.adb_device import AdbDevice
from adb_shell.auth.sign_cryptography import CryptographySigner
from adb_shell.transport.base_transport import BaseTransport
from adb_shell.transport.tcp_transport import TcpTransport

from device_bench.device_errors import (
    DeviceError,
    connect_error,
    is_device_fault,
    unauthorised,
)

SHELL_SECONDS = 30.0
SLOWEST_BYTES_PER_SECOND = 500_000
"""What the time allowed for a transfer or a hash is reckoned with: a poor USB 2 cable."""
FILE_MODE = 0o100644

_MARKER = "__sparserec_exit="
_FACTS = (
    "ro.product.model",
    "ro.product.cpu.abilist",
    "ro.build.version.sdk",
    "ro.build.version.release",
    "ro.serialno",
    "ro.sparserec.virtual",
    "ro.kernel.qemu",
    "ro.boot.qemu",
)


@dataclass(frozen=True)
class ShellResult:
    """What a shell command left: its exit code, and stdout and stderr as they came."""

    exit_code: int
    output: str


@dataclass(frozen=True)
class Facts:
    """What a device says of itself; None where it cannot be read."""

    serial: str
    kind: str
    """``phone``, ``emulator`` or ``virtual-device``, as in a report."""
    model: str
    abis: tuple[str, ...]
    sdk: int | None
    release: str
    free_bytes: int | None


def allowance(size: int) -> float:
    """Seconds that moving or hashing ``size`` bytes may take."""
    return SHELL_SECONDS + size / SLOWEST_BYTES_PER_SECOND


class Socket(TcpTransport):  # type: ignore[misc]
    """adb-shell's TCP transport with whole writes, no delay, and an end that is noticed.

    ``Socket(host, port)`` does not connect yet.
    """

    def connect(self, transport_timeout_s: float | None) -> None:
        super().connect(transport_timeout_s)
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def bulk_read(self, numbytes: int, transport_timeout_s: float | None) -> bytes:
        data: bytes = super().bulk_read(numbytes, transport_timeout_s)
        if not data:
            raise ConnectionResetError("the device closed the connection")
        return data

    def bulk_write(self, data: bytes, transport_timeout_s: float | None) -> int:
        rest = memoryview(data)
        while rest:
            rest = rest[super().bulk_write(rest, transport_timeout_s) :]
        return len(data)


class Device:
    """One device; ``with device:`` connects and closes. Not for several threads.

    Args:
        name: how users name it: its serial or ``host:port``.
        transport: adb-shell's transport to it.
        keys: private key files to authenticate with; the first one's public half is offered to a
            device that knows none of them.
        wait_for_owner: seconds that a phone's owner has for the "Allow debugging?" dialog.
        on_dialog: called when the phone shows that dialog.
    """

    def __init__(
        self,
        name: str,
        transport: BaseTransport,
        keys: Sequence[Path],
        *,
        wait_for_owner: float = 30.0,
        on_dialog: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self._adb = AdbDevice(transport, banner="sparserec")
        self._keys = keys
        self._wait_for_owner = wait_for_owner
        self._on_dialog = on_dialog

    def connect(self, timeout: float = 10.0) -> None:
        """Connect and authenticate, anew if there is a connection.

        Raises:
            DeviceError: nothing answers, the device is held by another program, or it does not
                know this computer's key.
        """
        asked = False

        def dialog(_: AdbDevice) -> None:
            nonlocal asked
            asked = True
            self._on_dialog()

        signers = [CryptographySigner(str(key)) for key in self._keys]
        try:
            self._adb.connect(signers, timeout, self._wait_for_owner, timeout, dialog)
        except BaseException as error:
            self._adb.close()
            if asked and isinstance(error, Exception):
                raise unauthorised(self.name) from None
            if isinstance(error, OSError) or is_device_fault(error):
                raise connect_error(self.name, error) from None
            raise

    def close(self) -> None:
        """Close the connection."""
        self._adb.close()

    def __enter__(self) -> Self:
        self.connect()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def shell(self, command: str, timeout: float = SHELL_SECONDS) -> ShellResult:
        """Run a command line, which must not call ``exit``.

        Raises:
            DeviceError: the connection failed, or the command did not end within ``timeout``.
        """
        line = f'{command}; echo "{_MARKER}$?"'
        with self._explained(f"running {command.split(maxsplit=1)[0]!r}", timeout):
            data = self._adb.shell(line, timeout, timeout, timeout, decode=False)
        text = data.decode(errors="replace").replace("\r\n", "\n")
        output, marker, code = text.rpartition(_MARKER)
        if not marker or not code.strip().isdecimal():
            raise DeviceError(
                f"{self.name}: the connection ended while running {command!r}",
                "check the cable and run the command again",
            )
        return ShellResult(int(code), output)

    def stream(self, command: str, silence: float) -> Iterator[str]:
        """Run a command line and yield its lines as they come, without their ends.

        Raises:
            DeviceError: the connection failed, or nothing came for ``silence`` seconds.
        """
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        rest = ""
        with self._explained(f"running {command.split(maxsplit=1)[0]!r}", silence):
            for data in self._adb.streaming_shell(command, silence, silence, decode=False):
                *lines, rest = (rest + decoder.decode(data)).split("\n")
                yield from (line.rstrip("\r") for line in lines)
        if rest:
            yield rest.rstrip("\r")

    def push(self, source: Path, target: str, progress: Callable[[int], None]) -> None:
        """Write a file to the device, under the very name ``target``.

        Args:
            source: the file.
            target: absolute path on the device, in a folder that exists.
            progress: called with the number of bytes sent so far.

        Raises:
            DeviceError: the device refused it or the connection failed; a part may be left there.
        """
        timeout = allowance(source.stat().st_size)
        raised: list[BaseException] = []
        sent = 0

        def chunk(_path: str, count: int, _total: int) -> None:
            nonlocal sent
            sent += count
            try:
                progress(sent)
            except BaseException as error:  # adb-shell would swallow it: end the transfer instead
                raised.append(error)
                self._adb.close()

        try:
            with self._explained(f"pushing {source.name}", timeout):
                self._adb.push(str(source), target, FILE_MODE, 0, chunk, SHELL_SECONDS, timeout)
        except Exception:
            if not raised:
                raise
        if raised:
            raise raised[0]

    def pull(self, source: str, target: Path) -> None:
        """Copy a file from the device; ``target`` appears only when it is whole.

        Raises:
            DeviceError: the file is not there or the connection failed.
        """
        part = target.with_name(target.name + ".part")
        try:
            with self._explained(f"fetching {posixpath.basename(source)}", SHELL_SECONDS):
                self._adb.pull(source, str(part), None, SHELL_SECONDS, SHELL_SECONDS)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)

    def facts(self) -> Facts:
        """Ask the device what it is.

        Raises:
            DeviceError: the connection failed.
        """
        output = self.shell("; ".join(f"getprop {name}" for name in _FACTS)).output
        lines = (*output.split("\n"), *[""] * len(_FACTS))[: len(_FACTS)]
        values = dict(zip(_FACTS, (line.strip() for line in lines), strict=True))
        kind = "phone"
        if values["ro.sparserec.virtual"] == "1":
            kind = "virtual-device"
        elif "1" in (values["ro.kernel.qemu"], values["ro.boot.qemu"]):
            kind = "emulator"
        sdk = values["ro.build.version.sdk"]
        return Facts(
            serial=values["ro.serialno"] or self.name,
            kind=kind,
            model=values["ro.product.model"],
            abis=tuple(filter(None, values["ro.product.cpu.abilist"].split(","))),
            sdk=int(sdk) if sdk.isdecimal() else None,
            release=values["ro.build.version.release"],
            free_bytes=_free_bytes(self.shell("df -k /sdcard").output),
        )

    @contextmanager
    def _explained(self, doing: str, timeout: float) -> Iterator[None]:
        """Turn adb-shell's exceptions into errors that say what to do."""
        try:
            yield
        except (exceptions.PushFailedError, exceptions.AdbCommandFailureException) as error:
            detail = error.args[0] if error.args else error
            if isinstance(detail, (bytes, bytearray)):
                detail = bytes(detail).decode(errors="replace")
            raise DeviceError(f"{self.name}: {doing}: the device says: {detail}") from None
        except (exceptions.AdbTimeoutError, exceptions.TcpTimeoutException, TimeoutError):
            raise DeviceError(
                f"{self.name}: {doing}: no answer within {timeout:.0f} s",
                "check that the device is awake and the cable or network holds, then run it again",
            ) from None
        except Exception as error:
            if not (isinstance(error, ConnectionError) or is_device_fault(error)):
                raise
            raise DeviceError(
                f"{self.name}: {doing}: the connection was lost ({error})",
                "connect the device again and run the command once more; what is done is kept",
            ) from None


def _free_bytes(output: str) -> int | None:
    """The available space in what ``df -k`` printed, None where it says nothing of the kind."""
    for line in output.splitlines()[1:]:
        fields = line.split()
        if len(fields) >= 6 and fields[3].isdecimal():
            return int(fields[3]) * 1024
    return None


@dataclass(frozen=True)
class UsbPhone:
    """A USB device with an adb interface, not opened yet."""

    serial: str
    transport: BaseTransport
    problem: DeviceError | None = None
    """Why not even its serial could be read."""


def usb_phones() -> list[UsbPhone]:
    """The phones on this machine's USB.

    Raises:
        DeviceError: libusb is not there or cannot be used.
    """
    try:
        from adb_shell.transport.usb_transport import UsbTransport

        return [_usb_phone(transport) for transport in UsbTransport.find_all_adb_devices()]
    except Exception as error:
        if not isinstance(error, (ImportError, OSError)) and not is_device_fault(error):
            raise
        raise DeviceError(
            f"USB cannot be searched: {error}",
            "install libusb 1.0 (Debian: apt install libusb-1.0-0), or connect by TCP",
        ) from None


def _usb_phone(transport: Any) -> UsbPhone:
    port = "usb:" + "-".join(str(number) for number in transport.port_path)
    try:
        return UsbPhone(transport.serial_number or port, transport)
    except Exception as error:
        if not is_device_fault(error):
            raise
        return UsbPhone(port, transport, connect_error(port, error))


def parse_address(text: str) -> tuple[str, int] | None:
    """``HOST:PORT`` or ``[IPV6]:PORT`` as host and port; None for anything else."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^\s:\[\]]+)):(\d{1,5})", text)
    if match is None or not 0 < int(match[3]) < 65536:
        return None
    return match[1] or match[2], int(match[3])
