"""A bench as a whole: its configurations, how far repetitions agree, and the charts of that."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import numpy as np

from device_bench import charts, units
from device_bench import report as reports
from device_bench.charts import FIRST, INK, MUTED, SECOND, SERIES, THIRD
from device_bench.results import Configuration, Result, Results

STEP = "train_step_ns"


@dataclass(frozen=True)
class Row:
    """One configuration over its repetitions."""

    configuration: Configuration
    name: str
    kind: str
    runs: list[Result]
    good: list[Result]
    """Those whose figures count."""

    @property
    def medians(self) -> list[float]:
        """The median step time of each good repetition that trained, in nanoseconds."""
        return [float(np.median(run.settled(STEP))) for run in self.good if run.settled(STEP)]

    @property
    def median(self) -> float | None:
        """The median of the repetitions' medians."""
        return float(np.median(self.medians)) if self.medians else None

    @property
    def spread(self) -> str:
        """How far the slowest repetition is from the fastest, empty for fewer than two."""
        medians = self.medians
        return units.change(min(medians), max(medians)) if len(medians) > 1 else ""

    def percentile(self, percent: int) -> float | None:
        """Of the step times of all good repetitions together."""
        steps = [value for run in self.good for value in run.settled(STEP)]
        return float(np.percentile(steps, percent)) if steps else None

    @property
    def peaks(self) -> list[int]:
        """Each good repetition's peak RSS, in kB."""
        found = [reports.peak_rss(run.report) for run in self.good if run.report]
        return [peak for peak in found if peak is not None]

    def quality(self, when: str) -> float | None:
        """Recall@20 ``before`` or ``after``, the mean over good repetitions."""
        found = [((run.report or {}).get("quality") or {}).get(when) for run in self.good]
        values = [q["recall@20"] for q in found if q and q["recall@20"] is not None]
        return float(np.mean(values)) if values else None


def summarise(bench: Results) -> list[Row]:
    """The configurations of a bench, named by what differs between them."""
    found = bench.configurations()
    names = _names(list(found))
    return [
        Row(configuration, name, runs[0].kind, runs, [run for run in runs if run.is_good])
        for (configuration, runs), name in zip(found.items(), names, strict=True)
    ]


def common(configurations: Sequence[Configuration]) -> str:
    """How the names of all bundles begin, in whole words; of a single bundle all of its name."""
    names = sorted({configuration.bundle for configuration in configurations})
    if len(names) == 1:
        return names[0]
    words = zip(*(name.split("-") for name in names), strict=False)
    same = takewhile(lambda word: len(set(word)) == 1, words)
    return "".join(f"{word[0]}-" for word in same)


def _names(configurations: Sequence[Configuration]) -> list[str]:
    """What tells each from the others: of the fields, those that are not all the same."""
    shared = len(common(configurations))
    words = [
        (
            c.bundle[shared:],
            f"{c.threads} thread{'s' * (c.threads > 1)}",
            f"{c.steps} steps",
            c.device,
        )
        for c in configurations
    ]
    differs = [len({word[field] for word in words}) > 1 for field in range(4)]
    # A run that left no report does not tell its steps.
    differs[2] = len({c.steps for c in configurations if c.steps}) > 1
    if not any(differs):
        return [configuration.bundle for configuration in configurations]
    return [
        ", ".join(part for part, used in zip(word, differs, strict=True) if used) for word in words
    ]


def plan_text(plan: dict[str, Any] | None) -> str:
    """The plan as it is in ``plan.json``, laid out."""
    return json.dumps(plan or {}, indent=2, ensure_ascii=False)


def charts_of(rows: Sequence[Row]) -> dict[str, str]:
    """The charts over all configurations, by name: ``steps``, ``order``, ``memory``, ``recall``."""
    found = {}
    timed = [row for row in rows if row.medians]
    with charts.style():
        if timed:
            found["steps"] = step_times(timed)
            found["order"] = by_order(timed)
        if any(row.peaks for row in rows):
            found["memory"] = memory([row for row in rows if row.peaks])
        curve = recall_by_steps(rows)
        if curve:
            found["recall"] = curve
    return found


def step_times(rows: Sequence[Row]) -> str:
    """Each repetition's median as a dot over the range of the middle half of all its steps."""
    figure, axes = charts.rows_of([_short(row.name) for row in rows])
    limits = []
    for line, row in enumerate(rows):
        low, high = row.percentile(25) or 1.0, row.percentile(75) or 1.0
        limits += [low, high, *row.medians]
        axes.plot([low, high], [line, line], color=charts.GRID, linewidth=5)
        axes.plot(row.medians, [line] * len(row.medians), "o", color=FIRST, markersize=4, alpha=0.7)
    charts.time_axis(axes, limits)
    axes.set_xlabel("time of a step")
    text = "; ".join(f"{row.name}: {units.duration(row.median)}" for row in rows)
    return charts.svg(figure, "steps", "Median step time by configuration", f"{text}.")


