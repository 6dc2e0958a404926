"""Many runs as tables: one row for each run, and one for each raw sample."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from device_bench import conditions
from device_bench import report as reports
from device_bench.compare import charge_per_step
from device_bench.report import MEMORY, PARTS
from device_bench.results import Result
from sparserec.errors import SparseRecError

TIMES = ("train_step_ns", *PARTS, "checkpoint_ns", "score_ns")
STATISTICS = ("count", "p50", "p90", "p95", "p99", "maximum", "mad")
_TEXT, _WHOLE, _FLOAT = pa.string(), pa.int64(), pa.float64()
RUN_SCHEMA = pa.schema(
    [
        *((name, _TEXT) for name in ("path", "run_id", "started_utc", "finished_utc")),
        *((name, _TEXT) for name in ("state", "correctness", "conditions", "message")),
        *((name, _TEXT) for name in ("target_kind", "device", "model", "abi", "os")),
        ("sdk", _WHOLE),
        ("cores", _WHOLE),
        *((name, _TEXT) for name in ("bundle_id", "manifest_sha256")),
        *((name, _WHOLE) for name in ("steps", "batch_size", "threads", "seed")),
        ("learning_rate", _FLOAT),
        *((name, _WHOLE) for name in ("resumed_from_step", "index", "repetition", "order")),
        ("attempts", _WHOLE),
        ("seconds", _FLOAT),
        ("cooldown_seconds", _FLOAT),
        *((name, _WHOLE) for name in ("thermal_before", "thermal_maximum", "battery_level")),
        ("max_abs_loss_error", _FLOAT),
        *(
            (f"{key}_{when}", _FLOAT)
            for key in ("recall@20", "ndcg@20")
            for when in ("before", "after")
        ),
        ("first_loss", _FLOAT),
        ("last_loss", _FLOAT),
        *((f"{name}_{key}", _FLOAT) for name in TIMES for key in STATISTICS),
        *((f"{key.removesuffix('_kb')}_max_kb", _WHOLE) for key, _ in MEMORY),
        ("planned_arena_bytes", _WHOLE),
        ("charge_per_step_uah", _FLOAT),
        *((name, _TEXT) for name in ("harness", "runtime", "runtime_sha256", "table_sha256")),
    ]
)
"""Columns of the runs' table. What is not known is null."""
SAMPLE_SCHEMA = pa.schema(
    [
        ("path", _TEXT),
        ("run_id", _TEXT),
        ("target_kind", _TEXT),
        ("device", _TEXT),
        ("bundle_id", _TEXT),
        ("threads", _WHOLE),
        ("repetition", _WHOLE),
        ("metric", _TEXT),
        ("index", _WHOLE),
        ("nanoseconds", _FLOAT),
    ]
)
"""Columns of the samples' table; ``index`` counts a metric's samples of a run from 0."""


def of_runs(runs: Iterable[Result]) -> pa.Table:
    """One row for each run, with the columns of ``RUN_SCHEMA``."""
    rows = [_row(run) for run in runs]
    for row in rows:
        for name, value in row.items():
            # JSON does not tell 1 from 1.0, Arrow does.
            if RUN_SCHEMA.field(name).type == _FLOAT and value is not None:
                row[name] = float(value)
    return pa.Table.from_pylist(rows, schema=RUN_SCHEMA)


def _row(run: Result) -> dict[str, Any]:
    """A run's values by column; a column that is left out is null."""
    configuration = run.configuration
    row: dict[str, Any] = {
        "path": str(run.path),
        "state": run.state,
        "correctness": run.correctness,
        "conditions": " ".join(condition.word for condition in conditions.of(run)),
        "target_kind": run.kind,
        "device": run.device,
        "bundle_id": configuration.bundle,
        "threads": configuration.threads,
        "thermal_maximum": _highest(run),
        "charge_per_step_uah": next(iter(charge_per_step(run)), None),
    }
    if run.record is not None:
        names = ("started_utc", "index", "repetition", "order", "attempts", "seconds", "message")
        row |= {name: run.record[name] for name in names}
        row |= {name: run.record["device"].get(name) for name in ("model", "abi", "sdk")}
        row |= {name: run.record.get(name) for name in ("cooldown_seconds", "thermal_before")}
    if run.report is not None:
        row |= _of_report(run.report)
    return row


