"""What a run left on disk, read without the harness: the safetensors library, hashlib, json.

docs/formats.md sections 6 and 8.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load

from tests.stress.tally import Problem

GENERATION = re.compile(r"gen-(\d{10})\.safetensors")
LOCK = ".lock"
PHASES = ("load", "evaluate_before", "warm_up", "train", "checkpoint", "evaluate_after", "done")


@dataclass(frozen=True)
class Generation:
    """A whole generation: its step, (step,) losses, and the report's ``table_sha256``."""

    step: int
    losses: np.ndarray
    table_sha256: str


@dataclass(frozen=True)
class Expected:
    """What an undisturbed run of the same bundle ends with: (steps,) losses and its table."""

    losses: np.ndarray
    table_sha256: str


def read_generation(path: Path, bundle: Path) -> Generation:
    """Read a generation and check all that makes it whole.

    Raises:
        ValueError: if it is damaged, or not of this bundle; says why.
    """
    data = path.read_bytes()
    try:
        tensors = load(data)
        with safe_open(path, framework="np") as file:
            metadata = file.metadata()
    except SafetensorError as error:
        raise ValueError(f"{path.name}: {error}") from error
    manifest = (bundle / "manifest.json").read_bytes()
    fields = json.loads(manifest)
    start = 8 + int.from_bytes(data[:8], "little")
    named = GENERATION.fullmatch(path.name)
    wanted = {
        "step": str(int(named[1])) if named else None,
        "bundle_id": fields["bundle_id"],
        "manifest_sha256": hashlib.sha256(manifest).hexdigest(),
        "data_sha256": hashlib.sha256(data[start:]).hexdigest(),
        "schema_version": "1",
    }
    if metadata != wanted:
        raise ValueError(f"{path.name}: metadata {metadata}, not {wanted}")
    _check_table(path, tensors, fields)
    table = b"".join(tensors[name].tobytes() for name in ("row_ptr", "cols", "vals"))
    return Generation(
        int(wanted["step"] or 0), tensors["losses"], hashlib.sha256(table).hexdigest()
    )


def _check_table(path: Path, tensors: dict[str, np.ndarray], fields: dict[str, Any]) -> None:
    """Check the state's shapes, and that the mask is one: as many entries, in order, once each."""
    row_ptr, cols, vals = (tensors[name] for name in ("row_ptr", "cols", "vals"))
    rows = fields["num_users"] + fields["num_items"]
    sampled, sums = tensors["sampled_rows"], tensors["accumulators"]
    sound = (
        len(row_ptr) == rows + 1
        and row_ptr[0] == 0
        and row_ptr[-1] == len(cols) == len(vals) == fields["nnz"]
        and np.diff(row_ptr).min() >= fields["floor"]
        and sums.shape == (len(sampled), fields["dim"])
        and bool(np.isfinite(vals).all())
    )
    if not sound:
        raise ValueError(f"{path.name}: not a state of this bundle")
    places = np.repeat(np.arange(rows), np.diff(row_ptr)) * fields["dim"] + cols
    if (np.diff(places) <= 0).any():
        raise ValueError(f"{path.name}: cols are not ascending in every row")


def read_report(path: Path) -> dict[str, Any]:
    """Read a report, which must be JSON in the strict sense.

    Raises:
        ValueError: if it is not, or if status or phase are none of formats.md's.
    """

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    try:
        report: dict[str, Any] = json.loads(path.read_bytes(), parse_constant=refuse)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error
    if report["exit_status"] not in {"started", "succeeded", "failed"}:
        raise ValueError(f"{path.name}: exit_status {report['exit_status']}")
    if report["phase"] not in PHASES:
        raise ValueError(f"{path.name}: phase {report['phase']}")
    return report


class Watched:
    """State and report of one chain of runs, compared after each kill with what was there before.

    A generation is committed once it has its name. From then on it may go only by being neither of
    the two newest.
    """

    def __init__(self, bundle: Path, folder: Path, expected: Expected) -> None:
        self.bundle, self.expected = bundle, expected
        self.state, self.out = folder / "state", folder / "out"
        self.newest = 0
        self._committed: set[int] = set()
        self._reported = False
        self._bundle_hash = _hash_of_files(bundle)

    def check(self) -> list[Problem]:
        """Look at everything on disk; returns what is not as it must be."""
        problems: list[Problem] = []
        present: set[int] = set()
        for path in sorted(self.state.iterdir()) if self.state.exists() else []:
            if GENERATION.fullmatch(path.name):
                problems += self._check_generation(path)
                present.add(int(path.stem.removeprefix("gen-")))
            elif path.name != LOCK and not GENERATION.fullmatch(path.name.removesuffix(".part")):
                problems.append(Problem("lost", f"{path.name} in the state"))
        must_be_there = sorted(self._committed | present)[-2:]
        for step in must_be_there:
            if step not in present:
                problems.append(Problem("lost", f"generation {step} is gone, has {present}"))
        self._committed = present
        self.newest = max(present, default=0)
        problems += self._check_report()
        if _hash_of_files(self.bundle) != self._bundle_hash:
            problems.append(Problem("wrong", "a file of the bundle was changed"))
        return problems

    def report(self) -> dict[str, Any]:
        return read_report(self.out / "report.json")

    def _check_generation(self, path: Path) -> list[Problem]:
        try:
            generation = read_generation(path, self.bundle)
        except ValueError as error:
            return [Problem("lost", str(error))]
        wanted = self.expected.losses[: generation.step]
        if generation.losses.tobytes() != wanted.tobytes():
            return [Problem("wrong", f"{path.name}: losses are not the undisturbed run's")]
        return []

    def _check_report(self) -> list[Problem]:
        path = self.out / "report.json"
        if not path.exists():
            return [Problem("lost", "report.json is gone")] if self._reported else []
        self._reported = True
        try:
            read_report(path)
        except ValueError as error:
            return [Problem("wrong", str(error))]
        return []

    def check_end(self) -> list[Problem]:
        """After a run to the end: the table must be the undisturbed run's."""
        problems = self.check()
        steps = len(self.expected.losses)
        report = self.report()
        wanted = {"generation": steps, "table_sha256": self.expected.table_sha256}
        if report["exit_status"] != "succeeded" or report["state"] != wanted:
            problems.append(Problem("wrong", f"ended with {report['state']}, not {wanted}"))
        path = self.state / f"gen-{steps:010d}.safetensors"
        try:
            if read_generation(path, self.bundle).table_sha256 != self.expected.table_sha256:
                problems.append(Problem("wrong", f"{path.name} holds another table"))
        except (OSError, ValueError) as error:
            problems.append(Problem("lost", str(error)))
        return problems


def _hash_of_files(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
