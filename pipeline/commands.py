"""The command line of the pipeline: ``sparserec data`` and ``sparserec train``."""

from __future__ import annotations

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
)
from pipeline.data.commands import app as data
from pipeline.options import changed, with_flags

if TYPE_CHECKING:
    from pipeline.fit import Fitted

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
        Path | None, typer.Option(help="Folder of the run.  [default: runs/<dataset>-<method>]")
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
    fresh: Annotated[bool, typer.Option(help="Start over where there is a checkpoint.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Accept the dataset's terms.")] = False,
    user_col: UserColumn = None,
    item_col: ItemColumn = None,
    time_col: TimeColumn = None,
    rating_col: RatingColumn = None,
    min_rating: MinRating = None,
    duplicates: Duplicates = OnDuplicate.ERROR,
    **options: Any,
) -> None:
    """Train a table on a host and keep the epoch that validation likes best.

    Stop it with Ctrl-C and run the same command again: it goes on where it was, bit for bit.
    Defaults in the panels are those of sparserec; other methods have some of their own.

    Example: sparserec train ml-100k --density 0.1 --out runs/first
    """
    from pipeline.data.commands import ensure
    from pipeline.data.datasets import DATASETS, load
    from pipeline.fit import fit, refit_checkpoint
    from pipeline.models import MODELS
    from pipeline.recipes import RECIPES
    from pipeline.run import save_run
    from sparserec.progress import bars

    MODELS[model]  # an unknown one fails before any work
    recipe = RECIPES[method.value]()
    recipe = changed(replace(recipe, step=replace(recipe.step, model=model)), options)
    if dataset in DATASETS:
        ensure(dataset, yes)
    data_set = load(
        dataset,
        user_col=user_col,
        item_col=item_col,
        time_col=time_col,
        rating_col=rating_col,
        min_rating=min_rating,
        duplicates=duplicates.value,
    )
    split = data_set.split(recipe.seed, protocol.value)
    out = out or Path("runs") / f"{data_set.name}-{method.value}"
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / "checkpoint.safetensors"
    if fresh:
        for path in (checkpoint, refit_checkpoint(checkpoint)):
            path.unlink(missing_ok=True)
    try:
        with bars() as progress:
            fitted = fit(recipe, split, checkpoint, progress)
    except KeyboardInterrupt:
        typer.echo(f"stopped; the same command goes on from {checkpoint}", err=True)
        raise typer.Exit(130) from None
    save_run(out, data_set.name, data_set.source_sha256, recipe, split, fitted)
    _show(out, fitted)


def _show(out: Path, fitted: Fitted) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=f"{out}: best epoch {fitted.best_epoch}, density {fitted.table.density:.1%}"
    )
    table.add_column("on the test part")
    for k in fitted.test.recall:
        table.add_column(f"@{k}", justify="right")
    table.add_row("Recall", *(f"{value:.4f}" for value in fitted.test.recall.values()))
    table.add_row("NDCG", *(f"{value:.4f}" for value in fitted.test.ndcg.values()))
    console = Console()
    console.print(table)
    console.print(f"Next: sparserec export {out}", highlight=False)
