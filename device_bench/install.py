"""Bringing the Android app to a device: the right ABI of it, only if it is not there, and checked.

``pm install`` keeps an APK's bytes, so the SHA-256 of the installed ``base.apk`` tells whether a
device already has this very build.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from device_bench import apk as builds
from device_bench import lock
from device_bench.adb import Device, Facts, allowance
from device_bench.compat import ABIS, abi_of, incompatibility
from device_bench.device_errors import DeviceError
from device_bench.paths import LOCKS, PACKAGE, ROOT
from device_bench.retry import persist
from device_bench.transfer import LEAST_PIECE_BYTES, PIECE_BYTES, Transfer, device_sha256, send
from sparserec.errors import SparseRecError
from sparserec.progress import Progress, silent

FOLDER = "/data/local/tmp/sparserec"
"""Where an APK lies while Android installs it; the shell user's own."""
INSTALL_SECONDS = 300.0
"""Phones verify what is installed, and some ask their owner."""
LIBRARY = "libexecutorch.so"

_UNINSTALL = (
    f"first copy what was trained off the device ({ROOT}: uninstalling deletes it), "
    f"then uninstall the app (on the phone, or: adb uninstall {PACKAGE}) and run this again"
)
_ANSWERS = (
    ("VERSION_DOWNGRADE", "a newer version of the app is installed", _UNINSTALL),
    (
        "UPDATE_INCOMPATIBLE|INCONSISTENT_CERTIFICATES",
        "the installed app is signed with another key",
        "build with the key that signed it (docs/android.md, Signing); or " + _UNINSTALL,
    ),
    (
        "INSUFFICIENT_STORAGE|MEDIA_UNAVAILABLE",
        "the device has no room for the app",
        "free space on the device: Settings, Storage",
    ),
    (
        "NO_MATCHING_ABIS|CPU_ABI_INCOMPATIBLE",
        "the APK has no code for this device's processor",
        f"build it for this device: sparserec apk --abi {' or '.join(ABIS)}",
    ),
    ("OLDER_SDK", "this Android version is too old for the app", "use Android 8 or newer"),
    (
        "USER_RESTRICTED",
        "the phone does not let adb install apps",
        "in Developer options switch on 'Install via USB', and accept on the phone when it asks",
    ),
    (
        "VERIFICATION",
        "the phone's app verification stopped the installation",
        "unlock the phone and accept, or in Developer options switch off 'Verify apps over USB'",
    ),
    ("ABORTED", "the device stopped the installation", "unlock it, and accept when it asks"),
    (
        "INVALID_APK|PARSE_FAILED|NO_CERTIFICATES",
        "Android does not take this APK",
        "build it again: sparserec apk",
    ),
)


@dataclass(frozen=True)
class Apk:
    """An APK of the app on this machine."""

    path: Path
    sha256: str
    size: int
    abis: tuple[str, ...]


def read(path: Path) -> Apk:
    """Look into an APK.

    Raises:
        SparseRecError: it cannot be read, or is not an APK of this app.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, zipfile.BadZipFile) as error:
        raise SparseRecError(
            f"{path}: cannot be read as an APK: {error}", "build one: sparserec apk"
        ) from None
    abis = [match[1] for name in names if (match := re.fullmatch(rf"lib/(.+)/{LIBRARY}", name))]
    if "AndroidManifest.xml" not in names or not abis:
        raise SparseRecError(
            f"{path}: not the SparseRec app: AndroidManifest.xml or {LIBRARY} is not in it",
            "build it: sparserec apk",
        )
    return Apk(path, digest, path.stat().st_size, tuple(abis))


def provide(
    device: Device,
    given: Path | None = None,
    *,
    build: bool = False,
    say: Callable[[str], None] = lambda _: None,
    progress: Progress = silent,
) -> None:
    """Make a phone or an emulator have the app: ``given``, else one built here, if there is one.

    A virtual device has the harness of this machine for an app and is given an APK only by name.

    Args:
        device: connected.
        given: an APK.
        build: build it first, for the device's ABI; where that fails, one built before will do.
        say: told what is installed.
        progress: told of the transfer.

    Raises:
        SparseRecError: there is no app on the device and none can be built, or it does not fit.
        DeviceError: the device refuses it.
    """
    facts = persist(device, lambda _: device.facts())
    problem = incompatibility(device.name, facts)
    if problem is not None:
        raise problem
    if given is None and facts.kind == "virtual-device":
        return
    path = given or _built(device, facts, build, say)
    if path is None:
        return
    apk = read(path)
    if install(device, apk, facts, progress):
        say(f"installed {path.name} ({', '.join(apk.abis)})")
    else:
        say(f"{path.name} is installed already")


def _built(device: Device, facts: Facts, build: bool, say: Callable[[str], None]) -> Path | None:
    """The APK for the device's ABI, built here now or before; None where the device must do."""
    abi = abi_of(facts) or ABIS[0]
    if not build:
        return builds.built(abi)
    try:
        return builds.build(abi)
    except SparseRecError as error:
        found = builds.built(abi)
        if found is None and not persist(device, lambda _: installed(device)):
            raise
        say(f"{error.message}; going on with {found or 'the app that is installed'}")
        return found


