"""The charts of what the phone's sensors followed over a run (docs/formats.md section 8.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from device_bench import charts
from device_bench.charts import FIRST, MUTED, SERIES

TRACES = {
    "thermal": ("Thermal status: 0 none, 1 light, 2 moderate, 3 severe", True),
    "clocks": ("Processor clocks, GHz", True),
    "level": ("Battery level, %", False),
    "current": ("Battery current, mA", False),
    "rss": ("Resident memory, MiB", True),
}


def all_of(sensors: dict[str, Any]) -> dict[str, str]:
    """Every trace that has points, by name."""
    points = sensors["trace"]
    seconds = [point["time_ns"] / 1e9 for point in points]
    cores: list[int] = next(
        (p["cpu_frequencies_khz"] for p in points if p["cpu_frequencies_khz"]), []
    )
    clocks = {
        index: [_at(point["cpu_frequencies_khz"], index, 1e6) for point in points]
        for index in range(len(cores))
    }
    series = {
        "thermal": {"thermal status": [_scaled(p["thermal_status"], 1) for p in points]},
        "clocks": _alike(clocks),
        "level": {"battery, %": [_scaled(p["battery_level"], 1) for p in points]},
        "current": {"current, mA": [_scaled(p["battery_current_now"], 1e3) for p in points]},
        "rss": {
            "RSS, MiB": [_scaled(p["rss_kb"], 1024) for p in points],
            "anonymous": [_scaled(p["rss_anon_kb"], 1024) for p in points],
        },
    }
    found = {}
    for name, (title, from_zero) in TRACES.items():
        lines = {k: v for k, v in series[name].items() if not np.all(np.isnan(v))}
        if lines:
            found[name] = _trace(name, title, seconds, lines, sensors["phases"], from_zero)
    return found


def _trace(
    name: str,
    title: str,
    seconds: Sequence[float],
    lines: dict[str, list[float]],
    phases: Sequence[dict[str, Any]],
    from_zero: bool,
) -> str:
    """Lines over the run's time, with the training phases shaded."""
    figure, axes = charts.axes(height=1.9)
    for phase in phases:
        if phase["name"] == "train":
            start = phase["start_ns"] / 1e9
            end = start + phase["duration_ns"] / 1e9
            axes.axvspan(start, end, color=charts.GRID, alpha=0.45, linewidth=0)
    spoken = []
    for index, (label, values) in enumerate(lines.items()):
        colour = SERIES[index % len(SERIES)]
        dash = "-" if index < len(SERIES) else "--"
        axes.plot(seconds, values, dash, color=colour, drawstyle="steps-post", label=label)
        spoken.append(f"{label} from {np.nanmin(values):.4g} to {np.nanmax(values):.4g}")
    if len(seconds) == 1:
        axes.plot([seconds[0]] * len(lines), [v[0] for v in lines.values()], "o", color=FIRST)
    if len(lines) > 1:
        figure.legend(loc="outside lower left", ncols=4)
    if from_zero:
        axes.set_ylim(0, max(max(np.nanmax(v) for v in lines.values()) * 1.12, 1.2))
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=name in ("thermal", "level")))
    axes.set_xlabel("seconds since sampling began")
    axes.set_title(title, loc="left", fontsize=8, color=MUTED)
    return charts.svg(figure, name, title, f"{'; '.join(spoken)}.")


def _alike(clocks: dict[int, list[float]]) -> dict[str, list[float]]:
    """Cores that always run at one clock as one line."""
    groups: dict[tuple[float, ...], list[int]] = {}
    for core, values in clocks.items():
        groups.setdefault(tuple(np.nan_to_num(values, nan=-1.0).tolist()), []).append(core)
    found = {}
    for cores in groups.values():
        neighbours = len(cores) > 1 and cores[-1] - cores[0] == len(cores) - 1
        name = f"{cores[0]}–{cores[-1]}" if neighbours else ", ".join(map(str, cores))
        found[f"core{'s' * (len(cores) > 1)} {name}"] = clocks[cores[0]]
    return found


def _at(values: Sequence[float] | None, index: int, size: float) -> float:
    return _scaled(values[index] if values and index < len(values) else None, size)


def _scaled(value: float | None, size: float) -> float:
    return float("nan") if value is None else value / size
