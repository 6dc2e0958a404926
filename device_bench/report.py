"""Reading a run's report and judging it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from device_bench import checked, units

Report = dict[str, Any]
"""``report.json`` as read, valid by ``schema/report-1.schema.json``."""

SCHEMA = "report-1.schema.json"
PERCENTILES = ("minimum", "p50", "p90", "p95", "p99", "maximum")
PARTS = ("gradients_ns", "update_ns", "assemble_ns", "write_back_ns", "exchange_ns")
"""The metrics that together make up a training step."""
MEMORY = (
    ("rss_kb", "RSS"),
    ("rss_peak_kb", "RSS, peak"),
    ("pss_kb", "PSS"),
    ("pss_anon_kb", "PSS, anonymous"),
    ("pss_file_kb", "PSS, files"),
    ("private_dirty_kb", "Private dirty"),
    ("java_heap_kb", "Java heap"),
    ("native_heap_kb", "Native heap"),
)
TARGETS = {
    "virtual-device": "virtual device",
    "emulator": "emulator",
    "phone": "phone",
}


def read(path: Path) -> Report:
    """Read and check a report.

    Raises:
        SparseRecError: not readable, or not a report of this schema, naming the field.
    """
    return checked.read(
        path,
        SCHEMA,
        "a report",
        "name a report.json that a run wrote; if it is one, it was changed: run `sparserec bench`",
    )


def failure(report: Report) -> str | None:
    """Why the run counts as failed, None if it does not."""
    status = report["exit_status"]
    if status == "started":
        return f"the run did not finish: the harness died in phase {report['phase']}"
    if status == "failed":
        return f"the run failed in phase {report['phase']}: {report['error'] or 'no reason given'}"
    correctness = report["correctness"]
    if verdict(report) == "failed":
        error = units.small(correctness["max_abs_error"])
        return (
            f"the device's losses differ from the host's by {error}, "
            f"more than {units.small(correctness['tolerance'])}"
        )
    return None


def verdict(report: Report) -> str:
    """Whether the losses agree with the host's: ``passed``, ``failed`` or ``not checked``.

    An error above the tolerance is a failure, whatever the report calls it.
    """
    correctness = report["correctness"]
    if correctness is None:
        return "not checked"
    error, tolerance = correctness["max_abs_error"], correctness["tolerance"]
    if error is not None and tolerance is not None and error > tolerance:
        return "failed"
    return str(correctness["verdict"])


def inconsistencies(report: Report) -> list[str]:
    """What in a report's figures contradicts its own raw samples; empty if nothing does."""
    found = []
    for name, metric in sorted(report["metrics"].items()):
        if metric is None or not metric["runs"]:
            continue
        runs = metric["runs"]
        if metric["count"] != len(runs):
            found.append(f"{name}: count is {metric['count']}, but there are {len(runs)} samples")
        for key, own in _statistics(runs).items():
            # The harness rounds to whole nanoseconds, of MAD the median as well.
            slack = 0 if key in ("minimum", "maximum") else 1
            said = metric[key]
            if said is not None and not math.isclose(said, own, rel_tol=1e-12, abs_tol=slack):
                found.append(f"{name}: {key} is {said}, the samples' is {own:.0f}")
    return found


def _statistics(runs: Sequence[float]) -> dict[str, float]:
    """What a report says of its samples, by the harness's definitions (``Measurements.kt``)."""
    values = np.asarray(runs, dtype=float)
    percentiles = np.percentile(values, (0, 50, 90, 95, 99, 100))
    found = dict(zip(PERCENTILES, map(float, percentiles), strict=True))
    return {**found, "mad": float(np.median(np.abs(values - found["p50"])))}


def phase_maxima(report: Report) -> list[dict[str, Any]]:
    """Each distinct phase once, in order of appearance.

    Returns:
        For each: ``name``, ``times`` it occurred, ``duration_ns`` in all (None where one is not
        known), and ``memory`` with the largest reading of each figure (None where none could be
        read).
    """
    merged: dict[str, dict[str, Any]] = {}
    for phase in report["phases"]:
        entry = merged.setdefault(
            phase["name"], {"name": phase["name"], "times": 0, "duration_ns": 0, "memory": {}}
        )
        entry["times"] += 1
        if phase["duration_ns"] is None or entry["duration_ns"] is None:
            entry["duration_ns"] = None
        else:
            entry["duration_ns"] += phase["duration_ns"]
        for key, value in (phase["memory"] or {}).items():
            old = entry["memory"].get(key)
            entry["memory"][key] = value if old is None else max(old, value or 0)
    return list(merged.values())


def label(metric: str) -> str:
    """A metric's name as people read it: ``write_back_ns`` is ``write back``."""
    return metric.removesuffix("_ns").replace("_", " ")


def mean_per_step(report: Report, name: str) -> float | None:
    """A part's time spread over all measured steps, in nanoseconds."""
    part, step = report["metrics"].get(name), report["metrics"].get("train_step_ns")
    if not part or not step or not step["runs"]:
        return None
    return float(sum(part["runs"]) / len(step["runs"]))


def ordered_metrics(report: Report) -> list[tuple[str, Any]]:
    """The step first, then its parts, then the rest."""
    metrics = report["metrics"]
    first = ["train_step_ns", *PARTS]
    names = [name for name in first if name in metrics]
    return [(name, metrics[name]) for name in [*names, *sorted(set(metrics) - set(first))]]


def planned_arenas(report: Report) -> int | None:
    """Bytes of all arenas that the programs plan; None where one is not known, or no bundle is."""
    arenas = report["bundle"]["planned_arena_bytes"].values() if report["bundle"] else [None]
    known = [int(size) for size in arenas if size is not None]
    return sum(known) if known and len(known) == len(arenas) else None


def peak_rss(report: Report) -> int | None:
    """The highest RSS of any phase, in kB."""
    readings = [(phase["memory"] or {}).get("rss_peak_kb") for phase in report["phases"]]
    return max((value for value in readings if value is not None), default=None)