def installed(device: Device) -> str | None:
    """Where the installed app's APK lies on the device; None where it is not installed."""
    output = device.shell(f"pm path {PACKAGE}").output
    found = re.search(r"^package:(/.+?)\s*$", output, re.MULTILINE)
    return found[1] if found else None


def install(device: Device, apk: Apk, facts: Facts, progress: Progress = silent) -> bool:
    """Install an APK unless the device has this very one; whether it had to.

    Raises:
        SparseRecError: it is not for this device.
        DeviceError: the device has no room or refuses it, a run is going on, or it is gone.
    """
    if facts.abis and not set(facts.abis) & set(apk.abis):
        raise SparseRecError(
            f"{apk.path}: is for {', '.join(apk.abis)}; {device.name} is {', '.join(facts.abis)}",
            f"build it for this device: sparserec apk --abi {abi_of(facts) or 'all'}",
        )
    if persist(device, lambda _: _has(device, apk)):
        # Of an earlier call that was cut off between installing and tidying up.
        persist(device, lambda _: device.shell(f"rm -f {_staged(apk)}*"))
        return False
    _check_room(device, apk, facts)
    if persist(device, lambda _: _run_goes_on(device)):
        raise DeviceError(
            f"{device.name}: a run is going on, and installing the app would end it",
            "wait until it has ended, or stop it where it was started",
        )
    landed = 0

    def count(have: int) -> None:
        nonlocal landed
        landed = max(landed, have)

    transfer = Transfer(
        source=apk.path,
        target=_staged(apk),
        sha256=apk.sha256,
        size=apk.size,
        sent=lambda sent: progress("push: the app, kB", sent // 1000, apk.size // 1000),
        landed=count,
    )
    with lock.hold(device, "install", f"installing {apk.path.name}", root=FOLDER, wait=True):
        persist(device, lambda failures: _bring(device, apk, transfer, failures), lambda: landed)
    return True


def _bring(device: Device, apk: Apk, transfer: Transfer, failures: int) -> None:
    """Send the APK and install it; may be repeated after a lost connection."""
    target = _staged(apk)
    if _has(device, apk):
        device.shell(f"rm -f {target}*")
        return
    _remove_others(device, apk)
    send(device, transfer, max(LEAST_PIECE_BYTES, PIECE_BYTES >> 2 * failures))
    seconds = INSTALL_SECONDS + allowance(apk.size)
    result = device.shell(f"pm install -r {target}", seconds)
    device.shell(f"rm -f {target}")
    if not re.search(r"^Success\b", result.output, re.MULTILINE):
        raise refusal(device.name, result.output)


def _staged(apk: Apk) -> str:
    """Where an APK lies on the device while it is installed; needs no quotes."""
    return f"{FOLDER}/{apk.sha256[:16]}.apk"


def _remove_others(device: Device, apk: Apk) -> None:
    """Remove what other builds left that were never installed to the end."""
    names = device.shell(f"ls {FOLDER} 2>/dev/null").output.split()
    staged = [name for name in names if re.fullmatch(r"[0-9a-f]{16}\.apk[.a-z]*", name)]
    others = [f"{FOLDER}/{name}" for name in staged if not name.startswith(apk.sha256[:16])]
    if others:
        device.shell(f"rm -f {' '.join(others)}")


def _has(device: Device, apk: Apk) -> bool:
    """Whether the device has this very APK installed."""
    path = installed(device)
    return path is not None and device_sha256(device, path, apk.size) == apk.sha256


def _run_goes_on(device: Device) -> bool:
    """Whether the app works, for someone who holds it or by its user's hand."""
    locks = device.shell(f"ls {LOCKS} 2>/dev/null").output.split()
    return ("harness" in locks and lock.app_running(device)) or lock.trains_by_hand(device)


def _check_room(device: Device, apk: Apk, facts: Facts) -> None:
    needed = 2 * apk.size  # Android copies what it installs
    if facts.free_bytes is not None and facts.free_bytes < needed:
        raise DeviceError(
            f"{device.name}: {facts.free_bytes >> 20} MiB free, and installing the app needs "
            f"{(needed >> 20) + 1} MiB",
            "free space on the device: Settings, Storage",
        )


def refusal(name: str, output: str) -> DeviceError:
    """Why ``pm install`` failed, and what to do; ``output`` is what it printed."""
    found = re.search(r"\[?(INSTALL_\w+)(?::\s*([^\]\n]*))?", output)
    if found is None:
        said = " ".join(output.split())[:300] or "nothing"
        return DeviceError(
            f"{name}: the app was not installed; the device says: {said}",
            "unlock the device and run the command again",
        )
    detail = f" ({found[1]}: {found[2]})" if found[2] else f" ({found[1]})"
    for pattern, what, fix in _ANSWERS:
        if re.search(pattern, found[1]):
            return DeviceError(f"{name}: {what}{detail}", fix)
    return DeviceError(f"{name}: the app was not installed{detail}", "see the device's words above")
