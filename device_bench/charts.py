"""What the report's charts share: one look, and SVG that takes the page's colours.

A figure is drawn with placeholder colours, which become CSS variables, so one drawing serves light
and dark. Text stays text. Metadata and namespaces go, so a page names no address at all.
"""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

# Any colour that matplotlib would not come up with by itself will do.
_COLOURS = {
    "#0a0b01": "var(--ink)",
    "#0a0b02": "var(--muted)",
    "#0a0b03": "var(--grid)",
    "#0a0b04": "var(--first)",
    "#0a0b05": "var(--second)",
    "#0a0b06": "var(--third)",
    "#0a0b07": "var(--fourth)",
    "#0a0b08": "var(--page)",
}
INK, MUTED, GRID, FIRST, SECOND, THIRD, FOURTH, PAGE = _COLOURS
SERIES = (FIRST, SECOND, THIRD, FOURTH)
WIDTH = 4.2
"""Of a chart, in inches: at a phone's width its text is as large as the page's small print."""
MAX_POINTS = 1200
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # names come from files, and a "$" there is no formula
    "font.size": 8.0,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.6,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": GRID,
    "ytick.major.size": 0,
    "xtick.major.size": 3,
    "xtick.major.width": 0.6,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "legend.borderaxespad": 0.2,
    "legend.handlelength": 1.4,
    "lines.linewidth": 1.4,
    "lines.solid_capstyle": "round",
}


@contextmanager
def style() -> Iterator[None]:
    """Draw in the report's look; everything that makes a figure runs inside."""
    with mpl.rc_context(_STYLE):
        yield


def axes(height: float = 2.5, width: float = WIDTH) -> tuple[Figure, Axes]:
    """A figure with one chart."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def rows_of(labels: Sequence[str], space: float = 0.55) -> tuple[Figure, Axes]:
    """A chart with a line for each label, the first on top."""
    figure, drawn = axes(space + 0.27 * len(labels))
    drawn.set_yticks(range(len(labels)), list(labels))
    drawn.tick_params(axis="y", labelcolor=INK)
    drawn.set_ylim(len(labels) - 0.4, -0.6)
    drawn.grid(axis="y", visible=False)
    drawn.grid(axis="x", visible=True)
    return figure, drawn


def bars(
    drawn: Axes,
    ends: Sequence[str],
    series: Sequence[tuple[Sequence[float], str, str]],
    at: Sequence[float] | None = None,
) -> None:
    """Stacked bars on the lines of ``rows_of``, with a text at each bar's end.

    Args:
        drawn: where.
        ends: the texts.
        series: values, colour and name of each part of the stack.
        at: where the texts stand if not at the bars' ends.
    """
    left = np.zeros(len(ends))
    for values, colour, name in series:
        drawn.barh(range(len(ends)), values, left=left, color=colour, height=0.6, label=name)
        left += np.asarray(values)
    reach = np.maximum(left, at) if at is not None else left
    for row, (end, text) in enumerate(zip(reach, ends, strict=True)):
        drawn.annotate(text, (end, row), xytext=(4, 0), textcoords="offset points", va="center")
    drawn.set_xlim(0, max(reach.max(), 1e-9) * 1.25)
    drawn.xaxis.set_major_locator(MaxNLocator(5))


def time_axis(drawn: Axes, values: Sequence[float], vertical: bool = False) -> None:
    """A logarithmic axis of nanoseconds that holds ``values``."""
    low, high = max(min(values), 1.0), max(*values, 1.0)
    # Where the times hardly differ, the axis still spans a factor that has ticks.
    reach = 1.04 * math.sqrt(max(high / low, 2.2))
    middle = math.sqrt(low * high)
    limits = (middle / reach, middle * reach)
    axis = drawn.yaxis if vertical else drawn.xaxis
    if vertical:
        drawn.set_yscale("log")
        drawn.set_ylim(*limits)
    else:
        drawn.set_xscale("log")
        drawn.set_xlim(*limits)
    decades = math.log10(limits[1] / limits[0])
    steps = (1.0, 2.0, 5.0) if decades <= 2.2 else (1.0, 3.0) if decades <= 3.2 else (1.0,)
    if decades < 0.8:  # too few round decimal places to mark
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    else:
        axis.set_major_locator(LogLocator(subs=steps, numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def tick(nanoseconds: float) -> str:
    """A time as an axis has it."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if nanoseconds >= size:
            return f"{nanoseconds / size:g} {unit}"
    return f"{nanoseconds:g} ns" if nanoseconds else "0"


def thinned(length: int, points: int = MAX_POINTS) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Indices of at most ``points`` evenly spread points, the ends among them."""
    return np.unique(np.linspace(0, length - 1, min(length, points)).astype(np.int64))


def svg(figure: Figure, name: str, title: str, description: str) -> str:
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
    text = re.sub(r"<[^>]+>", lambda tag: re.sub(r"(\.\d\d)\d+", r"\1", tag[0]), text)
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
