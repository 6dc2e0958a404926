"""Whether the harness and its ExecuTorch runtime can run on a device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from device_bench.adb import Facts
from device_bench.device_errors import DeviceError
from export.manifest import Manifest
from sparserec.errors import SparseRecError

ABIS = ("arm64-v8a", "x86_64")
"""What ExecuTorch's published Android library is built for."""
MIN_SDK = 26
MAX_PAGE_BYTES = 16 << 10
"""The app's libraries are aligned to this: the largest pages that they can be mapped with."""


def incompatibility(name: str, facts: Facts) -> DeviceError | None:
    """What keeps the app from running on device ``name``; None where nothing is known to.

    What the device does not tell is not held against it.
    """
    if facts.abis and not set(facts.abis) & set(ABIS):
        return DeviceError(
            f"{name}: its ABI is {', '.join(facts.abis)}; the app needs {' or '.join(ABIS)}",
            "use a 64-bit device, or the virtual device: --device virtual",
        )
    if facts.sdk is not None and facts.sdk < MIN_SDK:
        return DeviceError(
            f"{name}: Android {facts.release} (SDK {facts.sdk}) is too old",
            f"use a device with SDK {MIN_SDK} (Android 8) or newer, or --device virtual",
        )
    if facts.page_bytes is not None and facts.page_bytes > MAX_PAGE_BYTES:
        return DeviceError(
            f"{name}: its memory pages of {facts.page_bytes >> 10} KiB are larger than the "
            f"{MAX_PAGE_BYTES >> 10} KiB that the app's libraries are aligned to",
            "use a device with pages of 4 or 16 KiB, or --device virtual",
        )
    return None


def abi_of(facts: Facts) -> str | None:
    """The ABI in which the device runs the app: its best one that the app comes in."""
    return next((abi for abi in facts.abis if abi in ABIS), None)


def runtime() -> dict[str, Any]:
    """What the app's ExecuTorch library can run: ``executorch``, ``backends``, ``operators``.

    ``executorch`` is the newest version whose programs it was tested with. The lists are the
    library's own, and a test holds them against it.
    """
    found: dict[str, Any] = json.loads(Path(__file__).with_name("runtime.json").read_text())
    return found


def require_runnable(path: Path, manifest: Manifest) -> None:
    """Refuse programs that the app's library cannot run, before anything is pushed.

    Raises:
        SparseRecError: naming the program's method and what the library lacks.
    """
    able = runtime()
    made = manifest.producer.get("executorch", able["executorch"])
    if _version(made) > _version(able["executorch"]):
        raise SparseRecError(
            f"{path}: its programs were made by ExecuTorch {made}; the app's library is known to"
            f" run those of {able['executorch']} and older",
            f"export again with executorch {able['executorch']}",
        )
    for program in manifest.programs.values():
        for name, method in program.methods.items():
            for kind, has in (("backends", method.backends), ("operators", method.operators)):
                lacking = sorted(set(has) - set(able[kind]))
                if lacking:
                    raise SparseRecError(
                        f"{path / program.file}: method {name} needs {kind} that the app's"
                        f" ExecuTorch library does not have: {', '.join(lacking)}",
                        "export the bundle again with this version: sparserec export",
                    )


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2] if part.isdigit())
