"""Every symbol that Android's libraries want is accounted for."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import symbols

from sparserec.errors import SparseRecError

SHIPPED = ("libexecutorch.so", "libfbjni.so", "libc++_shared.so")


def nm(library: Path, which: str) -> set[str]:
    """Dynamic symbols as binutils sees them, with version names after "@"."""
    if shutil.which("nm") is None:
        pytest.skip("nm (binutils) is not installed")
    command = ["nm", "--dynamic", f"--{which}-only", "--format=posix", str(library)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {line.split()[0] for line in output.splitlines()}


def test_table_covers_exactly_what_the_libraries_want(desktop: Path) -> None:
    android = desktop / "lib" / "android"
    defined = set().union(*(nm(android / name, "defined") for name in SHIPPED))
    undefined = set().union(*(nm(android / name, "undefined") for name in SHIPPED))
    wanted = {name for name in undefined if name.split("@")[0] not in defined}
    # A symbol that one library wants with a version and another without is listed with it.
    versioned = {name.split("@")[0] for name in wanted if "@" in name}
    wanted = {name for name in wanted if "@" in name or name not in versioned}
    table = symbols.read_table()
    listed = {s.name if s.version == "-" else f"{s.name}@{s.version}" for s in table}
    assert listed == wanted
    assert len(listed) > 250


def test_the_stand_in_exports_each_under_its_version(desktop: Path) -> None:
    exported = {name.replace("@@", "@") for name in nm(desktop / "lib/android/libc.so", "defined")}
    exported = {name for name in exported if not re.fullmatch(r"LIBC\w*(@.*)?", name)}
    table = [symbol for symbol in symbols.read_table() if symbol.kind != "absent"]
    assert exported == {f"{s.name}@{'LIBC' if s.version == '-' else s.version}" for s in table}


def test_glibc_has_each_target() -> None:
    glibc = [ctypes.CDLL("libc.so.6"), ctypes.CDLL("libm.so.6")]
    # glibc before 2.33 linked these statically.
    static = {"stat", "lstat", "fstat"}
    targets = {s.target for s in symbols.read_table() if s.kind == "glibc"} - static
    assert [t for t in sorted(targets) if not any(hasattr(lib, t) for lib in glibc)] == []


def test_each_reason_is_explained() -> None:
    text = symbols.TABLE.read_text(encoding="utf-8")
    legend = "\n".join(line for line in text.splitlines() if line.startswith("#"))
    for reason in {symbol.reason for symbol in symbols.read_table()}:
        key = re.sub(r"^(struct|opaque) \w+$", r"\1 X", reason)
        assert re.search(rf"^#\s+(reason\s+)?{re.escape(key)}\s{{2,}}\S", legend, re.M), reason


@pytest.mark.parametrize(
    "line",
    [
        "abs LIBC glibc abs iso-c",
        "abs\tLIBC\tmagic\tabs\tiso-c",
        "a\t-\tshim\tb\tc\na\t-\tshim\tb\tc",
    ],
)
def test_a_malformed_table_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "t.tsv").write_text(f"# comment\n{line}\n")
    with pytest.raises(SparseRecError, match=r"t\.tsv:\d: not a line of this table"):
        symbols.read_table(tmp_path / "t.tsv")


def test_differences_are_named() -> None:
    table = [symbols.Symbol("abs", "LIBC", "glibc", "abs", "iso-c")]
    symbols.account(table, {"abs": "LIBC"})
    with pytest.raises(SparseRecError, match=r"div \(LIBC\) is not listed"):
        symbols.account(table, {"abs": "LIBC", "div": "LIBC"})
    with pytest.raises(SparseRecError, match=r"abs \(LIBC\) is not wanted"):
        symbols.account(table, {})
    with pytest.raises(SparseRecError, match=r"abs \(LIBC_N\) is not listed"):
        symbols.account(table, {"abs": "LIBC_N"})


def test_a_file_that_is_no_android_library_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.so").write_bytes(b"\x7fELF" + bytes(100))
    with pytest.raises(SparseRecError, match="x86_64 shared library"):
        symbols.read_library(tmp_path / "x.so")
