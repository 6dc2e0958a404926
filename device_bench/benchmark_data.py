"""Results as Jetpack Benchmark writes them, for the tools that read its ``benchmarkData.json``.

The keys and their meaning are those of androidx.benchmark's ``json/BenchmarkData.kt``: a context
(the device), and a list of benchmarks, each with ``metrics`` (one value for each repetition) and
``sampledMetrics`` (all samples of each repetition). Its fields are not nullable. So what is not
known is "unknown", -1 or, of a flag, false, and ``context.payload.unknown`` lists those keys.
Conditions that Jetpack warns of stand before a benchmark's name, as it puts them itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from device_bench import conditions
from device_bench import report as reports
from device_bench.results import Configuration, Result, Results
from sparserec.errors import SparseRecError

CLASS = "org.sparserec.harness.Trainer"
WARM_UP = 20
"""Steps that the harness runs and discards before it measures (docs/formats.md section 7)."""
UNKNOWN_TEXT, UNKNOWN_NUMBER = "unknown", -1
SAMPLED = ("train_step_ns", *reports.PARTS, "checkpoint_ns", "score_ns")


def write(found: Results, path: Path) -> list[Path]:
    """Write one file for each device: Jetpack's format has one context.

    Args:
        found: a report or a bench; runs whose figures do not count are left out.
        path: the file; with several devices each one's name is added to it.

    Returns:
        The files written.

    Raises:
        SparseRecError: no run to take figures from, or a file cannot be written.
    """
    devices: dict[str, list[Result]] = {}
    for run in found.runs:
        if run.is_good:
            devices.setdefault(run.device, []).append(run)
    if not devices:
        raise SparseRecError(
            f"{found.path}: no run to take figures from",
            "see `sparserec report` for what went wrong",
        )
    written = []
    for device, runs in devices.items():
        target = path
        if len(devices) > 1:
            name = re.sub(r"[^A-Za-z0-9.-]+", "_", device)
            target = path.with_name(f"{path.stem}-{name}{path.suffix}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(json.dumps(of_device(runs), indent=4) + "\n", encoding="utf-8")
        except OSError as error:
            raise SparseRecError(
                f"{target}: cannot be written: {error}", "name another file"
            ) from None
        written.append(target)
    return written


def of_device(runs: Sequence[Result]) -> dict[str, Any]:
    """The runs of one device, all with a report, as ``BenchmarkData``."""
    configurations: dict[Configuration, list[Result]] = {}
    for run in runs:
        configurations.setdefault(run.configuration, []).append(run)
    return {
        "context": _context(runs[0]),
        "benchmarks": [_benchmark(key, group) for key, group in configurations.items()],
    }


def _context(run: Result) -> dict[str, Any]:
    report = run.report or {}
    target, kind = report["target"], run.kind
    # Nobody who reads the file elsewhere may take a computer for a phone.
    maker = UNKNOWN_TEXT if kind == "phone" else kind
    clocks = report["cpu_frequencies_khz"] or []
    known = {
        "cpuCoreCount": target["cores"],
        "cpuMaxFreqHz": max((khz * 1000 for khz in clocks if khz), default=None),
        "memTotalBytes": target["memory_total_kb"] and target["memory_total_kb"] * 1024,
    }
    unknown = [key for key, value in known.items() if value is None]
    unknown += ["cpuLocked", "artMainlineVersion", "osCodenameAbbreviated", "compilationMode"]
    unknown += ["build.id", "build.type", "build.version.codename"]
    unknown += ["build.version.sdk"] if target["sdk"] is None else []
    unknown += ["build.brand", "build.device", "build.fingerprint"] if kind == "phone" else []
    return {
        "build": {
            "brand": maker,
            "device": maker,
            "fingerprint": maker,
            "id": UNKNOWN_TEXT,
            "model": target["model"] or UNKNOWN_TEXT,
            "type": UNKNOWN_TEXT,
            "version": {
                "codename": UNKNOWN_TEXT,
                "sdk": UNKNOWN_NUMBER if target["sdk"] is None else target["sdk"],
            },
        },
        **{key: UNKNOWN_NUMBER if value is None else value for key, value in known.items()},
        "cpuLocked": False,
        "sustainedPerformanceModeEnabled": False,
        "artMainlineVersion": UNKNOWN_NUMBER,
        "osCodenameAbbreviated": UNKNOWN_TEXT,
        "compilationMode": UNKNOWN_TEXT,
        "payload": {
            "targetKind": kind,
            "os": target["os"] or UNKNOWN_TEXT,
            "abi": target["abi"] or UNKNOWN_TEXT,
            "unknown": " ".join(sorted(unknown)),
            **{
                f"version.{name}": text or UNKNOWN_TEXT for name, text in report["versions"].items()
            },
        },
    }


def _benchmark(configuration: Configuration, runs: Sequence[Result]) -> dict[str, Any]:
    words = {
        condition.word for run in runs for condition in conditions.of(run) if condition.is_jetpacks
    }
    params = {
        "bundle": configuration.bundle,
        "threads": str(configuration.threads),
        "steps": str(configuration.steps),
    }
    named = ",".join(f"{key}={value}" for key, value in params.items())
    sampled = {_camel(name): [r.samples(name) for r in runs if r.samples(name)] for name in SAMPLED}
    pauses = [(run.record or {}).get("cooldown_seconds") or 0 for run in runs]
    return {
        "name": "".join(f"{word}_" for word in sorted(words)) + f"trainStep[{named}]",
        "params": params,
        "className": CLASS,
        "totalRunTimeNs": sum(_end_ns(run) for run in runs),
        "metrics": {name: _single(values) for name, values in _singles(runs).items() if values},
        "sampledMetrics": {name: _sampled(series) for name, series in sampled.items() if series},
        "warmupIterations": WARM_UP,
        "repeatIterations": len(runs),
        "thermalThrottleSleepSeconds": round(sum(pauses)),
        "profilerOutputs": [],
    }


def _singles(runs: Sequence[Result]) -> dict[str, list[float]]:
    """Values that a run has one of, by Jetpack's manner of naming, unit last."""
    phases = [(run.report or {"phases": []})["phases"] for run in runs]
    return {
        "timeNs": [
            float(np.median(s)) for s in (run.samples("train_step_ns") for run in runs) if s
        ],
        "loadNs": _known(
            sum(p["duration_ns"] or 0 for p in found if p["name"] == "load") or None
            for found in phases
        ),
        "saveNs": [
            float(np.median(s)) for s in (run.samples("checkpoint_ns") for run in runs) if s
        ],
        "memoryRssHwmKb": _known(_highest(found, "rss_peak_kb") for found in phases),
        "memoryPssMaxKb": _known(_highest(found, "pss_kb") for found in phases),
        "memoryNativeHeapMaxKb": _known(_highest(found, "native_heap_kb") for found in phases),
    }


