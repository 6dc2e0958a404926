"""Putting a bundle on a device (docs/formats.md section 9)."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from device_bench import lock
from device_bench.adb import Device, Facts, allowance
from device_bench.bundle import Bundle, BundleFile
from device_bench.compat import incompatibility
from device_bench.device_errors import DeviceError
from device_bench.paths import PACKAGE, ROOT, bundle_path
from device_bench.retry import persist
from device_bench.transfer import LEAST_PIECE_BYTES, PIECE_BYTES, Transfer, send
from sparserec.progress import Progress, silent

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


def deploy(
    device: Device,
    bundle: Bundle,
    progress: Progress = silent,
    alive: Callable[[], None] = lambda: None,
) -> Deployed:
    """Make the device hold the bundle; files that are there already are not sent again.

    A file has its final name only once its SHA-256 was found right on the device, and the manifest
    is the last to be there, so a deployment that breaks off leaves no bundle that looks whole. A
    lost connection is made anew and the transfer goes on where it was; of several processes that
    deploy this bundle, one does it and the others wait.

    Args:
        device: connected.
        bundle: what it is to hold.
        progress: told of the bytes; in the middle of a message, so it may not use the device.
        alive: called between two messages, at least after each piece that has landed, to refresh
            another lock of the caller's.

    Raises:
        DeviceError: the device cannot run the harness, has no room, is gone for good, or a file
            arrives damaged.
        SparseRecError: the bundle's id is no plain name.
    """
    progress("compare with the device", 0, 1)
    facts = persist(device, lambda _: check(device))
    folder = bundle_path(bundle.bundle_id)
    what = f"deploying {bundle.bundle_id}"
    name = f"bundle-{bundle.bundle_id}"

    def say(text: str) -> None:
        progress(text, 0, None)

    with lock.hold(device, name, what, wait=True, say=say, alive=alive) as held:
        return push(device, bundle, folder, facts, held, progress, alive=alive)


def push(
    device: Device,
    source: Bundle,
    folder: str,
    facts: Facts,
    held: lock.Held,
    progress: Progress = silent,
    room: int = 0,
    alive: Callable[[], None] = lambda: None,
) -> Deployed:
    """Make the folder ``folder`` of the device hold the files of ``source``, the last one last.

    Args:
        device: connected; a lost connection is made anew.
        source: a bundle, or something else with files and hashes.
        folder: absolute path on the device.
        facts: of the device.
        held: the lock under which this happens.
        progress: told of the bytes.
        room: bytes that must be free besides.
        alive: called after each piece that has landed.

    Raises:
        DeviceError: the device has no room, is gone for good, or a file arrives damaged.
    """
    work = _Deployment(device, source, folder, facts, progress, held, room, alive)
    persist(device, work.bring, lambda: sum(work.landed.values()))
    return work.result()


@dataclass
class _Deployment:
    """One deployment; ``bring`` may be repeated after a lost connection."""

    device: Device
    bundle: Bundle
    folder: str
    facts: Facts
    progress: Progress
    held: lock.Held
    room: int
    alive: Callable[[], None]
    started: float = field(default_factory=time.monotonic)
    landed: dict[str, int] = field(default_factory=dict)
    sent: dict[str, int] = field(default_factory=dict)

    def bring(self, failures: int) -> None:
        """Make the device hold the files, in smaller pieces the more often that failed."""
        folder = self.folder
        _shell(self.device, f"mkdir -p {shlex.quote(folder)}", "cannot make the bundle's folder")
        missing = self._missing(folder)
        self.progress("compare with the device", 1, 1)
        total = sum(file.size for file in missing)
        _check_room(self.device, self.facts, total + self.room)
        piece = max(LEAST_PIECE_BYTES, PIECE_BYTES >> 2 * failures)
        done = 0
        for file in missing:
            transfer = Transfer(
                source=self.bundle.path / file.name,
                target=f"{folder}/{file.name}",
                sha256=file.sha256,
                size=file.size,
                sent=self._shown(file, done, total),
                landed=self._landed(file),
            )
            send(self.device, transfer, piece)
            self.sent[file.name] = file.size
            done += file.size

    def _missing(self, folder: str) -> list[BundleFile]:
        """The files that are not there, the manifest last; its old one is taken away first."""
        files = self.bundle.files
        paths = [f"{folder}/{file.name}" for file in files]
        there = hashes(self.device, paths, sum(file.size for file in files))
        missing = [file for file in files if there.get(f"{folder}/{file.name}") != file.sha256]
        manifest = files[-1]
        if missing:
            if manifest not in missing:
                missing.append(manifest)
            path = shlex.quote(f"{folder}/{manifest.name}")
            _shell(self.device, f"rm -f {path}", "cannot replace the bundle that is there")
        return missing

    def _shown(self, file: BundleFile, before: int, total: int) -> Callable[[int], None]:
        """Report one file's bytes as a part of the whole, in kB, with the rate so far."""

        def report(sent: int) -> None:
            done = before + sent
            rate = done / 1e6 / max(time.monotonic() - self.started, 1e-6)
            text = f"push: {file.name}, kB at {rate:.1f} MB/s"
            self.progress(text, done // 1000, total // 1000)

        return report

    def _landed(self, file: BundleFile) -> Callable[[int], None]:
        """Count what is on the device for good, so that a slow way is told from a dead one."""

        def note(have: int) -> None:
            self.held.refresh()
            self.alive()
            self.landed[file.name] = max(have, self.landed.get(file.name, 0))

        return note

    def result(self) -> Deployed:
        """What was done."""
        seconds = time.monotonic() - self.started
        return Deployed(self.facts, tuple(self.sent), sum(self.sent.values()), seconds)


def check(device: Device) -> Facts:
    """Find out whether the device can run the harness.

    Raises:
        DeviceError: the app is not installed, or ABI or Android version do not fit.
    """
    facts = device.facts()
    problem = incompatibility(device.name, facts)
    if problem is not None:
        raise problem
    if device.shell(f"pm path {PACKAGE}").exit_code != 0:
        if facts.kind == "virtual-device":
            raise DeviceError(
                f"{device.name}: the virtual device's harness is not built on this machine",
                "run `make setup`",
            )
        raise DeviceError(
            f"{device.name}: the app {PACKAGE} is not installed",
            "run `sparserec deploy BUNDLE --build-app`, or --apk FILE with one that you have; "
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


def hashes(device: Device, paths: list[str], size: int) -> dict[str, str]:
    """The SHA-256 of those of ``paths``, of ``size`` bytes in all, that are on the device."""
    quoted = " ".join(shlex.quote(path) for path in paths)
    output = device.shell(f"sha256sum {quoted} 2>/dev/null", allowance(size)).output
    return {path: digest for digest, path in _HASH_LINE.findall(output)}


def _shell(device: Device, command: str, fault: str) -> None:
    result = device.shell(command)
    if result.exit_code != 0:
        raise DeviceError(
            f"{device.name}: {fault}: {result.output.strip()}",
            "check that the device is unlocked and its storage can be written",
        )
