"""The built desktop runtime and harness: one for all tests, never made again while one runs it."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
APP = ROOT / "android_app"
DESKTOP = APP / "target" / "desktop"


@pytest.fixture(scope="session")
def desktop() -> Path:
    """The built runtime; skips where a tool is missing or the host cannot run it."""
    for tool in ("npm", "mvn", "javac", "cc"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    if sys.platform != "linux":
        pytest.skip("the desktop runtime needs Linux")
    _succeed([sys.executable, str(APP / "runtime" / "build.py")])
    return DESKTOP


@pytest.fixture(scope="session")
def launcher(desktop: Path) -> Path:
    """The built harness' launcher; fails where the build does."""
    jar = desktop / "jars" / "harness.jar"
    sources = [APP / "pom.xml", *(APP / "harness").glob("*.kt")]
    # Tests may run in several processes; the runtime's build made the folder.
    with (APP / "target" / "cache" / "harness.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not jar.exists() or jar.stat().st_mtime < max(path.stat().st_mtime for path in sources):
            pom = str(APP / "pom.xml")
            _succeed(["mvn", "-B", "-q", "-f", pom, "package", "-Dmaven.test.skip=true"])
            jar.touch()  # Maven leaves one that comes out the same
    found = desktop / "bin" / "harness"
    assert os.access(found, os.X_OK)
    return found


def _succeed(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
