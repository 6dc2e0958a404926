"""Writing a bench folder, as docs/benchmarking.md describes it: the plan and a folder per run.

``run.json`` is written last and atomically, so a run without one has not ended.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from device_bench import report as reports
from device_bench.adb import Kind
from device_bench.endings import RETRYABLE, State
from device_bench.plan import NAME as PLAN
from device_bench.plan import Plan, Run
from device_bench.report import Report
from device_bench.run import LOGCAT, REPORT, SENSORS
from pipeline.files import write_atomic
from sparserec.errors import SparseRecError, writing

NAME = "run.json"
GOLDEN = "golden.json"
FOLDER = "results"

Correctness = Literal["passed", "failed", "not_checked"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class DeviceInfo(_Part):
    """The device as it told of itself; null where it never did."""

    serial: str
    model: str | None
    abi: str | None
    sdk: int | None
    virtual: bool | None
    kind: Kind | None = None
    """Not in what earlier versions wrote."""
    transport: str | None


class BundleInfo(_Part):
    """The bundle; ``sha256`` is its manifest's."""

    id: str
    path: str
    sha256: str


class Stable(_Part):
    """The training steps after those that still warmed up; null figures where it never settled.

    Attributes:
        from_sample: index of the first such sample of ``train_step_ns``.
        window: samples of which a median is taken.
        tolerance: how far medians of windows may lie apart, relative.
        count: of samples from there on.
        p50_ns: their median.
        mad_ns: their median absolute deviation from it.
    """

    from_sample: int | None
    window: int
    tolerance: float
    count: int
    p50_ns: float | None
    mad_ns: float | None


class Files(_Part):
    """Names relative to the run's folder, null for what is not there."""

    report: str | None
    sensors: str | None
    logcat: str | None
    golden: str | None


class Record(_Part):
    """What ``run.json`` holds: docs/benchmarking.md has every field."""

    schema_version: Literal[1] = 1
    index: int
    device: DeviceInfo
    bundle: BundleInfo
    threads: int
    repetition: int
    order: int
    state: Annotated[State, Field(strict=False)]
    correctness: Correctness
    started_utc: str
    seconds: float
    attempts: int
    cooldown_seconds: float
    thermal_before: int | None
    battery_celsius_before: float | None
    stable: Stable | None
    message: str | None
    files: Files


def write(path: Path, content: BaseModel) -> None:
    """Write a file of a bench folder, so that it is whole or not there.

    Raises:
        SparseRecError: it cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, (content.model_dump_json(indent=2) + "\n").encode())


def read(path: Path) -> Record:
    """Read a ``run.json``.

    Raises:
        SparseRecError: it cannot be read, or is none.
    """
    try:
        return Record.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise SparseRecError(
            f"{path}: cannot be read as a run's record: {error}",
            "remove the run's folder; `sparserec bench --resume` runs it again",
        ) from None


def create(folder: Path, plan: Plan) -> None:
    """Begin a bench folder.

    Raises:
        SparseRecError: there is one already, or it cannot be written.
    """
    if (folder / PLAN).exists():
        raise SparseRecError(
            f"{folder}: holds a bench already",
            f"choose another --out, or go on with it: sparserec bench --resume {folder}",
        )
    write(folder / PLAN, plan)


def place(folder: Path, run: Run) -> Path:
    """Where a run's files go."""
    return folder / FOLDER / run.folder


def ended(folder: Path, plan: Plan) -> list[Record]:
    """What is recorded of the plan's runs.

    Raises:
        SparseRecError: a record that cannot be read.
    """
    paths = [place(folder, run) / NAME for run in plan.runs]
    return [read(path) for path in paths if path.exists()]


def pending(folder: Path, plan: Plan) -> list[Run]:
    """The runs that are still to be made: without a record, or worth another try.

    Raises:
        SparseRecError: a record that cannot be read.
    """
    done = {one.index for one in ended(folder, plan) if one.state not in RETRYABLE}
    return [run for run in plan.runs if run.index not in done]


def clear(target: Path) -> None:
    """Remove what an earlier attempt at a run left, its record first.

    Raises:
        SparseRecError: it cannot be removed, or its folder not be made.
    """
    with writing(target):
        (target / NAME).unlink(missing_ok=True)
        if target.exists():
            shutil.rmtree(target)
        target.mkdir(parents=True)


def files_of(target: Path) -> Files:
    """Which files a run has."""

    def there(name: str) -> str | None:
        return name if (target / name).is_file() else None

    return Files(
        report=there(REPORT), sensors=there(SENSORS), logcat=there(LOGCAT), golden=there(GOLDEN)
    )


def correctness(report: Report | None) -> Correctness:
    """The verdict on the losses; a run that did not reach it was not checked."""
    found = reports.verdict(report) if report is not None else None
    verdicts: dict[str | None, Correctness] = {"passed": "passed", "failed": "failed"}
    return verdicts.get(found, "not_checked")
