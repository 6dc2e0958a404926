"""A small Java program on the built desktop runtime."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
RUNTIME = ROOT / "android_app" / "runtime"
Run = Callable[..., "subprocess.CompletedProcess[str]"]

# The build is a script beside its modules, not a package.
sys.path.insert(0, str(RUNTIME))


@pytest.fixture(scope="session")
def classes(desktop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the compiled ``Probe.java``."""
    folder = tmp_path_factory.mktemp("classes")
    source = Path(__file__).with_name("Probe.java")
    options = ["-Xlint:all", "-Werror", "-classpath", f"{desktop}/jars/*", "-d", str(folder)]
    subprocess.run(["javac", *options, str(source)], check=True)
    return folder


@pytest.fixture(scope="session")
def probe(desktop: Path, classes: Path) -> Run:
    """Run ``Probe.java``; a process each time, so a crash fails one test only."""

    def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(desktop / "bin" / "java-with-executorch"), "Probe", *map(str, arguments)],
            env={**os.environ, "HARNESS_CLASSPATH": str(classes), **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run
