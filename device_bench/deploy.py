"""Putting a bundle on a device (docs/formats.md section 9)."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass

from device_bench.adb import Device, Facts, allowance
from device_bench.bundle import Bundle, BundleFile
from device_bench.device_errors import DeviceError
from sparserec.progress import Progress, silent

PACKAGE = "org.sparserec.app"
ROOT = f"/sdcard/Android/media/{PACKAGE}"
ABIS = ("arm64-v8a", "x86_64")
MIN_SDK = 26
ROOM_FOR_STATE = 64 << 20
"""Free bytes to leave for checkpoints and reports."""

_HASH_LINE = re.compile(r"^([0-9a-f]{64}) [ *](.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Deployed:
    """What a deployment did."""

    facts: Facts
    pushed: tuple[str, ...]
    """Names of the files that were sent; the others were there already."""
    bytes: int
    seconds: float


def bundle_path(bundle_id: str) -> str:
    """Where a bundle lies on a device."""
    return f"{ROOT}/bundles/{bundle_id}"


def deploy(device: Device, bundle: Bundle, progress: Progress = silent) -> Deployed:
    """Make the device hold the bundle; files that are there already are not sent again.

    A file has its final name only once its SHA-256 was found right on the device, and the manifest
    is the last to be there, so a deployment that breaks off leaves no bundle that looks whole.

    Raises:
        DeviceError: the device cannot run the harness, has no room, or a file arrives damaged.
    """
    progress("compare with the device", 0, 1)
    facts = check(device)
    folder = bundle_path(bundle.bundle_id)
    _shell(device, f"mkdir -p {shlex.quote(folder)}", "cannot make the bundle's folder")
    there = _hashes(device, [f"{folder}/{file.name}" for file in bundle.files], bundle)
    missing = [file for file in bundle.files if there.get(f"{folder}/{file.name}") != file.sha256]
    progress("compare with the device", 1, 1)
    manifest = bundle.files[-1]
    if missing:
        if manifest not in missing:
            missing.append(manifest)
        path = shlex.quote(f"{folder}/{manifest.name}")
        _shell(device, f"rm -f {path}", "cannot replace the bundle that is there")
    total = sum(file.size for file in missing)
    _check_room(device, facts, total)
    started = time.monotonic()
    done = 0
    for file in missing:
        _push(device, bundle, file, folder, _sent(progress, file.name, done, total, started))
        done += file.size
    return Deployed(facts, tuple(file.name for file in missing), done, time.monotonic() - started)


def check(device: Device) -> Facts:
    """Find out whether the device can run the harness.

    Raises:
        DeviceError: the app is not installed, or ABI or Android version do not fit.
    """
    facts = device.facts()
    if facts.abis and not set(facts.abis) & set(ABIS):
        raise DeviceError(
            f"{device.name}: its ABI is {', '.join(facts.abis)}; the app needs {' or '.join(ABIS)}",
            "use a 64-bit device, or the virtual device: --device virtual",
        )
    if facts.sdk is not None and facts.sdk < MIN_SDK:
        raise DeviceError(
            f"{device.name}: Android {facts.release} (SDK {facts.sdk}) is too old",
            f"use a device with SDK {MIN_SDK} (Android 8) or newer, or --device virtual",
        )
    if device.shell(f"pm path {PACKAGE}").exit_code != 0:
        if facts.kind == "virtual-device":
            raise DeviceError(
                f"{device.name}: the virtual device's harness is not built on this machine",
                "run `make setup`",
            )
        raise DeviceError(
            f"{device.name}: the app {PACKAGE} is not installed",
            "run `make apk` and adb install android_app/target/apk/sparserec-universal.apk, "
            "or use --device virtual",
        )
    return facts


def _check_room(device: Device, facts: Facts, size: int) -> None:
    needed = size + ROOM_FOR_STATE
    if facts.free_bytes is not None and facts.free_bytes < needed:
        raise DeviceError(
            f"{device.name}: {facts.free_bytes >> 20} MiB free, {(needed >> 20) + 1} MiB needed",
            f"free space on the device; bundles that are no longer used are in {ROOT}/bundles",
        )


def _hashes(device: Device, paths: list[str], bundle: Bundle) -> dict[str, str]:
    """The SHA-256 of those of ``paths`` that are on the device."""
    quoted = " ".join(shlex.quote(path) for path in paths)
    size = sum(file.size for file in bundle.files)
    output = device.shell(f"sha256sum {quoted} 2>/dev/null", allowance(size)).output
    return {path: digest for digest, path in _HASH_LINE.findall(output)}


def _push(
    device: Device, bundle: Bundle, file: BundleFile, folder: str, progress: Callable[[int], None]
) -> None:
    """Send one file, check it on the device and give it its name."""
    target = f"{folder}/{file.name}"
    part = f"{target}.part"
    device.push(bundle.path / file.name, part, progress)
    quoted = shlex.quote(part)
    arrived = device.shell(f"sha256sum {quoted}", allowance(file.size)).output
    found = _HASH_LINE.search(arrived)
    if found is None or found[1] != file.sha256:
        device.shell(f"rm -f {quoted}")
        raise DeviceError(
            f"{device.name}: {file.name} arrived damaged: SHA-256 is "
            f"{found[1] if found else arrived.strip() or 'unknown'}, should be {file.sha256}",
            "run the command again; if it stays, try another cable or port",
        )
    _shell(device, f"mv -f {quoted} {shlex.quote(target)}", f"cannot rename {file.name}.part")


def _shell(device: Device, command: str, fault: str) -> None:
    result = device.shell(command)
    if result.exit_code != 0:
        raise DeviceError(
            f"{device.name}: {fault}: {result.output.strip()}",
            "check that the device is unlocked and its storage can be written",
        )


def _sent(
    progress: Progress, name: str, before: int, total: int, started: float
) -> Callable[[int], None]:
    """Report one file's bytes as a part of the whole, in kB, with the rate so far."""

    def report(sent: int) -> None:
        done = before + sent
        rate = done / 1e6 / max(time.monotonic() - started, 1e-6)
        progress(f"push: {name}, kB at {rate:.1f} MB/s", done // 1000, total // 1000)

    return report
