"""Bringing a delta to a device, and going back (docs/formats.md sections 7.1 and 9.1)."""

from __future__ import annotations

import hashlib
import shlex
from dataclasses import dataclass
from pathlib import Path

from device_bench import deploy, lock
from device_bench.adb import Device
from device_bench.bundle import Bundle, BundleFile
from device_bench.compat import require_runnable
from device_bench.deploy import Deployed
from device_bench.device_errors import DeviceError
from device_bench.instrumentation import Outcome
from device_bench.paths import ROOT, bundle_path, delta_path
from device_bench.retry import persist
from device_bench.run import instrument
from device_bench.watchdog import TimedOutError, Watchdog
from export import delta as deltas
from export import manifest
from export.delta import Delta
from sparserec.progress import Progress, silent

BUNDLES = f"{ROOT}/bundles"
WHOLE = (
    "deploy that bundle first, or the new one whole: `sparserec apply BASE DELTA OUT`, then "
    "`sparserec deploy OUT`"
)


@dataclass(frozen=True)
class LoadedDelta:
    """A delta whose files all have their hashes, and whose result the app's library can run."""

    described: Delta
    files: Bundle
    """To be pushed, ``delta.json`` last."""
    result_bytes: int
    """Of the whole new bundle."""


def load(folder: Path) -> LoadedDelta:
    """Check a delta.

    Raises:
        SparseRecError: damaged, naming file and field, or the app's library cannot run its result.
    """
    found = deltas.verify_delta(folder)
    result = manifest.read(folder / deltas.RESULT)
    require_runnable(folder, result)
    files = [BundleFile(name, info.sha256, info.bytes) for name, info in found.files.items()]
    data = (folder / deltas.NAME).read_bytes()
    last = BundleFile(deltas.NAME, hashlib.sha256(data).hexdigest(), len(data))
    size = sum(info.bytes for info in result.files.values())
    return LoadedDelta(found, Bundle(folder, found.result.bundle_id, (*files, last)), size)


def apply(device: Device, delta: LoadedDelta, progress: Progress = silent) -> Deployed:
    """Make the device hold the delta's result beside its base, and use it.

    Raises:
        DeviceError: the device does not hold the base, cannot take the delta, or something else
            uses it. What it used before, it uses still.
    """
    described = delta.described
    facts = persist(device, lambda _: deploy.check(device))
    folder = delta_path(described.result.bundle_id)
    with lock.harness(device, f"applying a delta to {described.base.bundle_id}") as held:
        persist(device, lambda _: _require_base(device, described))
        done = deploy.push(
            device, delta.files, folder, facts, held, progress, room=delta.result_bytes
        )
        _ask(device, [("bundles", BUNDLES), ("apply", folder)], progress)
        persist(device, lambda _: device.shell(f"rm -rf {shlex.quote(folder)}"))
    return done


def rollback(device: Device, progress: Progress = silent) -> str:
    """Let the device use the bundle again that the last delta was applied to; returns its id.

    Raises:
        DeviceError: there is none, it is damaged, or something else uses the device.
    """
    persist(device, lambda _: deploy.check(device))
    with lock.harness(device, "going back to the bundle before"):
        return _ask(device, [("bundles", BUNDLES), ("rollback", "true")], progress)


def _require_base(device: Device, delta: Delta) -> None:
    path = f"{bundle_path(delta.base.bundle_id)}/{manifest.NAME}"
    found = deploy.hashes(device, [path], 1 << 20).get(path)
    if found == delta.base.manifest_sha256:
        return
    has = "which is not there" if found is None else f"but there its manifest is {found[:12]}..."
    raise DeviceError(f"{device.name}: the delta is for {delta.base}, {has}", WHOLE)


def _ask(device: Device, values: list[tuple[str, str]], progress: Progress) -> str:
    """Have the harness do it, again after a lost connection; returns the id of what it now uses."""
    try:
        ended = persist(device, lambda _: instrument(device, values, Watchdog(), progress))
    except TimedOutError as error:
        raise DeviceError(f"{device.name}: {error}", "run the command again") from None
    if ended.outcome is not Outcome.SUCCEEDED:
        raise DeviceError(
            f"{device.name}: {ended.message}",
            "what was in use still is"
            if ended.outcome is Outcome.FAILED
            else "run the command again: what is in use is whole",
        )
    return ended.values.get("bundle", "")
