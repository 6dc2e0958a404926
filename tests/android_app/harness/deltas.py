"""Deltas between tiny bundles, the harness that applies them, and faults at each of its calls."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from export import manifest
from export.delta import Version, write_delta
from tests.android_app.harness.bundles import FLOOR, Tiny, write_manifest

KILLED = -9
SECONDS = 120


def bundle_id(bundle: Path) -> str:
    return str(json.loads((bundle / "manifest.json").read_text())["bundle_id"])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def next_bundle(base: Path, folder: Path, tiny: Tiny, seed: int, new_users: int = 0) -> Tiny:
    """Make a bundle that follows ``base``: some rows trained on, and rows for new users.

    Rows are moved here one by one, on lists: nothing is shared with the code that makes deltas.
    """
    draw = np.random.default_rng(seed)
    shutil.copytree(base, folder)
    (folder / "manifest.json").unlink()
    table = load_file(base / "table.safetensors")
    ends = table["row_ptr"][1:-1]
    cols, vals = np.split(table["cols"], ends), np.split(table["vals"], ends)
    for row in draw.choice(len(cols), 12, replace=False):
        if draw.random() < 0.5:  # another mask
            cols[row] = np.sort(draw.choice(tiny.dim, FLOOR + 3, replace=False)).astype(np.uint8)
        vals[row] = draw.normal(0, 0.3, len(cols[row])).astype(np.float32)
    for _ in range(new_users):
        cols.insert(tiny.num_users, np.arange(FLOOR, dtype=np.uint8))
        vals.insert(tiny.num_users, np.zeros(FLOOR, np.float32))
    tensors = {
        "row_ptr": np.cumsum([0, *map(len, cols)]).astype(np.int32),
        "cols": np.concatenate(cols),
        "vals": np.concatenate(vals),
    }
    save_file(tensors, folder / "table.safetensors")
    pairs = load_file(base / "interactions.safetensors")
    last = pairs["seen_ptr"][-1]
    pairs["seen_ptr"] = np.append(pairs["seen_ptr"], np.full(new_users, last, np.int32))
    known = draw.choice(len(pairs["later_users"]), 5, replace=False)  # these come into the log
    for part in ("users", "items"):
        log = np.delete(pairs[f"log_{part}"], np.s_[3:9])
        pairs[f"log_{part}"] = np.insert(log, 40, pairs[f"later_{part}"][known])
        pairs[f"later_{part}"] = np.delete(pairs[f"later_{part}"], known)
    save_file(pairs, folder / "interactions.safetensors")
    grown = replace(tiny, num_users=tiny.num_users + new_users)
    write_manifest(folder, grown, json.loads((base / "manifest.json").read_text())["programs"])
    return grown


def make_delta(base: Path, result: Path, out: Path) -> Path:
    """Write the delta between two bundles."""
    described = manifest.read(result / "manifest.json")
    files = {name: data for name, data in contents(result).items() if name != "manifest.json"}
    # The tiny bundles' manifests are written by hand: now in the exporter's words and order.
    (result / "manifest.json").write_bytes(described.to_json())
    write_delta(base, described, files, out)
    return out


@dataclass(frozen=True)
class Chain:
    """Three bundles, each made of the one before, and the deltas between them."""

    bundles: list[Path]
    deltas: list[Path]

    @property
    def ids(self) -> list[str]:
        return [bundle_id(path) for path in self.bundles]

    @property
    def wholes(self) -> dict[str, dict[str, bytes]]:
        return {bundle_id(path): contents(path) for path in self.bundles}


def make_chain(first: Path, folder: Path) -> Chain:
    """Make two bundles that follow ``first``; the last has rows for new users."""
    shutil.copytree(first, folder / "0")
    tiny = next_bundle(folder / "0", folder / "1", Tiny(), seed=1)
    next_bundle(folder / "1", folder / "2", tiny, seed=2, new_users=4)
    paths = [folder / str(k) for k in range(3)]
    deltas = [make_delta(paths[k], paths[k + 1], folder / f"delta-{k}") for k in range(2)]
    return Chain(paths, deltas)


def reseal(delta: Path, change: Callable[[dict[str, Any]], object] = lambda _: None) -> None:
    """Bring hashes and sizes up to date, so that the checks behind them are reached."""
    value = json.loads((delta / "delta.json").read_text())
    for name in value["files"]:
        data = (delta / name).read_bytes()
        value["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    change(value)
    (delta / "delta.json").write_text(json.dumps(value))


@dataclass(frozen=True)
class Answer:
    """How a call of the harness ended; ``code`` is ``KILLED`` where a fault did it."""

    code: int
    results: dict[str, str]
    stderr: str
    calls: list[str]
    """What changed files, in order."""


class Device:
    """A folder of bundles as on a device, and the harness that keeps it."""

    def __init__(self, launcher: Path, folder: Path, faults: Path) -> None:
        self.launcher, self.folder, self.bundles = launcher, folder, folder / "bundles"
        self._faults = faults
        self.bundles.mkdir(parents=True)

    def install(self, bundle: Path) -> Path:
        """Put a whole bundle there."""
        return Path(shutil.copytree(bundle, self.bundles / bundle_id(bundle)))

    def apply(self, delta: Path, *, at: int = 0, how: str = "kill") -> Answer:
        return self.run(["apply", str(delta)], at, how)

    def rollback(self, *, at: int = 0, how: str = "kill") -> Answer:
        return self.run(["rollback", "true"], at, how)

    def run(self, keys: list[str], at: int = 0, how: str = "kill") -> Answer:
        """Start the harness with these keys and ``bundles``; at call ``at`` a fault happens."""
        log = self.folder / "calls"
        log.unlink(missing_ok=True)
        done = subprocess.run(
            [str(self.launcher), "bundles", str(self.bundles), *keys],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
            env={
                **os.environ,
                "LD_PRELOAD": str(self._faults),
                "FAULT_ROOT": str(self.bundles),
                "FAULT_LOG": str(log),
                "FAULT_AT": str(at),
                "FAULT_HOW": how,
                # Less of a JVM starts sooner.
                "JAVA_TOOL_OPTIONS": "-XX:TieredStopAtLevel=1 -Xshare:auto -XX:+UseSerialGC",
            },
        )
        prefix = "INSTRUMENTATION_RESULT: "
        lines = [x.removeprefix(prefix) for x in done.stdout.splitlines() if x.startswith(prefix)]
        results = dict(line.split("=", 1) for line in lines)
        calls = log.read_text().splitlines() if log.exists() else []
        return Answer(done.returncode, results, done.stderr, calls)

    @property
    def state(self) -> dict[str, Any] | None:
        """``generations.json``, None where there is none."""
        path = self.bundles / "generations.json"
        return json.loads(path.read_text()) if path.exists() else None

    @property
    def current(self) -> str | None:
        """The id of the bundle in use, None before the first delta."""
        return self.state["current"]["bundle_id"] if self.state else None

    def names(self) -> set[str]:
        return {path.name for path in self.bundles.iterdir()}

    def problems(self, wholes: dict[str, dict[str, bytes]]) -> list[str]:
        """What is not as it must be at any instant; ``wholes`` are all bundles by their ids.

        Whatever has a bundle's name and a manifest is that bundle, and what is in use and what can
        be gone back to are there.
        """
        found = []
        for path in self.bundles.iterdir():
            if path.is_dir() and not path.name.endswith((".part", ".old")):
                if contents(path) != wholes[path.name]:
                    found.append(f"{path.name} is not what it must be")
            elif path.is_file() and path.name not in ("generations.json", "generations.json.part"):
                found.append(f"{path.name} is nothing of ours")
        for key in ("current", "previous"):
            version = self.state[key] if self.state else None
            if version and not (self.bundles / version["bundle_id"]).is_dir():
                found.append(f"{key} {version['bundle_id']} is gone")
            elif version:
                data = (self.bundles / version["bundle_id"] / "manifest.json").read_bytes()
                if hashlib.sha256(data).hexdigest() != version["manifest_sha256"]:
                    found.append(f"{key} is another bundle")
        return found


def compiled_faults(folder: Path) -> Path:
    """Compile ``faults.c``."""
    library = folder / "faults.so"
    source = Path(__file__).with_name("faults.c")
    options = ["-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run(["cc", *options, "-o", str(library), str(source), "-ldl"], check=True)
    return library


def version_of(bundle: Path) -> dict[str, str]:
    """A bundle as ``generations.json`` names it."""
    version = Version.of(bundle)
    return {"bundle_id": version.bundle_id, "manifest_sha256": version.manifest_sha256}
