"""The few fields of an Android library (64-bit little-endian ELF) that decide whether it loads.

Source: System V ABI, chapters 4 and 5 (ELF-64 object file format).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

X86_64, AARCH64 = 62, 183
PAGE = 16384
_LOAD, _DYNAMIC = 1, 2
_NEEDED, _STRTAB, _SONAME = 1, 5, 14


@dataclass(frozen=True)
class Library:
    """A shared library: ``e_machine``, the least ``p_align`` of its segments, what it links to."""

    machine: int
    alignment: int
    soname: str | None
    needed: list[str]

    @classmethod
    def parse(cls, content: bytes) -> Library:
        """Read the headers; ValueError says what is wrong."""
        try:
            return cls._parse(content)
        except (struct.error, StopIteration, OverflowError, UnicodeDecodeError):
            raise ValueError("is a damaged or cut ELF file") from None

    @classmethod
    def _parse(cls, content: bytes) -> Library:
        if content[:6] != b"\x7fELF\x02\x01":
            raise ValueError("is no 64-bit little-endian ELF file")
        kind, machine, _, _, offset = struct.unpack_from("<HHIQQ", content, 16)
        size, count = struct.unpack_from("<HH", content, 54)
        if kind != 3:
            raise ValueError("is no shared library")
        segments = [
            struct.unpack_from("<IIQQQQQQ", content, offset + k * size) for k in range(count)
        ]
        loaded = [segment for segment in segments if segment[0] == _LOAD]
        dynamic = next(segment for segment in segments if segment[0] == _DYNAMIC)
        tags = list(struct.iter_unpack("<QQ", content[dynamic[2] : dynamic[2] + dynamic[5]]))
        address = next(value for tag, value in tags if tag == _STRTAB)
        home = next(s for s in loaded if s[3] <= address < s[3] + s[6])
        strings = address - home[3] + home[2]

        def text(at: int) -> str:
            return content[strings + at : content.find(b"\0", strings + at)].decode("ascii")

        return cls(
            machine,
            min(segment[7] for segment in loaded),
            next((text(value) for tag, value in tags if tag == _SONAME), None),
            [text(value) for tag, value in tags if tag == _NEEDED],
        )
