"""What the terminal shows of reports, benches and comparisons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from device_bench import compare, conditions, overview, units
from device_bench import report as reports
from device_bench.compare import Comparison
from device_bench.report import Report
from device_bench.results import GOOD, KINDS, STATES, Result, Results, with_article

# Holds six columns of figures in a terminal of 80 characters.
TIGHT: Any = {
    "box": box.SIMPLE_HEAD,
    "show_edge": False,
    "pad_edge": False,
    "padding": (0, 1, 0, 0),
}


def show_report(console: Console, report: Report) -> None:
    """Print the main figures and step times of a report that no bench knows of."""
    _show(console, Result(Path(), report), report)


def show_run(console: Console, run: Result) -> None:
    """Print the main figures and step times of a run, or what is known where it left no report."""
    if run.report is not None:
        _show(console, run, run.report)
        return
    text = escape(f"{run.configuration.label}: {run.message or 'no reason given'}")
    console.print(f"[red]{run.fault}[/] {text}", soft_wrap=True)


def _show(console: Console, run: Result, report: Report) -> None:
    main = Table(
        show_header=False, box=box.SIMPLE_HEAD, title=_headline(run, report), title_justify="left"
    )
    main.add_column(style="bold")
    main.add_column()
    for name, value in _figures(run, report):
        main.add_row(name, escape(value))
    console.print(main)
    if any(metric and metric["count"] for metric in report["metrics"].values()):
        console.print(_times(report))
    if run.kind != "phone":
        console.print(f"[yellow]These figures are of {with_article(run.kind)}, not of a phone.[/]")
    for warning in [*report["warnings"], *reports.inconsistencies(report)]:
        console.print(f"[yellow]warning:[/] {escape(warning)}", soft_wrap=True)


def _headline(run: Result, report: Report) -> str:
    bundle = report["bundle"]["bundle_id"] if report["bundle"] else "bundle not read"
    model = report["target"]["model"] or "model not readable"
    return escape(f"{bundle} on {KINDS[run.kind]}: {model}")


def _result(run: Result, report: Report) -> str:
    """How the run ended: the bench knows more than the report of a process that was killed."""
    failure = reports.failure(report)
    if run.state == GOOD or run.record is None:
        return failure or ("succeeded" if run.is_good else run.fault)
    return f"{STATES[run.state]}: {run.message or failure or 'no reason given'}"


def _figures(run: Result, report: Report) -> list[tuple[str, str]]:
    rows = [("Result", _result(run, report))]
    quality = report["quality"] or {}
    before, after = quality.get("before"), quality.get("after")
    if before and after:
        for name, key in (("Recall@20", "recall@20"), ("NDCG@20", "ndcg@20")):
            change = units.change(before[key], after[key])
            text = f"{units.number(before[key])} before, {units.number(after[key])} after"
            rows.append((name, f"{text} ({change})" if change else text))
    correctness = report["correctness"]
    if correctness is None or run.correctness == "not_checked":
        rows.append(("Losses", "not compared with the host's"))
    else:
        rows.append(
            (
                "Losses",
                f"{run.correctness}: at most {units.small(correctness['max_abs_error'])} "
                f"from the host's over {units.count(correctness['steps'])} steps",
            )
        )
    if report["resumed_from_step"] is not None:
        text = f"from the checkpoint at step {report['resumed_from_step']}"
        step = report["metrics"].get("train_step_ns")
        if run.is_good and not (step and step["runs"]):
            text += "; no step was left to train (--fresh starts over)"
        rows.append(("Resumed", text))
    rows.append(("Peak RSS", units.kilobytes(reports.peak_rss(report))))
    arenas = report["bundle"]["planned_arena_bytes"] if report["bundle"] else {}
    planned = ", ".join(f"{name} {units.size(value)}" for name, value in sorted(arenas.items()))
    rows.append(("Planned arenas", planned or units.NOT_READABLE))
    return rows


def _times(report: Report) -> Table:
    table = Table(title="Times", title_justify="left", box=box.SIMPLE_HEAD)
    columns = ("p50", "p95", "p99", "maximum")
    table.add_column("What", no_wrap=True)
    for name in ("samples", *columns):
        table.add_column(name, justify="right", no_wrap=True)
    for name, metric in reports.ordered_metrics(report):
        if metric and metric["count"]:
            values = (units.duration(metric[key]) for key in columns)
            table.add_row(reports.label(name), str(metric["count"]), *values)
    return table


def show_bench(console: Console, bench: Results) -> None:
    """Print a bench's configurations, and the runs whose figures do not count."""
    table = Table(title=escape(str(bench.path)), title_justify="left", **TIGHT)
    table.add_column("Configuration", overflow="fold", min_width=22)
    for name in ("runs", "step p50", "spread", "p95", "peak RSS", "Recall"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in overview.summarise(bench):
        values = _configuration(row) if row.good else ("", "", "", "", "")
        table.add_row(escape(row.name), f"{len(row.good)}/{len(row.runs)}", *values)
    console.print(table)
    for kind in bench.kinds:
        if kind != "phone":
            console.print(f"[yellow]Figures of {with_article(kind)} are not those of a phone.[/]")
    for run in bench.runs:
        if not run.is_good:
            text = escape(f"{run.name}: {run.message or 'no reason given'}")
            console.print(f"[red]{run.fault}[/] {text}", soft_wrap=True)
    words = {condition.word: condition for run in bench.runs for condition in conditions.of(run)}
    for condition in words.values():
        console.print(f"[yellow]{condition.word}[/] {escape(condition.text)}", soft_wrap=True)


def _configuration(row: overview.Row) -> tuple[str, ...]:
    return (
        units.duration(row.median) if row.median is not None else "none",
        row.spread or "one run",
        units.duration(row.percentile(95)) if row.median is not None else "none",
        units.kilobytes(max(row.peaks, default=None)),
        units.number(row.quality("after")),
    )


def show_comparison(console: Console, found: Comparison, confidence: float) -> None:
    """Print each metric of two sides with the ratio, its interval and the verdict."""
    for name, runs in (("A", found.a), ("B", found.b)):
        repetitions = f"{len(runs)} run{'s' * (len(runs) != 1)}"
        label = escape(runs[0].configuration.label)
        console.print(f"[bold]{name}[/] {label}: {repetitions}", soft_wrap=True, highlight=False)
    for line in found.differences:
        console.print(f"[yellow]unlike:[/] {escape(line)}", soft_wrap=True)
    table = Table(caption=f"intervals of {confidence * 100:g} %", caption_justify="left", **TIGHT)
    table.add_column("Median of", no_wrap=True)
    for name in ("A", "B", "B / A", "interval"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("B is", no_wrap=True)
    for verdict in found.verdicts:
        ratio, show = verdict.ratio, verdict.metric.show
        interval = ""
        if ratio.low is not None and ratio.high is not None:
            interval = f"{ratio.low:.3f} to {ratio.high:.3f}"
        table.add_row(
            verdict.metric.name,
            show(verdict.a),
            show(verdict.b),
            f"{ratio.ratio:.3f}",
            interval,
            verdict.words,
        )
    console.print(table)
    for line in compare.notes(found):
        console.print(f"[yellow]note:[/] {escape(line)}", soft_wrap=True)
