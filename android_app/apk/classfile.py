"""What a Java class declares and uses. Source: JVM specification, chapter 4."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

PUBLIC, PRIVATE, PROTECTED, STATIC, NATIVE = 0x0001, 0x0002, 0x0004, 0x0008, 0x0100
_TEXT, _CLASS, _NAME_AND_TYPE = 1, 7, 12
_MEMBERS = (9, 10, 11)
# Bytes that follow a constant's tag; a text carries its own length.
_SIZES = {3: 4, 4: 4, 5: 8, 6: 8, 7: 2, 8: 2, 9: 4, 10: 4, 11: 4, 12: 4, 15: 3, 16: 2, 17: 4,
          18: 4, 19: 2, 20: 2}  # fmt: skip


@dataclass(frozen=True)
class Member:
    """A field or method: its access flags, and where in the file they are."""

    flags: int
    at: int


@dataclass(frozen=True)
class ClassFile:
    """A parsed class; names are internal (``java/lang/Object``).

    Attributes:
        parents: superclass, then interfaces.
        members: by ``name(parameters)result`` of methods, ``name#type`` of fields.
        uses: class and member of each reference in the constant pool.
    """

    content: bytes
    name: str
    parents: tuple[str, ...]
    members: dict[str, Member]
    uses: frozenset[tuple[str, str]]

    @classmethod
    def parse(cls, content: bytes) -> ClassFile:
        """Parse a class file.

        Raises:
            ValueError: the content is none, or is damaged.
        """
        try:
            return cls._parse(content)
        except (struct.error, IndexError, KeyError):
            raise ValueError("is a damaged or cut class file") from None

    @classmethod
    def _parse(cls, content: bytes) -> ClassFile:
        pool, at = _pool(content)
        _, this, parent, count = struct.unpack_from(">HHHH", content, at)
        interfaces = struct.unpack_from(f">{count}H", content, at + 8)
        parents = tuple(pool.class_name(index) for index in (parent, *interfaces) if index)
        at += 8 + 2 * count
        members: dict[str, Member] = {}
        for separator in ("#", ""):
            (count,) = struct.unpack_from(">H", content, at)
            at += 2
            for _ in range(count):
                flags, name, kind, attributes = struct.unpack_from(">HHHH", content, at)
                members[f"{pool.texts[name]}{separator}{pool.texts[kind]}"] = Member(flags, at)
                at += 8
                for _ in range(attributes):
                    (length,) = struct.unpack_from(">I", content, at + 2)
                    at += 6 + length
        return cls(content, pool.class_name(this), parents, members, frozenset(pool.uses()))

    @property
    def natives(self) -> list[str]:
        """Names of the native methods."""
        found = (name for name, member in self.members.items() if member.flags & NATIVE)
        return sorted({name.split("(")[0] for name in found})

    def opened(self, members: Iterable[str]) -> bytes:
        """The class with these private members open to their package."""
        changed = bytearray(self.content)
        for name in members:
            member = self.members[name]
            struct.pack_into(">H", changed, member.at, member.flags & ~PRIVATE)
        return bytes(changed)


class _Pool:
    """A constant pool: texts, and pairs of indices of all else that matters, by index."""

    def __init__(self) -> None:
        self.texts: dict[int, str] = {}
        self.entries: dict[int, tuple[int, int, int]] = {}

    def class_name(self, index: int) -> str:
        return self.texts[self.entries[index][1]]

    def uses(self) -> Iterable[tuple[str, str]]:
        for tag, owner, signature in self.entries.values():
            if tag in _MEMBERS:
                _, name, kind = self.entries[signature]
                separator = "#" if tag == _MEMBERS[0] else ""
                yield self.class_name(owner), f"{self.texts[name]}{separator}{self.texts[kind]}"


def _pool(content: bytes) -> tuple[_Pool, int]:
    """The constant pool, and where it ends."""
    if content[:4] != b"\xca\xfe\xba\xbe":
        raise ValueError("is no class file")
    (count,) = struct.unpack_from(">H", content, 8)
    pool = _Pool()
    at, index = 10, 1
    while index < count:
        tag = content[at]
        if tag == _TEXT:
            (length,) = struct.unpack_from(">H", content, at + 1)
            text = content[at + 3 : at + 3 + length]
            # Java's own UTF-8 writes NUL in two bytes; no name has one, so it need not be exact.
            pool.texts[index] = text.decode("utf-8", "replace")
            at += 3 + length
        else:
            if tag == _CLASS:
                pool.entries[index] = (tag, *struct.unpack_from(">H", content, at + 1), 0)
            elif tag in (*_MEMBERS, _NAME_AND_TYPE):
                pool.entries[index] = (tag, *struct.unpack_from(">HH", content, at + 1))
            at += 1 + _SIZES[tag]
        index += 2 if tag in (5, 6) else 1
    return pool, at
