"""The command line of the experiments: ``sparserec reproduce``."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.reproduce.choice import chosen, require_datasets
from sparserec.errors import SparseRecError, writing

if TYPE_CHECKING:
    from pipeline.reproduce.cells import Cell
    from pipeline.reproduce.options import Options
    from pipeline.reproduce.runner import Outcome

RESULTS = Path("docs/results")
WORK = Path("runs/reproduce")

reproduce = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="""Run the experiments behind docs/results, sum them up, and check them.

    An experiment is a list of cells, one run each. A run that ends is one line in
    docs/results/<experiment>.jsonl; what has a line is not run again, so that a command that was
    stopped (Ctrl-C, a kill, --budget) goes on when it is given again, and loses at most the epoch
    that it was in. Learning rates and penalties are selected on validation first, with as many
    runs for one method as for another; that happens by itself where a cell needs it.

    Example: sparserec reproduce grid --only dataset=gowalla,model=mf --budget 90m
    """,
)

Only = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FIELD=VALUE,...",
        help="Only these cells: dataset, protocol, model, method, density, seed, variant."
        " Several values: model=mf+lightgcn.",
    ),
]
BudgetOption = Annotated[
    str | None, typer.Option(metavar="90m", help="Stop after this time; run again to go on.")
]
JobsOption = Annotated[int, typer.Option(help="Runs at a time. More than 1 disturbs times.", min=1)]
ListOption = Annotated[bool, typer.Option("--list", help="Print the cells, and run nothing.")]
ResultsOption = Annotated[Path, typer.Option(help="Folder of the records.", file_okay=False)]
RecordsOption = Annotated[
    Path, typer.Option(help="Folder of the records.", exists=True, file_okay=False)
]
WorkOption = Annotated[
    Path, typer.Option(help="Folder for checkpoints and NMF factors.", file_okay=False)
]
EpochsOption = Annotated[
    int | None, typer.Option(help="Shorter runs, for a trial; needs another --results.", min=1)
]
StaleOption = Annotated[
    bool, typer.Option(help="Run again what was recorded with another recipe than today's.")
]


class Which(StrEnum):
    """Experiments that compare methods."""

    grid = "grid"
    domains = "domains"


class MetricChoice(StrEnum):
    """What methods are compared by."""

    recall = "recall"
    ndcg = "ndcg"


@contextmanager
def _resumable() -> Iterator[None]:
    """Say of a stop, whenever it comes, that nothing is lost."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("stopped (interrupted); the same command goes on", err=True)
        raise typer.Exit(130) from None


def _experiment(name: str, text: str) -> None:
    @_resumable()
    def command(
        only: Only = None,
        budget: BudgetOption = None,
        jobs: JobsOption = 1,
        list_: ListOption = False,
        results: ResultsOption = RESULTS,
        work: WorkOption = WORK,
        epochs: EpochsOption = None,
        stale: StaleOption = False,
    ) -> None:
        from pipeline.reproduce.grids import GRIDS, tuned_cells
        from pipeline.reproduce.options import Options, parse_budget

        cells = tuned_cells() if name == "tune" else GRIDS[name]()
        cells = chosen(cells, only or [])
        budget_s = None if budget is None else parse_budget(budget)
        options = Options(results, work, budget_s, jobs, epochs, stale)
        if epochs is not None and results.resolve() == RESULTS.resolve():
            raise SparseRecError(
                "--epochs is for a trial, and a trial's records do not belong in docs/results",
                "choose another folder, e.g. --results runs/trial",
            )
        if list_:
            _list(cells, options)
        else:
            _run(name, cells, options)

    reproduce.command(name, help=text)(command)


_experiment(
    "tune",
    "Select learning rates and penalties on validation, the same grid for every method.\n\n"
    "The other experiments do this themselves for what they need.",
)
_experiment(
    "grid",
    "Compare SparseRec with every baseline: Gowalla and Yelp2018, four models, densities from 5%"
    " to 95%, three seeds.\n\nExample: sparserec reproduce grid --only seed=1 --budget 8h",
)
_experiment("ablation", "Change one choice of SparseRec at a time, with what its mask does.")
_experiment("sensitivity", "Vary each of SparseRec's hyperparameters.")
_experiment("domains", "Compare the methods on films, e-commerce and music.")
_experiment(
    "long",
    "Train tables to their end, and anew on all of train: dense ones as published figures were,"
    " and SparseRec and gradual pruning beside them.",
)
_experiment("width", "Spread the same number of active entries over 32 to 256 columns.")


