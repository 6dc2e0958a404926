"""Renders records as Markdown tables and plots: ``sparserec reproduce report``."""

from __future__ import annotations

from pathlib import Path
from statistics import mean

from pipeline.files import write_atomic
from pipeline.history import epoch_of
from pipeline.reproduce.grids import GRIDS
from pipeline.reproduce.markdown import origin, table
from pipeline.reproduce.memory_report import memory_section
from pipeline.reproduce.plots import mask_plot, sensitivity_curves, sensitivity_plot
from pipeline.reproduce.records import Record, read
from pipeline.reproduce.summary import Setting, p_text, settings
from sparserec.errors import writing

COMPARED = (
    "Gain and p: SparseRec against the best rival at equal density, on the seeds that both have.\n"
)
COMMANDS = {name: f"sparserec reproduce {name}" for name in GRIDS}


def render(results: Path) -> list[Path]:
    """Write ``README.md`` and the plots of what is recorded; returns the files.

    Raises:
        SparseRecError: a record is damaged, or a file cannot be written.
    """
    parts = [
        "# Results\n\nWritten by `sparserec reproduce report` from the records beside it; do not"
        " edit. Test Recall@20, means over the recorded seeds; epochs and settings are selected on"
        " validation, whose column is Recall@20 there of the epochs that were kept. What"
        " is missing: `sparserec reproduce summary --json`.\n"
    ]
    written = []
    for name, cells in GRIDS.items():
        records = list(read(results, name).values())  # type: ignore[arg-type]
        if not records:
            continue
        place = {cell.id: k for k, cell in enumerate(cells())}
        records.sort(key=lambda record: place.get(record.cell.id, len(place)))
        parts.append(f"## {name}\n\n{origin(COMMANDS[name], [r.values for r in records])}\n")
        if name in ("grid", "domains"):
            parts.append(_methods(settings(results, name)) + COMPARED)  # type: ignore[arg-type]
        elif name == "width":  # with no rival but a mask that stays
            parts.append(_methods(settings(results, "width"), compared=False))
        else:
            parts.append(_variants(records))
        if name == "ablation":
            plot = results / "ablation-mask.png"
            mask_plot(records, plot)
            parts.append(f"![What the mask does over the epochs]({plot.name})\n")
            written.append(plot)
        if name == "sensitivity":
            plot = results / "sensitivity.png"
            sensitivity_plot(sensitivity_curves(records), plot)
            parts.append(f"![Recall@20 against each hyperparameter]({plot.name})\n")
            written.append(plot)
    memory, plots = memory_section(results)
    if memory:
        parts.append(memory)
        written += plots
    page = results / "README.md"
    with writing(page):
        results.mkdir(parents=True, exist_ok=True)
        write_atomic(page, "\n".join(parts).encode())
    return [page, *written]


def _methods(found: list[Setting], compared: bool = True) -> str:
    shown = [one for one in found if any(not m.startswith("dense") for m in one.values)]
    methods = list(dict.fromkeys(name for one in shown for name in one.values))
    head = ["dataset", "protocol", "model", "density", *methods]
    head += ["gain", "p (t, Holm)"] if compared else []
    rows = []
    for one in shown:
        dataset, protocol, model, density = one.key
        cells = [
            f"{mean(one.values[m].values()):.4f} ({len(one.values[m])})" if m in one.values else "-"
            for m in methods
        ]
        gain = "-" if one.gain is None else f"{one.gain:+.1%}"
        rows.append([dataset, protocol, model, f"{100 * density:g}%", *cells])
        rows[-1] += [gain, p_text(one.p_t)] if compared else []
    return f"{table(head, rows)}\nIn brackets: seeds.\n"


def _variants(records: list[Record]) -> str:
    groups: dict[tuple[str, str, str], list[Record]] = {}
    several = len({record.cell.method for record in records}) > 1
    for record in records:
        cell = record.cell
        variant = f"{cell.method}: {cell.variant}" if several else cell.variant
        key = cell.dataset, cell.model, variant
        groups.setdefault(key, []).append(record)
    head = ["dataset", "model", "variant", "validation", "Recall@20", "NDCG@20", "seeds"]
    head += ["best epoch", "peak memory added"]
    rows = []
    for (dataset, model, variant), group in groups.items():
        added = [
            (r.values["peak_rss_bytes"] - r.values["rss_before_bytes"]) / 2**20
            for r in group
            if r.values.get("rss_before_bytes") is not None
        ]
        best = [epoch_of(r.values["history"], r.values["best_epoch"]) for r in group]
        rows.append(
            [
                dataset,
                model,
                variant,
                f"{mean(valid['recall@20'] for valid in best):.4f}",
                f"{mean(r.test('recall@20') for r in group):.4f}",
                f"{mean(r.test('ndcg@20') for r in group):.4f}",
                str(len(group)),
                ", ".join(f"{valid['epoch']:g}" for valid in best),
                f"{mean(added):.0f} MiB" if added else "-",
            ]
        )
    return table(head, rows)
