"""The adb wire protocol's messages: a 24-byte header and a payload.

Layout and constants are those of AOSP's ``packages/modules/adb/protocol.txt``. All integers are
little-endian and unsigned.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

CNXN = b"CNXN"
AUTH = b"AUTH"
OPEN = b"OPEN"
OKAY = b"OKAY"
WRTE = b"WRTE"
CLSE = b"CLSE"

AUTH_TOKEN = 1
AUTH_SIGNATURE = 2
AUTH_PUBLIC_KEY = 3

VERSION_CHECKSUM = 0x01000000
"""Oldest version: every payload carries the sum of its bytes."""
VERSION_SKIP_CHECKSUM = 0x01000001
"""From here on the sum is not computed and not checked."""

MAX_PAYLOAD = 1 << 20
"""The largest payload we accept or send; clients offer their own and the smaller one holds."""
MIN_MAX_PAYLOAD = 4096
"""What every client could take since the first version; a smaller offer is a broken client."""

HEADER = struct.Struct("<4s5I")


class ProtocolError(Exception):
    """The peer broke the protocol; the connection cannot go on."""


@dataclass(frozen=True)
class Header:
    """A parsed header: ``length`` bytes of payload follow it."""

    command: bytes
    arg0: int
    arg1: int
    length: int
    checksum: int


@dataclass(frozen=True)
class Message:
    """One message; the meaning of ``arg0`` and ``arg1`` depends on ``command``."""

    command: bytes
    arg0: int
    arg1: int
    payload: bytes = b""


def checksum(payload: bytes) -> int:
    """The sum of the payload's bytes modulo 2^32."""
    return int(np.frombuffer(payload, np.uint8).sum(dtype=np.uint64)) & 0xFFFFFFFF


def magic(command: bytes) -> int:
    """The header's last word: the command's bits, inverted."""
    return int.from_bytes(command, "little") ^ 0xFFFFFFFF


def pack(message: Message, version: int = VERSION_CHECKSUM) -> bytes:
    """A message as bytes, with a checksum where ``version`` still has one."""
    total = checksum(message.payload) if version < VERSION_SKIP_CHECKSUM else 0
    header = HEADER.pack(
        message.command,
        message.arg0,
        message.arg1,
        len(message.payload),
        total,
        magic(message.command),
    )
    return header + message.payload


def parse_header(data: bytes, limit: int = MAX_PAYLOAD) -> Header:
    """Parse 24 bytes.

    Raises:
        ProtocolError: wrong magic, or a payload of more than ``limit`` bytes is announced.
    """
    command, arg0, arg1, length, total, inverted = HEADER.unpack(data)
    if inverted != magic(command):
        raise ProtocolError(f"wrong magic 0x{inverted:08x} for command {command!r}")
    if length > limit:
        raise ProtocolError(f"{command!r} announces {length} bytes; at most {limit} are allowed")
    return Header(command, arg0, arg1, length, total)


def check_payload(header: Header, payload: bytes, version: int) -> None:
    """Compare a payload with its header's checksum where ``version`` has one.

    Raises:
        ProtocolError: they differ.
    """
    if version < VERSION_SKIP_CHECKSUM and checksum(payload) != header.checksum:
        raise ProtocolError(f"wrong checksum for {header.command!r}")
