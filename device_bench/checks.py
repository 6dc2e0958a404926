"""What ``sparserec doctor`` looks at; each check says what it found and how to put it right."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from packaging.requirements import Requirement

from device_bench import adb_server, apk, keys, units
from device_bench.devices import Listed, survey
from device_bench.virtual.auth import parse_public_key
from device_bench.virtual.server import default_harness
from sparserec.errors import SparseRecError

OK, WARNING, PROBLEM = "ok", "warning", "problem"
DISTRIBUTION = "sparserec-on-device"
PYTHON = (3, 11)
JDK = 17
LEAST_FREE, GOOD_FREE = 256 << 20, 2 << 30
TESTED_RUNTIMES = {"react-native-executorch 0.9.3": "1.5"}
"""The Android library, and the series of the executorch package whose programs it was tested on."""
UDEV = tuple(Path(path) for path in ("/etc/udev/rules.d", "/run/udev/rules.d", "/lib/udev/rules.d"))
_TO_BUILD = {"mvn": "maven", "npm": "npm", "cc": "gcc libc6-dev"}
_FOR_APK = {"mvn": "maven", "npm": "npm", "aapt2": "aapt", "apksigner": "apksigner"} | {
    "dexdump": "dexdump"
}


@dataclass(frozen=True)
class Check:
    """What one check found; ``state`` is ``ok``, ``warning`` or ``problem``."""

    name: str
    state: str
    found: str
    fix: str = ""


def everything() -> list[Check]:
    """Run all checks; a few seconds, of which most are spent on devices that do not answer."""
    plain = (python, packages, java, desktop_runtime, executorch, apk_tools, adb, udev, key, disk)
    return [*(check() for check in plain), *devices()]


def python() -> Check:
    """The interpreter's version."""
    found = platform.python_version()
    if sys.version_info < PYTHON:
        return Check("Python", PROBLEM, found, "install Python 3.11 or newer")
    return Check("Python", OK, found)


def packages(distribution: str = DISTRIBUTION) -> Check:
    """Installed packages against the bounds that the project declares."""
    name, fix = "packages", "run `make setup`"
    try:
        required = [Requirement(text) for text in importlib.metadata.requires(distribution) or ()]
    except importlib.metadata.PackageNotFoundError:
        return Check(name, PROBLEM, f"{distribution} itself is not installed", fix)
    needed = [item for item in required if item.marker is None or item.marker.evaluate()]
    wrong = [text for item in needed if (text := _mismatch(item))]
    if wrong:
        return Check(name, PROBLEM, "; ".join(wrong), fix)
    return Check(name, OK, f"{len(needed)} within their tested bounds")


def _mismatch(requirement: Requirement) -> str:
    try:
        found = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return f"{requirement.name} is missing"
    if requirement.specifier.contains(found, prereleases=True):
        return ""
    return f"{requirement.name} is {found}, tested with {requirement.specifier}"


def java() -> Check:
    """The JVM, which a virtual device runs the harness on."""
    fix = "install a JDK 17 (Debian: apt install openjdk-17-jdk-headless), or set JAVA_HOME"
    home = os.environ.get("JAVA_HOME")
    path = shutil.which("java", path=str(Path(home) / "bin") if home else None)
    if path is None:
        return Check("JDK", PROBLEM, "java is not installed", fix)
    said = _output([path, "-version"])
    match = re.search(r'version "((\d+)[^"]*)"', said)
    if match is None or int(match[2]) < JDK:
        return Check("JDK", PROBLEM, f"{path} is {match[1] if match else 'of no version'}", fix)
    if shutil.which("javac", path=str(Path(path).parent)) is None:
        return Check("JDK", WARNING, f"{path} is a JRE without javac, so nothing is built", fix)
    return Check("JDK", OK, f"{match[1]}, {path}")


def desktop_runtime() -> Check:
    """Android's ExecuTorch and the harness, built for this computer."""
    name = "desktop runtime"
    if os.access(default_harness(), os.X_OK):
        return Check(name, OK, str(default_harness()))
    missing = _missing(_TO_BUILD)
    return Check(
        name,
        PROBLEM,
        f"{default_harness()} is not built, so there is no virtual device",
        (f"apt install {' '.join(missing)}, then " if missing else "") + "run `make setup`",
    )


def executorch() -> Check:
    """The version that exports programs against the libraries that run them."""
    name = "ExecuTorch"
    try:
        ours = importlib.metadata.version("executorch")
    except importlib.metadata.PackageNotFoundError:
        return Check(name, PROBLEM, "the Python package is missing", "run `make setup`")
    records = [default_harness().parents[1] / "runtime.json", *sorted(apk.OUTPUT.glob("*.json"))]
    runtimes = {path.name: runtime for path in records if (runtime := _runtime(path))}
    found = f"Python {ours}"
    for file, runtime in runtimes.items():
        series = TESTED_RUNTIMES.get(runtime)
        if series is None or not ours.startswith(f"{series}."):
            return Check(
                name,
                WARNING,
                f"{found}, {file}: {runtime}: not tested together",
                f"use executorch {', '.join(TESTED_RUNTIMES.values())} with "
                f"{', '.join(TESTED_RUNTIMES)}, or check the losses of each run's report",
            )
    return Check(name, OK, ", ".join([found, *sorted(set(runtimes.values()))]))


def _runtime(record: Path) -> str | None:
    """The name and version of the Android library that a build's record tells."""
    try:
        found = json.loads(record.read_text())["runtime"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, str) else None


