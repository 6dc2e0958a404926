"""Sending one file so that a broken connection costs no more than its last piece.

adb's daemon removes a file whose transfer breaks off, so a large file is sent in pieces, each of
which is appended to ``<target>.part``. What is there from an earlier try is kept if its SHA-256 is
that of the file's first bytes. The file has its own name only once its whole SHA-256 was found
right on the device. On the device only ``cat``, ``mv``, ``rm``, ``stat`` and ``sha256sum`` are
needed, which Android has had since 6.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from device_bench.adb import Device, allowance
from device_bench.device_errors import ConnectionLostError, DeviceError

PIECE_BYTES = 64 << 20
"""What a lost connection may cost: 2 s of USB 2. Every piece but the first is copied on the device,
so most files should be one."""
LEAST_PIECE_BYTES = 64 << 10
PIECE_SECONDS = 30.0
"""No piece takes longer: a lock is refreshed between two of them, well within its lease."""

_HASH = re.compile(r"^([0-9a-f]{64})\b", re.MULTILINE)


def nothing(_: int) -> None:
    """Take a number and do nothing."""


@dataclass(frozen=True)
class Transfer:
    """One file on its way.

    Attributes:
        source: the file here.
        target: absolute path on the device, in a folder that exists.
        sha256: of the file, in hexadecimal.
        size: of the file, in bytes.
        sent: called with the number of bytes of the file that were sent so far.
        landed: called with the number of bytes that are on the device for good, after each piece.
    """

    source: Path
    target: str
    sha256: str
    size: int
    sent: Callable[[int], None] = nothing
    landed: Callable[[int], None] = nothing


def send(device: Device, transfer: Transfer, piece_bytes: int = PIECE_BYTES) -> None:
    """Send a file, check it on the device and give it its name.

    Raises:
        ConnectionLostError: another call goes on from what has landed.
        DeviceError: the device has no room, refuses the file, or holds other bytes in the end.
    """
    part = f"{transfer.target}.part"
    with transfer.source.open("rb") as file:
        have = _resume(device, file, part, transfer.size)
        transfer.landed(have)
        more = have < transfer.size or not transfer.size
        while more:
            before = have
            transfer.sent(have)
            file.seek(have)
            have = _append(device, transfer, file, have, min(piece_bytes, transfer.size - have))
            transfer.landed(have)
            more = before < have < transfer.size
    _check(device, transfer, part)
    quoted, target = shlex.quote(part), shlex.quote(transfer.target)
    _run(device, f"mv -f {quoted} {target} && rm -f {quoted}.piece", f"cannot rename {part}")


def _resume(device: Device, file: BinaryIO, part: str, size: int) -> int:
    """How many of the file's first bytes are in ``part``; anything else is removed."""
    quoted = shlex.quote(part)
    found = device.shell(f"stat -c %s {quoted} 2>/dev/null")
    text = found.output.strip()
    if found.exit_code == 0 and text.isdecimal() and 0 < int(text) <= size:
        have = int(text)
        if device_sha256(device, part, have) == _prefix_sha256(file, have):
            return have
    device.shell(f"rm -f {quoted} {quoted}.piece")
    return 0


def _append(device: Device, transfer: Transfer, file: BinaryIO, have: int, step: int) -> int:
    """Send the ``step`` bytes at which ``file`` stands and put them behind the first ``have``.

    Returns:
        How many are there now: fewer than asked for where the way is slow or the file is cut short.

    Raises:
        ConnectionLostError: also where something else is there in the end: what a broken connection
            left running on the device may write to the file, or remove it, until it notices.
    """
    part = f"{transfer.target}.part"
    done = have

    def count(size: int) -> None:
        nonlocal done
        done += size
        transfer.sent(done)

    if not have:
        device.push_bytes(file, step, part, count, PIECE_SECONDS)
        return done
    piece = f"{part}.piece"
    device.push_bytes(file, step, piece, count, PIECE_SECONDS)
    quoted, source = shlex.quote(part), shlex.quote(piece)
    command = f"cat {source} >> {quoted} && rm -f {source} && stat -c %s {quoted}"
    size = _run(device, command, f"cannot append to {part}").strip()
    if size != str(done):
        raise ConnectionLostError(
            f"{device.name}: {part} has {size} bytes where {done} were written",
            "run the command again",
        )
    return done


def _check(device: Device, transfer: Transfer, part: str) -> None:
    found = device_sha256(device, part, transfer.size)
    if found == transfer.sha256:
        return
    device.shell(f"rm -f {shlex.quote(part)}")
    raise DeviceError(
        f"{device.name}: {transfer.source.name} arrived damaged: SHA-256 is "
        f"{found or 'not readable'}, should be {transfer.sha256}",
        "run the command again; if it stays, check that the file here is whole, or try another "
        "cable or port",
    )


def device_sha256(device: Device, path: str, size: int) -> str | None:
    """The SHA-256 of a file on the device; None where it cannot be read.

    Args:
        device: connected.
        path: absolute path on the device.
        size: bytes that are expected there, for the time allowed.
    """
    output = device.shell(f"sha256sum {shlex.quote(path)} 2>/dev/null", allowance(size)).output
    found = _HASH.search(output)
    return found[1] if found else None


def _prefix_sha256(file: BinaryIO, size: int) -> str:
    file.seek(0)
    state = hashlib.sha256()
    while size > 0 and (data := file.read(min(size, 1 << 20))):
        state.update(data)
        size -= len(data)
    return state.hexdigest()


def _run(device: Device, command: str, fault: str) -> str:
    """What a command on files prints.

    Raises:
        DeviceError: it failed.
    """
    result = device.shell(command, allowance(PIECE_BYTES))
    if result.exit_code != 0:
        answer = result.output.strip()
        full = re.search("no space|quota", answer, re.IGNORECASE)
        raise DeviceError(
            f"{device.name}: {fault}: {answer}",
            "free space on the device and run the command again: it goes on where it was"
            if full
            else "check that the device is unlocked and its storage can be written",
        )
    return result.output
