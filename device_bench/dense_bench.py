"""SparseRec's step against a dense table's, run on a device: docs/sparse-vs-dense.md.

Every measurement is a run of its own in a fresh process, fetched as a report.json whose ``phases``
tell the memory before anything was loaded (``idle``) and at its peak in training.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from device_bench import bundle as bundles
from device_bench import cooldown, lock
from device_bench import report as reports
from device_bench.adb import Device
from device_bench.bundle import Bundle
from device_bench.deploy import deploy
from device_bench.plan import CoolDown
from device_bench.report import Report
from device_bench.run import REPORT, Options, run
from export import manifest
from pipeline.files import write_json
from sparserec.errors import SparseRecError
from sparserec.progress import Progress, silent

FIGURES = "sparse-vs-dense.json"
TOLERANCE = 1e-4
SPARSE_FORWARD, SPARSE_STEP = "sparse_forward", "sparse_step"
DENSE_FORWARD, DENSE_STEP, TRAINING_MODULE = "dense_forward", "dense_step", "training_module"
SPARSE, DENSE = (SPARSE_FORWARD, SPARSE_STEP), (DENSE_FORWARD, DENSE_STEP, TRAINING_MODULE)
STEPS = (SPARSE_STEP, DENSE_STEP, TRAINING_MODULE)
NAMES = {
    SPARSE_FORWARD: "SparseRec, forward only",
    SPARSE_STEP: "SparseRec's step",
    DENSE_FORWARD: "dense table, forward only",
    DENSE_STEP: "dense table, PyTorch-style step",
    TRAINING_MODULE: "dense table, TrainingModule and SGD",
}
_ARENAS = {
    SPARSE_FORWARD: ("forward",),
    SPARSE_STEP: ("gradients", "update"),
    DENSE_FORWARD: ("dense_forward",),
    DENSE_STEP: ("dense_step",),
    TRAINING_MODULE: ("training",),
}


@dataclass(frozen=True)
class Case:
    """A workload on a bundle."""

    bundle: Bundle
    rows: int
    dim: int
    density: float
    nnz: int
    workload: str

    @property
    def table_bytes(self) -> int:
        """What the table takes, packed (docs/formats.md section 1.1) or dense."""
        if self.workload in SPARSE:
            return 4 * (self.rows + 1) + 5 * self.nnz
        return 4 * self.rows * self.dim


@dataclass
class Point:
    """A case and the reports of its repetitions."""

    case: Case
    reports: list[Report] = field(default_factory=list)

    @property
    def steps(self) -> list[list[float]]:
        """Nanoseconds of each step of each repetition, the first half of them left out."""
        return [report["metrics"]["train_step_ns"]["runs"] for report in self.reports]

    @property
    def step(self) -> float:
        """The median of the repetitions' medians, in nanoseconds."""
        return median(median(runs) for runs in self.steps)

    @property
    def growths(self) -> list[int]:
        """Growth in kB from the idle process to the peak, of each repetition that could be read."""
        found = [
            (_memory(report, "idle", "rss_kb"), _memory(report, "train", "rss_peak_kb"))
            for report in self.reports
        ]
        return [peak - idle for idle, peak in found if idle is not None and peak is not None]

    @property
    def growth(self) -> float | None:
        """The median of ``growths``."""
        return median(self.growths) if self.growths else None

    @property
    def planned(self) -> int:
        """Bytes of the table and of the arenas that the programs plan."""
        arenas: dict[str, int] = self.reports[0]["bundle"]["planned_arena_bytes"]
        return self.case.table_bytes + sum(arenas[name] for name in _ARENAS[self.case.workload])


def cases_of(paths: Sequence[Path], progress: Progress = silent) -> list[Case]:
    """What the bundles that `sparserec sparse-vs-dense` made can be measured with, by size."""
    found = []
    for path in paths:
        bundle = bundles.load(path, progress)
        said = manifest.read(path / manifest.NAME)
        programs = said.programs
        workloads = [*SPARSE, *(DENSE if "training" in programs else ())]
        rows = said.num_users + said.num_items
        found += [Case(bundle, rows, said.dim, said.density, said.nnz, name) for name in workloads]
    return sorted(found, key=lambda case: (case.rows, case.workload in DENSE, case.density))


