"""Reports as HTML: one file each that needs no network and no script."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from device_bench import conditions, figures, operators, overview, units
from device_bench import report as reports
from device_bench.results import CORRECTNESS, KINDS, STATES, Result, Results
from sparserec import __version__
from sparserec.errors import SparseRecError

FILTERS: tuple[Callable[..., str], ...] = (
    units.number,
    units.small,
    units.count,
    units.duration,
    units.size,
    units.kilobytes,
)
MANY_OPERATORS = 20


def render_run(run: Result, path: Path, host: dict[str, Any] | None = None) -> None:
    """Write the page of one run.

    Args:
        run: with a report.
        path: the file to write.
        host: the host's results: ``{"dataset": str, "density": float,
            "recall@20": {"sparse", "dense", "random"}, "ndcg@20": {...},
            "curves": {name: [[epoch, recall], ...]}}``.

    Raises:
        SparseRecError: no report, a damaged profile, or ``path`` cannot be written.
    """
    report = run.report
    if report is None:
        raise SparseRecError(
            f"{run.path}: the run left no report", "see its run.json and logcat.txt"
        )
    profile = operators.read(run.etdump) if run.etdump is not None else []
    write_page(
        path,
        "report.html.j2",
        run=run,
        report=report,
        host=host,
        target=KINDS[run.kind],
        failure=reports.failure(report),
        took=_took(report),
        percentiles=reports.PERCENTILES,
        parts=reports.PARTS,
        mean_per_step=lambda name: reports.mean_per_step(report, name),
        phases=reports.phase_maxima(report),
        ordered_metrics=reports.ordered_metrics(report),
        memory_columns=reports.MEMORY,
        peak_rss=reports.peak_rss(report),
        planned_arenas=reports.planned_arenas(report),
        conditions=conditions.of(run),
        unknown=conditions.unknown(run),
        warnings=[*report["warnings"], *reports.inconsistencies(report)],
        no_sensors=_no_sensors(run),
        operators=profile[:MANY_OPERATORS],
        more_operators=max(0, len(profile) - MANY_OPERATORS),
        no_profile=operators.ABSENT,
        charts=figures.all_of(report, run.golden, host, run.sensors),
    )


def render_bench(bench: Results, path: Path) -> None:
    """Write the overview of a bench: its configurations, their spread, and every run.

    Raises:
        SparseRecError: ``path`` cannot be written.
    """
    rows = overview.summarise(bench)
    words: dict[str, conditions.Condition] = {}
    counts: dict[str, int] = {}
    for run in bench.runs:
        for condition in conditions.of(run):
            words.setdefault(condition.word, condition)
            counts[condition.word] = counts.get(condition.word, 0) + 1
    write_page(
        path,
        "bench.html.j2",
        bench=bench,
        title=bench.path.resolve().name,
        kinds=bench.kinds,
        targets=KINDS,
        rows=rows,
        bundles=_bundles(rows),
        conditions=[(condition, counts[word]) for word, condition in words.items()],
        states=_tally(run.state for run in bench.runs),
        verdicts=_tally(run.correctness for run in bench.runs),
        charts=overview.charts_of(rows),
        panels=overview.panels(rows),
        plan=overview.plan_text(bench.plan),
        peak_rss=reports.peak_rss,
    )


def _bundles(rows: list[overview.Row]) -> str:
    """What was run, in one line."""
    configurations = [row.configuration for row in rows]
    count = len({configuration.bundle for configuration in configurations})
    shared = overview.common(configurations)
    if count == 1:
        return f"Bundle {shared}"
    return f"{count} bundles" + (f", whose names begin with {shared}" if shared else "")


def write_page(path: Path, template: str, **values: Any) -> None:
    """Fill a template in and write it.

    Raises:
        SparseRecError: ``path`` cannot be written.
    """
    environment = Environment(
        loader=PackageLoader("device_bench"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for function in (*FILTERS, reports.label):
        environment.filters[function.__name__] = function
    environment.globals.update(
        version=__version__,
        not_readable=units.NOT_READABLE,
        change=units.change,
        state_words=STATES,
        correctness_words=CORRECTNESS,
    )
    html = environment.get_template(template).render(**values)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(html, encoding="utf-8")
    except OSError as error:
        raise SparseRecError(
            f"{path}: the page cannot be written: {error}", "name another file with --html"
        ) from None


def _tally(names: Any) -> dict[str, int]:
    found: dict[str, int] = {}
    for name in names:
        found[name] = found.get(name, 0) + 1
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _took(report: reports.Report) -> str:
    """The run's wall time; empty where a time is missing or not one."""
    try:
        started = datetime.fromisoformat(report["started_utc"])
        seconds = (datetime.fromisoformat(report["finished_utc"]) - started).total_seconds()
    except (TypeError, ValueError):
        return ""
    return f"{seconds:.0f} s" if seconds >= 1 else "less than 1 s"


def _no_sensors(run: Result) -> str:
    """Why there are no traces; empty where there are."""
    if run.sensors is not None:
        return ""
    if run.kind == "virtual-device":
        return (
            "A virtual device has no sensors: heat, clocks and battery of the computer it runs on "
            "would say nothing about a phone."
        )
    return (
        "There is no sensors.json of this run beside the report. The app writes it when a run ends "
        "in whatever way but a kill, and sparserec bench fetches it with the report."
    )
