"""``sparserec data``: list and fetch datasets, check a file, write a synthetic log."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from pipeline.data.datasets import (
    DATASETS,
    Confirm,
    Named,
    fetch,
    load,
    locate,
)
from pipeline.data.interactions import Interactions
from pipeline.data.logs import ReadOptions, write_csv
from pipeline.data.prepared import Description
from pipeline.data.synthetic import generate
from sparserec.errors import SparseRecError
from sparserec.progress import bars

app = typer.Typer(
    help="List and fetch datasets, check your own files.",
    no_args_is_help=True,
    add_completion=False,
)
console = Console(soft_wrap=True, highlight=False)

# (units in a second, times below this are in that unit): up to the year 5138 in each.
_UNITS = ((1, 10**11), (10**3, 10**14), (10**6, 10**17), (10**9, 10**20))

Cache = Annotated[
    Path | None, typer.Option(help="Where fetched files are kept.", show_default=False)
]


class OnDuplicate(StrEnum):
    """What a pair that comes twice means."""

    ERROR = "error"
    KEEP_FIRST = "keep-first"


# How a log is read: the same options wherever a log is.
UserColumn = Annotated[str | None, typer.Option(help="A log's column of users.")]
ItemColumn = Annotated[str | None, typer.Option(help="A log's column of items.")]
TimeColumn = Annotated[str | None, typer.Option(help="A log's column of times.")]
RatingColumn = Annotated[str | None, typer.Option(help="A log's column of ratings.")]
MinRating = Annotated[float | None, typer.Option(help="Leave out rows rated below this.")]
Duplicates = Annotated[
    OnDuplicate, typer.Option(help="A pair that comes twice: an error, or keep the earliest.")
]


def show(dataset: Named) -> None:
    """Print what a user should know before fetching: address, SHA-256, terms."""
    console.print(f"[bold]{dataset.name}[/]: {dataset.summary}")
    for source in dataset.files:
        console.print(f"  file     {source.file}", markup=False)
        console.print(f"  address  {source.address}", markup=False)
        console.print(f"  SHA-256  {source.sha256}", markup=False)
    console.print(f"  terms    {dataset.terms}", markup=False)


def ask(yes: bool) -> Confirm:
    """Return the confirmation for ``fetch``: show the dataset, then ask unless ``yes``.

    Not to be called while a progress bar is drawn: the bar would cover the question.
    """

    def confirm(dataset: Named) -> bool:
        show(dataset)
        return yes or typer.confirm("Accept these terms and fetch it?")

    return confirm


def ensure(name: str, yes: bool, cache: Path | None = None) -> Path:
    """Return the folder of a named dataset; ask for it and fetch it, with bars, if need be.

    Raises:
        SparseRecError: as ``datasets.fetch``.
    """
    dataset = DATASETS.get(name)
    if dataset is None:
        return fetch(name)
    folder = locate(dataset, cache)
    if folder is not None:
        return folder
    accepted = ask(yes)(dataset)
    with bars() as progress:
        return fetch(name, lambda _: accepted, cache, progress)


@app.command("list")
def list_(cache: Cache = None) -> None:
    """List the named datasets with address, SHA-256 and terms, and whether they are here."""
    for dataset in DATASETS.values():
        show(dataset)
        folder = locate(dataset, cache)
        console.print(f"  here     {folder or 'no'}\n", markup=False)


@app.command("fetch")
def fetch_(
    name: Annotated[str, typer.Argument(help=f"One of: {', '.join(DATASETS)}.")],
    yes: Annotated[bool, typer.Option("--yes", help="Accept the terms without asking.")] = False,
    cache: Cache = None,
) -> None:
    """Fetch a dataset into the cache, after showing its terms."""
    folder = ensure(name, yes, cache)
    console.print(f"{name} is in {folder}", markup=False)


def read_options(
    user_col: str | None,
    item_col: str | None,
    time_col: str | None,
    rating_col: str | None,
    min_rating: float | None,
    duplicates: OnDuplicate,
) -> ReadOptions:
    """Give what the flags of a command that reads a log say."""
    return ReadOptions(
        user_col=user_col,
        item_col=item_col,
        time_col=time_col,
        rating_col=rating_col,
        min_rating=min_rating,
        duplicates=duplicates.value,
    )


@app.command()
def check(
    path: Annotated[str, typer.Argument(help="A file, a folder with a split, or a dataset.")],
    user_col: UserColumn = None,
    item_col: ItemColumn = None,
    time_col: TimeColumn = None,
    rating_col: RatingColumn = None,
    min_rating: MinRating = None,
    duplicates: Duplicates = OnDuplicate.ERROR,
    cache: Cache = None,
) -> None:
    """Read a file of interactions, name its first mistake, or sum up what is in it."""
    options = read_options(user_col, item_col, time_col, rating_col, min_rating, duplicates)
    dataset = load(path, cache=cache, **options)
    first = "interactions" if dataset.test is None else "train"
    named = {first: dataset.interactions, "valid": dataset.valid, "test": dataset.test}
    parts = {name: part for name, part in named.items() if part is not None}
    console.print(summary(dataset.name, parts))
    console.print(f"SHA-256 {dataset.source_sha256}", markup=False)


@app.command("prepare")
def prepare_(
    source: Annotated[str, typer.Argument(help="A log, a folder of its parts, or a dataset.")],
    out: Annotated[Path, typer.Argument(help="New folder, for sparserec train.")],
    user_col: UserColumn = None,
    item_col: ItemColumn = None,
    time_col: TimeColumn = None,
    rating_col: RatingColumn = None,
    min_rating: MinRating = None,
    duplicates: Duplicates = OnDuplicate.ERROR,
    cache: Cache = None,
) -> None:
    """Read and split a log that need not fit into memory, for training from disk.

    The folder appears when all of it is written; stopped or killed, run the command again.

    Example: sparserec data prepare big.parquet prepared && sparserec train prepared
    """
    from pipeline.data.prepare import is_log, prepare
    from pipeline.data.prepared import unpack, write_split

    path = Path(source)
    options = read_options(user_col, item_col, time_col, rating_col, min_rating, duplicates)
    with bars() as progress:
        if source not in DATASETS and is_log(path):
            found = prepare(path, out, progress=progress, **options)
        else:
            dataset = load(source, cache=cache, progress=progress, **options)
            found = write_split(dataset.split(), out, dataset.name, dataset.source_sha256)
        unpack(out, progress)
    show_prepared(out, found)


def show_prepared(out: Path, found: Description) -> None:
    """Print what a prepared folder holds, and what to do with it."""
    table = Table(title=found.name)
    for heading in ("", "known", "in all", "train interactions: least, quartiles, most"):
        table.add_column(heading, justify="right" if heading else "left")
    for kind in ("users", "items"):
        known, count = getattr(found, f"known_{kind}"), getattr(found, f"num_{kind}")
        degrees = "  ".join(f"{value:,.0f}" for value in found.degrees[kind])
        table.add_row(kind, f"{known:,}", f"{count:,}", degrees)
    console.print(table)
    for part, count in found.interactions.items():
        console.print(f"{part:8}{count:>16,}")
    console.print(f"\nNext: sparserec train {out}", markup=False)


@app.command()
def synth(
    out: Annotated[Path, typer.Argument(help="CSV file to write.")],
    users: Annotated[int, typer.Option(help="Number of users.")] = 200,
    items: Annotated[int, typer.Option(help="Number of items.")] = 500,
    interactions: Annotated[int, typer.Option(help="Number of interactions.")] = 10_000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same file.", min=0)] = 1,
) -> None:
    """Write a synthetic log with times, for trying things out."""
    log = generate(users, items, interactions, seed)
    try:
        write_csv(log, out)
    except OSError as error:
        raise SparseRecError(f"{out}: {error.strerror}", "choose another file") from error
    console.print(f"{len(log)} interactions of {log.num_users} users in {out}", markup=False)


def summary(name: str, parts: dict[str, Interactions]) -> Table:
    """Return a table with one column per part: counts, density, time span, degrees."""
    table = Table(title=name)
    table.add_column("")
    for heading in parts:
        table.add_column(heading, justify="right")
    columns = [_facts(part) for part in parts.values()]
    for label in columns[0]:
        table.add_row(label, *(facts[label] for facts in columns))
    return table


def _facts(part: Interactions) -> dict[str, str]:
    return {
        "users": f"{part.num_users:,}",
        "items": f"{part.num_items:,}",
        "interactions": f"{len(part):,}",
        "share of all pairs": f"{part.density:.4%}",
        "time span": _span(part),
        "per user: min, quartiles, max": _quantiles(np.bincount(part.users)),
        "per item: min, quartiles, max": _quantiles(np.bincount(part.items)),
        "repeats left out": f"{part.repeats:,}",
        "left out by rating": f"{part.below_rating:,}",
    }


def _quantiles(degrees: np.ndarray) -> str:
    return " ".join(f"{q:g}" for q in np.quantile(degrees, [0, 0.25, 0.5, 0.75, 1]))


def _span(part: Interactions) -> str:
    """Return the first and last day; the unit is told by size (seconds to nanoseconds)."""
    if part.timestamps is None:
        return "no times"
    ends = [int(part.timestamps.min()), int(part.timestamps.max())]
    size = max(map(abs, ends))
    scale = next((s for s, limit in _UNITS if size < limit), None)
    if scale is None:
        return f"{ends[0]} to {ends[1]}"
    days = [datetime.fromtimestamp(end / scale, UTC).date().isoformat() for end in ends]
    return " to ".join(days)