def _list(cells: Sequence[Cell], options: Options) -> None:
    from pipeline.reproduce.records import read
    from pipeline.reproduce.runner import is_stale, pending

    left = pending(cells, options)
    recorded = {name: read(options.results, name) for name in {c.experiment for c in cells}}
    for cell in cells:
        record = recorded[cell.experiment].get(cell.id)
        if record is not None:
            other = not options.stale and is_stale(cell, record, options)
            typer.echo(f"recorded  {cell.experiment} {cell.id}{'  (other recipe)' * other}")
    for cell in left:
        typer.echo(f"to do     {cell.experiment} {cell.id}")
    typer.echo(f"{len(left)} runs to do, in this order", err=True)


def _say(text: str) -> None:
    print(text, flush=True)


def _make(*folders: Path) -> None:
    """Make what is written to, so that a folder that cannot be is said before anything runs."""
    for folder in folders:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)


def _stop_on_sigterm() -> None:
    def stop(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)


def _run(name: str, cells: Sequence[Cell], options: Options) -> None:
    from pipeline.reproduce.runner import pending, run
    from sparserec.progress import bars

    require_datasets(cell.dataset for cell in pending(cells, options))
    _make(options.results, options.work)
    _stop_on_sigterm()
    with bars() as progress:
        outcome = run(cells, options, progress, _say)
    _tell(name, outcome)


def _tell(name: str, outcome: Outcome) -> None:
    if outcome.stopped:
        typer.echo(f"stopped ({outcome.stopped}); the same command goes on", err=True)
    typer.echo(f"{name}: {outcome.done} runs done, {outcome.left} left", err=True)
    if outcome.failed:
        typer.echo(f"{len(outcome.failed)} failed; see the lines above", err=True)
    if outcome.stopped == "interrupted":
        raise typer.Exit(130)
    if outcome.failed:
        raise typer.Exit(1)


@reproduce.command()
@_resumable()
def memory(
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD=VALUE,...",
            help="Only these cells: model, method, rows. Several values: rows=10000+100000.",
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(metavar="90m", help="Begin none after this time; run again to go on."),
    ] = None,
    limit: Annotated[float, typer.Option(metavar="GIB", help="Skip what would take more.")] = 8.0,
    list_: ListOption = False,
    results: ResultsOption = RESULTS,
) -> None:
    """Measure forward, backward and mask update against 10^4 to 10^7 rows, at 10% density.

    SparseRec and RigL's rule on packed tables, beside a dense table and RigL as published. Each in
    a fresh process; what would not fit is recorded with the reason. Linux only.

    Example: sparserec reproduce memory --only model=mf,rows=10000+100000
    """
    from pipeline.reproduce.memory import measured, memory_cells, read_memory, run
    from pipeline.reproduce.options import parse_budget
    from sparserec.progress import bars

    if not 0 < limit < float("inf"):
        raise SparseRecError(f"--limit {limit:g} is no size", "give GiB, e.g. --limit 8")
    cells = chosen(memory_cells(), only or [], ("model", "method", "rows"))
    if list_:
        records = read_memory(results)
        for cell in cells:
            typer.echo(f"{'recorded' if measured(records.get(cell.id)) else 'to do   '}  {cell.id}")
        return
    budget_s = None if budget is None else parse_budget(budget)
    _make(results)
    _stop_on_sigterm()
    with bars() as progress:
        outcome = run(cells, results, int(limit * 2**30), budget_s, progress, _say)
    text = f"{outcome.measured} measured, {outcome.skipped} skipped, {outcome.left} not begun"
    typer.echo(f"memory: {text}, {len(outcome.failed)} failed", err=True)
    if outcome.failed:
        raise typer.Exit(1)


@reproduce.command()
def summary(
    experiment: Annotated[Which, typer.Argument(help="What to sum up.")] = Which.grid,
    metric: Annotated[MetricChoice, typer.Option(help="At 20.")] = MetricChoice.recall,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    results: RecordsOption = RESULTS,
) -> None:
    """Say who wins where, by how much, and how sure that is, from the records alone.

    The keys of --json are explained in docs/experiments.md.
    """
    from pipeline.reproduce.summary import summarise

    found = summarise(results, experiment.value, metric.value)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        _show(found)


