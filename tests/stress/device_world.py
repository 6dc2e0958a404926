"""Where a case happens: a device's files, a bundle, an app, and the job that is done with them."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from device_bench import (
    adb,
    deploy,
    devices,
    install,
    keys,
    lock,
    report,
    retry,
    run,
    transfer,
    wire,
)
from device_bench import bundle as bundles
from device_bench.adb import Device
from device_bench.bundle import Bundle, BundleFile
from device_bench.paths import ROOT, bundle_path
from device_bench.virtual import VirtualDevice
from device_bench.virtual.server import default_harness
from device_bench.watchdog import Limits, Watchdog
from export.manifest import NAME as MANIFEST
from tests.device_bench.conftest import build_report
from tests.device_bench.virtual.apks import build_apk, certificate
from tests.stress.device_cases import Case
from tests.stress.disk_state import read_generation

ANSWER_SECONDS = 3.0
"""What the campaign allows where a phone is allowed 10 to 30 s."""
OWNER_SECONDS = 0.5
STEPS = 400
"""Of a run of the real harness: some ten statuses, as many generations."""

# Behaves as the harness does on the outside, in milliseconds: report, statuses, a generation.
STUB = """#!/bin/sh
while [ $# -gt 1 ]; do
  case "$1" in run_id) id="$2" ;; out) out="$2" ;; state) state="$2" ;; esac
  shift 2
done
write() {
  sed "s/@RUN@/$id/; s/@STATUS@/$1/" "@TEMPLATE@" > "$out/report.json.part" &&
  mv -f "$out/report.json.part" "$out/report.json"
}
say() { echo "INSTRUMENTATION_$1"; }
write started
for step in 1 2 3 4 5 6; do
  say "STATUS: phase=train"; say "STATUS: step=$step"; say "STATUS: steps=6"; say "STATUS_CODE: 2"
  echo "generation $step" > "$state/gen.part" && mv -f "$state/gen.part" "$state/gen-000000000$step"
