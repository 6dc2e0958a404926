"""The build: what it refuses, in which words, and when it has nothing to do."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import inputs
import pytest

from sparserec.errors import SparseRecError

from .conftest import RUNTIME


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """build.py, with its output under ``tmp_path``."""
    spec = importlib.util.spec_from_file_location("desktop_build", RUNTIME / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("TARGET", "DESKTOP", "CACHE"):
        moved = tmp_path / getattr(module, name).relative_to(RUNTIME.parent)
        monkeypatch.setattr(module, name, moved)
    return module


@pytest.mark.parametrize(("system", "machine"), [("Darwin", "arm64"), ("Linux", "aarch64")])
def test_other_hosts_are_sent_to_the_emulator(
    build: ModuleType, monkeypatch: pytest.MonkeyPatch, system: str, machine: str
) -> None:
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    with pytest.raises(SparseRecError, match=f"{system} {machine}") as error:
        build.require_host()
    assert "emulator" in error.value.fix


def test_musl_is_refused(build: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def confstr(name: str) -> str:
        raise ValueError("unrecognized configuration name")  # what Python says on musl

    monkeypatch.setattr(os, "confstr", confstr)
    with pytest.raises(SparseRecError, match="glibc"):
        build.require_host()


@pytest.mark.parametrize(("tool", "package"), [("cc", "gcc"), ("javac", "openjdk-17")])
def test_a_missing_build_tool_is_named(
    build: ModuleType, monkeypatch: pytest.MonkeyPatch, tool: str, package: str
) -> None:
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda c, **k: None if c == tool else which(c, **k))
    with pytest.raises(SparseRecError, match=f"{tool} is not installed") as error:
        build.build("x86_64", build.DESKTOP)
    assert package in error.value.fix


@pytest.mark.parametrize("version", ["11.0.2", "1.8.0_292"])
def test_an_old_jdk_is_refused(
    build: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "javac").write_text("#!/bin/sh\n")
    (tmp_path / "bin" / "javac").chmod(0o755)
    (tmp_path / "release").write_text(f'JAVA_VERSION="{version}"\n')
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(SparseRecError, match="no JDK 17"):
        build.require_jdk()


@pytest.mark.parametrize("archive", inputs.ARCHIVES, ids=lambda archive: archive.file)
def test_a_missing_client_is_named(
    archive: inputs.Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SparseRecError, match=f"{archive.client} is not installed") as error:
        inputs.fetch(archive, tmp_path / "cache")
    assert "apt-get install" in error.value.fix


def fake_npm(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    npm = folder / "npm"
    npm.write_text(f"#!/bin/sh\n{script}\n")
    npm.chmod(npm.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_a_failing_client_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_npm(
        tmp_path, "echo 'npm warn config' >&2; echo 'npm error network' >&2; exit 1", monkeypatch
    )
    with pytest.raises(SparseRecError, match=r"npm could not fetch .*: npm error network"):
        inputs.fetch(inputs.EXECUTORCH, tmp_path / "cache")


def test_another_file_than_the_pinned_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_npm(tmp_path, f"echo other > {inputs.EXECUTORCH.file}", monkeypatch)
    with pytest.raises(SparseRecError, match="sha512 is "):
        inputs.fetch(inputs.EXECUTORCH, tmp_path / "cache")
    assert not (tmp_path / "cache" / inputs.EXECUTORCH.file).exists()


def test_what_is_built_is_not_built_again(desktop: Path) -> None:
    def written() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in sorted(desktop.rglob("*"))}

    before = written()
    result = subprocess.run(
        [sys.executable, str(RUNTIME / "build.py")], capture_output=True, text=True, check=True
    )
    assert written() == before
    assert result.stdout == f"desktop runtime: {desktop}\n"


def test_check_names_what_is_wrong(
    build: ModuleType, desktop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build.main(["--check"]) == 2
    assert "is not built" in capsys.readouterr().err
    shutil.copytree(desktop, build.DESKTOP, symlinks=True)
    assert build.main(["--check"]) == 0
    library = build.DESKTOP / "lib" / "android" / "libfbjni.so"
    library.write_bytes(library.read_bytes() + b"\0")
    assert build.main(["--check"]) == 2
    assert "libfbjni.so was changed" in capsys.readouterr().err
    library.unlink()
    assert build.main(["--check"]) == 2
    assert "libfbjni.so is missing" in capsys.readouterr().err


def test_a_second_build_is_byte_for_byte_the_same(build: ModuleType, desktop: Path) -> None:
    shutil.copytree(desktop.parent / "cache", build.CACHE)
    assert build.main([]) == 0
    built = {path.relative_to(build.DESKTOP) for path in build.DESKTOP.rglob("*") if path.is_file()}
    for path in built - {Path("runtime.json")}:
        assert (build.DESKTOP / path).read_bytes() == (desktop / path).read_bytes(), path
