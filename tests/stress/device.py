"""The fault campaign: what becomes of a deployment and a run when the device misbehaves.

``python -m tests.stress.device --cases 1200 --seed 1``; ``--only N`` repeats one case and says what
happened. docs/stress.md says what counts as what.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from device_bench import report
from sparserec.errors import SparseRecError
from sparserec.progress import Progress, bars
from tests.stress.device_cases import Case, draw
from tests.stress.device_world import (
    ANSWER_SECONDS,
    RealSupplies,
    Supplies,
    World,
    impatient,
)

COUNTS = ("lost", "inconsistent", "uncaught")
LONGEST_SECONDS = 90.0
MAX_SHOWN = 50
WORKERS = 6
REAL_WORKERS = 2
REAL_SILENCE_SECONDS = 20.0


@dataclass
class Verdict:
    """How a case ended, and what was wrong about that."""

    case: Case
    end: str = ""
    hit: bool = False
    problems: list[tuple[str, str]] = field(default_factory=list)

    def wrong(self, count: str, text: str) -> None:
        self.problems.append((count, text))


def main() -> int:
    """Run the campaign; 1 where anything but cases was counted."""
    parser = argparse.ArgumentParser(prog="python -m tests.stress.device", description=__doc__)
    parser.add_argument("--cases", type=int, default=120)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, metavar="NUMBER")
    parser.add_argument("--real", action="store_true", help="with the harness that is built")
    options = parser.parse_args()
    first, count = (0, options.cases) if options.only is None else (options.only, 1)
    with bars() as progress:
        numbers = range(first, first + count)
        found = device_campaign(numbers, options.seed, progress, real=options.real)
    for problem in found["problems"]:
        print(problem, file=sys.stderr)
    if options.only is not None:
        print(json.dumps(found, indent=2))
    print(" ".join(f"{key} {found[key]}" for key in ("cases", *COUNTS)))
    return int(any(found[count] for count in COUNTS))


def device_campaign(
    numbers: range, seed: int, progress: Progress = lambda *_: None, *, real: bool = False
) -> dict[str, Any]:
    """Run the cases, with the harness that is built or a stand-in; returns ``device.json``."""
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="sparserec-faults-") as name,
        impatient(Path(name), REAL_SILENCE_SECONDS if real else ANSWER_SECONDS),
        ThreadPoolExecutor(REAL_WORKERS if real else WORKERS) as pool,
    ):
        folder = Path(name)
        supplies = RealSupplies(folder) if real else Supplies(folder)

        def run(number: int) -> Verdict:
            return _run(folder / f"case-{number}", supplies, draw(seed, number))

        verdicts = []
        for done, verdict in enumerate(pool.map(run, numbers), start=1):
            verdicts.append(verdict)
            progress("device faults", done, len(numbers))
    return _to_json(verdicts, seed, time.monotonic() - began)


def _run(folder: Path, supplies: Supplies, case: Case) -> Verdict:
    """One case: the job under the fault, then without it on the same files."""
    folder.mkdir()
    verdict = Verdict(case)
    world = World(folder, supplies, case, supplies.stub, supplies.bundle)
    began = time.monotonic()
    with world.device(case.faults) as virtual:
        verdict.end = _attempt(world, virtual, verdict)
        log = virtual.device.log.lines()
        verdict.hit = any(" fault: " in line for line in log) or not case.faults.get("wire")
    _look(world, verdict)
    filler = world.root / "data/filler"
    filler.unlink(missing_ok=True)
    with world.device({}) as virtual:
        again = _attempt(world, virtual, verdict)
        if again != "succeeded":
            verdict.wrong("inconsistent", f"not usable afterwards: {again}")
        elif fault := world.supplies.fault_of_end(report.read(world.report)):
            verdict.wrong("inconsistent", fault)
        if virtual.device.harness.pid is not None:
            verdict.wrong("inconsistent", "the app still runs")
    _look(world, verdict)
    _look_tidy(world, verdict)
    if time.monotonic() - began > LONGEST_SECONDS:
        verdict.wrong("uncaught", f"took {time.monotonic() - began:.0f} s")
    return verdict


def _attempt(world: World, virtual: Any, verdict: Verdict) -> str:
    """Do the job; ``succeeded``, or the one clear error that it ended in."""
    try:
        world.job(virtual)
    except SparseRecError as error:
        if not error.message.strip() or not error.fix.strip():
            verdict.wrong("inconsistent", f"an error without message or fix: {error!r}")
        return f"{type(error).__name__}: {error.message}"
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
        verdict.wrong("uncaught", text)
        return f"uncaught {type(error).__name__}"
    return "succeeded"


def _look(world: World, verdict: Verdict) -> None:
    """Look at both sides' files without the code under test."""
    whole = {file.name: file.sha256 for file in world.bundle.files}
    for name, digest in whole.items():
        path = world.placed / name
        if path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            verdict.wrong("inconsistent", f"{name} has its name on the device and is not whole")
    names = {path.name for path in world.placed.iterdir()}
    if "manifest.json" in names and not set(whole) <= names:
        verdict.wrong("inconsistent", "a manifest is there, and not all it names")
    if world.case.deployed and not set(whole) <= names:
        verdict.wrong("lost", "a file of the deployed bundle is gone")
    other = world.home / "bundles" / "another" / "table.safetensors"
    if not other.exists() or other.read_bytes() != b"another bundle's":
        verdict.wrong("lost", "another bundle's file was changed")
    apk = world.root / "data/app/org.sparserec.app/base.apk"
    known = (world.supplies.old_apk, world.supplies.apk.read_bytes())
    if world.case.installs and (not apk.exists() or apk.read_bytes() not in known):
        verdict.wrong("lost", "the installed app is gone or not whole")
    for path in (world.home / "state").glob("*/gen-*[0-9]*"):
        fault = None if path.name.endswith(".part") else world.supplies.fault_of_generation(path)
        if fault is not None:
            verdict.wrong("inconsistent", fault)
    _look_here(world, verdict)