def _of_report(report: reports.Report) -> dict[str, Any]:
    names = ("run_id", "started_utc", "finished_utc", "resumed_from_step")
    row: dict[str, Any] = {name: report[name] for name in names}
    row |= {name: report["target"][name] for name in ("model", "abi", "os", "sdk", "cores")}
    parameters = report["parameters"] or {}
    row |= {name: parameters.get(name) for name in ("steps", "batch_size", "seed", "learning_rate")}
    row["battery_level"] = (report["battery"] or {}).get("level")
    row["max_abs_loss_error"] = (report["correctness"] or {}).get("max_abs_error")
    for when, quality in (report["quality"] or {}).items():
        row |= {f"{key}_{when}": value for key, value in (quality or {}).items() if "@" in key}
    losses = [loss for loss in report["losses"] if loss is not None]
    if losses:
        row |= {"first_loss": losses[0], "last_loss": losses[-1]}
    for name in TIMES:
        metric = report["metrics"].get(name)
        if metric is not None:
            row |= {f"{name}_{key}": metric[key] for key in STATISTICS}
    for key, _ in MEMORY:
        readings = [(phase["memory"] or {}).get(key) for phase in report["phases"]]
        known = [reading for reading in readings if reading is not None]
        row[f"{key.removesuffix('_kb')}_max_kb"] = max(known, default=None)
    if report["bundle"] is not None:
        row["manifest_sha256"] = report["bundle"]["manifest_sha256"]
        row["planned_arena_bytes"] = reports.planned_arenas(report)
    row |= {name: report["versions"].get(name) for name in ("harness", "runtime", "runtime_sha256")}
    row["table_sha256"] = (report["state"] or {}).get("table_sha256")
    return {name: value for name, value in row.items() if name in RUN_SCHEMA.names}


def _highest(run: Result) -> int | None:
    """The highest thermal status of the run, by the sensors or by the report."""
    found = [(run.report or {}).get("thermal_status")]
    for phase in (run.sensors or {}).get("phases", []):
        found.append((phase["thermal_status"] or {}).get("maximum"))
    return max((status for status in found if status is not None), default=None)


def of_samples(runs: Iterable[Result]) -> pa.Table:
    """One row for each raw sample, with the columns of ``SAMPLE_SCHEMA``."""
    parts = [SAMPLE_SCHEMA.empty_table()]
    for run in runs:
        for metric in (run.report or {"metrics": {}})["metrics"]:
            values = run.samples(metric)
            same = (
                str(run.path),
                (run.report or {}).get("run_id"),
                run.kind,
                run.device,
                run.configuration.bundle,
                run.configuration.threads,
                run.record["repetition"] if run.record is not None else None,
                metric,
            )
            columns: Sequence[Any] = [
                *([value] * len(values) for value in same),
                range(len(values)),
                [float(value) for value in values],
            ]
            arrays = [
                pa.array(column, field.type)
                for column, field in zip(columns, SAMPLE_SCHEMA, strict=True)
            ]
            parts.append(pa.Table.from_arrays(arrays, schema=SAMPLE_SCHEMA))
    return pa.concat_tables(parts)


def check_name(path: Path) -> None:
    """Refuse a file name that says no format.

    Raises:
        SparseRecError: neither ``.parquet`` nor ``.csv``.
    """
    if path.suffix not in (".parquet", ".csv"):
        raise SparseRecError(
            f"{path}: neither .parquet nor .csv", "end the file's name with the format you want"
        )


def write(table: pa.Table, path: Path) -> None:
    """Write a table as its file's name says; nothing half-written stays under that name.

    Raises:
        SparseRecError: the name has no known ending, or the file cannot be written.
    """
    check_name(path)
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".csv":
            pyarrow.csv.write_csv(table, part)
        else:
            pyarrow.parquet.write_table(table, part)
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):  # as of a name that cannot be at all
            part.unlink(missing_ok=True)
        raise SparseRecError(f"{path}: cannot be written: {error}", "name another file") from None
