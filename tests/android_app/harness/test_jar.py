"""What the built jar may contain, because the same classes go into the app."""

from __future__ import annotations

import re
import subprocess
import zipfile
from pathlib import Path

import pytest

from tests.android_app.harness.conftest import ROOT

JAVA_8 = 52


@pytest.fixture(scope="module")
def classes(launcher: Path) -> dict[str, bytes]:
    """Class files by name."""
    with zipfile.ZipFile(launcher.parent.parent / "jars" / "harness.jar") as jar:
        return {name: jar.read(name) for name in jar.namelist() if name.endswith(".class")}


def test_bytecode_is_that_of_java_8(classes: dict[str, bytes]) -> None:
    assert len(classes) > 30
    assert {int.from_bytes(data[6:8]) for data in classes.values()} == {JAVA_8}


def test_no_class_of_android_and_three_files_of_executorch(classes: dict[str, bytes]) -> None:
    of_android = re.compile(rb"(?<![/\w])L?androidx?/\w")
    assert of_android.search(b"\0\x13android/os/Bundle")
    assert not [name for name, data in classes.items() if of_android.search(data)]
    users = [data for data in classes.values() if b"org/pytorch/executorch" in data]
    ours = {path.name.encode() for path in (ROOT / "android_app" / "harness").glob("*.kt")}
    files = {found for data in users for found in re.findall(rb"\w+\.kt", data)} & ours
    assert files == {b"ExecuTorch.kt", b"ProgramMethod.kt", b"WorkloadPrograms.kt"}


def test_no_dynamic_calls(launcher: Path, classes: dict[str, bytes]) -> None:
    jar = launcher.parent.parent / "jars" / "harness.jar"
    names = [name.removesuffix(".class").replace("/", ".") for name in classes]
    code = subprocess.run(
        ["javap", "-c", "-p", "-classpath", str(jar), *names],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "invokevirtual" in code
    assert "invokedynamic" not in code
