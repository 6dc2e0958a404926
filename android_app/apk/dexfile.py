"""What is in a dex file, as Debian's dexdump (Android's own reader) tells it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from stages import run, tool

_HEADER = re.compile(r"(class_defs|method_ids|field_ids|string_ids)_size +: (\d+)")
_SECTION = re.compile(r"  \w[\w ]+-$")
_QUOTED = re.compile(r"'(.*)'")
_CODE = re.compile(r"[0-9a-f]+: +\|\[[0-9a-f]+\] (\S+)\.(\S+):(\(.*)")
_INSTRUCTION = re.compile(r"[0-9a-f]+: [0-9a-f ]+\|[0-9a-f]{4}: (\S+)(.*)")
_METHOD = re.compile(r", (\S+)\.(\S+):(\(\S*\)\S+) // method@")
_FIELD = re.compile(r", (\S+)\.(\S+):(\S+) // field@")
_TYPE = re.compile(r", (\S+) // type@")
_CAUGHT = re.compile(r"          (L\S+;) -> 0x[0-9a-f]+$")
_NUMBER = re.compile(r"#int (-?\d+)")
# Instructions that need java.lang.invoke, which Android 8's class library does not fill.
DYNAMIC = ("invoke-custom", "invoke-polymorphic", "const-method-handle", "const-method-type")


class Reference(NamedTuple):
    """A use of a class or member; ``member`` is empty where the class itself is meant."""

    owner: str
    member: str
    how: str = ""

    def __str__(self) -> str:
        return ".".join(part for part in (self.owner, self.member) if part)


@dataclass
class Method:
    """A method with code.

    Attributes:
        references: each use, in order, with its instruction.
        numbers: the integers that the code loads.
        dynamic: instructions of ``DYNAMIC``.
    """

    name: str
    references: list[Reference] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    dynamic: list[str] = field(default_factory=list)


@dataclass
class DexClass:
    """A class of the dex file.

    Attributes:
        members: access flags by ``name(parameters)result`` or ``name#type``.
    """

    name: str
    flags: int = 0
    parents: list[str] = field(default_factory=list)
    members: dict[str, int] = field(default_factory=dict)
    methods: list[Method] = field(default_factory=list)
    pending: str = field(default="", repr=False)  # the member that is being read


@dataclass(frozen=True)
class Dex:
    """``sizes`` are the header's: class_defs, method_ids, field_ids, string_ids."""

    sizes: dict[str, int]
    classes: dict[str, DexClass]


def read(path: Path) -> Dex:
    """Read a dex file or the one in an APK.

    Raises:
        SparseRecError: dexdump is missing or refuses the file.
        ValueError: dexdump shows fewer classes than the header counts.
    """
    header = run(f"reading {path}", [tool("dexdump"), "-f", path])
    sizes = {name: int(size) for name, size in _HEADER.findall(header)}
    text = run(f"reading {path}", [tool("dexdump"), "-d", path])
    classes = {found.name: found for found in _classes(text.splitlines())}
    if not classes or len(classes) != sizes["class_defs"]:
        raise ValueError(f"{path}: read {len(classes)} of {sizes['class_defs']} classes")
    return Dex(sizes, classes)


def _classes(lines: list[str]) -> Iterator[DexClass]:
    current: DexClass | None = None
    section = ""
    for line in lines:
        if line.startswith("  Class descriptor"):
            if current is not None:
                yield current
            current, section = DexClass(_name(line)), ""
        elif current is None:
            continue
        elif _SECTION.match(line):
            section = line.strip(" -")
        elif code := _CODE.match(line):
            current.methods.append(Method(f"{code[2]}{code[3]}"))
        elif current.methods and (line[:1] != " " or line.startswith(" " * 10)):
            _read_code(line, current.methods[-1])
        else:
            _read_declaration(line, section, current)
    if current is not None:
        yield current


def _read_declaration(line: str, section: str, current: DexClass) -> None:
    if line.startswith("  Access flags"):
        current.flags = _flags(line)
    elif line.startswith("  Superclass") or (section == "Interfaces" and line.startswith("    #")):
        current.parents.append(_name(line))
    elif line.startswith("      name "):
        current.pending = _quoted(line)
    elif line.startswith("      type "):
        current.pending += ("#" if "fields" in section else "") + _quoted(line)
    elif line.startswith("      access "):
        current.members[current.pending] = _flags(line)


def _read_code(line: str, method: Method) -> None:
    instruction = _INSTRUCTION.match(line)
    if instruction is None:
        if caught := _CAUGHT.match(line):
            method.references.append(Reference(internal(caught[1]), "", "catch"))
        return
    operation, rest = instruction[1], instruction[2]
    how = operation.split("/")[0]
    if how in DYNAMIC:
        method.dynamic.append(how)
    if how.startswith("const") and (number := _NUMBER.search(rest)):
        method.numbers.append(int(number[1]))
    if found := _METHOD.search(rest):
        method.references.append(Reference(internal(found[1]), f"{found[2]}{found[3]}", how))
    elif found := _FIELD.search(rest):
        method.references.append(Reference(internal(found[1]), f"{found[2]}#{found[3]}", how))
    elif found := _TYPE.search(rest):
        method.references.append(Reference(internal(found[1]), "", how))


def _quoted(line: str) -> str:
    found = _QUOTED.search(line)
    assert found is not None, line
    return found[1]


def _name(line: str) -> str:
    return internal(_quoted(line))


def _flags(line: str) -> int:
    return int(line.split(":")[1].split(maxsplit=1)[0], 16)


def internal(descriptor: str) -> str:
    """``Lx/Y;`` and ``[Lx/Y;`` become ``x/Y``; an array of primitives becomes Object."""
    element = descriptor.lstrip("[")
    if element.startswith("L") and element.endswith(";"):
        return element[1:-1]
    return "java/lang/Object" if element != descriptor else descriptor