def _known(values: Iterable[float | None]) -> list[float]:
    return [float(value) for value in values if value is not None]


def _highest(phases: Sequence[dict[str, Any]], key: str) -> float | None:
    readings = [(phase["memory"] or {}).get(key) for phase in phases]
    return max((value for value in readings if value is not None), default=None)


def _single(values: Sequence[float]) -> dict[str, Any]:
    """``SingleMetricResult``: the deviation is the sample's, 0 for a single value."""
    mean = float(np.mean(values))
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return {
        "minimum": min(values),
        "maximum": max(values),
        "median": float(np.median(values)),
        "coefficientOfVariation": deviation / mean if mean else 0.0,
        "runs": list(values),
    }


def _sampled(series: Sequence[Sequence[float]]) -> dict[str, Any]:
    """``SampledMetricResult``: percentiles over all repetitions, by linear interpolation."""
    every = np.concatenate([np.asarray(samples, dtype=float) for samples in series])
    percents = (50, 90, 95, 99)
    values = np.percentile(every, percents)
    return {
        **{f"P{percent}": float(value) for percent, value in zip(percents, values, strict=True)},
        "runs": [[float(value) for value in samples] for samples in series],
    }


def _end_ns(run: Result) -> int:
    phases = (run.report or {"phases": []})["phases"]
    return max(((p["start_ns"] or 0) + (p["duration_ns"] or 0) for p in phases), default=0)


def _camel(name: str) -> str:
    """``train_step_ns`` as ``trainStepNs``."""
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
