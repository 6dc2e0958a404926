"""Interaction logs: one row per interaction, with a header, in one file or a folder of parts."""

from __future__ import annotations

import csv
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from pipeline.data.columns import IdMap, Times, numbers_of
from pipeline.data.interactions import (
    Int32,
    Int64,
    Interactions,
    earliest,
    first_repeat,
    pair_keys,
    require_int32,
)
from pipeline.data.sources import log_files, open_log_file
from pipeline.data.text import at
from sparserec.errors import SparseRecError
from sparserec.progress import Progress, silent

Duplicates = Literal["error", "keep-first"]


class LogOptions(TypedDict, total=False):
    """How a log is read.

    Columns that are not named are recognised by their usual names (see ``columns.USUAL``). Ratings
    are read only with ``min_rating``.
    """

    user_col: str | None
    item_col: str | None
    time_col: str | None
    rating_col: str | None
    min_rating: float | None


class ReadOptions(LogOptions, total=False):
    """Options of ``read_log``."""

    duplicates: Duplicates


def given(log: ReadOptions) -> list[str]:
    """Name the options that were set, for data where they would do nothing."""
    return [name for name, value in log.items() if value not in (None, "error")]


@dataclass(frozen=True)
class Rows:
    """Consecutive rows of a log, without those rated too low.

    Attributes:
        numbers: int64 (n,), ascending: each row's place in the log, from 0.
        users, items: int32 (n,), numbers in ``Log.users`` and ``Log.items``.
        times: int64 (n,) or None.
    """

    numbers: Int64
    users: Int32
    items: Int32
    times: Int64 | None

    def __len__(self) -> int:
        return len(self.numbers)


class Log:
    """A log of any size, gone through once, a piece at a time; ids are kept.

    Attributes:
        users, items: the raw ids met so far; also those of rows rated too low.
        below_rating: rows left out so far.
        num_rows: rows read so far.
    """

    def __init__(self, source: Path, **options: Unpack[LogOptions]) -> None:
        """Open the files.

        Raises:
            SparseRecError: a file is missing, empty, or has no such columns.
        """
        min_rating, rating_col = options.get("min_rating"), options.get("rating_col")
        if rating_col is not None and min_rating is None:
            raise SparseRecError(
                f"a rating column ({rating_col}) is named, but no threshold",
                "add --min-rating, or leave --rating-col out: then every row counts",
            )
        roles = ("user", "item", "time", "rating")
        names: dict[str, Any] = {role: options.get(f"{role}_col") for role in roles}
        paths = log_files(source)
        self.source = source
        self.files = [open_log_file(path, names, min_rating is not None) for path in paths]
        self.has_times = self.files[0].columns.time is not None
        for file in self.files:
            if (file.columns.time is not None) != self.has_times:
                raise at(file.path, 1, "some parts have times and some have none", "write all anew")
        self.users, self.items = IdMap("user"), IdMap("item")
        self.below_rating = self.num_rows = 0
        self._times = Times()
        self._min_rating = min_rating
        self._best_rating = -np.inf
        self._starts: list[int] = []

    def guessed_rows(self) -> int:
        """Guess the number of rows: exact for Parquet, by the first lines' length for text."""
        return sum(file.rows() for file in self.files)

    def __iter__(self) -> Iterator[Rows]:
        """Yield the rows, piece by piece.

        Raises:
            SparseRecError: bad content, naming file, line and fix; nothing left at the end.
        """
        for file in self.files:
            self._starts.append(self.num_rows)
            for table in file.pieces():
                rows = self._piece(table, file.columns.time, file.columns.rating)
                self.num_rows += len(table)
                self.below_rating += len(table) - len(rows)
                yield rows
        if self.num_rows == 0:
            raise SparseRecError(
                f"{self.source}: there are no interactions below the header",
                "export the file again",
            )
        if self.below_rating == self.num_rows:
            raise SparseRecError(
                f"{self.source}: no rating reaches {self._min_rating:g}"
                f" (highest: {self._best_rating:g})",
                "choose a lower --min-rating",
            )

    def error(self, row: int, problem: str, fix: str) -> SparseRecError:
        """Return the error for one row of the log."""
        path, (unit, number) = self._place(row)
        return at(path, number, problem, fix, unit)

    def repeated(self, second: int, first: int, user: int, item: int) -> SparseRecError:
        """Return the error for a pair that comes twice, in two rows of the log."""
        (path, place), (other, (unit, number)) = self._place(second), self._place(first)
        before = f"{unit} {number}" + (f" of {other}" if other != path else "")
        return at(
            path,
            place[1],
            f"duplicate: user {list(self.users.index)[user]!r} took item"
            f" {list(self.items.index)[item]!r} on {before} already",
            "remove it, or pass --duplicates keep-first if repeats are meant",
            place[0],
        )

    def _place(self, row: int) -> tuple[Path, tuple[str, int]]:
        k = bisect_right(self._starts, row) - 1
        return self.files[k].path, self.files[k].where(row - self._starts[k])

    def _piece(self, table: Any, time: str | None, rating: str | None) -> Rows:
        start = self.num_rows

        def error(row: int, problem: str, fix: str) -> SparseRecError:
            return self.error(start + row, problem, fix)

        users = self.users.numbers(table["user"], error)
        items = self.items.numbers(table["item"], error)
        times = None if time is None else self._times.numbers(table["time"], time, error)
        numbers = np.arange(start, start + len(users))
        if rating is None or self._min_rating is None:
            return Rows(numbers, users, items, times)
        ratings = numbers_of(table["rating"], rating, error)
        self._best_rating = max(self._best_rating, float(ratings.max()))
        liked = ratings >= self._min_rating
        kept = None if times is None else times[liked]
        return Rows(numbers[liked], users[liked], items[liked], kept)


