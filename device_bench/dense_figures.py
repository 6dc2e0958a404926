"""The figures of sparse against dense, and the page and table that show them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from rich.console import Console
from rich.table import Table

from device_bench import charts, units
from device_bench.charts import FIRST, INK, MUTED, SECOND, THIRD
from device_bench.dense_bench import (
    DENSE,
    DENSE_FORWARD,
    DENSE_STEP,
    NAMES,
    SPARSE_FORWARD,
    SPARSE_STEP,
    STEPS,
    TRAINING_MODULE,
)
from device_bench.page import write_page
from device_bench.results import KINDS
from device_bench.summary import TIGHT

Point = dict[str, Any]
COLOURS = {SPARSE_STEP: FIRST, DENSE_STEP: SECOND, TRAINING_MODULE: THIRD}
SHORT = {SPARSE_STEP: "SparseRec", DENSE_STEP: "PyTorch-style", TRAINING_MODULE: "TrainingModule"}
FORWARD = {
    SPARSE_STEP: SPARSE_FORWARD,
    DENSE_STEP: DENSE_FORWARD,
    TRAINING_MODULE: DENSE_FORWARD,
}


def reference_density(points: Sequence[Point]) -> float:
    """The density that ratios are of: the one asked for that is nearest to a tenth."""
    densities: list[float] = [point["density"] for point in points]
    return min(densities, key=lambda density: abs(density - 0.1))


def rows_of(points: Sequence[Point]) -> list[dict[str, Any]]:
    """The lines of the table: each kind of step with its forward beside it, and ratios.

    ``slower`` and ``larger`` are against SparseRec's step at the reference density, same size.
    """
    chosen = reference_density(points)
    found = []
    for point in points:
        if point["workload"] not in STEPS:
            continue
        ours = _find(points, SPARSE_STEP, point["rows"], chosen)
        forward = _find(points, FORWARD[point["workload"]], point["rows"], point["density"])
        found.append(
            point
            | {
                "name": NAMES[point["workload"]],
                "forward": forward,
                "slower": ours and point["step_ns"] / ours["step_ns"],
                "larger": ours and _ratio(point["peak_growth_kb"], ours["peak_growth_kb"]),
            }
        )
    return found


def _find(points: Sequence[Point], workload: str, rows: int, density: float) -> Point | None:
    """The point of a workload; a dense table's density is the bundle's, which is 1."""
    for point in points:
        if (point["workload"], point["rows"]) == (workload, rows) and (
            workload in DENSE or abs(point["density"] - density) < 1e-3
        ):
            return point
    return None


def _ratio(a: float | None, b: float | None) -> float | None:
    return a / b if a is not None and b else None


def show(console: Console, figures: dict[str, Any]) -> None:
    """Print the table."""
    points = figures["points"]
    chosen = reference_density(points)
    kind = figures["target"]["kind"]
    table = Table(
        title=f"Sparse against dense on a {KINDS[kind]}: {figures['target']['model']}, "
        f"d = {points[0]['dim']}, batch {figures['batch_size']}",
        title_justify="left",
        **TIGHT,
    )
    table.add_column("rows", justify="right", no_wrap=True)
    table.add_column("trainer", no_wrap=True)
    heads = ("active", "step ms", "to ours", "forward MiB", "peak MiB", "to ours", "planned MiB")
    for name in heads:
        table.add_column(name, justify="right")
    last = None
    for row in rows_of(points):
        if last not in (None, row["rows"]):
            table.add_section()
        last = row["rows"]
        forward = row["forward"]
        table.add_row(
            f"{row['rows']:,}",
            SHORT[row["workload"]],
            f"{row['density']:.0%}",
            f"{row['step_ns'] / 1e6:.3g}",
            _times(row["slower"]),
            _mebibytes(forward and forward["peak_growth_kb"]),
            _mebibytes(row["peak_growth_kb"]),
            _times(row["larger"]),
            _mebibytes(row["planned_bytes"] / 1024),
        )
    console.print(table)
    console.print(
        "forward: what a process that only runs forward grew by; peak: one that trains; planned: "
        f"table and arenas; to ours: times SparseRec's at {chosen:.0%} density",
        style="dim",
        soft_wrap=True,
    )
    if figures["max_abs_loss_difference"] is not None:
        console.print(
            f"on a table whose every entry is active, the three trainers' losses differ by at most "
            f"{figures['max_abs_loss_difference']:.1e} over {figures['compared_steps']} steps",
            soft_wrap=True,
        )
    if kind != "phone":
        console.print(f"[yellow]These figures are of a {KINDS[kind]}, not of a phone.[/]")


def _mebibytes(kilobytes: float | None) -> str:
    return units.NOT_READABLE if kilobytes is None else f"{kilobytes / 1024:.1f}"


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.3g}x"


def render(figures: dict[str, Any], path: Path) -> None:
    """Write the page.

    Raises:
        SparseRecError: ``path`` cannot be written.
    """
    points = figures["points"]
    write_page(
        path,
        "dense.html.j2",
        figures=figures,
        kind=figures["target"]["kind"],
        rows=rows_of(points),
        chosen=reference_density(points),
        largest=max(point["rows"] for point in points),
        charts=charts_of(points),
        times=_times,
    )


def charts_of(points: Sequence[Point]) -> dict[str, str]:
    """The charts by name: ``latency``, ``memory``, ``density``, ``passes``."""
    found = {}
    with charts.style():
        found["latency"] = latency(points)
        found["density"] = by_density(points)
        if all(point["peak_growth_kb"] is not None for point in points):
            found["memory"] = memory(points)
            found["passes"] = passes(points)
    return found


def _series(points: Sequence[Point], workload: str) -> list[Point]:
    """Of a kind of step, by size; SparseRec's at the reference density."""
    chosen = reference_density(points)
    return sorted(
        (
            point
            for point in points
            if point["workload"] == workload
            and (workload in DENSE or abs(point["density"] - chosen) < 1e-3)
        ),
        key=lambda point: int(point["rows"]),
    )


