"""The table of what Android's libraries want from the system, and the stand-in made from it.

The stand-in is one library under the names libc.so, libm.so, libdl.so, ... It has a trampoline for
every symbol of ``symbols.tsv``, under Android's version names, so the shipped libraries bind to it
exactly as they would bind to Android's own, and cannot reach glibc past it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from sparserec.errors import SparseRecError

TABLE = Path(__file__).with_name("symbols.tsv")
KINDS = ("glibc", "shim", "data", "refused", "absent")
MACHINES = {"x86_64": "x64", "arm64-v8a": "AArch64"}  # Android ABI -> pyelftools' name


@dataclass(frozen=True)
class Symbol:
    """One line of the table; the columns are explained at the top of ``symbols.tsv``."""

    name: str
    version: str  # Android's version name; "-" where the libraries ask for none
    kind: str
    target: str
    reason: str


def read_table(path: Path = TABLE, abi: str = "x86_64") -> list[Symbol]:
    """Read the lines of the table that hold for an ABI.

    Raises:
        SparseRecError: a line is malformed or a symbol listed twice.
    """
    table: dict[str, Symbol] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.startswith("#"):
            continue
        fields = line.split("\t")
        only = fields[5] if len(fields) == 6 else abi
        if (
            len(fields) not in {5, 6}
            or fields[2] not in KINDS
            or only not in MACHINES
            or fields[0] in table
        ):
            raise SparseRecError(
                f"{path}:{number}: not a line of this table: {line!r}",
                f"give symbol, version, kind ({', '.join(KINDS)}), target, reason, and the ABI if "
                f"only one wants it ({', '.join(MACHINES)}); tabs between, each symbol once",
            )
        if only == abi:
            table[fields[0]] = Symbol(*fields[:5])
    return list(table.values())


@dataclass(frozen=True)
class Library:
    """What a shared library says about itself in its dynamic section.

    Attributes:
        soname: its own name.
        needed: names of the libraries it needs.
        wanted: undefined symbol -> version name, "-" without one.
        defined: names of the symbols it exports.
    """

    soname: str
    needed: tuple[str, ...]
    wanted: dict[str, str]
    defined: frozenset[str]


def read_library(path: Path, abi: str = "x86_64") -> Library:
    """Read a shared library.

    Raises:
        SparseRecError: it is not a shared library of this ABI with symbol versions.
    """
    with path.open("rb") as file:
        names = (".dynamic", ".dynsym", ".gnu.version", ".gnu.version_r")
        try:
            elf: Any = ELFFile(file)
            dynamic, symbols, index, needs = (elf.get_section_by_name(name) for name in names)
            usable = elf.get_machine_arch() == MACHINES[abi] and needs is not None
        except ELFError:
            usable = False
        if not usable:
            raise SparseRecError(
                f"{path}: not an {abi} shared library with symbol versions",
                "the published library is built differently: see docs/desktop-runtime.md",
            )
        wanted, defined = {}, set()
        for number, symbol in enumerate(symbols.iter_symbols()):
            if symbol["st_shndx"] != "SHN_UNDEF":
                defined.add(symbol.name)
            elif symbol.name:
                version = index.get_symbol(number)["ndx"]
                named = isinstance(version, int) and version > 1
                wanted[symbol.name] = needs.get_version(version)[1].name if named else "-"
        tags = list(dynamic.iter_tags())
        return Library(
            soname=next(tag.soname for tag in tags if tag.entry.d_tag == "DT_SONAME"),
            needed=tuple(tag.needed for tag in tags if tag.entry.d_tag == "DT_NEEDED"),
            wanted=wanted,
            defined=frozenset(defined),
        )


def system_libraries(libraries: Iterable[Library]) -> set[str]:
    """Names of the libraries that these need and that are not among them."""
    libraries = list(libraries)
    return {name for library in libraries for name in library.needed} - {
        library.soname for library in libraries
    }


def wanted_from_system(libraries: Iterable[Library]) -> dict[str, str]:
    """Symbol -> version name, for all that these want and none of them defines."""
    libraries = list(libraries)
    own = frozenset[str]().union(*(library.defined for library in libraries))
    wanted: dict[str, str] = {}
    for library in libraries:
        for name, version in library.wanted.items():
            if name not in own and wanted.get(name, "-") == "-":
                wanted[name] = version
    return wanted


def account(table: Iterable[Symbol], wanted: dict[str, str]) -> None:
    """Check that the table lists exactly the wanted symbols, with their versions.

    Raises:
        SparseRecError: naming the symbols that are missing, stale or have another version.
    """
    listed = {symbol.name: symbol.version for symbol in table}
    differences = [
        f"{name} ({version}) is not listed" for name, version in wanted.items() - listed.items()
    ]
    differences += [
        f"{name} ({version}) is not wanted" for name, version in listed.items() - wanted.items()
    ]
    if differences:
        raise SparseRecError(
            f"{TABLE}: {'; '.join(sorted(differences))}",
            "the libraries have changed: compare both C libraries' headers, then edit the table",
        )


# Jumps that change no register of a call, so that arguments of any kind pass; x16 is the linker's
# own scratch register. A refused symbol's name becomes the only argument.
JUMPS = {
    "x86_64": {
        "glibc": "jmp *{target}@GOTPCREL(%rip)",
        "shim": "jmp {target}",
        "refused": 'lea 0f(%rip), %rdi; jmp bionic_refuse; 0: .asciz "{name}"',
    },
    "arm64-v8a": {
        "glibc": "adrp x16, :got:{target}; ldr x16, [x16, :got_lo12:{target}]; br x16",
        "shim": "b {target}",
        "refused": 'adr x0, 0f; b bionic_refuse; 0: .asciz "{name}"; .balign 4',
    },
}


def assembly(table: Iterable[Symbol], abi: str = "x86_64") -> str:
    """GNU assembly of the trampolines."""
    lines = [".text"]
    for symbol in table:
        if symbol.kind in ("data", "absent"):
            continue
        label = f"trampoline.{symbol.name}"
        body = JUMPS[abi][symbol.kind].format(target=symbol.target, name=symbol.name)
        # "@" leaves the name free for glibc's own inside this link; "@@" also answers references
        # without a version, and those are to names that glibc lacks.
        versioned = "@@LIBC" if symbol.version == "-" else f"@{symbol.version}"
        lines += [f".globl {label}", f".type {label}, @function", f"{label}: {body}"]
        lines += [f".symver {label}, {symbol.name}{versioned}"]
    return "\n".join([*lines, '.section .note.GNU-stack, "", @progbits', ""])


def version_script(table: Iterable[Symbol]) -> str:
    """Linker version script with Android's version names; our own names stay local."""
    versions = {symbol.version for symbol in table} - {"-", "LIBC"}
    nodes = ["LIBC { local: trampoline.*; bionic_*; };"]
    return "\n".join([*nodes, *(f"{version} {{ }};" for version in sorted(versions)), ""])
