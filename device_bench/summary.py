"""What the terminal shows of devices and reports."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from device_bench import report as reports
from device_bench import units
from device_bench.devices import Listed
from device_bench.report import Report


def show_devices(console: Console, found: list[Listed]) -> None:
    """Print a line for each device, and below what keeps those from being used that cannot be."""
    table = Table(title="Devices", title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("Device", "State", "Kind", "Model", "ABI", "SDK", "Free"):
        right = name in ("SDK", "Free")
        table.add_column(name, justify="right" if right else "left", no_wrap=name != "Model")
    for device in found:
        facts = device.facts
        if facts is None:
            table.add_row(escape(device.name), f"[yellow]{device.state}[/]")
            continue
        table.add_row(
            escape(device.name),
            "[green]ready[/]",
            facts.kind,
            escape(facts.model),
            ", ".join(facts.abis),
            "" if facts.sdk is None else str(facts.sdk),
            units.size(facts.free_bytes),
        )
    console.print(table)
    for device in found:
        if device.problem is not None:
            console.print(f"[yellow]{escape(device.problem.message)}[/]", soft_wrap=True)
            console.print(f"  fix: {escape(device.problem.fix)}", soft_wrap=True)


def show_report(console: Console, report: Report) -> None:
    """Print a report's main figures and its step times."""
    kind = report["target"]["kind"]
    main = Table(
        show_header=False, box=box.SIMPLE_HEAD, title=_headline(report), title_justify="left"
    )
    main.add_column(style="bold")
    main.add_column()
    for name, value in _figures(report):
        main.add_row(name, escape(value))
    console.print(main)
    if any(metric and metric["count"] for metric in report["metrics"].values()):
        console.print(_times(report))
    if kind != "phone":
        console.print(f"[yellow]These figures are of a {reports.TARGETS[kind]}, not of a phone.[/]")
    for warning in [*report["warnings"], *reports.inconsistencies(report)]:
        console.print(f"[yellow]warning:[/] {escape(warning)}", soft_wrap=True)


def _headline(report: Report) -> str:
    bundle = report["bundle"]["bundle_id"] if report["bundle"] else "bundle not read"
    model = report["target"]["model"] or "model not readable"
    return escape(f"{bundle} on {reports.TARGETS[report['target']['kind']]}: {model}")


def _figures(report: Report) -> list[tuple[str, str]]:
    failure = reports.failure(report)
    rows = [("Result", failure or "succeeded")]
    quality = report["quality"] or {}
    before, after = quality.get("before"), quality.get("after")
    if before and after:
        for name, key in (("Recall@20", "recall@20"), ("NDCG@20", "ndcg@20")):
            change = units.change(before[key], after[key])
            text = f"{units.number(before[key])} before, {units.number(after[key])} after"
            rows.append((name, f"{text} ({change})" if change else text))
    correctness = report["correctness"]
    if correctness is None or correctness["verdict"] == "not checked":
        rows.append(("Losses", "not compared with the host's"))
    else:
        rows.append(
            (
                "Losses",
                f"{correctness['verdict']}: at most {units.small(correctness['max_abs_error'])} "
                f"from the host's over {units.count(correctness['steps'])} steps",
            )
        )
    if report["resumed_from_step"] is not None:
        text = f"from the checkpoint at step {report['resumed_from_step']}"
        step = report["metrics"].get("train_step_ns")
        if failure is None and not (step and step["runs"]):
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
            label = name.removesuffix("_ns").replace("_", " ")
            table.add_row(label, str(metric["count"]), *values)
    return table
