"""Renders the memory experiment: a table for each model, and plots against the number of rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.reproduce.markdown import origin, table
from pipeline.reproduce.memory import METHODS, MODELS, MemoryRecord, memory_cells, read_memory
from pipeline.reproduce.plots import pyplot, save

PEAKS = {"state_bytes": "state", "forward": "forward peak", "backward": "backward peak"}
ABOUT = """Resident bytes above what data and libraries take, the largest over 8 steps with two
mask updates, in a fresh process (`pipeline/memory.py`). *State* lives from step to step:
parameters, indices or mask, Adam's moments, accumulators or the kept gradient. *Packed* is what
values, columns, row pointers and moments of the active entries take at least. `dense` and
`rigl` are written as PyTorch users write them (`rigl`: arXiv 1911.11134 as published, with a
gradient of the whole table); `rigl-packed` is RigL's rule in this project's trainer. Only
SparseRec has an allowance: 1.3 x packed + |S| d float32, with a quarter of the rows sampled.
"""


def memory_section(results: Path) -> tuple[str, list[Path]]:
    """Write the plots; give the page's section and the plots, or nothing without records."""
    records = list(read_memory(results).values())
    if not records:
        return "", []
    values = [record.values for record in records]
    command = origin("sparserec reproduce memory", values, "cells")
    known = {cell.id for cell in memory_cells()}
    missing = len(known - {record.cell.id for record in records})
    left = (
        f"{missing} of {len(known)} cells have no record yet: `sparserec reproduce memory --list`."
    )
    parts = [f"## memory\n\n{command} {left}\n\n{ABOUT}"]
    plots = []
    for model in MODELS:
        mine = [record for record in records if record.cell.model == model]
        if not mine:
            continue
        mine.sort(key=lambda r: (r.cell.rows, METHODS.index(r.cell.method)))
        plot = results / f"memory-{model}.png"
        _plot(model, mine, plot)
        plots.append(plot)
        image = f"![Memory of {model} against the number of rows]({plot.name})\n"
        parts += [f"### {model}\n\n{_rows(mine)}", image]
    return "\n".join(parts), plots


def _rows(records: Sequence[MemoryRecord]) -> str:
    head = ["rows", "density", "method", "packed", *PEAKS.values(), "update peak", "of allowance"]
    lines = []
    for record in records:
        cell, found = record.cell, record.found
        line = [f"{cell.rows:,}", f"{cell.density:.0%}", cell.method, _mib(found.packed_bytes)]
        if found.skipped:
            lines.append([*line, f"skipped: {found.skipped}", "", "", "", ""])
            continue
        line += [_mib(getattr(found, name)) for name in (*PEAKS, "update")]
        allowed = 1.3 * found.packed_bytes + found.sums_bytes
        with_sums = found.sums_bytes and found.state_bytes is not None
        line.append(f"{(found.state_bytes or 0) / allowed:.0%}" if with_sums else "-")
        lines.append(line)
    note = "MiB; the last column is the state's part of SparseRec's allowance.\n"
    return f"{table(head, lines)}\n{note}"


def _mib(value: int | None) -> str:
    return "-" if value is None else f"{value / 2**20:.1f}"


def _plot(model: str, records: Sequence[MemoryRecord], path: Path) -> None:
    """Draw state, forward and backward on logarithmic axes, one line a method."""
    plt = pyplot()
    figure, axes = plt.subplots(1, 3, figsize=(13, 4), sharey=True, constrained_layout=True)
    packed = sorted({(r.cell.rows, r.found.packed_bytes / 2**20) for r in records})
    for axis, (name, title) in zip(axes, PEAKS.items(), strict=True):
        for method in METHODS:
            points = [
                (r.cell.rows, getattr(r.found, name) / 2**20)
                for r in records
                if r.cell.method == method and getattr(r.found, name) is not None
            ]
            if points:
                axis.plot(*zip(*points, strict=True), marker="o", label=method)
        axis.plot(*zip(*packed, strict=True), "k--", linewidth=1, label="packed")
        axis.set(xscale="log", yscale="log", xlabel="rows (N)", title=f"{model}: {title}")
        axis.grid(visible=True, alpha=0.3)
    axes[0].set_ylabel("MiB")
    axes[0].legend(fontsize=8)
    save(plt, figure, path)