done
write succeeded
say "RESULT: exit_status=succeeded"; say "RESULT: report=$out/report.json"; say "CODE: -1"
"""


@contextmanager
def impatient(folder: Path, silence: float = ANSWER_SECONDS) -> Iterator[None]:
    """Wait for seconds where the product waits for minutes; keep keys and state in ``folder``.

    ``silence`` is how long a run may say nothing.
    """
    changes: list[tuple[Any, str, Any]] = [
        (retry, "PAUSE_SECONDS", 0.01),
        (lock, "POLL_SECONDS", 0.02),
        (lock, "LEASE_SECONDS", 2),
        (run, "Watchdog", lambda: Watchdog(Limits(silence_seconds=silence))),
        (deploy, "ROOM_FOR_STATE", 0),
        (deploy, "PIECE_BYTES", transfer.LEAST_PIECE_BYTES),
        (install, "PIECE_BYTES", transfer.LEAST_PIECE_BYTES),
        (adb, "SHELL_SECONDS", ANSWER_SECONDS),
        (wire, "MESSAGE_SECONDS", ANSWER_SECONDS),
        (adb.Device.shell, "__defaults__", (ANSWER_SECONDS,)),
        (adb.Device.connect, "__defaults__", (ANSWER_SECONDS,)),
    ]
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in changes]
    home = {name: os.environ.get(name) for name in ("HOME", "XDG_STATE_HOME")}
    os.environ |= {"HOME": str(folder / "home"), "XDG_STATE_HOME": str(folder / "state")}
    try:
        for owner, name, value in changes:
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)
        for name, text in home.items():
            if text is None:
                del os.environ[name]
            else:
                os.environ[name] = text


class Supplies:
    """What all cases share: bundle, app, harness and key; the harness is a stand-in."""

    options = run.Options()

    def __init__(self, folder: Path) -> None:
        chance = random.Random(5)
        self.bundle = _bundle(folder / "bundle", chance)
        signer = certificate("campaign")
        self.old_apk = build_apk(signer, version_code=1, padding=50_000)
        self.apk = folder / "app.apk"
        self.apk.write_bytes(build_apk(signer, version_code=2, padding=80_000))
        template = folder / "report.json"
        sample = build_report(4) | {"run_id": "@RUN@", "exit_status": "@STATUS@"}
        template.write_text(json.dumps(sample))
        self.stub = folder / "stub"
        self.stub.write_text(STUB.replace("@TEMPLATE@", str(template)))
        self.stub.chmod(0o755)
        self.key = keys.virtual_key()

    def fault_of_generation(self, path: Path) -> str | None:
        """What is wrong with a saved state, None if nothing is."""
        whole = path.read_text() == f"generation {int(path.name[-10:])}\n"
        return None if whole else f"{path.name} is not whole"

    def fault_of_end(self, found: report.Report) -> str | None:
        """What is wrong with the report of a run that succeeded, None if nothing is."""
        return None


class RealSupplies(Supplies):
    """With the harness that is built, and a bundle as `sparserec export` writes it."""

    options = run.Options(checkpoint_every=STEPS // 10)

    def __init__(self, folder: Path) -> None:
        from export.comparison import comparison_bundle  # brings torch

        super().__init__(folder)
        self.stub = default_harness()
        path = comparison_bundle(folder / "real", 400, 0.2, 16, 64, STEPS).path
        self.bundle = bundles.load(path)
        out = folder / "undisturbed"
        command = [str(self.stub), "bundle", str(path), "state", str(out), "out", str(out)]
        subprocess.run(command, check=True, capture_output=True)
        self._state = report.read(out / "report.json")["state"]

    def fault_of_generation(self, path: Path) -> str | None:
        try:
            read_generation(path, self.bundle.path)
        except ValueError as error:
            return str(error)
        return None

    def fault_of_end(self, found: report.Report) -> str | None:
        if found["correctness"]["verdict"] == "failed":
            return "the losses are not the host's"
        return None if found["state"] == self._state else "not the table of an undisturbed run"


def _bundle(folder: Path, chance: random.Random) -> Bundle:
    """Files of all sizes that matter: none, one message, several pieces."""
    folder.mkdir()
    files = []
    sizes = {"score.pte": 0, "step.pte": 3000, "table.safetensors": 200_000, MANIFEST: 300}
    for name, size in sizes.items():
        data = chance.randbytes(size)
        (folder / name).write_bytes(data)
        files.append(BundleFile(name, hashlib.sha256(data).hexdigest(), size))
    return Bundle(folder, "toy-mf-d8-10pct-00112233", tuple(files))


class World:
    """One case's device and the folder that its report goes to."""

    def __init__(
        self, folder: Path, supplies: Supplies, case: Case, harness: Path, bundle: Bundle
    ) -> None:
        self.root = folder / "device"
        self.report = folder / "host" / "report.json"
        self.supplies = supplies
        self.case = case
        self.harness = harness
        self.bundle = bundle
        self.home = self.root / ROOT[1:]
        self.placed = self.root / bundle_path(bundle.bundle_id)[1:]
        self._prepare()

    def _prepare(self) -> None:
        """Put on the device what was there before the case."""
        self.placed.mkdir(parents=True)
        other = self.home / "bundles" / "another" / "table.safetensors"
        other.parent.mkdir()
        other.write_bytes(b"another bundle's")
        if self.case.deployed:
            for file in self.bundle.files:
                (self.placed / file.name).write_bytes((self.bundle.path / file.name).read_bytes())
        if self.case.leftovers:
            (self.placed / "table.safetensors.part").write_bytes(b"of another time")
            (self.placed / "step.pte.part.piece").write_bytes(b"of another time")
        if self.case.installs:
            app = self.root / "data/app/org.sparserec.app/base.apk"
            app.parent.mkdir(parents=True)
            app.write_bytes(self.supplies.old_apk)

    def device(self, faults: dict[str, Any]) -> VirtualDevice:
        """The device, with these faults; not started."""
        public = keys.public(self.supplies.key)
        return VirtualDevice(
            self.root, authorized_keys=[public], harness=self.harness, faults=faults
        )

    def job(self, virtual: VirtualDevice) -> None:
        """What a user does: connect, install where the case says so, deploy, run, fetch.

        Raises:
            SparseRecError: one of them is not possible.
        """
        with _connected(f"{virtual.host}:{virtual.port}", self.supplies.key, self.case) as device:
            if self.case.installs:
                install.provide(device, self.supplies.apk)
            deploy.deploy(device, self.bundle, self._filler())
            options = self.supplies.options
            found = run.run(device, self.bundle.bundle_id, self.report, options)
        assert report.read(self.report) == found

    def _filler(self) -> Callable[[str, int, int | None], None]:
        """A progress that, at the first pushed bytes, takes the space as another app would."""
        filler = self.root / "data/filler"

        def fill(text: str, done: int, _: int | None) -> None:
            if self.case.fill and text.startswith("push") and not filler.exists():
                filler.write_bytes(bytes(self.case.faults["storage"]["bytes"] - 60_000))

        return fill


@contextmanager
def _connected(address: str, key: Path, case: Case) -> Iterator[Device]:
    """By the function that the commands use; only where an owner is asked with less patience."""
    if case.phase != "auth":
        with devices.choose(address) as device:
            yield device
        return
    host, _, port = address.partition(":")
    with Device(address, adb.Socket(host, int(port)), [key], wait_for_owner=OWNER_SECONDS) as made:
        yield made
