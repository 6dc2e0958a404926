"""The built APK, and a small dex file to check."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
APK = ROOT / "android_app" / "apk"

# The build is a script beside its modules, not a package.
sys.path.insert(0, str(APK))

import androidapi  # noqa: E402
import dexfile  # noqa: E402
import pins  # noqa: E402
import recipe  # noqa: E402
from stages import DEBIAN, java, run, tool  # noqa: E402

CACHE = recipe.CACHE
WORK = recipe.TARGET / "work"


@dataclass(frozen=True)
class Built:
    """An APK and the record that the build left beside it."""

    apk: Path
    record: dict[str, Any]


def command_line(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(APK / "build.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def build(*arguments: str) -> None:
    """Run the build as a user does; skips where it lacks a tool or an input."""
    absent = [name for name in DEBIAN if shutil.which(name) is None]
    if absent:
        pytest.skip(f"not installed: {', '.join(absent)}")
    done = command_line(*arguments)
    if "could not fetch" in done.stderr:
        pytest.skip(f"the build's inputs cannot be had: {done.stderr.splitlines()[0]}")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def built() -> Built:
    """The universal APK of this project, in ``android_app/target/apk``."""
    build()
    apk = recipe.TARGET / "sparserec-universal.apk"
    return Built(apk, json.loads(apk.with_suffix(".json").read_text()))


@pytest.fixture(scope="session")
def versions(built: Built) -> androidapi.Versions:
    return androidapi.load(CACHE, WORK)


@pytest.fixture
def dexed(built: Built, tmp_path: Path) -> Callable[..., dexfile.Dex]:
    """Compile Java sources, by class name, and dex them as the build does; Android is in reach."""

    def make(**sources: str) -> dexfile.Dex:
        android, dx = pins.get(CACHE, pins.ANDROID_34, pins.DX)
        for name, text in sources.items():
            (tmp_path / f"{name}.java").write_text(text)
        classes, made = tmp_path / "classes", tmp_path / "classes.dex"
        options = ["-source", "8", "-target", "8", "-nowarn", "-Xlint:-options", "-cp", android]
        files = [tmp_path / f"{name}.java" for name in sources]
        run("javac", [tool("javac"), *options, "-d", classes, *files])
        arguments = ["--dex", "--min-sdk-version=26", f"--output={made}", classes]
        run("dx", java([dx], "com.android.dx.command.Main", *arguments))
        return dexfile.read(made)

    return make
