"""The report's charts: matplotlib figures as SVG fragments that follow the page's colours.

A figure is drawn with placeholder colours, which become CSS variables, so one drawing serves light
and dark. Text stays text. Metadata and namespaces go, so a page names no address at all.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from device_bench import units
from device_bench.report import PARTS, Report, mean_per_step, phase_maxima

# Any colour that matplotlib would not come up with by itself will do.
_COLOURS = {
    "#0a0b01": "var(--ink)",
    "#0a0b02": "var(--muted)",
    "#0a0b03": "var(--grid)",
    "#0a0b04": "var(--first)",
    "#0a0b05": "var(--second)",
    "#0a0b06": "var(--third)",
}
INK, MUTED, GRID, FIRST, SECOND, THIRD = _COLOURS
MAX_POINTS = 1500
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 8.0,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
}
Charts = dict[str, str]


def all_of(report: Report, golden: dict[str, Any] | None, host: dict[str, Any] | None) -> Charts:
    """Every chart there is data for, by name: ``host``, ``loss``, ``latency``, ``parts``,
    ``memory``.
    """
    charts: Charts = {}
    with mpl.rc_context(_STYLE):
        if host is not None and any(host["curves"].values()):
            charts["host"] = host_curves(host["curves"])
        if any(loss is not None for loss in report["losses"]):
            charts["loss"] = loss_curve(report["losses"], golden["losses"] if golden else None)
        step = report["metrics"].get("train_step_ns")
        if step and step["runs"]:
            charts["latency"] = latency(step["runs"])
            charts["parts"] = breakdown(report)
        if any(phase["memory"] for phase in report["phases"]):
            charts["memory"] = memory(report)
    return charts


def host_curves(curves: dict[str, Sequence[Sequence[float]]]) -> str:
    """Recall@20 on the host, one line for each table."""
    figure, axes = _axes()
    colours = dict(zip(("sparse", "dense", "random"), (FIRST, SECOND, THIRD), strict=True))
    for name, points in curves.items():
        epochs, recall = np.asarray(points, dtype=float).reshape(-1, 2).T
        axes.plot(epochs, recall, color=colours.get(name, MUTED), label=name)
    axes.set_xlabel("epoch")
    axes.set_ylabel("Recall@20")
    axes.set_ylim(bottom=0)
    axes.legend(loc="lower right")
    ends = ", ".join(f"{name} {points[-1][1]:.4f}" for name, points in curves.items() if points)
    return _svg(figure, "host", "Training on the host", f"Recall@20 by epoch; at the end: {ends}.")


def loss_curve(losses: Sequence[float | None], golden: Sequence[float] | None) -> str:
    """The loss of each step, its running mean, and the host's first losses over it."""
    figure, axes = _axes()
    values = np.array([np.nan if loss is None else loss for loss in losses])
    steps = np.arange(len(values))
    shown = _thinned(len(values))
    window = max(1, len(values) // 20)
    mean = np.convolve(values, np.ones(window) / window, mode="valid")
    axes.plot(steps[shown], values[shown], color=FIRST, alpha=0.35, linewidth=0.8, label="device")
    if window > 1:
        kept = _thinned(len(mean))
        label = f"device, mean of {window} steps"
        axes.plot((steps + window // 2)[kept], mean[kept], color=FIRST, label=label)
    if golden:
        axes.plot(golden, color=SECOND, linestyle=(0, (2, 1.5)), linewidth=1.0, label="host")
    axes.set_xlabel("step")
    axes.set_ylabel("loss of the batch")
    axes.legend(loc="upper right")
    finite = values[np.isfinite(values)]
    text = f"{len(values)} steps: from {finite[0]:.4f} to {finite[-1]:.4f}."
    if golden:
        text += f" The host's losses cover the first {len(golden)} steps."
    return _svg(figure, "loss", "Loss by training step", text)


def latency(runs: Sequence[float]) -> str:
    """How long steps take: a histogram over the share of steps that are as fast."""
    values = np.sort(np.asarray(runs, dtype=float))
    figure = Figure(figsize=(4.4, 3.3), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[1, 1.2])
    low, high = max(values[0], 1.0), max(values[-1], values[0] * 1.01, 2.0)
    bins = np.geomspace(low * 0.999, high * 1.001, 41)
    above.hist(values, bins=bins.tolist(), color=FIRST)
    above.set_ylabel("steps")
    above.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    shown = _thinned(len(values))
    share = np.arange(1, len(values) + 1) / len(values)
    below.step(values[shown], share[shown], color=FIRST, where="post")
    for percent in (50, 95):
        value = float(np.percentile(values, percent))
        below.axvline(value, color=SECOND, linewidth=0.9, linestyle=(0, (3, 2)))
        below.annotate(
            f"p{percent}",
            (value, 0.02 if percent == 50 else 0.16),
            xytext=(2, 0),
            textcoords="offset points",
            color=SECOND,
        )
    below.set_ylim(0, 1.02)
    below.set_ylabel("share of steps")
    below.set_xlabel("time of a step (logarithmic)")
    below.set_xscale("log")
    below.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
    below.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))
    below.xaxis.set_minor_locator(NullLocator())
    below.xaxis.set_minor_formatter(NullFormatter())
    median, late = np.percentile(values, [50, 95])
    text = (
        f"{len(values)} steps; half take at most {units.duration(median)}, "
        f"95 of 100 at most {units.duration(late)}."
    )
    return _svg(figure, "latency", "Distribution of step times", text)


def breakdown(report: Report) -> str:
    """Where a step's time goes, as means over all steps."""
    names = [name for name in PARTS if mean_per_step(report, name) is not None]
    means = [mean_per_step(report, name) or 0.0 for name in names]
    rest = (mean_per_step(report, "train_step_ns") or 0.0) - sum(means)
    labels = [name.removesuffix("_ns").replace("_", "-") for name in names]
    if rest > 0:
        labels.append("rest")
        means.append(rest)
    text = "; ".join(
        f"{label} {units.duration(mean)}" for label, mean in zip(labels, means, strict=True)
    )
    figure, axes = _axes(height=2.2)
    _bars(axes, labels, [units.duration(mean) for mean in means], [(means, FIRST, "")])
    axes.set_xlabel("mean time per step")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))
    return _svg(figure, "parts", "Parts of a training step", f"Mean time per step: {text}.")


