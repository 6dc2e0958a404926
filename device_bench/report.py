"""Reading a run's report, judging it, and rendering it as one self-contained page."""

from __future__ import annotations

import json
from datetime import datetime
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from device_bench import units
from sparserec import __version__
from sparserec.errors import SparseRecError

Report = dict[str, Any]
"""``report.json`` as read, valid by ``schema/report-1.schema.json``."""

SCHEMA_VERSION = 1
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
        SparseRecError: not readable, or not a report of this schema.
    """
    try:
        report = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant)
    except (OSError, ValueError) as error:
        raise SparseRecError(
            f"{path}: cannot be read as a report: {error}", "name a report.json that a run wrote"
        ) from None
    version = report.get("schema_version") if isinstance(report, dict) else None
    if version != SCHEMA_VERSION:
        raise SparseRecError(
            f"{path}: schema_version is {version!r}, this version reads {SCHEMA_VERSION}",
            "use the sparserec version that made the report",
        )
    for fault in _validator().iter_errors(report):
        where = ".".join(str(part) for part in fault.absolute_path) or "the report"
        raise SparseRecError(
            f"{path}: {where}: {fault.message[:200]}",
            "the file was changed or the harness is of another version: run `sparserec bench`",
        )
    found: Report = report
    return found


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


@cache
def _validator() -> Any:
    text = files("device_bench").joinpath("schema/report-1.schema.json").read_text("utf-8")
    return Draft202012Validator(json.loads(text))


def failure(report: Report) -> str | None:
    """Why the run counts as failed, None if it does not."""
    status = report["exit_status"]
    if status == "started":
        return f"the run did not finish: the harness died in phase {report['phase']}"
    if status == "failed":
        return f"the run failed in phase {report['phase']}: {report['error'] or 'no reason given'}"
    correctness = report["correctness"]
    if correctness is not None and correctness["verdict"] == "failed":
        error = units.small(correctness["max_abs_error"])
        return (
            f"the device's losses differ from the host's by {error}, "
            f"more than {units.small(correctness['tolerance'])}"
        )
    return None


def inconsistencies(report: Report) -> list[str]:
    """What in a report's figures contradicts its own raw samples; empty if nothing does."""
    found = []
    for name, metric in sorted(report["metrics"].items()):
        if metric is None or not metric["runs"]:
            continue
        runs = metric["runs"]
        if metric["count"] != len(runs):
            found.append(f"{name}: count is {metric['count']}, but there are {len(runs)} samples")
        values = [metric[key] for key in PERCENTILES]
        known = [value for value in values if value is not None]
        if known != sorted(known):
            found.append(f"{name}: the percentiles are not in order")
        for key, extreme in (("minimum", min(runs)), ("maximum", max(runs))):
            if metric[key] is not None and metric[key] != extreme:
                found.append(f"{name}: {key} is {metric[key]}, the samples' is {extreme}")
    return found


def phase_maxima(report: Report) -> list[dict[str, Any]]:
    """Each distinct phase once, in order of appearance.

    Returns:
        For each: ``name``, ``times`` it occurred, ``duration_ns`` in all, and ``memory`` with the
        largest reading of each figure (None where none could be read).
    """
    merged: dict[str, dict[str, Any]] = {}
    for phase in report["phases"]:
        entry = merged.setdefault(
            phase["name"], {"name": phase["name"], "times": 0, "duration_ns": 0, "memory": {}}
        )
        entry["times"] += 1
        entry["duration_ns"] += phase["duration_ns"] or 0
        for key, value in (phase["memory"] or {}).items():
            old = entry["memory"].get(key)
            entry["memory"][key] = value if old is None else max(old, value or 0)
    return list(merged.values())


def mean_per_step(report: Report, name: str) -> float | None:
    """A part's time spread over all measured steps, in nanoseconds."""
    part, step = report["metrics"].get(name), report["metrics"].get("train_step_ns")
    if not part or not step or not step["runs"]:
        return None
    return float(sum(part["runs"]) / len(step["runs"]))


def render_html(
    report: Report,
    path: Path,
    golden: dict[str, Any] | None = None,
    host_summary: dict[str, Any] | None = None,
) -> None:
    """Write the report as one HTML file that needs no network and no script.

    Args:
        report: as ``read`` returns it.
        path: the file to write.
        golden: the bundle's ``golden.json``, drawn over the losses.
        host_summary: the host's results, shown first:
            ``{"dataset": str, "density": float, "recall@20": {"sparse", "dense", "random"},
            "ndcg@20": {...}, "curves": {name: [[epoch, recall], ...]}}``.
    """
    from device_bench import figures

    environment = Environment(
        loader=PackageLoader("device_bench"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for function in (
        units.number,
        units.small,
        units.count,
        units.duration,
        units.size,
        units.kilobytes,
    ):
        environment.filters[function.__name__] = function
    template = environment.get_template("report.html.j2")
    html = template.render(
        report=report,
        host=host_summary,
        target=TARGETS[report["target"]["kind"]],
        failure=failure(report),
        change=units.change,
        not_readable=units.NOT_READABLE,
        percentiles=PERCENTILES,
        parts=PARTS,
        mean_per_step=lambda name: mean_per_step(report, name),
        phases=phase_maxima(report),
        took=_took(report),
        ordered_metrics=ordered_metrics(report),
        memory_columns=MEMORY,
        peak_rss=peak_rss(report),
        device_state=_device_state(report),
        has_golden=golden is not None,
        version=__version__,
        warnings=[*report["warnings"], *inconsistencies(report)],
        charts=figures.all_of(report, golden, host_summary),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html, encoding="utf-8")


def _took(report: Report) -> str:
    """The run's wall time; empty where a time is missing or not one."""
    try:
        started = datetime.fromisoformat(report["started_utc"])
        seconds = (datetime.fromisoformat(report["finished_utc"]) - started).total_seconds()
    except (TypeError, ValueError):
        return ""
    return f"{seconds:.0f} s" if seconds >= 1 else "less than 1 s"


def ordered_metrics(report: Report) -> list[tuple[str, Any]]:
    """The step first, then its parts, then the rest."""
    metrics = report["metrics"]
    first = ["train_step_ns", *PARTS]
    names = [name for name in first if name in metrics]
    return [(name, metrics[name]) for name in [*names, *sorted(set(metrics) - set(first))]]


def peak_rss(report: Report) -> int | None:
    """The highest RSS of any phase, in kB."""
    readings = [(phase["memory"] or {}).get("rss_peak_kb") for phase in report["phases"]]
    return max((value for value in readings if value is not None), default=None)


def _device_state(report: Report) -> list[tuple[str, Any]]:
    """Battery and CPU frequencies as rows of a table."""
    battery = report["battery"] or {"level": None, "charging": None, "current_now": None}
    rows = [(f"Battery, {name.replace('_', ' ')}", value) for name, value in battery.items()]
    clocks = report["cpu_frequencies_khz"]
    return [*rows, ("CPU frequencies (kHz)", None if clocks is None else json.dumps(clocks))]
