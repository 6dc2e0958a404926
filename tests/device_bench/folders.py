"""Folders as runs and benches leave them, made of the sample report."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

from tests.device_bench.conftest import build_report, metric

PHASES = ("idle", "load", "evaluate_before", "warm_up", "train", "checkpoint", "evaluate_after")


def series(low: float, high: float) -> dict[str, Any]:
    return {"count": 20, "minimum": int(low), "mean": (low + high) / 2, "maximum": int(high)}


def build_sensors(run_id: str, points: int = 60, heat: int = 0) -> dict[str, Any]:
    """Sensors of a phone with a slow and a fast cluster, which warms up to ``heat``."""
    second = 10**9
    phases = []
    for index, name in enumerate(PHASES):
        length = points * second if name == "train" else second
        start = phases[-1]["start_ns"] + phases[-1]["duration_ns"] if phases else 0
        memory = {
            key: series(base + 1000 * index, base + 1500 * index)
            for key, base in (
                ("rss_kb", 150_000),
                ("rss_anon_kb", 90_000),
                ("rss_file_kb", 60_000),
                ("java_heap_kb", 9_000),
                ("native_heap_kb", 40_000),
            )
        }
        phases.append(
            {
                "name": name,
                "start_ns": start,
                "duration_ns": length,
                **memory,
                "thermal_status": series(0, heat if name == "train" else 0),
                "battery_level": series(60, 61),
                "battery_current_now": series(-400_000, -400_000),
                "cpu_frequencies_khz": [series(1_000_000, 1_800_000), series(2_000_000, 2_400_000)],
                "memory_stats_kb": {"total-pss": 140_000},
            }
        )
    trace = [
        {
            "time_ns": at * second,
            "rss_kb": 150_000 + 500 * min(at, 20),
            "rss_anon_kb": 90_000 + 500 * min(at, 20),
            "rss_file_kb": 60_000,
            "java_heap_kb": 9_000,
            "native_heap_kb": 40_000,
            "thermal_status": heat if at > points // 2 else 0,
            "battery_level": 61 if at < points // 2 else 60,
            "battery_current_now": -400_000 - 1000 * (at % 7),
            "cpu_frequencies_khz": [1_800_000, 1_800_000, 2_400_000 - 200_000 * (at % 3)],
        }
        for at in range(points)
    ]
    cost = {"count": 1200, "minimum": 90_000, "mean": 140_000.5, "maximum": 2_000_000}
    return {
        "schema_version": 1,
        "run_id": run_id,
        "period_ms": 50,
        "slow_period_ms": 1000,
        "duration_ns": points * second,
        "cost_ns": cost,
        "cost_cpu_ns": 150_000_000,
        "border_cost_ns": cost,
        "phases": phases,
        "trace": trace,
    }


def build_record(index: int, **changes: Any) -> dict[str, Any]:
    """A ``run.json`` of a good run on a virtual device; ``changes`` replace its fields."""
    record: dict[str, Any] = {
        "schema_version": 1,
        "index": index,
        "device": {
            "serial": "virtual-1",
            "model": "SparseRec Virtual Device",
            "abi": "x86_64",
            "sdk": 34,
            "virtual": True,
            "transport": "TCP",
        },
        "bundle": {"id": "ml-100k-mf-d64-10pct-1a2b3c4d", "path": "bundle", "sha256": "0" * 64},
        "threads": 1,
        "repetition": 1,
        "order": index,
        "state": "succeeded",
        "correctness": "passed",
        "started_utc": "2026-11-24T00:00:00Z",
        "seconds": 9.5,
        "attempts": 1,
        "cooldown_seconds": 0.0,
        "thermal_before": None,
        "battery_celsius_before": None,
        "stable": None,
        "message": None,
        "files": {"report": "report.json", "sensors": None, "logcat": None, "golden": None},
    }
    return record | changes


def write_run(
    folder: Path, record: dict[str, Any], report: dict[str, Any] | None, **more: dict[str, Any]
) -> Path:
    """A run's folder; ``more`` are further files by their names without ``.json``."""
    folder.mkdir(parents=True)
    files = {"run": record, "report": report, **more}
    for name, content in files.items():
        if content is not None:
            (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def report_of(
    record: dict[str, Any], median: int = 420_000, steps: int = 120, seed: int = 1
) -> dict[str, Any]:
    """The report of a run, whose steps take about ``median`` nanoseconds."""
    report = build_report(steps)
    draw = random.Random(f"{seed}/{record['index']}")
    level = median * draw.lognormvariate(0, 0.01)
    runs = [int(level * draw.lognormvariate(0, 0.1)) for _ in range(steps)]
    report["metrics"]["train_step_ns"] = metric(runs)
    report["run_id"] = f"run-{seed}-{record['index']}"
    report["bundle"]["bundle_id"] = record["bundle"]["id"]
    report["parameters"]["threads"] = record["threads"]
    return report


def write_bench(
    folder: Path,
    bundles: dict[str, int],
    repetitions: int = 3,
    threads: tuple[int, ...] = (1,),
    seed: int = 1,
) -> Path:
    """A bench of some bundles, each with its steps' median time, interleaved."""
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text(json.dumps({"schema_version": 1, "bundles": [*bundles]}))
    index = 0
    for repetition in range(1, repetitions + 1):
        for name, median in bundles.items():
            for count in threads:
                index += 1
                bundle = {"id": name, "path": name, "sha256": "0" * 64}
                record = build_record(index, bundle=bundle, threads=count, repetition=repetition)
                place = folder / "results" / f"{index:03d}-virtual-{name}-t{count}-r{repetition}"
                report = report_of(record, median, seed=seed)
                write_run(place, record, report, golden={"losses": report["losses"][:60]})
    return folder


def nulls(report: dict[str, Any]) -> dict[str, Any]:
    """The report of a run that died early on a device where little can be read."""
    bare = copy.deepcopy(report)
    for name in ("finished_utc", "correctness", "quality", "battery", "state", "bundle"):
        bare[name] = None
    bare.update(exit_status="started", phase="load", losses=[], parameters=None)
    bare["metrics"] = {"train_step_ns": None}
    bare["phases"] = [{"name": "load", "start_ns": 0, "duration_ns": None, "memory": None}]
    bare["target"].update(model=None, abi=None, os=None, cores=None, memory_total_kb=None)
    return bare