def measure(
    device: Device,
    cases: Sequence[Case],
    folder: Path,
    repetitions: int,
    steps: dict[str, int],
    threads: int = 1,
    progress: Progress = silent,
) -> list[Point]:
    """Run every case ``repetitions`` times, in turns, so that a drift hits all of them.

    Args:
        device: connected.
        cases: to run.
        folder: for the reports; one that is there already, of the same run, is not made again.
        repetitions: of each case.
        steps: by workload; the first half of them are warm-up.
        threads: of the runtime.
        progress: told of each run.

    Raises:
        SparseRecError: a run failed; the reports before it are kept.
    """
    points = [Point(case) for case in cases]
    total, done, deployed = repetitions * len(cases), 0, set()
    with lock.harness(device, "sparse-vs-dense") as held:
        for repetition in range(repetitions):
            for point in points:
                case = point.case
                progress(f"runs: {case.workload}, {case.rows:,} rows", done, total)
                target = folder / f"{case.bundle.path.name}-{case.workload}-r{repetition}" / REPORT
                options = Options(
                    steps[case.workload], threads, scratch=True, workload=case.workload
                )
                report = _kept(target, case, options)
                if report is None:
                    held.refresh()
                    if case.bundle.bundle_id not in deployed:
                        deploy(device, case.bundle, alive=held.refresh)
                        deployed.add(case.bundle.bundle_id)
                    cooldown.wait(device, CoolDown(), _warm(held.refresh, progress))
                    report = run(device, case.bundle.bundle_id, target, options)
                point.reports.append(report)
                done += 1
    progress("runs: done", total, total)
    return points


def _warm(refresh: Callable[[], None], progress: Progress) -> Callable[[object, float], None]:
    def show(_: object, left: float) -> None:
        refresh()
        progress(f"cool down: {left:.0f} s at most", 0, None)

    return show


def _kept(path: Path, case: Case, options: Options) -> Report | None:
    """The report of an earlier, interrupted call, if it is of this very run."""
    if not path.exists():
        return None
    report = reports.read(path)
    same = report["parameters"] or {}
    wanted = (options.workload, options.steps, options.threads)
    found = (same.get("workload"), same.get("steps"), same.get("threads"))
    bundle = (report["bundle"] or {}).get("bundle_id")
    fits = (bundle, found) == (case.bundle.bundle_id, wanted)
    return report if fits and report["exit_status"] == "succeeded" else None


def loss_difference(points: Sequence[Point]) -> tuple[float, int] | None:
    """How far the losses of the trainers are apart, and over how many steps.

    Each bundle whose every entry is active trains the same table in all three ways, on the same
    batches; None where there is no such bundle, or no loss is known.
    """
    worst, compared = 0.0, 0
    for point in points:
        if point.case.workload not in (DENSE_STEP, TRAINING_MODULE):
            continue
        same = (
            other
            for other in points
            if other.case.workload == SPARSE_STEP and other.case.bundle == point.case.bundle
        )
        for other in same:
            losses = zip(point.reports[0]["losses"], other.reports[0]["losses"], strict=False)
            apart = [abs(a - b) for a, b in losses if a is not None and b is not None]
            worst = max([worst, *apart])
            compared = max(compared, len(apart))
    return (worst, compared) if compared else None


def write(points: Sequence[Point], path: Path) -> dict[str, Any]:
    """Write the figures with their raw samples as JSON, and return them.

    Raises:
        SparseRecError: ``path`` cannot be written.
    """
    difference = loss_difference(points)
    first = points[0].reports[0]
    figures = {
        "schema_version": 1,
        "created_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "target": first["target"],
        "versions": first["versions"],
        "batch_size": first["parameters"]["batch_size"],
        "threads": first["parameters"]["threads"],
        "max_abs_loss_difference": difference and difference[0],
        "compared_steps": difference and difference[1],
        "points": [_to_json(point) for point in points],
    }
    try:
        write_json(path, figures)
    except OSError as error:
        raise SparseRecError(f"{path}: cannot be written: {error}", "name another --out") from None
    return figures


def _to_json(point: Point) -> dict[str, Any]:
    case = point.case
    return {
        "workload": case.workload,
        "rows": case.rows,
        "dim": case.dim,
        "density": case.density,
        "bundle_id": case.bundle.bundle_id,
        "step_ns": point.step,
        "peak_growth_kb": point.growth,
        "table_bytes": case.table_bytes,
        "planned_bytes": point.planned,
        "samples": {"step_ns": point.steps, "peak_growth_kb": point.growths},
    }


def read(path: Path) -> dict[str, Any]:
    """Read figures that ``write`` wrote.

    Raises:
        SparseRecError: not readable, or not such figures.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["schema_version"] != 1 or not found["points"]:
            raise ValueError("no figures of schema 1")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SparseRecError(
            f"{path}: cannot be read as figures of sparse-vs-dense: {error}",
            "run `sparserec sparse-vs-dense` again",
        ) from None
    figures: dict[str, Any] = found
    return figures


def _memory(report: Report, phase: str, name: str) -> int | None:
    found = (item["memory"] for item in report["phases"] if item["name"] == phase)
    memory = next(found, None)
    value = memory.get(name) if memory else None
    return None if value is None else int(value)