def read_log(
    path: str | Path,
    duplicates: Duplicates = "error",
    progress: Progress = silent,
    **options: Unpack[LogOptions],
) -> Interactions:
    """Read a CSV, TSV, ``.inter`` or Parquet log; indices go by first appearance.

    Columns that are not named are recognised by their usual names (see ``columns.USUAL``); a
    log without a time column has no timestamps. Times are whole numbers (kept), decimal numbers
    (rounded down) or ISO 8601 date-times (microseconds since 1970, UTC where no zone is given).
    A rating is read only with ``min_rating``, which leaves out the rows below it; without it
    every row is an interaction, whatever its rating.

    A pair that comes twice is an error, unless ``duplicates`` is ``"keep-first"``: then the
    earliest is kept and the others are counted in ``Interactions.repeats``.

    Args:
        path: a file, or a folder of parts, which follow one another by name.
        duplicates: see above.
        progress: called per piece read.
        options: which columns, and the least rating.

    Raises:
        SparseRecError: the file is missing, empty or malformed; names the file, line and fix.
    """
    log = Log(Path(path), **options)
    guess = log.guessed_rows()
    pieces = []
    for piece in log:
        pieces.append(piece)
        progress("reading rows", log.num_rows, max(guess, log.num_rows))
    return _settle(log, _concatenate(pieces), duplicates)


def write_csv(interactions: Interactions, path: str | Path) -> None:
    """Write ``user_id,item_id[,timestamp]`` with raw ids; ``read_log`` gives the same back."""
    header = ["user_id", "item_id"]
    columns: list[list[Any]] = [
        [interactions.user_ids[u] for u in interactions.users.tolist()],
        [interactions.item_ids[i] for i in interactions.items.tolist()],
    ]
    if interactions.timestamps is not None:
        header.append("timestamp")
        columns.append(interactions.timestamps.tolist())
    with Path(path).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(zip(*columns, strict=True))


def _concatenate(pieces: list[Rows]) -> Rows:
    times = [piece.times for piece in pieces if piece.times is not None]
    return Rows(
        np.concatenate([piece.numbers for piece in pieces]),
        np.concatenate([piece.users for piece in pieces]),
        np.concatenate([piece.items for piece in pieces]),
        np.concatenate(times) if times else None,
    )


def _settle(log: Log, rows: Rows, duplicates: Duplicates) -> Interactions:
    """Settle the duplicates, and number ids by first appearance in the rows that stay."""
    require_int32(len(rows), "interactions", log.source)
    user_ids, item_ids = list(log.users.index), list(log.items.index)
    users, items, times = rows.users, rows.items, rows.times
    keys = pair_keys(users, items, len(item_ids))
    repeat = first_repeat(keys)
    if repeat is not None and duplicates == "error":
        second, first = (int(rows.numbers[k]) for k in repeat)
        raise log.repeated(second, first, int(users[repeat[0]]), int(items[repeat[0]]))
    repeats = 0
    if repeat is not None:
        kept = earliest(keys, times)
        repeats = len(keys) - len(kept)
        users, items, times = users[kept], items[kept], None if times is None else times[kept]
    users, user_ids = _compact(users, user_ids)
    items, item_ids = _compact(items, item_ids)
    return Interactions(users, items, times, user_ids, item_ids, repeats, log.below_rating)


def _compact(values: NDArray[np.int32], ids: list[str]) -> tuple[NDArray[np.int32], list[str]]:
    """Renumber by first appearance, without the ids that no longer occur."""
    present, first = np.unique(values, return_index=True)
    order = present[np.argsort(first)]
    new = np.zeros(len(ids), dtype=np.int32)
    new[order] = np.arange(len(order))
    return new[values], [ids[k] for k in order]
