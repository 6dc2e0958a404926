"""What runs left on this machine: a single report, or the folder of a bench, read and checked."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from device_bench import checked
from device_bench import report as reports
from device_bench.report import Report
from sparserec.errors import SparseRecError

PLAN, RUNS = "plan.json", "results"
RUN, REPORT, SENSORS, GOLDEN, ETDUMP = (
    "run.json",
    "report.json",
    "sensors.json",
    "golden.json",
    "profile.etdump",
)
GOOD = "succeeded"
STATES = {
    GOOD: "succeeded",
    "failed": "failed",
    "crashed": "crashed",
    "low_memory": "killed by low memory",
    "timed_out": "timed out",
    "cancelled": "cancelled",
    "infrastructure_error": "infrastructure error",
    "unfinished": "did not finish",
}
"""Every state a run can be in, in words. ``unfinished`` is of a report without a bench: the harness
died, and nothing says of what."""
UNKNOWN = "unknown"
KINDS = reports.TARGETS | {UNKNOWN: "device not known"}
CORRECTNESS = {"passed": "passed", "failed": "failed", "not_checked": "not checked"}


def with_article(kind: str) -> str:
    """A kind of device as in "an emulator"."""
    return f"{'an' if KINDS[kind][0] in 'aeiou' else 'a'} {KINDS[kind]}"


@dataclass(frozen=True, order=True)
class Configuration:
    """What the repetitions of a bench have in common."""

    bundle: str
    steps: int
    threads: int
    device: str

    @property
    def label(self) -> str:
        """The configuration in one line."""
        steps = f", {self.steps} steps" if self.steps else ""
        return f"{self.bundle}, {self.device}, t{self.threads}{steps}"


@dataclass(frozen=True)
class Result:
    """One run.

    Attributes:
        path: its ``report.json``, or its folder where there is no report.
        report: None where none was fetched.
        sensors: ``sensors.json``, None where there is none.
        golden: the bundle's ``golden.json``, None where it is not at hand.
        record: the bench's ``run.json``, None for a report that stands alone.
        etdump: ExecuTorch's profile of the run, if there is one.
    """

    path: Path
    report: Report | None
    sensors: dict[str, Any] | None = None
    golden: dict[str, Any] | None = None
    record: dict[str, Any] | None = None
    etdump: Path | None = None

    @property
    def kind(self) -> str:
        """A key of ``KINDS``: where report and bench disagree, the one that claims less."""
        device = self.record["device"] if self.record is not None else {}
        found = [device.get("kind")]
        if device.get("virtual"):
            found.append("virtual-device")
        if self.report is not None:
            found.append(self.report["target"]["kind"])
        return next((kind for kind in reports.TARGETS if kind in found), UNKNOWN)

    @property
    def state(self) -> str:
        """A key of ``STATES``."""
        if self.record is not None:
            return str(self.record["state"])
        assert self.report is not None
        status = str(self.report["exit_status"])
        return "unfinished" if status == "started" else status

    @property
    def correctness(self) -> str:
        """A key of ``CORRECTNESS``: failed if the report's figures say so."""
        found = reports.verdict(self.report) if self.report is not None else "not checked"
        if self.record is not None and found != "failed":
            return str(self.record["correctness"])
        return found.replace(" ", "_")

    @property
    def is_good(self) -> bool:
        """Whether its figures may be used: it succeeded, and no loss contradicts the host's."""
        return self.state == GOOD and self.report is not None and self.correctness != "failed"

    @property
    def fault(self) -> str:
        """Why its figures may not be used, in words, of a run that is not good."""
        if self.state != GOOD:
            return STATES[self.state]
        return "left no report" if self.report is None else "losses differ from the host's"

    @property
    def message(self) -> str:
        """The bench's words for what went wrong, empty where it has none."""
        return str((self.record or {}).get("message") or "")

    @property
    def name(self) -> str:
        """Its folder's name."""
        return self.path.name if self.path.is_dir() else self.path.parent.name

    @property
    def device(self) -> str:
        """The device's serial or address; of a report that stands alone, its model."""
        if self.record is not None:
            return str(self.record["device"]["serial"])
        target = self.report["target"] if self.report is not None else {}
        return str(target.get("model") or "model not readable")

    @property
    def order(self) -> int:
        """Its place in the order in which the bench ran."""
        return int(self.record["order"]) if self.record is not None else 0

    @property
    def configuration(self) -> Configuration:
        """What it was told to do, and where."""
        parameters = (self.report or {}).get("parameters") or {}
        bundle = (self.report or {}).get("bundle") or {}
        record = self.record
        return Configuration(
            record["bundle"]["id"] if record else bundle.get("bundle_id", "bundle not read"),
            parameters.get("steps") or 0,
            (record["threads"] if record else None) or parameters.get("threads") or 1,
            self.device,
        )

    def samples(self, metric: str) -> list[float]:
        """The raw samples of a metric, in the order in which they were taken; empty if none."""
        found = self.report["metrics"].get(metric) if self.report is not None else None
        return list(found["runs"]) if found else []

    def settled(self, metric: str) -> list[float]:
        """As ``samples``; of what each step is measured in, without the steps that warmed up.

        The bench knows where a run became stable; of a report that stands alone nobody does.
        """
        values = self.samples(metric)
        stable = (self.record or {}).get("stable") or {}
        is_per_step = len(values) == len(self.samples("train_step_ns"))
        return values[(stable.get("from_sample") or 0) if is_per_step else 0 :]