def _label(workload: str, density: float) -> str:
    return f"{SHORT[workload]}, {density:.0%}" if workload == SPARSE_STEP else SHORT[workload]


def _sizes(drawn: Axes, sizes: Sequence[int]) -> None:
    drawn.set_xscale("log")
    drawn.set_xticks(sizes, [f"{size:,}" for size in sizes])
    drawn.minorticks_off()
    drawn.set_xlabel("rows of the table")


def latency(points: Sequence[Point]) -> str:
    """A step's time by the table's size, a line for each trainer."""
    figure, axes = charts.axes()
    every, texts = _lines(axes, points, lambda point: point["step_ns"], units.duration)
    _sizes(axes, sorted({point["rows"] for point in points}))
    charts.time_axis(axes, every, vertical=True)
    axes.set_title("median time of a step", loc="left", fontsize=8, color=MUTED)
    figure.legend(loc="outside lower left", ncols=3)
    return charts.svg(figure, "latency", "Time of a step by table size", "; ".join(texts) + ".")


def memory(points: Sequence[Point]) -> str:
    """What the process grew by, by the table's size."""
    figure, axes = charts.axes()
    _, texts = _lines(
        axes,
        points,
        lambda point: point["peak_growth_kb"] / 1024,
        lambda value: f"{value:.0f} MiB",
    )
    _sizes(axes, sorted({point["rows"] for point in points}))
    axes.set_ylim(bottom=0)
    axes.set_title("MiB that the process grew by at its peak", loc="left", fontsize=8, color=MUTED)
    figure.legend(loc="outside lower left", ncols=3)
    return charts.svg(figure, "memory", "Memory by table size", "; ".join(texts) + ".")


def _lines(
    axes: Axes,
    points: Sequence[Point],
    value: Callable[[Point], float],
    said: Callable[[float], str],
) -> tuple[list[float], list[str]]:
    """Draw a line a trainer, by the table's rows; give all values, and the lines in words."""
    chosen, every, texts = reference_density(points), [], []
    for workload in STEPS:
        series = _series(points, workload)
        values = [value(point) for point in series]
        every += values
        label = _label(workload, chosen)
        axes.plot(
            [point["rows"] for point in series],
            values,
            "o-",
            color=COLOURS[workload],
            ms=4,
            label=label,
            clip_on=False,
        )
        texts.append(f"{label}: {', '.join(said(number) for number in values)}")
    return every, texts


def by_density(points: Sequence[Point]) -> str:
    """SparseRec's step on the largest table by density; the dense trainers as level lines."""
    figure, axes = charts.axes()
    largest = max(point["rows"] for point in points)
    ours = sorted(
        (p for p in points if p["rows"] == largest and p["workload"] == SPARSE_STEP),
        key=lambda point: float(point["density"]),
    )
    densities = [point["density"] for point in ours]
    times = [point["step_ns"] for point in ours]
    axes.plot(densities, times, "o-", color=FIRST, ms=4, label=SHORT[SPARSE_STEP], clip_on=False)
    texts = [f"{p['density']:.0%}: {units.duration(p['step_ns'])}" for p in ours]
    every = list(times)
    for workload in (DENSE_STEP, TRAINING_MODULE):
        point = _find(points, workload, largest, 1.0)
        if point is not None:
            every.append(point["step_ns"])
            axes.axhline(point["step_ns"], color=COLOURS[workload], label=SHORT[workload])
            texts.append(f"{SHORT[workload]}: {units.duration(point['step_ns'])}")
    axes.set_xscale("log")
    axes.set_xticks(densities, [f"{density:.0%}" for density in densities])
    axes.minorticks_off()
    axes.set_xlabel(f"density of the table of {largest:,} rows")
    charts.time_axis(axes, every, vertical=True)
    axes.set_title("median time of a step", loc="left", fontsize=8, color=MUTED)
    figure.legend(loc="outside lower left", ncols=3)
    return charts.svg(figure, "density", "Time of a step by density", "; ".join(texts) + ".")


def passes(points: Sequence[Point]) -> str:
    """Forward, and what the backward and the update add, on the largest table."""
    largest = max(point["rows"] for point in points)
    rows = [row for row in rows_of(points) if row["rows"] == largest and row["forward"]]
    labels = [
        f"{SHORT[row['workload']]}"
        + (f", {row['density']:.0%}" if row["workload"] == SPARSE_STEP else "")
        for row in rows
    ]
    figure, axes = charts.rows_of(labels, space=0.8)
    forward = [row["forward"]["peak_growth_kb"] / 1024 for row in rows]
    # Two processes: where the step's peak is below the forward's, the backward adds nothing.
    added = [
        max(0.0, row["peak_growth_kb"] / 1024 - first)
        for row, first in zip(rows, forward, strict=True)
    ]
    ends = [f"{first:.0f} + {more:.0f}" for first, more in zip(forward, added, strict=True)]
    charts.bars(
        axes, ends, [(forward, MUTED, "forward"), (added, FIRST, "added by backward and update")]
    )
    axes.set_xlabel(f"MiB that the process grew by, {largest:,} rows", color=INK)
    figure.legend(loc="outside lower left", ncols=2)
    text = "; ".join(f"{label}: {end} MiB" for label, end in zip(labels, ends, strict=True))
    return charts.svg(figure, "passes", "Memory of forward and backward", text + ".")