def by_order(rows: Sequence[Row]) -> str:
    """The medians in the order in which the bench ran, where a drift would show."""
    figure, axes = charts.axes()
    every = []
    for index, row in enumerate(rows):
        points = [
            (run.order, float(np.median(run.settled(STEP))))
            for run in row.good
            if run.settled(STEP)
        ]
        every += [value for _, value in points]
        orders, values = zip(*sorted(points), strict=True)
        # More configurations than colours share one: the names are in the chart beside this one.
        colour = SERIES[index] if len(rows) <= len(SERIES) else MUTED
        axes.plot(orders, values, "o", color=colour, markersize=3.5, label=_short(row.name))
    charts.time_axis(axes, every, vertical=True)
    axes.set_xlabel("place in the order of the runs")
    axes.set_title("median time of a step", loc="left", fontsize=8, color=MUTED)
    if 1 < len(rows) <= len(SERIES):
        figure.legend(loc="outside lower left", ncols=1 if len(rows) > 2 else 2)
    text = f"{len(every)} runs, medians from {units.duration(min(every))} to "
    text += f"{units.duration(max(every))}."
    return charts.svg(figure, "order", "Step times in the order of the runs", text)


def memory(rows: Sequence[Row]) -> str:
    """Each repetition's peak RSS, and what the programs plan for themselves."""
    figure, axes = charts.rows_of([_short(row.name) for row in rows], space=0.8)
    for line, row in enumerate(rows):
        peaks = [peak / 1024 for peak in row.peaks]
        report = row.good[0].report
        planned = ((reports.planned_arenas(report) if report else None) or 0) / (1 << 20)
        axes.barh(
            line, planned, color=THIRD, height=0.5, label="planned arenas" if not line else ""
        )
        label = "peak RSS of a repetition" if not line else ""
        axes.plot(peaks, [line] * len(peaks), "|", color=INK, markersize=9, label=label)
    axes.set_xlim(0, max(max(row.peaks) for row in rows) / 1024 * 1.1)
    axes.set_xlabel("MiB")
    figure.legend(loc="outside lower left", ncols=2)
    text = "; ".join(f"{row.name}: {units.kilobytes(max(row.peaks))}" for row in rows)
    return charts.svg(figure, "memory", "Peak memory by configuration", f"{text}.")


def recall_by_steps(rows: Sequence[Row]) -> str | None:
    """Recall@20 against the steps trained, for bundles that were run to more than one length."""
    curves: dict[str, dict[int, float]] = {}
    for row in rows:
        after, before = row.quality("after"), row.quality("before")
        if after is not None and row.configuration.steps:
            curve = curves.setdefault(row.configuration.bundle, {})
            curve[row.configuration.steps] = after
            if before is not None:
                curve[0] = before
    lengths = [len([step for step in curve if step]) for curve in curves.values()]
    if max(lengths, default=0) < 2:
        return None
    figure, axes = charts.axes()
    spoken = []
    for index, (bundle, curve) in enumerate(sorted(curves.items())):
        steps, recall = zip(*sorted(curve.items()), strict=True)
        axes.plot(
            steps, recall, "o-", color=SERIES[index % 4], markersize=3.5, label=_short(bundle)
        )
        spoken.append(f"{bundle}: {recall[0]:.4f} at {steps[0]} to {recall[-1]:.4f} at {steps[-1]}")
    axes.set_xlabel("steps trained on the device")
    axes.set_title("Recall@20", loc="left", fontsize=8, color=MUTED)
    figure.legend(loc="outside lower left", ncols=1)
    return charts.svg(figure, "recall", "Recall@20 by steps trained", f"{'; '.join(spoken)}.")


def panels(rows: Sequence[Row]) -> list[tuple[Row, str]]:
    """A small chart for each configuration: the shares of its steps, a line for each repetition."""
    timed = [row for row in rows if row.medians]
    every = [row.percentile(percent) or 1.0 for row in timed for percent in (1, 99)]
    with charts.style():
        return [(row, _panel(index, row, every)) for index, row in enumerate(timed)]


def _panel(index: int, row: Row, limits: Sequence[float]) -> str:
    figure, axes = charts.axes(height=1.5, width=2.6)
    for run in row.good:
        values = np.sort(np.asarray(run.settled(STEP), dtype=float))
        if len(values):
            shown = charts.thinned(len(values), 120)
            share = np.arange(1, len(values) + 1) / len(values) * 100
            axes.plot(values[shown], share[shown], color=FIRST, linewidth=0.9, alpha=0.7)
    median = row.median or 1.0
    axes.axvline(median, color=SECOND, linewidth=0.9)
    charts.time_axis(axes, limits)
    axes.set_ylim(0, 103)
    axes.set_yticks([0, 50, 100], ["0", "50", "100 %"])
    text = f"{len(row.medians)} repetitions, median step {units.duration(median)}."
    return charts.svg(figure, f"panel{index}", row.name, text)


def _short(name: str, most: int = 30) -> str:
    """A name that leaves room for the chart: its ends tell more than its middle."""
    return name if len(name) <= most else f"{name[: most // 2]}…{name[-(most // 2 - 1) :]}"
