"""``sparserec demo``: the whole way on real data, from a public dataset to a device's report."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pipeline.data.datasets import Dataset
    from pipeline.data.split import Split
    from pipeline.fit import Fitted
    from pipeline.recipes import Recipe
    from pipeline.table import PackedTable

DATASET = "ml-100k"
NAMES = {"sparserec": "sparse", "dense": "dense", "rigl": "random"}
STEPS = 8


def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything the demo makes.")] = Path(
        "runs/demo"
    ),
    device: Annotated[
        str | None,
        typer.Option(
            metavar="SERIAL|HOST:PORT|virtual",
            help="The device to use. Default: the only connected phone, else a virtual device.",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Accept the dataset's terms.")] = False,
    tune: Annotated[
        bool, typer.Option(help="Instead, select learning rates and penalties on validation.")
    ] = False,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the training data, for all three tables.", min=1)
    ] = None,
) -> None:
    """Train a sparse, a dense and a random-mask table on MovieLens-100K, export the sparse one's
    training step, let a device learn on from it, and report.

    It leaves a bundle, report.json, report.html and summary.json in the folder.
    """
    from pipeline.files import alone
    from pipeline.recipes import RECIPES

    started = time.monotonic()
    recipes = {name: RECIPES[name]() for name in NAMES}
    if epochs is not None:
        recipes = {name: _with_epochs(recipe, epochs) for name, recipe in recipes.items()}
    data, split = _dataset(yes)
    if tune:
        _tune(recipes, split)
        return
    with alone(out):
        start = _initialise(recipes["sparserec"], split)
        fitted = _train(recipes, data, split, start, out)
        _compare(fitted, recipes)
        bundle = _export(out)
        report = _learn(device, bundle, out, _host_summary(fitted, recipes))
        _finish(out, fitted, report, time.monotonic() - started)
    if report["correctness"]["verdict"] != "passed":
        raise typer.Exit(1)


def _say(step: int, title: str, what: str) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    console.print(f"\n[bold]{step}/{STEPS} {title}[/]  [dim]{what}[/]", soft_wrap=True)


def _with_epochs(recipe: Recipe, epochs: int) -> Recipe:
    from dataclasses import replace

    return replace(recipe, epochs=epochs)


def _dataset(yes: bool) -> tuple[Dataset, Split]:
    from pipeline.data.commands import ensure
    from pipeline.data.datasets import load

    _say(1, "Dataset", "who watched what, and when")
    ensure(DATASET, yes)
    data = load(DATASET)
    split = data.split()
    print(
        f"{len(data.interactions):,} interactions of {split.num_users:,} users with"
        f" {split.num_items:,} items, each user's cut by time:\n"
        f"  the host trains on {len(split.train):,} and selects on {len(split.valid):,};\n"
        f"  the device learns from the next {len(split.log):,}, which test the host's tables,\n"
        f"  and is judged by the last {len(split.later):,}"
    )
    return data, split


def _initialise(recipe: Recipe, split: Split) -> PackedTable:
    import numpy as np

    from pipeline.evaluate import evaluate
    from pipeline.recommender import Recommender
    from pipeline.start import initial_table

    _say(2, "NMF initialisation", "which entries are active, and what they start from")
    started = time.monotonic()
    table = initial_table(recipe, split)
    per_row = np.diff(table.row_ptr)
    recall = evaluate(Recommender(table), split.valid, split.train, split.known_items).recall[20]
    print(
        f"rank {table.dim} factors of {split.known_users:,} users x {split.known_items:,} items in"
        f" {time.monotonic() - started:.1f} s: {table.nnz:,} of {table.num_rows * table.dim:,}"
        f" entries are active,\n{per_row.min()} to {per_row.max()} of a row's {table.dim}."
        f" Before any training, validation Recall@20 is {recall:.4f}"
    )
    return table


def _train(
    recipes: dict[str, Recipe], data: Dataset, split: Split, start: PackedTable, out: Path
) -> dict[str, Fitted]:
    from pipeline.fit import fit
    from pipeline.run import save_run
    from sparserec.progress import bars

    density = recipes["sparserec"].density
    _say(
        3,
        "Training",
        f"SparseRec at {density:.0%} density, and two tables to compare it with",
    )
    fitted = {}
    with bars() as progress:
        for name, recipe in recipes.items():
            begin = start if name == "sparserec" else None
            fitted[name] = fit(recipe, split, progress=progress, start=begin)
            save_run(out / name, data.name, data.source_sha256, recipe, split, fitted[name])
    return fitted


def _compare(fitted: dict[str, Fitted], recipes: dict[str, Recipe]) -> None:
    from rich.console import Console
    from rich.table import Table

    _say(
        4, "Evaluation", "full ranking of all unseen items; the best epoch was chosen on validation"
    )
    table = Table()
    for column in (
        "table",
        "density",
        "entries",
        "best epoch",
        "Recall@20",
        "NDCG@20",
        "of dense",
    ):
        table.add_column(column, justify="left" if column == "table" else "right")
    reference = fitted["dense"].test.recall[20]
    described = {
        "sparserec": "SparseRec",
        "dense": "dense",
        "rigl": "random mask",
    }
    for name, one in fitted.items():
        table.add_row(
            described[name],
            f"{one.table.density:.0%}",
            f"{one.table.nnz:,}",
            f"{one.best_epoch} of {recipes[name].epochs}" if one.best_epoch else "the start",
            f"{one.test.recall[20]:.4f}",
            f"{one.test.ndcg[20]:.4f}",
            f"{one.test.recall[20] / reference:.1%}",
        )
    console = Console(highlight=False)
    console.print(table)
    console.print(
        "[dim]SparseRec: mask and values from NMF, regrown by cumulative gradients. Random mask:"
        " the same trainer from a random start, regrown by the gradient of one batch.[/]"
    )


def _export(out: Path) -> Path:
    from export.commands import export

    _say(
        5, "Export", "the training step and the scorer as ExecuTorch programs, checked, in a bundle"
    )
    bundle = out / "bundle"
    export(run=out / "sparserec", out=bundle)
    return bundle


def _learn(wanted: str | None, bundle: Path, out: Path, host: dict[str, Any]) -> dict[str, Any]:
    """Push the bundle, learn on, fetch and show the report."""
    from rich.console import Console

    from device_bench import bundle as bundles
    from device_bench import lock
    from device_bench.deploy import deploy
    from device_bench.devices import choose
    from device_bench.page import render_run
    from device_bench.results import Result
    from device_bench.run import Options, run
    from device_bench.summary import show_report
    from sparserec.progress import bars

    console = Console(highlight=False)
    _say(6, "Device", "the connected phone, else a virtual device on this machine")
    with choose(wanted, say=lambda text: console.print(text, soft_wrap=True)) as device:
        _say(7, "On-device training", "push the bundle, learn from the device's own log, measure")
        checked = bundles.load(bundle)
        with lock.harness(device, "a demo") as held, bars() as progress:
            deploy(device, checked, progress, held.refresh)
            target = out / "report.json"
            report = run(device, checked.bundle_id, target, Options(fresh=True), progress)
    _say(8, "Report", "quality before and after, correctness, time and memory")
    show_report(console, report)
    render_run(Result(target, report, golden=checked.golden), out / "report.html", host)
    return report


def _host_summary(fitted: dict[str, Fitted], recipes: dict[str, Recipe]) -> dict[str, Any]:
    return {
        "dataset": DATASET,
        "density": recipes["sparserec"].density,
        "recall@20": {NAMES[name]: one.test.recall[20] for name, one in fitted.items()},
        "ndcg@20": {NAMES[name]: one.test.ndcg[20] for name, one in fitted.items()},
        "curves": {
            NAMES[name]: [[entry["epoch"], entry["recall@20"]] for entry in one.history]
            for name, one in fitted.items()
        },
    }


def _finish(out: Path, fitted: dict[str, Fitted], report: dict[str, Any], seconds: float) -> None:
    from pipeline.files import write_json

    summary = {NAMES[name]: one.test.recall[20] for name, one in fitted.items()}
    summary |= {
        "device_before": report["quality"]["before"]["recall@20"],
        "device_after": report["quality"]["after"]["recall@20"],
        "golden_max_err": report["correctness"]["max_abs_error"],
    }
    write_json(out / "summary.json", summary)
    print(f"\nIn {seconds:.0f} s. Open {out / 'report.html'} in a browser.")
    texts = [f"{key.replace('_', '-')} {value:.4f}" for key, value in summary.items()]
    texts[-1] = f"golden-max-err {summary['golden_max_err']:.1e}"
    print(f"demo: {' '.join(texts)}")


def _tune(recipes: dict[str, Recipe], split: Split) -> None:
    """Print each grid as it is tried; nothing but validation is looked at."""
    from pipeline.incremental import Incremental
    from pipeline.tune import device_trials, host_trials

    sources = {name: host_trials(recipe, split) for name, recipe in recipes.items()}
    sources["device"] = device_trials(recipes["sparserec"], Incremental(), split)
    for name, trials in sources.items():
        print(f"\n{name}: learning rate, penalty, best epoch, Recall@20 on validation")
        seen = []
        for trial in trials:
            seen.append(trial)
            print(f"  {trial.learning_rate:<6g} {trial.l2:<6g} {trial.epoch:>3} {trial.recall:.4f}")
        print(f"  selected: {asdict(max(seen, key=lambda trial: trial.recall))}")
