"""A connected device: run commands, move files, ask what it is; whichever way leads to it."""

from __future__ import annotations

import codecs
import math
import posixpath
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, Self

from adb_shell.transport.base_transport import BaseTransport

from device_bench.device_errors import (
    ConnectionLostError,
    DeviceError,
    RefusedError,
    connect_error,
    is_device_fault,
)
from device_bench.transport import Direct, Source, Transport
from device_bench.wire import Socket, nothing
from sparserec.errors import writing

__all__ = ["Device", "Facts", "ShellResult", "Socket", "UsbPhone", "parse_address", "usb_phones"]

CONNECT_SECONDS = 10.0
SHELL_SECONDS = 30.0
SLOWEST_BYTES_PER_SECOND = 500_000
"""What the time allowed for a transfer or a hash is reckoned with: a poor USB 2 cable."""

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


Kind = Literal["phone", "emulator", "virtual-device"]


@dataclass(frozen=True)
class Facts:
    """What a device says of itself; None where it cannot be read."""

    serial: str
    kind: Kind
    """As in a report."""
    model: str
    abis: tuple[str, ...]
    """Best first."""
    sdk: int | None
    release: str
    free_bytes: int | None
    page_bytes: int | None = None


def allowance(size: int) -> float:
    """Seconds that moving or hashing ``size`` bytes may take."""
    return SHELL_SECONDS + size / SLOWEST_BYTES_PER_SECOND