def _look_here(world: World, verdict: Verdict) -> None:
    """The files on this machine."""
    if world.report.exists():
        text = world.report.read_bytes()
        there = [path.read_bytes() for path in (world.home / "runs").glob("*/report.json")]
        try:
            report.read(world.report)
        except SparseRecError as error:
            verdict.wrong("inconsistent", f"report.json here cannot be read: {error.message}")
        if text not in there:
            verdict.wrong("inconsistent", "report.json here is none of the device's")
    leftovers = {path.name for path in world.report.parent.glob("*.part")}
    if leftovers:
        verdict.wrong("inconsistent", f"left here: {', '.join(sorted(leftovers))}")


def _look_tidy(world: World, verdict: Verdict) -> None:
    """After a job that went well nothing half done is left."""
    parts = [p for p in world.home.rglob("*") if p.name.endswith((".part", ".piece"))]
    locks = [p for p in (world.home / "locks").glob("*") if p.is_dir()]
    staged = [p for p in (world.root / "data/local/tmp").rglob("*") if p.is_file()]
    if parts or locks or staged:
        left = ", ".join(path.name for path in parts + locks + staged)
        verdict.wrong("inconsistent", f"left on the device: {left}")


def _to_json(verdicts: list[Verdict], seed: int, seconds: float) -> dict[str, Any]:
    counts: Counter[str] = Counter()
    phases: dict[str, Counter[str]] = {}
    problems = []
    for verdict in verdicts:
        counts.update({count for count, _ in verdict.problems})
        ends = phases.setdefault(verdict.case.phase, Counter())
        ends["succeeded" if verdict.end == "succeeded" else "one clear error"] += 1
        ends["fault not reached"] += not verdict.hit
        problems += [f"{verdict.case.name}: {count}: {text}" for count, text in verdict.problems]
    kinds = Counter(f"{verdict.case.phase}: {verdict.case.kind}" for verdict in verdicts)
    return {
        "schema_version": 1,
        "seed": seed,
        "cases": len(verdicts),
        **{count: counts[count] for count in COUNTS},
        "seconds": round(seconds, 1),
        "machine": {"os": platform.platform(), "cores": os.cpu_count()},
        "phases": {phase: dict(sorted(ends.items())) for phase, ends in phases.items()},
        "faults": dict(sorted(kinds.items())),
        "errors": dict(Counter(_kind_of(verdict.end) for verdict in verdicts).most_common()),
        "problems": problems[:MAX_SHOWN],
    }


def _kind_of(end: str) -> str:
    """An error without what differs from case to case."""
    words = end.split(": ", 2)
    return end if len(words) < 3 else f"{words[0]}: {words[2][:70]}"


if __name__ == "__main__":
    threading.stack_size(1 << 19)
    sys.exit(main())