@dataclass(frozen=True)
class Results:
    """A report that stands alone (``plan`` is None), or a bench with its runs by index."""

    path: Path
    runs: list[Result]
    plan: dict[str, Any] | None = None

    @property
    def kinds(self) -> list[str]:
        """The kinds of target, the least like a phone first."""
        order = list(reports.TARGETS)
        return sorted({run.kind for run in self.runs} - {UNKNOWN}, key=order.index)

    def configurations(self) -> dict[Configuration, list[Result]]:
        """The runs by configuration; the steps of a run without a report are those of its kin."""
        steps = {
            (c.bundle, c.threads): c.steps for c in (r.configuration for r in self.runs) if c.steps
        }
        found: dict[Configuration, list[Result]] = {}
        for run in self.runs:
            c = run.configuration
            filled = c.steps or steps.get((c.bundle, c.threads), 0)
            key = Configuration(c.bundle, filled, c.threads, c.device)
            found.setdefault(key, []).append(run)
        return dict(sorted(found.items()))


def load(path: Path) -> Results:
    """Read a ``report.json``, a folder that holds one, or the folder of a bench.

    Raises:
        SparseRecError: none of these, or a file in it breaks its schema.
    """
    if path.is_file():
        return Results(path, [_run(path.parent, path)])
    if (path / PLAN).is_file():
        folders = sorted(file.parent for file in (path / RUNS).glob(f"*/{RUN}"))
        runs = [_run(folder, folder / REPORT) for folder in folders]
        if not runs:
            raise SparseRecError(
                f"{path / RUNS}: no run has ended yet: there is no */{RUN}",
                f"go on with the bench: sparserec bench --resume {path}",
            )
        return Results(path, sorted(runs, key=lambda run: run.record["index"]), _plan(path))  # type: ignore[index]
    if (path / REPORT).is_file() or ((path / RUN).is_file() and _is_ours(path / RUN)):
        return Results(path, [_run(path, path / REPORT)])
    raise SparseRecError(
        f"{path}: neither a report nor the folder of a bench: there is no {REPORT} and no {PLAN}",
        "name a report.json or a folder that `sparserec bench` wrote",
    )


def find(paths: Iterable[Path]) -> tuple[list[Result], list[SparseRecError]]:
    """Every run below some paths, however deep, and what is damaged among them.

    Raises:
        SparseRecError: a path does not exist, or there is nothing below it.
    """
    runs: dict[Path, Result] = {}
    faults: list[SparseRecError] = []
    for path in paths:
        files = [path] if path.is_file() else sorted({*path.rglob(REPORT), *path.rglob(RUN)})
        ours = [file for file in files if _is_ours(file)]
        if not ours:
            raise SparseRecError(
                f"{path}: holds no {REPORT}", "name folders that `sparserec bench` wrote"
            )
        for file in ours:
            report = file.with_name(REPORT) if file.name == RUN else file
            if report.resolve() in runs:
                continue
            try:
                runs[report.resolve()] = _run(file.parent, report)
            except SparseRecError as error:
                if error.message not in [fault.message for fault in faults]:
                    faults.append(error)
    return list(runs.values()), faults


def _is_ours(file: Path) -> bool:
    """Whether a ``run.json`` is a bench's: the host's trained runs have one of that name too."""
    if file.name != RUN:
        return True
    try:
        return {"index", "device"} <= set(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError, TypeError):
        return file.parent.parent.name == RUNS


def _run(folder: Path, report: Path) -> Result:
    # A lone report may have been renamed; what lies beside it belongs to it only by its run's name.
    record = None
    if (folder / RUN).is_file() and _is_ours(folder / RUN) and report.name == REPORT:
        record = checked.read(
            folder / RUN, "run-1.schema.json", "the record of a run", "run the bench again"
        )
    found = reports.read(report) if record is None or report.is_file() else None
    sensors = None
    if (folder / SENSORS).is_file() and found is not None:
        sensors = checked.read(
            folder / SENSORS, "sensors.schema.json", "a run's sensors", "remove it or run again"
        )
        if sensors["run_id"] != found["run_id"]:
            sensors = None
    etdump = folder / ETDUMP
    return Result(
        report if found is not None else folder,
        found,
        sensors,
        golden(folder / GOLDEN) if (folder / GOLDEN).is_file() else None,
        record,
        etdump if etdump.is_file() else None,
    )


def golden(path: Path) -> dict[str, Any]:
    """Read a bundle's ``golden.json`` (docs/formats.md section 1.4).

    Raises:
        SparseRecError: not readable, or without losses.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        losses = [_number(loss) for loss in found["losses"]]
    except (OSError, ArithmeticError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise SparseRecError(
            f"{path}: losses: not the host's losses: {error}", "remove it, or export again"
        ) from None
    return {**found, "losses": losses}


def _number(value: Any) -> float:
    """A finite number of a JSON file.

    Raises:
        ValueError: it is something else.
        OverflowError: it is too large.
    """
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a finite number")
    return float(value)


def _plan(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((path / PLAN).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SparseRecError(
            f"{path / PLAN}: cannot be read as a plan: {error}", "run the bench again"
        ) from None
    if not isinstance(found, dict):
        raise SparseRecError(f"{path / PLAN}: not an object", "run the bench again")
    return found
