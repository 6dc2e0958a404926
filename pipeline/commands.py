"""The command line of the pipeline: ``sparserec data`` and ``sparserec train``."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

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

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

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
    small = "small"


class ModelChoice(StrEnum):
    """Values of ``--model``."""

    mf = "mf"
    neumf = "neumf"
    ngcf = "ngcf"
    lightgcn = "lightgcn"


class LossChoice(StrEnum):
    """Values of ``--loss``."""

    bpr = "bpr"
    bce = "bce"
    softmax = "softmax"


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
    model: Annotated[ModelChoice, typer.Option(help="The base recommender.")] = ModelChoice.mf,
    loss: Annotated[
        LossChoice, typer.Option(help="bpr, bce, or softmax over shared sampled negatives.")
    ] = LossChoice.bpr,
    batch_size: Annotated[int | None, typer.Option(help="Examples a step.", min=1)] = None,
    density: Annotated[
        float | None, typer.Option(help="Active entries / (rows * dim).", min=0.001, max=1.0)
    ] = None,
    dim: Annotated[int | None, typer.Option(help="Columns of the table.", min=1, max=256)] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the data.", min=1)] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of Adam.", min=0.0)] = None,
    l2: Annotated[
        float | None, typer.Option(help="Penalty on the rows of a triple.", min=0.0)
    ] = None,
    window: Annotated[
        int | None, typer.Option(help="Steps between mask updates; 0 keeps the mask.", min=0)
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the start and every draw.", min=0)] = None,
    fresh: Annotated[bool, typer.Option(help="Start over where there is a checkpoint.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Accept the dataset's terms.")] = False,
    user_col: UserColumn = None,
    item_col: ItemColumn = None,
    time_col: TimeColumn = None,
    rating_col: RatingColumn = None,
    min_rating: MinRating = None,
    duplicates: Duplicates = OnDuplicate.ERROR,
) -> None:
    """Train a table on a host and keep the epoch that validation likes best.

    Stop it with Ctrl-C and run the same command again: it goes on where it was, bit for bit.

    Example: sparserec train ml-100k --density 0.1 --out runs/first
    """
    from pipeline.data.commands import ensure
    from pipeline.data.datasets import DATASETS, load
    from pipeline.fit import fit
    from pipeline.recipes import RECIPES
    from pipeline.run import save_run
    from sparserec.progress import bars

    recipe = _given(RECIPES[method.value](), density=density, dim=dim, epochs=epochs)
    recipe = _given(recipe, window=window, seed=seed)
    step = _given(recipe.step, learning_rate=learning_rate, l2=l2, batch_size=batch_size)
    recipe = replace(recipe, step=replace(step, model=model.value, loss=loss.value))
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
    split = data_set.split(recipe.seed)
    out = out or Path("runs") / f"{data_set.name}-{method.value}"
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / "checkpoint.safetensors"
    if fresh:
        checkpoint.unlink(missing_ok=True)
    try:
        with bars() as progress:
            fitted = fit(recipe, split, checkpoint, progress)
    except KeyboardInterrupt:
        typer.echo(f"stopped; the same command goes on from {checkpoint}", err=True)
        raise typer.Exit(130) from None
    save_run(out, data_set.name, data_set.source_sha256, recipe, split, fitted)
    _show(out, fitted)


T = TypeVar("T", bound="DataclassInstance")


def _given(config: T, **values: object) -> T:
    """Replace the fields that were given on the command line."""
    return replace(config, **{name: v for name, v in values.items() if v is not None})


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
