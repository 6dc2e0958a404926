"""The built harness: one for all tests, never made again while one of them runs it."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAUNCHER = ROOT / "android_app" / "target" / "desktop" / "bin" / "harness"


@pytest.fixture(scope="session")
def launcher() -> Path:
    """The built launcher; skips where it cannot be built, fails where the build does."""
    for tool in ("npm", "mvn", "javac", "cc"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    if sys.platform != "linux":
        pytest.skip("the desktop runtime needs Linux")
    app = ROOT / "android_app"
    _succeed([sys.executable, str(app / "runtime" / "build.py")])
    jar = LAUNCHER.parent.parent / "jars" / "harness.jar"
    sources = [app / "pom.xml", *(app / "harness").glob("*.kt")]
    # Tests may run in several processes; the runtime's build made the folder.
    with (app / "target" / "cache" / "harness.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not jar.exists() or jar.stat().st_mtime < max(path.stat().st_mtime for path in sources):
            pom = str(app / "pom.xml")
            _succeed(["mvn", "-B", "-q", "-f", pom, "package", "-Dmaven.test.skip=true"])
            jar.touch()  # Maven leaves one that comes out the same
    assert os.access(LAUNCHER, os.X_OK)
    return LAUNCHER


def _succeed(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