class Device:
    """One device; ``with device:`` connects and closes. Not for several threads.

    Shell commands have no exit code in the protocol that every device speaks, so a marker in the
    output carries it; a "line" of output is whatever arrived at once until it is put together here.

    Args:
        name: how users name it: its serial or ``host:port``.
        transport: the way to it; one of adb-shell's own is used with ``keys`` and what follows,
            which Direct explains.
    """

    def __init__(
        self,
        name: str,
        transport: Transport | BaseTransport,
        keys: Sequence[Path] = (),
        *,
        wait_for_owner: float = 30.0,
        on_dialog: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        if isinstance(transport, BaseTransport):
            transport = Direct(name, transport, keys, wait_for_owner, on_dialog)
        self.transport: Transport = transport

    def connect(self, timeout: float = CONNECT_SECONDS) -> None:
        """Connect and authenticate, anew if there is a connection.

        Raises:
            DeviceError: nothing answers, the device is held by another program, or it does not
                know this computer's key.
        """
        self.transport.connect(timeout)

    def close(self) -> None:
        """Close the connection."""
        self.transport.close()

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
            ConnectionLostError: the connection failed, or the command did not end within
                ``timeout`` seconds.
        """
        line = f'{command}; echo "{_MARKER}$?"'
        end = time.monotonic() + timeout
        data = bytearray()
        with self._explained(f"running {command.split(maxsplit=1)[0]!r}", timeout):
            for part in self.transport.run(line, timeout):
                data += part
                if time.monotonic() > end:
                    raise TimeoutError
        text = data.decode(errors="replace").replace("\r\n", "\n")
        output, marker, code = text.rpartition(_MARKER)
        if not marker or not code.strip().isdecimal():
            raise ConnectionLostError(
                f"{self.name}: the connection ended while running {command!r}",
                "check the cable and run the command again",
            )
        return ShellResult(int(code), output)

    def stream(
        self, command: str, silence: float, tick: Callable[[], None] = nothing
    ) -> Iterator[str]:
        """Run a command line and yield its lines as they come, without their ends.

        Args:
            command: the line.
            silence: seconds for which nothing may come.
            tick: called several times a second while nothing comes; what it raises ends the
                command here (on the device it may go on).

        Raises:
            ConnectionLostError: the connection failed, or nothing came for ``silence`` seconds.
        """
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        rest = ""
        with self._explained(f"running {command.split(maxsplit=1)[0]!r}", silence):
            for data in self.transport.run(command, silence, tick):
                *lines, rest = (rest + decoder.decode(data)).split("\n")
                yield from (line.rstrip("\r") for line in lines)
        if rest:
            yield rest.rstrip("\r")

    def push(self, source: Path, target: str, progress: Callable[[int], None]) -> None:
        """Write a file to the device, under the very name ``target``.

        device_bench/transfer.py goes on where a transfer broke off; this does not.

        Args:
            source: the file.
            target: absolute path on the device, in a folder that exists.
            progress: called with the number of bytes sent so far.

        Raises:
            DeviceError: the device refused it.
            ConnectionLostError: the connection failed; a part may be left there.
        """
        sent = 0

        def count(size: int) -> None:
            nonlocal sent
            sent += size
            progress(sent)

        with source.open("rb") as file:
            self.push_bytes(file, source.stat().st_size, target, count)

    def push_bytes(
        self,
        file: BinaryIO,
        size: int,
        target: str,
        sent: Callable[[int], None],
        seconds: float = math.inf,
    ) -> None:
        """Write the next ``size`` bytes of ``file`` to ``target``, as ``push`` does.

        Args:
            file: read from where it stands.
            size: how much.
            target: absolute path on the device.
            sent: called with the number of bytes of each piece that is sent.
            seconds: after which no more is sent; what was is whole in ``target``.
        """
        timeout = allowance(size)
        try:
            with self._explained(f"pushing {posixpath.basename(target)}", timeout):
                self.transport.push(Source(file, size, sent, seconds), target, timeout)
        except BaseException as error:
            if not isinstance(error, DeviceError) or isinstance(error, ConnectionLostError):
                self.close()  # in the middle of a message
            raise

    def pull(self, source: str, target: Path) -> None:
        """Copy a file from the device; ``target`` appears only when it is whole.

        Raises:
            DeviceError: the file is not there.
            ConnectionLostError: the connection failed.
            SparseRecError: ``target`` cannot be written.
        """
        part = target.with_name(target.name + ".part")
        try:
            with writing(target):
                with (
                    self._explained(f"fetching {posixpath.basename(source)}", SHELL_SECONDS),
                    part.open("wb") as file,
                ):
                    self.transport.pull(source, file, SHELL_SECONDS)
                part.replace(target)
        except BaseException as error:
            if not isinstance(error, DeviceError) or isinstance(error, ConnectionLostError):
                self.close()  # in the middle of a message
            raise
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)

    def facts(self) -> Facts:
        """Ask the device what it is.

        Raises:
            ConnectionLostError: the connection failed.
        """
        asked = "; ".join(f"getprop {name}" for name in _FACTS)
        output = self.shell(f"{asked}; getconf PAGE_SIZE 2>/dev/null").output
        lines = (*output.split("\n"), *[""] * (len(_FACTS) + 1))
        values = dict(zip(_FACTS, (line.strip() for line in lines), strict=False))
        page = lines[len(_FACTS)].strip()
        kind: Kind = "phone"
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
            page_bytes=int(page) if page.isdecimal() else None,
        )

    @contextmanager
    def _explained(self, doing: str, timeout: float) -> Iterator[None]:
        """Turn a transport's exceptions into errors that say what to do."""
        try:
            yield
        except RefusedError as error:
            raise _refused(f"{self.name}: {doing}", str(error)) from None
        except TimeoutError:
            raise ConnectionLostError(
                f"{self.name}: {doing}: no answer within {timeout:.0f} s",
                "check that the device is awake and the cable or network holds, then run it again",
            ) from None
        except ConnectionError as error:
            raise ConnectionLostError(
                f"{self.name}: {doing}: the connection was lost ({error})",
                "connect the device again and run the command once more; what is done is kept",
            ) from None


def _refused(doing: str, answer: str) -> DeviceError:
    """The device's refusal of a file."""
    fix = ""
    if re.search("no space|ENOSPC|quota", answer, re.IGNORECASE):
        fix = "free space on the device: Settings, Storage; then run the command again"
    elif re.search("permission|read-only", answer, re.IGNORECASE):
        fix = "unlock the device once after it was started, and run the command again"
    return DeviceError(f"{doing}: the device says: {answer}", fix)


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
    bus, *ports = transport.port_path
    port = f"usb:{bus}-" + ".".join(str(number) for number in ports)  # as adb names it
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