@reproduce.command()
def report(results: RecordsOption = RESULTS) -> None:
    """Render the records as tables and plots: README.md beside them."""
    from pipeline.reproduce.report import render

    for path in render(results):
        typer.echo(str(path))


@reproduce.command()
def verify(
    experiment: Annotated[Which, typer.Argument(help="Whose records.")] = Which.grid,
    sample: Annotated[int, typer.Option(help="Cells to run again.", min=1)] = 1,
    at_most: Annotated[str, typer.Option(help="Only cells that took no longer.")] = "10m",
    seed: Annotated[int | None, typer.Option(help="Of the choice of cells.")] = None,
    results: RecordsOption = RESULTS,
) -> None:
    """Run randomly chosen cheap cells again and compare test Recall@20 and NDCG@20.

    On the record's processor, threads and versions they must agree to 1e-6, elsewhere to 3%.
    Exits with 1 where they do not.
    """
    from pipeline.reproduce.options import parse_budget
    from pipeline.reproduce.records import read
    from pipeline.reproduce.verify import cheap
    from pipeline.reproduce.verify import verify as again

    most_s = parse_budget(at_most, "--at-most")
    records = cheap(list(read(results, experiment.value).values()), most_s)
    if not records:
        raise SparseRecError(
            f"{results}: no record of {experiment.value} took at most {at_most}",
            f"run some (sparserec reproduce {experiment.value}), or raise --at-most",
        )
    checks = again(records, sample, seed, typer.echo)
    for one in checks:
        pairs = ", ".join(
            f"{k} {v:.6f} then, {one.found[k]:.6f} now" for k, v in one.recorded.items()
        )
        bound = "1e-6" if one.exact else "3%: another processor, threads or versions, or not known"
        typer.echo(f"{'same' if one.same else 'DIFFERENT'}: {one.id}: {pairs} (within {bound})")
    if not all(one.same for one in checks):
        raise typer.Exit(1)


def _show(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from pipeline.reproduce.summary import p_text

    table = Table(title=f"{found['experiment']}: {found['metric']} on test, {found['test']}")
    for column in ("setting", "SparseRec", "best rival", "", "gain", "p (t)", "of dense", "seeds"):
        table.add_column(column, justify="left" if column in ("setting", "best rival") else "right")
    for one in found["settings"]:
        if one["best_rival"] is None and "sparserec" not in one["means"]:
            continue
        name = f"{one['dataset']} {one['model']} {one['density']:.0%}"
        name += "" if one["protocol"] == "lightgcn" else f" ({one['protocol']})"
        means, rival = one["means"], one["best_rival"]
        table.add_row(
            name + (" *" if one["in_paper"] else ""),
            _number(means.get("sparserec"), ".4f"),
            rival or "-",
            _number(means.get(rival), ".4f"),
            _number(one["gain"], "+.1%"),
            p_text(one["p_paired_t_holm"]),
            _number(one["sparse_over_dense"], ".1%"),
            str(len(one["seeds_paired"])),
        )
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    if table.row_count:
        console.print(table)
    else:
        console.print("no run of SparseRec is recorded, so there is nothing to compare")
    for name, mark in (("paper", "* "), ("all", "")):
        if name in found:
            console.print(f"{mark}{_in_words(found[name])}", highlight=False)
    console.print(f"{found['recorded']} of {found['cells']} cells recorded", highlight=False)


def _in_words(totals: dict[str, Any]) -> str:
    parts = [
        f"{totals['compared']} of {totals['settings']} settings compared,"
        f" {totals['compared_with_every_rival']} with every rival; {totals['won']} won,"
        f" {totals['won_significantly']} with p < {totals['significance_level']:g}"
    ]
    if totals["median_gain"] is not None:
        best, middle, worst = (totals[f"{name}_gain"] for name in ("best", "median", "worst"))
        parts.append(f"gain {middle:+.1%} in the median, from {worst:+.1%} to {best:+.1%}")
    of_dense = totals["sparse_over_dense_at_10%"]
    if of_dense["least"] is not None:
        least, middle = of_dense["least"], of_dense["median"]
        among = f"of {of_dense['settings']} settings with a dense table"
        parts.append(f"of dense at 10%: {least:.1%} at least, {middle:.1%} in the median, {among}")
    if totals["not_won"]:
        parts.append(f"not won: {', '.join(totals['not_won'])}")
    return "; ".join(parts)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
