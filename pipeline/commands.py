"""The command line of the pipeline: ``sparserec data`` and ``sparserec train``."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.data.commands import (
    Duplicates,
    ItemColumn,
    MinRating,
    OnDuplicate,
    RatingColumn,
    TimeColumn,
    UserColumn,
    ensure,
    read_options,
)
from pipeline.data.commands import app as data
from pipeline.options import changed, with_flags
from sparserec.errors import SparseRecError

if TYPE_CHECKING:
    import torch

    from pipeline.data.datasets import Protocol
    from pipeline.data.logs import LogOptions, ReadOptions
    from pipeline.data.split import Split
    from pipeline.fit import Fitted
    from pipeline.models import ModelName
    from pipeline.nmf import Factors
    from pipeline.recipes import Recipe
    from pipeline.table import PackedTable

__all__ = ["data", "train"]


class MethodChoice(StrEnum):
    """Values of ``--method``."""

    sparserec = "sparserec"
    dense = "dense"
    static = "static"
    set = "set"
    rigl = "rigl"
    dsl = "dsl"
    magnitude = "magnitude"
    pep = "pep"
    small = "small"


class ProtocolChoice(StrEnum):
    """Values of ``--protocol``."""

    lightgcn = "lightgcn"
    per_user = "per-user"


@with_flags
def train(
    dataset: Annotated[
        str, typer.Argument(help="A named dataset (see: sparserec data list) or a file of yours.")
    ] = "ml-100k",
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run.", show_default="runs/<dataset>-<method>")
    ] = None,
    method: Annotated[
        MethodChoice, typer.Option(help="sparserec, or one of the tables it is compared with.")
    ] = MethodChoice.sparserec,
    model: Annotated[
        str,
        typer.Option(
            help="The base recommender: mf, neumf, ngcf, lightgcn, or a .py file of yours"
            " (docs/models.md).",
        ),
    ] = "mf",
    protocol: Annotated[
        ProtocolChoice,
        typer.Option(
            help="lightgcn: the published split, validation held out of train (logs: by time)."
            " per-user: everything pooled, 50/25/25 of each user at random."
        ),
    ] = ProtocolChoice.lightgcn,
    factors: Annotated[
        Path | None,
        typer.Option(help="Start from these factors (sparserec spark factorise)."),
    ] = None,
    fresh: Annotated[bool, typer.Option(help="Start over where there is a checkpoint.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Accept the dataset's terms.")] = False,
    user_col: UserColumn = None,
    item_col: ItemColumn = None,
    time_col: TimeColumn = None,
    rating_col: RatingColumn = None,
    min_rating: MinRating = None,
    duplicates: Duplicates = OnDuplicate.ERROR,
    ranks: Annotated[
        int | None,
        typer.Option(help="Train on this many processes, by torchrun.", min=1),
    ] = None,
    compute: Annotated[
        str, typer.Option(help="Where gradients are computed: cpu, cuda or cuda:N.")
    ] = "cpu",
    **options: Any,
) -> None:
    """Train a table on a host and keep the epoch that validation likes best.

    Data that memory does not hold is prepared first: sparserec data prepare LOG FOLDER, or
    sparserec spark prepare; then the folder is given here.

    Stop it with Ctrl-C and run the same command again: it goes on where it was, bit for bit.
    Defaults in the panels are those of sparserec; other methods have some of their own, and what
    a method has no use for does nothing (docs/baselines.md).

    Example: sparserec train ml-100k --density 0.1 --out runs/first
    """
    from pipeline.compute import device_for
    from pipeline.data.datasets import DATASETS
    from pipeline.distributed.launch import is_first, launch, under_torchrun
    from pipeline.distributed.trainer import check
    from pipeline.factors import read_factors
    from pipeline.files import alone, checksum, lock_file
    from pipeline.models import MODELS
    from pipeline.run import save_run
    from pipeline.start import initial_table

    MODELS[model]  # an unknown one fails before any work
    recipe = _recipe(method.value, model, options)
    if factors is not None:
        _no_nmf(options)
    device = device_for(compute, model)
    if out is not None:
        lock_file(out).close()  # one that cannot be written to fails before the data is read
    rank_of_many = under_torchrun()
    if dataset in DATASETS:
        ensure(dataset, yes)
    log = read_options(user_col, item_col, time_col, rating_col, min_rating, duplicates)
    if ranks is not None and not rank_of_many:
        check(recipe, ranks)
        _look(dataset, log)
        launch(ranks, sys.argv[2:])
    name, source_sha256, split = _split(dataset, recipe.seed, protocol.value, log)
    start, given, found, factors_sha256 = None, None, None, ""
    if factors is not None and is_first():
        given, found = read_factors(factors, recipe, split, source_sha256)
        factors_sha256 = checksum({"rows": found.rows})
        start = initial_table(recipe, split, factors=found)
        found = found if recipe.refit else None  # large, and not needed again
    out = out or Path("runs") / f"{name}-{method.value}"
    with nullcontext() if rank_of_many else alone(out):  # ranks see to that themselves
        fitted = _trained(recipe, split, out, fresh, device, start, found, factors_sha256)
        if fitted is None:
            return  # not the first rank
        save_run(out, name, source_sha256, recipe, split, fitted, given)
    _show(out, fitted)


def _trained(
    recipe: Recipe,
    split: Split,
    out: Path,
    fresh: bool,
    device: torch.device,
    start: PackedTable | None,
    factors: Factors | None,
    factors_sha256: str,
) -> Fitted | None:
    """Train in this process, or as one rank of several; None from all but the first.

    Raises:
        Exit: with 130, if it was stopped.
    """
    from pipeline.distributed.launch import under_torchrun
    from pipeline.distributed.run import together
    from pipeline.fit import fit, refit_checkpoint
    from sparserec.progress import bars

    ranks = under_torchrun()
    checkpoint = out / ("checkpoint" if ranks else "checkpoint.safetensors")
    try:
        if ranks:
            return together(recipe, split, out, fresh, device, start, factors_sha256)
        if fresh:
            checkpoint.unlink(missing_ok=True)
            refit_checkpoint(checkpoint).unlink(missing_ok=True)
        with bars() as progress:
            return fit(
                recipe,
                split,
                checkpoint,
                progress,
                start,
                device=device,
                factors=factors,
                factors_sha256=factors_sha256,
            )
    except KeyboardInterrupt:
        goes_on = f"goes on from {checkpoint}" if checkpoint.exists() else "begins again"
        typer.echo(f"stopped; the same command {goes_on}", err=True)
        raise typer.Exit(130) from None


def _recipe(method: str, model: ModelName, options: dict[str, Any]) -> Recipe:
    """Give a method's recipe for a model, with the flags that were given."""
    from pipeline.recipes import RECIPES, suited

    recipe = RECIPES[method]()
    recipe = changed(replace(recipe, step=replace(recipe.step, model=model)), options)
    return suited(recipe) if options["value_scale"] is None else recipe