def apk_tools() -> Check:
    """What building the Android app takes; only those who have a phone need it."""
    name = "app for phones"
    built = [path.name for path in sorted(apk.OUTPUT.glob("sparserec-*.apk"))]
    missing = _missing(_FOR_APK)
    found = f"built: {', '.join(built)}" if built else "not built"
    if missing and not built:
        return Check(name, WARNING, f"{found}, and tools are missing", _apt(missing))
    if missing:
        return Check(name, OK, f"{found}; to build it again: {_apt(missing)}")
    return Check(name, OK, found if built else f"{found}; `sparserec apk` can build it")


def adb() -> Check:
    """Stock adb, which is not needed, and its server, which holds USB devices where it runs."""
    served = adb_server.version()
    path = shutil.which("adb")
    client = re.search(r"version 1\.0\.(\d+)", _output([path, "version"])) if path else None
    server = f"a server of version 1.0.{served} runs" if served else "no server runs"
    if path is None:
        return Check("adb", OK, f"stock adb is not installed, nor needed; {server}")
    if served and client and int(client[1]) != served:
        return Check(
            "adb",
            WARNING,
            f"{path} is 1.0.{client[1]}, but {server}: each adb ends the other's server",
            "keep one adb, and run `adb kill-server` once",
        )
    return Check("adb", OK, f"{path} {client[0] if client else 'of no known version'}; {server}")


def udev() -> Check:
    """The rules that let a user open phones on USB."""
    name = "USB rules"
    if sys.platform != "linux":
        return Check(name, OK, f"not needed on {sys.platform}")
    rules = [path for folder in UDEV for path in sorted(folder.glob("*android*.rules"))]
    if rules:
        return Check(name, OK, str(rules[0]))
    return Check(
        name,
        WARNING,
        "no udev rules for Android phones",
        "apt install android-sdk-platform-tools-common, replug the phone (needed for USB only)",
    )


def key() -> Check:
    """The user's adb key: readable by nobody else, and its halves fit."""
    name, path = "adb key", keys.user_key_path()
    if not path.exists():
        return Check(name, OK, f"{path} will be made when a phone is first used")
    try:
        private = load_pem_private_key(path.read_bytes(), None)
        mode = stat.S_IMODE(path.stat().st_mode)
        line = keys.public(path).read_bytes() if keys.public(path).exists() else None
        if not isinstance(private, RSAPrivateKey):
            raise ValueError("not an RSA key")
        fits = line is None or _same(private, line)
    except (OSError, ValueError, TypeError) as error:
        fix = "move it away to have a new one made; phones then ask their owners again"
        return Check(name, PROBLEM, f"{path}: {error}", fix)
    if not fits:
        fix = f"rm {keys.public(path)}; it is made again"
        return Check(name, PROBLEM, f"{keys.public(path)} is another key's", fix)
    if mode & 0o077:
        return Check(name, WARNING, f"{path} has mode {mode:04o}", f"chmod 600 {path}")
    return Check(name, OK, str(path))


def _same(private: RSAPrivateKey, line: bytes) -> bool:
    return parse_public_key(line).public_numbers() == private.public_key().public_numbers()


def disk() -> Check:
    """Free space where files go."""
    try:
        folders = {Path.cwd(), keys.state_dir(), Path(tempfile.gettempdir())}
        free, folder = min((shutil.disk_usage(folder).free, folder) for folder in folders)
    except SparseRecError as error:
        return Check("disk", PROBLEM, error.message, error.fix)
    except OSError as error:
        found = f"this folder or the one for temporary files cannot be used: {error.strerror}"
        return Check("disk", PROBLEM, found, "go to a folder that is there, and look at TMPDIR")
    found = f"{units.size(free)} free in {folder}"
    if free >= GOOD_FREE:
        return Check("disk", OK, found)
    return Check("disk", PROBLEM if free < LEAST_FREE else WARNING, found, "free some space")


def devices() -> list[Check]:
    """USB as such, and each device that can be seen."""
    try:
        found, usb = survey([])
    except SparseRecError as error:
        return [Check("devices", PROBLEM, error.message, error.fix)]
    name = "USB"
    if usb is not None:
        first = Check(name, WARNING, usb.message, usb.fix)
    else:
        count = sum(device.transport == "USB" for device in found)
        first = Check(name, OK, f"libusb works; phones on it: {count}")
    if not found:
        hint = "none connected; a virtual device is started when one is needed"
        return [first, Check("devices", OK, hint)]
    return [first, *map(device_check, found)]


def device_check(device: Listed) -> Check:
    """Whether a device can be used."""
    name = f"device {device.name}"
    if device.problem is not None:
        return Check(name, PROBLEM, device.problem.message, device.problem.fix)
    facts = device.facts
    assert facts is not None  # it has no problem
    known = [facts.model, *facts.abis, f"SDK {facts.sdk}" if facts.sdk else ""]
    if facts.free_bytes is not None and facts.free_bytes < LEAST_FREE:
        return Check(name, WARNING, f"{units.size(facts.free_bytes)} free", "free some space on it")
    return Check(name, OK, f"{', '.join(filter(None, known))}, by {device.transport}")


def _missing(tools: dict[str, str]) -> list[str]:
    """The Debian packages of the tools that are not there."""
    return [package for name, package in tools.items() if shutil.which(name) is None]


def _apt(names: Iterable[str]) -> str:
    return f"apt install {' '.join(names)}"


def _output(command: list[str]) -> str:
    """What a program prints, empty where it does not run or takes too long."""
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return run.stdout + run.stderr
