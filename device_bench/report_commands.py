"""The commands that read what runs left: report, compare, collect."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from sparserec.errors import SparseRecError

if TYPE_CHECKING:
    from device_bench.results import Results

PAGE = "report.html"
GATE_FAILED = 1


def report(
    path: Annotated[
        Path,
        typer.Argument(metavar="PATH", help="A report.json, or a folder that a bench wrote."),
    ],
    html: Annotated[
        Path | None, typer.Option(help="The page to write. Default: report.html beside the report.")
    ] = None,
    no_html: Annotated[bool, typer.Option("--no-html", help="Write no page.")] = False,
    bundle: Annotated[
        Path | None,
        typer.Option(help="The run's bundle: the host's losses are drawn over the device's."),
    ] = None,
    benchmark_data: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json", help="Write the figures as Jetpack's benchmarkData.json, too."
        ),
    ] = None,
) -> None:
    """Show a report, or the overview of a bench, as a table and as a page of one file.

    The exit code is 0 if every run succeeded and no loss contradicts the host's.
    """
    from dataclasses import replace

    from device_bench import results

    found = results.load(path)
    if bundle is not None:
        golden = results.golden(bundle / results.GOLDEN)
        found = replace(found, runs=[replace(run, golden=golden) for run in found.runs])
    console = Console()
    folder = path if path.is_dir() else path.parent
    show(console, found, None if no_html else html or folder / PAGE)
    if benchmark_data is not None:
        from device_bench import benchmark_data as jetpack

        for file in jetpack.write(found, benchmark_data):
            console.print(f"benchmarkData: {escape(str(file))}", soft_wrap=True)
    if not all(run.is_good for run in found.runs):
        raise typer.Exit(1)


def show(console: Console, found: Results, html: Path | None) -> None:
    """Print a report or the overview of a bench, and write its page if ``html`` is given."""
    from device_bench import page, summary

    if found.plan is not None:
        summary.show_bench(console, found)
    else:
        summary.show_run(console, found.runs[0])
    if html is None:
        return
    if found.plan is not None:
        page.render_bench(found, html)
    else:
        page.render_run(found.runs[0], html)
    console.print(f"report: {escape(str(html))}", soft_wrap=True)


def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="A report.json or a bench's folder.")],
    b: Annotated[
        Path | None,
        typer.Argument(
            metavar="[B]",
            help="Another. Left out: A's two bundles, or two devices, in the order they ran.",
        ),
    ] = None,
    gate: Annotated[
        float | None,
        typer.Option(
            min=1.0,
            metavar="FACTOR",
            help="Exit with 1 if B is worse than A by more than this, the whole interval with it, "
            "in step time, peak RSS or Recall@20, or cannot be judged. 1.05 allows 5 %.",
        ),
    ] = None,
    force_unlike: Annotated[
        bool,
        typer.Option(
            "--force-unlike", help="Compare even what differs in device, threads, steps or batch."
        ),
    ] = False,
    confidence: Annotated[float, typer.Option(min=0.5, max=0.999)] = 0.95,
) -> None:
    """Compare two reports or benches: ratios of medians with bootstrap confidence intervals."""
    from device_bench import results, summary
    from device_bench.compare import compare as compare_sides
    from device_bench.compare import sides, unjudged

    if not math.isfinite(gate or 1.0):
        raise SparseRecError(f"--gate {gate}: not a finite factor", "name one such as 1.05")
    first = results.load(a)
    left, right = sides(first) if b is None else (first, results.load(b))
    found = compare_sides(left, right, force_unlike, confidence)
    console = Console()
    for comparison in found:
        summary.show_comparison(console, comparison, confidence)
    missing = unjudged(left, right, found)
    if gate is None:
        for line in missing:
            console.print(f"[yellow]note: B cannot be judged:[/] {escape(line)}", soft_wrap=True)
        return
    worse = [
        f"{comparison.b[0].configuration.label}: {verdict.metric.name.strip()}"
        for comparison in found
        for verdict in comparison.verdicts
        if verdict.metric.is_gated and verdict.is_worse_than(gate)
    ]
    for word, lines in (("B cannot be judged", missing), ("B is worse", worse)):
        for line in lines:
            console.print(f"[red]gate {gate:g}: {word}:[/] {escape(line)}", soft_wrap=True)
    if worse or missing:
        raise typer.Exit(GATE_FAILED)
    console.print(f"gate {gate:g}: nothing is shown to be worse by more than that")


def collect(
    folders: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="Reports, benches, or folders of them.")
    ],
    out: Annotated[
        Path, typer.Option(metavar="FILE.parquet|.csv", help="The table, one row for each run.")
    ],
    samples: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.parquet|.csv", help="A long table, too: one row for each raw sample."
        ),
    ] = None,
) -> None:
    """Gather many reports into one table for analysis.

    The exit code is 1 if some could not be read; the others are in the table.
    """
    from device_bench import collect as tables
    from device_bench import results

    for target in (out, samples):
        if target is not None:
            tables.check_name(target)
    if samples is not None and samples.resolve() == out.resolve():
        raise SparseRecError(
            f"--samples {samples}: is the file of --out, too", "name another file for the samples"
        )
    runs, faults = results.find(folders)
    if not runs:
        raise faults[0]
    console = Console()
    tables.write(tables.of_runs(runs), out)
    console.print(f"{len(runs)} runs: {escape(str(out))}", soft_wrap=True)
    if samples is not None:
        long = tables.of_samples(runs)
        tables.write(long, samples)
        console.print(f"{long.num_rows} samples: {escape(str(samples))}", soft_wrap=True)
    for fault in faults:
        console.print(f"[yellow]left out:[/] {escape(fault.message)}", soft_wrap=True)
    if faults:
        raise typer.Exit(1)
