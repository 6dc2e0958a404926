"""The outcome of a simulation as a table, as JSON, and as a figure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from device_bench.simulate.fleet import BINS, Outcome

if TYPE_CHECKING:
    from rich.console import Console

PARTS = (0.5, 0.9, 0.99, 1.0)


def figures(outcome: Outcome) -> dict[str, Any]:
    """Give the numbers of one simulation; seconds and bytes."""
    waits = np.quantile(outcome.down.waited, [0.5, 0.95, 0.99, 1.0])
    return {
        "devices": len(outcome.checked_in),
        "sent_bytes": outcome.sent_bytes,
        "received_bytes": outcome.received_bytes,
        "wait_s": dict(zip(("p50", "p95", "p99", "most"), waits.tolist(), strict=True)),
        "updated_by_s": {f"{part:.0%}": outcome.updated_by(part) for part in PARTS},
        "reported_by_s": {f"{part:.0%}": outcome.reported_by(part) for part in PARTS},
        "longest_wait_for_the_collector_s": float(outcome.up.waited.max()),
    }


def show(console: Console, found: dict[str, dict[str, Any]]) -> None:
    """Print one column for each simulation."""
    from rich.table import Table

    table = Table("", *(name for name in found), title="One generation to the whole fleet")
    for column in table.columns[1:]:
        column.justify = "right"
    all_ = list(found.values())
    table.add_row("devices", *(f"{one['devices']:,}" for one in all_))
    table.add_row("the server sends", *(f"{one['sent_bytes'] / 1e9:,.1f} GB" for one in all_))
    table.add_row("the collector gets", *(f"{one['received_bytes'] / 1e9:,.1f} GB" for one in all_))
    for key, text in (("wait_s", "wait for a connection"), ("updated_by_s", "updated")):
        for which in all_[0][key]:
            table.add_row(f"{text}, {which}", *(_time(one[key][which]) for one in all_))
    for which in all_[0]["reported_by_s"]:
        row = (_time(one["reported_by_s"][which]) for one in all_)
        table.add_row(f"reports in, {which}", *row)
    console.print(table)


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.2f} h"


def plot(path: Path, outcomes: dict[str, Outcome]) -> None:
    """Draw how far the fleet is, and what the server sends, over time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    reach, sends = figure.subplots(1, 2)
    last = max(outcome.up.finished.max() for outcome in outcomes.values())
    edges = np.linspace(0, last, BINS + 1)
    for number, (name, outcome) in enumerate(outcomes.items()):
        colour = f"C{number}"
        for served, style, what in ((outcome.down, "-", "updated"), (outcome.up, ":", "reported")):
            share = np.searchsorted(np.sort(served.finished), edges) / len(served.finished)
            reach.plot(edges / 3600, share * 100, style, color=colour, label=f"{name}, {what}")
        # A transfer's bytes are counted where it ends: it is short beside a bin.
        busy, _ = np.histogram(outcome.down.finished, edges, weights=outcome.down.held)
        sends.plot(edges[1:] / 3600, busy / np.diff(edges), color=colour, label=name)
    reach.set(xlabel="hours", ylabel="% of devices")
    sends.set(xlabel="hours", ylabel="connections in use", yscale="log")
    for axes in (reach, sends):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
