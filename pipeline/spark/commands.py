"""``sparserec spark``: what comes before training, on Apache Spark."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.data.commands import (
    Duplicates,
    ItemColumn,
    MinRating,
    OnDuplicate,
    RatingColumn,
    TimeColumn,
    UserColumn,
    read_options,
    show_prepared,
)
from sparserec.progress import bars

app = typer.Typer(
    help="Split and factorise data that outgrows one machine, on Apache Spark.",
    no_args_is_help=True,
    add_completion=False,
)

Master = Annotated[
    str, typer.Option("--spark-master", help="Where Spark runs: local[2], spark://host:7077, yarn.")
]


@app.command("prepare")
def prepare_(
    source: Annotated[Path, typer.Argument(help="A log or a folder of its parts.")],
    out: Annotated[Path, typer.Argument(help="New folder, for sparserec train.")],
    spark_master: Master = "local[2]",
    user_col: UserColumn = None,
    item_col: ItemColumn = None,
    time_col: TimeColumn = None,
    rating_col: RatingColumn = None,
    min_rating: MinRating = None,
    duplicates: Duplicates = OnDuplicate.ERROR,
) -> None:
    """Number users and items, split by time, count degrees: as sparserec data prepare does.

    Spark's workers must see both paths. The folder appears when all of it is written.
    """
    from pipeline.data.prepared import unpack
    from pipeline.spark.prepare import prepare
    from pipeline.spark.session import session

    options = read_options(user_col, item_col, time_col, rating_col, min_rating, duplicates)
    with session(spark_master) as spark, bars() as progress:
        found = prepare(spark, source, out, progress=progress, **options)
        unpack(out, progress)
    show_prepared(out, found)


@app.command("factorise")
def factorise_(
    prepared: Annotated[Path, typer.Argument(help="What prepare wrote, here or by data prepare.")],
    out: Annotated[Path, typer.Argument(help="New folder, for sparserec train --factors.")],
    spark_master: Master = "local[2]",
    dim: Annotated[int, typer.Option(help="Rank; for NeuMF half of train's --dim.", min=1)] = 64,
    iterations: Annotated[int, typer.Option(help="Rounds of coordinate descent.", min=0)] = 30,
    seed: Annotated[int, typer.Option(help="Of the start.")] = 1,
) -> None:
    """Factor the train part without negative entries, for the table that training starts from.

    Spark's workers must see the prepared folder, and have this package installed.

    Example: sparserec spark factorise prepared factors
    """
    from pipeline.spark.factorise import factorise
    from pipeline.spark.session import session

    with session(spark_master) as spark, bars() as progress:
        factorise(spark, prepared, out, dim, iterations, seed, progress)
    typer.echo(f"Next: sparserec train {prepared} --factors {out} --dim {dim}")
