"""The charts of one run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from device_bench import charts, traces, units
from device_bench import report as reports
from device_bench.charts import FIRST, INK, MUTED, SECOND, SERIES, THIRD
from device_bench.report import PARTS, Report, mean_per_step, phase_maxima

PERCENTS = (50, 90, 95, 99)
Charts = dict[str, str]


def all_of(
    report: Report,
    golden: dict[str, Any] | None = None,
    host: dict[str, Any] | None = None,
    sensors: dict[str, Any] | None = None,
) -> Charts:
    """Every chart there is data for, by name."""
    found: Charts = {}
    with charts.style():
        if host is not None and any(host["curves"].values()):
            found["host"] = host_curves(host["curves"])
        if any(loss is not None for loss in report["losses"]):
            expected = golden["losses"] if golden else None
            found["loss"] = loss_curve(report["losses"], expected)
            if expected:
                found["error"] = loss_errors(report, expected)
        step = report["metrics"].get("train_step_ns")
        if step and step["runs"]:
            found["latency"] = latency(step["runs"])
            found["course"] = course(step["runs"])
            found["parts"] = breakdown(report)
        if any(metric and metric["runs"] for metric in report["metrics"].values()):
            found["spread"] = spread(report)
        if any(phase["memory"] for phase in report["phases"]):
            found["memory"] = memory(report)
        if sensors is not None:
            found |= traces.all_of(sensors)
    return found


def host_curves(curves: dict[str, Sequence[Sequence[float]]]) -> str:
    """Recall@20 on the host, one line for each table."""
    figure, axes = charts.axes()
    colours = dict(zip(("sparse", "dense", "random"), SERIES, strict=False))
    for name, points in curves.items():
        epochs, recall = np.asarray(points, dtype=float).reshape(-1, 2).T
        axes.plot(epochs, recall, color=colours.get(name, MUTED), label=name)
    axes.set_xlabel("epoch")
    axes.set_title("Recall@20", loc="left", fontsize=8, color=MUTED)
    axes.set_ylim(bottom=0)
    axes.legend(loc="lower right")
    ends = ", ".join(f"{name} {points[-1][1]:.4f}" for name, points in curves.items() if points)
    text = f"Recall@20 by epoch; at the end: {ends}."
    return charts.svg(figure, "host", "Training on the host", text)


def loss_curve(losses: Sequence[float | None], golden: Sequence[float] | None) -> str:
    """The loss of each step, its running mean, and the host's first losses over it."""
    figure, axes = charts.axes()
    values = np.array([np.nan if loss is None else loss for loss in losses])
    steps = np.arange(len(values))
    shown = charts.thinned(len(values))
    window = max(1, len(values) // 20)
    axes.plot(steps[shown], values[shown], color=FIRST, alpha=0.35, linewidth=0.7, label="device")
    if window > 1:
        mean = np.convolve(values, np.ones(window) / window, mode="valid")
        kept = charts.thinned(len(mean))
        label = f"device, mean of {window} steps"
        axes.plot((steps + window // 2)[kept], mean[kept], color=FIRST, label=label)
    if golden:
        axes.plot(golden, color=SECOND, linestyle=(0, (2, 1.5)), linewidth=1.0, label="host")
    axes.set_xlabel("step")
    axes.set_title("loss of the batch", loc="left", fontsize=8, color=MUTED)
    axes.legend(loc="upper right")
    finite = values[np.isfinite(values)]
    text = f"{len(values)} steps: from {finite[0]:.4f} to {finite[-1]:.4f}."
    if golden:
        text += f" The host's losses cover the first {len(golden)} steps."
    return charts.svg(figure, "loss", "Loss by training step", text)


def loss_errors(report: Report, golden: Sequence[float]) -> str:
    """How far each loss is from the host's, with what is allowed."""
    figure, axes = charts.axes()
    pairs = zip(report["losses"], golden, strict=False)
    points = [
        (step, abs(loss - expected))
        for step, (loss, expected) in enumerate(pairs)
        if loss is not None
    ]
    steps, errors = [step for step, _ in points], [error for _, error in points]
    tolerance = (report["correctness"] or {}).get("tolerance")
    # Losses that are equal to the last bit have no place on a logarithmic axis.
    floor = 1e-9
    axes.plot(steps, np.maximum(errors, floor), ".", color=FIRST, markersize=3)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_ylim(floor / 2, max(*errors, tolerance or 0, 1e-6) * 6)
    if tolerance:
        axes.axhline(tolerance, color=SECOND, linewidth=1.0)
        axes.annotate(
            f"allowed: {tolerance:g}",
            (0, tolerance),
            xytext=(2, 3),
            textcoords="offset points",
            color=SECOND,
        )
    axes.set_xlabel("step")
    axes.set_title("difference from the host's loss", loc="left", fontsize=8, color=MUTED)
    text = f"{len(errors)} steps; at most {max(errors, default=0):.2g}."
    return charts.svg(figure, "error", "Difference from the host's losses", text)


def latency(runs: Sequence[float]) -> str:
    """How long steps take: a histogram over the share of steps that are as fast."""
    values = np.sort(np.asarray(runs, dtype=float))
    figure = Figure(figsize=(charts.WIDTH, 3.1), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[1, 1.3])
    charts.time_axis(below, [values[0], values[-1]])
    low, high = below.get_xlim()
    above.hist(values, bins=np.geomspace(low, high, 49).tolist(), color=FIRST)
    above.set_title("steps", loc="left", fontsize=8, color=MUTED)
    above.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    above.tick_params(axis="x", length=0)
    shown = charts.thinned(len(values), 400)
    share = np.arange(1, len(values) + 1) / len(values)
    below.step(values[shown], share[shown] * 100, color=FIRST, where="post")
    marks = [float(value) for value in np.percentile(values, PERCENTS)]
    for percent, value in zip(PERCENTS, marks, strict=True):
        below.plot(value, percent, "o", color=SECOND, markersize=3.5)
        left = value < low * (high / low) ** 0.72
        below.annotate(
            f"p{percent}  {units.duration(value)}",
            (value, percent),
            xytext=(6 if left else -6, -8 - 7 * PERCENTS.index(percent) if percent > 50 else -2),
            textcoords="offset points",
            ha="left" if left else "right",
            color=INK,
            fontsize=7.5,
        )
    below.set_ylim(0, 104)
    below.set_title("share of steps at most as long, %", loc="left", fontsize=8, color=MUTED)
    text = f"{len(values)} steps: " + ", ".join(
        f"p{percent} {units.duration(value)}"
        for percent, value in zip(PERCENTS, marks, strict=True)
    )
    return charts.svg(figure, "latency", "Distribution of step times", f"{text}.")


def course(runs: Sequence[float]) -> str:
    """The times of the steps in the order in which they were taken."""
    values = np.maximum(np.asarray(runs, dtype=float), 1.0)  # the axis is logarithmic
    figure, axes = charts.axes()
    shown = charts.thinned(len(values))
    axes.plot(shown, values[shown], ".", color=FIRST, markersize=2, alpha=0.45, label="step")
    window = max(1, len(values) // 30)
    if window > 2:
        starts = range(0, len(values) - window + 1, window)
        medians = [float(np.median(values[start : start + window])) for start in starts]
        middle = [start + window / 2 for start in starts]
        axes.plot(middle, medians, color=SECOND, label=f"median of {window}")
        axes.legend(loc="upper right", ncols=2)
    charts.time_axis(axes, [float(values.min()), float(values.max())], vertical=True)
    axes.set_xlabel("step")
    axes.set_title("time of a step", loc="left", fontsize=8, color=MUTED)
    halves = [units.duration(float(np.median(h))) for h in np.array_split(values, 2) if len(h)]
    text = f"Median of the first half {halves[0]}, of the second {halves[-1]}."
    return charts.svg(figure, "course", "Step times in the order they were taken", text)


def breakdown(report: Report) -> str:
    """Where a step's time goes, as means over all steps."""
    names = [name for name in PARTS if mean_per_step(report, name) is not None]
    means = [mean_per_step(report, name) or 0.0 for name in names]
    rest = (mean_per_step(report, "train_step_ns") or 0.0) - sum(means)
    labels = [reports.label(name) for name in names]
    if rest > 0:
        labels.append("rest")
        means.append(rest)
    text = "; ".join(
        f"{label} {units.duration(mean)}" for label, mean in zip(labels, means, strict=True)
    )
    figure, axes = charts.rows_of(labels)
    charts.bars(axes, [units.duration(mean) for mean in means], [(means, FIRST, "")])
    axes.set_xlabel("mean time per step")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: charts.tick(value)))
    return charts.svg(figure, "parts", "Parts of a training step", f"Mean time per step: {text}.")


def spread(report: Report) -> str:
    """Every kind of work from its fastest to its slowest sample, with the percentiles between."""
    found = [(name, metric["runs"]) for name, metric in reports.ordered_metrics(report) if metric]
    found = [(name, runs) for name, runs in found if runs]
    figure, axes = charts.rows_of([reports.label(name) for name, _ in found])
    spoken = []
    for row, (name, runs) in enumerate(found):
        low, p50, p90, p95, p99, high = (
            max(float(value), 1.0) for value in np.percentile(runs, (0, *PERCENTS, 100))
        )
        axes.plot([low, high], [row, row], color=FIRST, linewidth=1.0, alpha=0.55)
        axes.plot([low, p90], [row, row], color=FIRST, linewidth=5.0, solid_capstyle="butt")
        axes.plot([p95, p99], [row, row], "|", color=SECOND, markersize=9, markeredgewidth=1.4)
        axes.plot(p50, row, "o", color=charts.PAGE, markeredgecolor=INK, markersize=4.5)
        spoken.append(f"{reports.label(name)} {units.duration(p50)} to {units.duration(p99)}")
    every = [value for _, runs in found for value in (min(runs), max(runs))]
    charts.time_axis(axes, every)
    text = f"Medians and p99: {'; '.join(spoken)}."
    return charts.svg(figure, "spread", "Spread of times by kind of work", text)


def memory(report: Report) -> str:
    """Memory of each phase beside what the programs plan for themselves."""
    rows = [(phase["name"].replace("_", " "), phase["memory"]) for phase in phase_maxima(report)]
    mib = 1024.0
    anon = [(figures.get("pss_anon_kb") or 0) / mib for _, figures in rows]
    file = [(figures.get("pss_file_kb") or 0) / mib for _, figures in rows]
    peak = [(figures.get("rss_peak_kb") or 0) / mib for _, figures in rows]
    arenas = reports.planned_arenas(report)
    planned = (arenas or 0) / (1 << 20)
    figure, axes = charts.rows_of([*(name for name, _ in rows), "planned arenas"], space=1.05)
    zero = [0.0]
    ends = [units.kilobytes(value * mib) if value else "" for value in peak]
    charts.bars(
        axes,
        [*ends, units.size(arenas)],
        [
            (anon + zero, FIRST, "anonymous (PSS)"),
            (file + zero, SECOND, "of files (PSS)"),
            (zero * len(rows) + [planned], THIRD, "planned by the programs"),
        ],
        at=[*peak, planned],
    )
    axes.scatter(peak, range(len(peak)), color=INK, marker="|", s=60, label="peak RSS so far")
    axes.set_xlabel("MiB")
    figure.legend(loc="outside lower left", ncols=2)
    text = "; ".join(
        f"{name}: peak RSS {units.kilobytes(figures.get('rss_peak_kb'))}" for name, figures in rows
    )
    return charts.svg(figure, "memory", "Memory by phase", f"{text}.")
