"""An AAR in place of the pinned runtime: a good one is taken, each bad one refused and why."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import elf
import native
import pytest
import recipe
import signing
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from hypothesis import given, settings
from hypothesis import strategies as st
from stages import run

from export.lower import lower
from export.program import describe
from export.score import score_methods
from export.step import step_methods
from sparserec.errors import SparseRecError

from .conftest import CACHE, WORK, Built, command_line

RUNTIME = WORK / "runtime"
ARM = "jni/arm64-v8a/libexecutorch.so"
Entries = dict[str, bytes]


@pytest.fixture(scope="module")
def official(built: Built) -> Entries:
    """Entries of an AAR laid out as executorch-android's, with the pinned package's files."""
    entries = {
        f"jni/{abi}/libexecutorch.so": (RUNTIME / "lib" / abi / "libexecutorch.so").read_bytes()
        for abi in native.ABIS
    }
    jar = (RUNTIME / "classes" / "executorch.jar").read_bytes()
    return {"AndroidManifest.xml": b"<manifest/>", "classes.jar": jar, **entries}


def written(folder: Path, entries: Entries) -> Path:
    path = folder / "executorch.aar"
    with zipfile.ZipFile(path, "w") as aar:
        for name, content in entries.items():
            aar.writestr(name, content)
    return path


def refused(folder: Path, entries: Entries) -> str:
    with pytest.raises(SparseRecError) as caught:
        native.prepare(written(folder, entries), CACHE, folder)
    assert not (folder / "runtime").exists()
    assert "executorch.aar" in caught.value.message
    return caught.value.message


def without_class(jar: bytes, dropped: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(jar)) as old, zipfile.ZipFile(made, "w") as new:
        for name in old.namelist():
            if name != dropped:
                new.writestr(name, old.read(name))
    return made.getvalue()


def with_half_of(jar: bytes, name: str) -> bytes:
    """The jar with the first half of one class."""
    made = io.BytesIO(without_class(jar, name))
    with zipfile.ZipFile(io.BytesIO(jar)) as old, zipfile.ZipFile(made, "a") as new:
        content = old.read(name)
        new.writestr(name, content[: len(content) // 2])
    return made.getvalue()


def misaligned(library: bytes) -> bytes:
    """The library with its first loadable segment aligned to 4 KB."""
    changed = bytearray(library)
    (offset,) = struct.unpack_from("<Q", library, 32)
    size, count = struct.unpack_from("<HH", library, 54)
    for at in range(offset, offset + size * count, size):
        if struct.unpack_from("<I", library, at)[0] == 1:
            struct.pack_into("<Q", changed, at + 48, 4096)
            break
    return bytes(changed)


def test_an_official_aar_is_taken(official: Entries, tmp_path: Path) -> None:
    runtime = native.prepare(written(tmp_path, official), CACHE, tmp_path)
    assert runtime.name.startswith("executorch.aar (")
    names = [path.name for path in runtime.libraries("x86_64")]
    assert names == ["libc++_shared.so", "libexecutorch.so", "libfbjni.so"]
    assert runtime.libraries("x86_64")[1].read_bytes() == official["jni/x86_64/libexecutorch.so"]


def test_an_apk_of_an_official_aar(built: Built, official: Entries, tmp_path: Path) -> None:
    """From the AAR to the checked APK, which differs from the pinned one in what it says of it."""
    target = tmp_path / "apk"
    shutil.copytree(WORK, target / "work")
    aar = written(tmp_path, official)
    apk = recipe.build(signing.debug_signer(), list(native.ABIS), aar=aar, target=target)
    with zipfile.ZipFile(apk) as made, zipfile.ZipFile(built.apk) as pinned:
        assert made.namelist() == pinned.namelist()
        names = [name for name in made.namelist() if made.read(name) != pinned.read(name)]
        assert names == ["assets/runtime.json"]
        said = json.loads(made.read(names[0]))["runtime"]
    record = json.loads(apk.with_suffix(".json").read_text())
    assert said == record["runtime"]
    assert said.startswith("executorch.aar (")


MISTAKES: dict[str, tuple[Callable[[Entries], Entries], str]] = {
    "no classes": (lambda e: {k: v for k, v in e.items() if k != "classes.jar"}, "no classes.jar"),
    "classes damaged": (lambda e: e | {"classes.jar": b"x"}, "classes.jar: File is not a zip file"),
    "no arm64": (lambda e: {k: v for k, v in e.items() if k != ARM}, f"has no {ARM}"),
    "api class missing": (
        lambda e: (
            e
            | {
                "classes.jar": without_class(
                    e["classes.jar"], "org/pytorch/executorch/Module.class"
                )
            }
        ),
        "classes.jar lacks org/pytorch/executorch/Module.class",
    ),
    "api class damaged": (
        lambda e: (
            e
            | {"classes.jar": with_half_of(e["classes.jar"], "org/pytorch/executorch/EValue.class")}
        ),
        "classes.jar: is a damaged or cut class file",
    ),
    "other machine": (
        lambda e: e | {ARM: e["jni/x86_64/libexecutorch.so"]},
        "arm64-v8a/libexecutorch.so: is for machine 62, not 183",
    ),
    "4 KB pages": (lambda e: e | {ARM: misaligned(e[ARM])}, "is aligned to 4096 bytes"),
    "cut": (lambda e: e | {ARM: e[ARM][:1000]}, "is a damaged or cut ELF file"),
    "not a library": (lambda e: e | {ARM: b"hello"}, "is no 64-bit little-endian ELF file"),
    "operator missing": (
        lambda e: e | {ARM: e[ARM].replace(b"aten::bmm.out\0", b"aten::bmn.out\0")},
        "arm64-v8a/libexecutorch.so lacks aten::bmm.out",
    ),
    "native missing": (
        lambda e: e | {ARM: e[ARM].replace(b"executeNative\0", b"executeNothin\0")},
        "arm64-v8a/libexecutorch.so lacks executeNative",
    ),
    "links to what is not there": (
        lambda e: e | {ARM: e[ARM].replace(b"libfbjni.so\0", b"libother.so\0")},
        "needs libother.so, which is not there",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_aar_is_refused(official: Entries, tmp_path: Path, mistake: str) -> None:
    change, said = MISTAKES[mistake]
    assert said in refused(tmp_path, change(official))


def test_no_aar_at_all(built: Built, tmp_path: Path) -> None:
    path = tmp_path / "executorch.aar"
    with pytest.raises(SparseRecError, match="no such file"):
        native.prepare(path, CACHE, tmp_path)
    path.write_bytes(b"x")
    done = command_line("--runtime", str(path))
    assert done.returncode == 2
    assert "executorch.aar: is no AAR" in done.stderr
    assert "fix: take executorch-android's AAR" in done.stderr


def test_exported_programs_use_listed_operators(tmp_path: Path) -> None:
    for name, methods in {
        "step": step_methods(8, 4, 1e-3, 32),
        "score": score_methods(24, 4),
    }.items():
        path = tmp_path / name
        path.write_bytes(lower(methods))
        for plan in describe(path.read_bytes(), path).values():
            assert set(plan.operators) <= set(native.OPERATORS)


@pytest.mark.parametrize("abi", native.ABIS)
def test_elf_fields_are_pyelftools(built: Built, abi: str) -> None:
    for path in (RUNTIME / "lib" / abi).iterdir():
        own = elf.Library.parse(path.read_bytes())
        with path.open("rb") as file:
            parsed = ELFFile(file)
            (dynamic,) = [s for s in parsed.iter_sections() if isinstance(s, DynamicSection)]
            assert own.needed == [t.needed for t in dynamic.iter_tags("DT_NEEDED")]
            assert [own.soname] == [t.soname for t in dynamic.iter_tags("DT_SONAME")]
            assert own.alignment == min(s["p_align"] for s in parsed.iter_segments("PT_LOAD"))
            assert parsed["e_machine"] == {"arm64-v8a": "EM_AARCH64", "x86_64": "EM_X86_64"}[abi]
            assert own.machine == native.ABIS[abi]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shared library of a few kilobytes."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "a.c").write_text("int f(void) { return 1; }\n")
    cc = shutil.which("cc")
    if cc is None:
        pytest.skip("no C compiler")
    run(
        "cc",
        [cc, "-shared", "-nostdlib", "-Wl,-soname,liba.so", "-o", folder / "a.so", folder / "a.c"],
    )
    return folder / "a.so"


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damaged_elf_is_never_a_surprise(small: Path, data: st.DataObject) -> None:
    """Cut and changed headers: parsed, or a ValueError, and no other."""
    whole = small.read_bytes()
    content = bytearray(whole[: data.draw(st.integers(0, len(whole)), "length")])
    for _ in range(data.draw(st.integers(0, 6), "changes")):
        if content:
            at = data.draw(st.integers(0, min(len(content), 1000) - 1), "at")
            content[at] = data.draw(st.integers(0, 255), "byte")
    with contextlib.suppress(ValueError):
        parsed = elf.Library.parse(bytes(content))
        assert isinstance(parsed.machine, int)