def memory(report: Report) -> str:
    """Memory of each phase beside what the programs plan for themselves."""
    phases = phase_maxima(report)
    rows = [(phase["name"].replace("_", " "), phase["memory"]) for phase in phases]
    labels = [name for name, _ in rows]
    mib = 1024.0
    anon = [(figures.get("pss_anon_kb") or 0) / mib for _, figures in rows]
    file = [(figures.get("pss_file_kb") or 0) / mib for _, figures in rows]
    peak = [(figures.get("rss_peak_kb") or 0) / mib for _, figures in rows]
    arenas = report["bundle"]["planned_arena_bytes"] if report["bundle"] else {}
    planned = sum(value or 0 for value in arenas.values()) / (1 << 20)
    labels.append("planned arenas")
    figure, axes = _axes(height=0.9 + 0.26 * len(labels))
    zero = [0.0]
    ends = [units.kilobytes(value * mib) if value else "" for value in peak]
    _bars(
        axes,
        labels,
        [*ends, units.size(planned * (1 << 20))],
        [
            (anon + zero, FIRST, "anonymous (PSS)"),
            (file + zero, SECOND, "of files (PSS)"),
            (zero * len(rows) + [planned], THIRD, "planned by the programs"),
        ],
        at=[*peak, planned],
    )
    axes.scatter(peak, range(len(peak)), color=INK, marker="|", s=60, label="peak RSS so far")
    axes.set_xlabel("MiB")
    axes.legend(loc="upper center", bbox_to_anchor=(0.4, -0.22), ncols=2, fontsize=7)
    text = "; ".join(
        f"{name}: peak RSS {units.kilobytes(figures.get('rss_peak_kb'))}" for name, figures in rows
    )
    return _svg(figure, "memory", "Memory by phase", f"{text}.")


def _axes(height: float = 2.7) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.4, height), layout="constrained")
    return figure, figure.subplots()


def _bars(
    axes: Axes,
    labels: list[str],
    ends: list[str],
    series: list[tuple[list[float], str, str]],
    at: list[float] | None = None,
) -> None:
    """Stacked horizontal bars, first label on top, with a text at each bar's end."""
    left = np.zeros(len(labels))
    for values, colour, label in series:
        axes.barh(range(len(labels)), values, left=left, color=colour, height=0.62, label=label)
        left += np.asarray(values)
    reach = np.maximum(left, at) if at is not None else left
    for row, (end, text) in enumerate(zip(reach, ends, strict=True)):
        axes.annotate(text, (end, row), xytext=(4, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(0, max(reach.max(), 1e-9) * 1.22)
    axes.xaxis.set_major_locator(MaxNLocator(5))


def _tick(nanoseconds: float) -> str:
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if nanoseconds >= size:
            return f"{nanoseconds / size:g} {unit}"
    return f"{nanoseconds:g} ns" if nanoseconds else "0"


def _thinned(length: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Indices of at most ``MAX_POINTS`` evenly spread points, the ends among them."""
    return np.unique(np.linspace(0, length - 1, min(length, MAX_POINTS)).astype(np.int64))


def _svg(figure: Figure, name: str, title: str, description: str) -> str:
    """The figure as an SVG element with ids of its own, a title and a description."""
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\n?", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r"font: ([\d.]+px) [^;\"]+", r"font-size: \1", text)
    for colour, variable in _COLOURS.items():
        text = text.replace(colour, variable)
    box = re.search(r'viewBox="[^"]+"', text)
    assert box is not None
    body = text[text.index(">") + 1 :]
    return (
        f'<svg {box[0]} role="img" aria-labelledby="{name}-title {name}-description">'
        f'<title id="{name}-title">{html.escape(title)}</title>'
        f'<desc id="{name}-description">{html.escape(description)}</desc>{body}'
    )
