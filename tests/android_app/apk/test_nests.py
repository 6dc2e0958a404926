"""Access between classes: what Java 11 allows and Android does not."""

from __future__ import annotations

import contextlib
import io
import subprocess
import tarfile
import zipfile
from pathlib import Path

import access
import dexfile
import inputs
import pins
import pytest
from classfile import PRIVATE, ClassFile
from hypothesis import given, settings
from hypothesis import strategies as st
from nests import open_nests, used_from_elsewhere
from stages import java, run, tool

from sparserec.errors import SparseRecError

from .conftest import CACHE, WORK, Built

NESTED = """
    public class Outer {
        private static int hidden = 1;
        private int own = 2;
        private Outer() {}
        private int twice() { return 2 * own; }
        private int untouched() { return twice(); }
        public static class Inner {
            public int f() { return hidden + new Outer().own + new Outer().twice(); }
        }
        public static void main(String[] none) {
            System.out.println(new Inner().f() + new Outer().untouched());
        }
    }"""


def compiled(folder: Path, text: str, name: str = "Outer") -> Path:
    """Jar of classes as javac 11 makes them."""
    source = folder / f"{name}.java"
    source.write_text(text)
    run("javac", [tool("javac"), "--release", "11", "-d", folder / "classes", source])
    jar = folder / "nested.jar"
    with zipfile.ZipFile(jar, "w") as archive:
        for path in sorted((folder / "classes").iterdir()):
            archive.write(path, path.name)
    return jar


def classes(jar: Path | io.BytesIO) -> list[ClassFile]:
    with zipfile.ZipFile(jar) as archive:
        names = [name for name in archive.namelist() if name.endswith(".class")]
        return [ClassFile.parse(archive.read(name)) for name in names]


def dexed(jar: Path) -> dexfile.Dex:
    """Dexed as ProGuard leaves it: marked as Java 8, else unchanged."""
    marked, made = jar.with_name("marked.jar"), jar.with_name("classes.dex")
    with zipfile.ZipFile(jar) as old, zipfile.ZipFile(marked, "w") as new:
        for name in old.namelist():
            content = bytearray(old.read(name))
            content[7] = 52
            new.writestr(name, bytes(content))
    (dx,) = pins.get(CACHE, pins.DX)
    options = ["--dex", "--min-sdk-version=26", f"--output={made}", marked]
    run("dx", java([dx], "com.android.dx.command.Main", *options))
    return dexfile.read(made)


def test_what_is_used_from_elsewhere_is_opened_and_nothing_else(
    built: Built, tmp_path: Path
) -> None:
    jar, opened = compiled(tmp_path, NESTED), tmp_path / "opened.jar"
    open_nests(jar, opened)
    before, after = ({c.name: c for c in classes(path)} for path in (jar, opened))
    changed = {
        name
        for name, member in before["Outer"].members.items()
        if member.flags != after["Outer"].members[name].flags
    }
    assert changed == {"hidden#I", "own#I", "<init>()V", "twice()I"}
    assert all(not after["Outer"].members[name].flags & PRIVATE for name in changed)
    said = subprocess.run(
        [tool("java"), "-cp", str(opened), "Outer"], capture_output=True, text=True, check=True
    )
    assert said.stdout == "11\n"


def test_the_dex_check_finds_what_was_not_opened(built: Built, tmp_path: Path) -> None:
    jar, opened = compiled(tmp_path, NESTED), tmp_path / "opened.jar"
    found = access.problems(dexed(jar))
    assert "Outer.own#I: is private (used in Outer$Inner.f()I)" in found
    assert "Outer.<init>()V: is private (used in Outer$Inner.f()I)" in found
    open_nests(jar, opened)
    assert access.problems(dexed(opened)) == []


def test_a_method_that_a_subclass_would_override_is_not_opened(
    built: Built, tmp_path: Path
) -> None:
    text = """
        class Outer {
            private int f() { return 1; }
            static class Inner extends Outer {
                private int f() { return 2; }
                int g(Outer outer) { return outer.f(); }
            }
        }"""
    with pytest.raises(SparseRecError, match=r"Outer\.f\(\)I cannot be opened: Outer\$Inner"):
        open_nests(compiled(tmp_path, text), tmp_path / "opened.jar")


def test_the_published_api_needs_it(built: Built) -> None:
    """If a newer package no longer does, the step can go."""
    (package,) = pins.get(CACHE, inputs.EXECUTORCH)
    with tarfile.open(package) as tar:
        jar = tar.extractfile("package/android/libs/classes.jar")
        assert jar is not None
        used = used_from_elsewhere(classes(io.BytesIO(jar.read())))
    assert ("org/pytorch/executorch/Tensor", "<init>([J)V") in used
    assert used_from_elsewhere(classes(WORK / "runtime" / "classes" / "executorch.jar")) == set()


def test_javap_reads_the_same(built: Built, tmp_path: Path) -> None:
    """Members and flags, by the JDK's own reader."""
    jar = compiled(tmp_path, NESTED)
    said = run("javap", [tool("javac").replace("javac", "javap"), "-p", "-s", "-cp", jar, "Outer"])
    lines = [line.strip() for line in said.splitlines()]
    declared = {
        (lines[k - 1].split("(")[0].split()[-1].rstrip(";"), line.removeprefix("descriptor: "))
        for k, line in enumerate(lines)
        if line.startswith("descriptor: ")
    }
    (outer,) = [parsed for parsed in classes(jar) if parsed.name == "Outer"]
    read = set()
    for name in outer.members:
        method = "(" in name
        called, kind = name.split("(" if method else "#", maxsplit=1)
        called = "Outer" if called == "<init>" else "{}" if called == "<clinit>" else called
        read.add((called, f"({kind}" if method else kind))
    assert read == declared


@pytest.fixture(scope="module")
def small(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with zipfile.ZipFile(WORK / "runtime" / "classes" / "executorch.jar") as jar:
        name = "org/pytorch/executorch/DType.class"
        return Path(jar.extract(name, tmp_path_factory.mktemp("small")))


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damaged_classes_are_never_a_surprise(small: Path, data: st.DataObject) -> None:
    """Cut and changed files: parsed, or a ValueError, and no other."""
    whole = small.read_bytes()
    content = bytearray(whole[: data.draw(st.integers(0, len(whole)), "length")])
    for _ in range(data.draw(st.integers(0, 6), "changes")):
        if content:
            at = data.draw(st.integers(0, len(content) - 1), "at")
            content[at] = data.draw(st.integers(0, 255), "byte")
    with contextlib.suppress(ValueError):
        assert isinstance(ClassFile.parse(bytes(content)).natives, list)