def _no_nmf(options: dict[str, Any]) -> None:
    """Refuse options of a factorisation beside factors that are there already.

    Raises:
        SparseRecError: there are some.
    """
    given = [
        name for name, value in options.items() if name.startswith("nmf_") and value is not None
    ]
    if given:
        flags = ", ".join("--" + name.replace("_", "-") for name in given)
        raise SparseRecError(
            f"{flags}: --factors gives the factors, and nothing is factorised",
            "leave out one or the other",
        )


def _look(source: str, log: LogOptions) -> None:
    """Open a log, so that a wrong name or column is said before ranks are started.

    Raises:
        SparseRecError: a file is missing, empty, or has no such columns.
    """
    from pipeline.data.datasets import DATASETS
    from pipeline.data.logs import Log
    from pipeline.data.sources import LOG_SUFFIXES

    if source not in DATASETS and Path(source).suffix in LOG_SUFFIXES:
        Log(Path(source), **log)


def _split(source: str, seed: int, protocol: Protocol, log: ReadOptions) -> tuple[str, str, Split]:
    """Give name, SHA-256 and split of a prepared folder, a dataset or a log."""
    from pipeline.data.datasets import DATASETS, load
    from pipeline.data.logs import given
    from pipeline.data.prepared import is_prepared, load_prepared
    from sparserec.progress import bars

    if source not in DATASETS and is_prepared(Path(source)):
        if protocol != "lightgcn" or given(log):
            raise SparseRecError(
                f"{source}: is prepared: its columns and its split are settled",
                "leave out --protocol and the options of logs, or prepare the log anew with them",
            )
        with bars() as progress:
            described, split = load_prepared(Path(source), progress)
        return described.name, described.source_sha256, split
    dataset = load(source, **log)
    return dataset.name, dataset.source_sha256, dataset.split(seed, protocol)


def _show(out: Path, fitted: Fitted) -> None:
    from rich.console import Console
    from rich.table import Table

    best = f"best epoch {fitted.best_epoch}" if fitted.best_epoch else "no epoch bettered the start"
    table = Table(title=f"{out}: {best}, density {fitted.table.density:.1%}")
    table.add_column("on the test part")
    for k in fitted.test.recall:
        table.add_column(f"@{k}", justify="right")
    table.add_row("Recall", *(f"{value:.4f}" for value in fitted.test.recall.values()))
    table.add_row("NDCG", *(f"{value:.4f}" for value in fitted.test.ndcg.values()))
    console = Console()
    console.print(table)
    console.print(f"Next: sparserec export {out}", highlight=False)
