"""The plots of the ablation and of the sensitivity experiment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from statistics import mean
from typing import Any

from pipeline.reproduce.cells import recipe_of
from pipeline.reproduce.grids import SENSITIVITY, sensitivity
from pipeline.reproduce.records import Record
from sparserec.errors import writing

Curves = dict[str, dict[str, list[tuple[float, float]]]]
"""By hyperparameter and line (``gowalla mf``): its values, ascending, with test Recall@20."""


def mask_plot(records: Sequence[Record], path: Path) -> None:
    """Draw, for the growth rules, how far the mask leaves its start and what stays exchanged.

    A row of panels for each dataset and model, and a line for each rule, of the lowest seed
    recorded: seeds differ less than rules do.
    """
    plt = pyplot()
    groups: dict[str, dict[str, Record]] = {}
    for record in sorted(records, key=lambda r: r.cell.seed):
        cell = record.cell
        if cell.variant == "as it is" or "growth" in cell.variant:
            groups.setdefault(f"{cell.dataset} {cell.model}", {}).setdefault(cell.variant, record)
    rows = max(1, len(groups))
    figure, axes = plt.subplots(
        rows, 3, figsize=(13, 3 * rows), squeeze=False, constrained_layout=True
    )
    for line, (group, rules) in zip(axes, groups.items(), strict=False):
        for axis, key in zip(line, ("jaccard", "exchanged", "grown_frequency"), strict=True):
            for rule, record in rules.items():
                points = [(e["epoch"], e[key]) for e in record.values["history"] if key in e]
                if points:
                    axis.plot(*zip(*points, strict=True), label=rule)
            axis.set(xlabel="epoch", title=f"{group}: {key}")
        line[0].legend(fontsize=7)
    save(plt, figure, path)


def sensitivity_curves(records: Sequence[Record]) -> Curves:
    """Read the curves of the sensitivity experiment's records, means over seeds."""
    found: dict[str, dict[str, dict[float, list[float]]]] = {}
    for record in records:
        if len(record.cell.overrides) != 1 or record.cell.overrides[0][0] not in SENSITIVITY:
            continue
        name, value = record.cell.overrides[0]
        line = found.setdefault(name, {}).setdefault(
            f"{record.cell.dataset} {record.cell.model}", {}
        )
        line.setdefault(float(value), []).append(record.test("recall@20"))
    return {
        name: {
            label: sorted((value, mean(recalls)) for value, recalls in line.items())
            for label, line in found[name].items()
        }
        for name in SENSITIVITY
        if name in found
    }


def sensitivity_plot(curves: Curves, path: Path) -> None:
    """Draw a panel a hyperparameter: values evenly spaced, the experiments' default dotted."""
    plt = pyplot()
    recipe = recipe_of(replace(sensitivity()[0], overrides=()), [])
    columns = min(4, max(1, len(curves)))
    rows = max(1, -(-len(curves) // columns))
    size = (3.2 * columns, 2.8 * rows)
    figure, axes = plt.subplots(
        rows, columns, figsize=size, sharey=True, squeeze=False, constrained_layout=True
    )
    for axis, (name, lines) in zip(axes.flat, curves.items(), strict=False):
        values = sorted({value for line in lines.values() for value, _ in line})
        for label, line in lines.items():
            places = [values.index(value) for value, _ in line]
            axis.plot(places, [recall for _, recall in line], marker="o", label=label)
        default = float(reduce(getattr, name.split("."), recipe))  # type: ignore[arg-type]
        if default in values:
            axis.axvline(values.index(default), color="black", linestyle=":", linewidth=1)
        axis.set_xticks(range(len(values)), [f"{value:g}" for value in values])
        axis.set_title(name, fontsize=9)
        axis.grid(visible=True, alpha=0.3)
    for axis in axes.flat[len(curves) :]:
        axis.set_visible(False)
    for line in axes:
        line[0].set_ylabel("test Recall@20")
    if curves:
        axes[0][0].legend(fontsize=7)
    save(plt, figure, path)


def pyplot() -> Any:
    """Give matplotlib's drawing module, set to draw into files."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    return plt


def save(plt: Any, figure: Any, path: Path) -> None:
    """Write a figure as PNG, without the version of what drew it.

    Raises:
        SparseRecError: it cannot be written.
    """
    with writing(path):
        figure.savefig(path, dpi=100, metadata={"Software": None})
    plt.close(figure)
