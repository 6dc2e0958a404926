"""Interaction logs: one row per interaction, with a header, as CSV, TSV, RecBole ``.inter`` or
Parquet.

The fast path is vectorised (pyarrow). Where it meets anything odd, the CSV is read once more by the
standard library's reader, slowly, to name the first bad line.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from pipeline.data.columns import Columns, choose_columns, ids_of, numbers_of, times_of
from pipeline.data.interactions import (
    Interactions,
    earliest,
    first_repeat,
    pair_keys,
    require_int32,
)
from pipeline.data.text import at, require_content, require_utf8
from sparserec.errors import SparseRecError

Duplicates = Literal["error", "keep-first"]


@dataclass(frozen=True)
class _Table:
    """The chosen columns, and how to name a row of the source in an error."""

    path: Path
    columns: Columns
    data: Any  # pyarrow.Table, columns named user, item, time, rating
    where: Callable[[int], tuple[str, int]]  # row from 0 -> ("line" or "row", number from 1)

    def error(self, row: int, problem: str, fix: str) -> SparseRecError:
        unit, number = self.where(row)
        return at(self.path, number, problem, fix, unit)


def read_log(
    path: str | Path,
    user_col: str | None = None,
    item_col: str | None = None,
    time_col: str | None = None,
    rating_col: str | None = None,
    min_rating: float | None = None,
    duplicates: Duplicates = "error",
) -> Interactions:
    """Read a CSV, TSV, ``.inter`` or Parquet log; indices go by first appearance.

    Columns that are not named are recognised by their usual names (see ``columns.USUAL``); a
    log without a time column has no timestamps. Times are whole numbers (kept), decimal numbers
    (rounded down) or ISO 8601 date-times (microseconds since 1970, UTC where no zone is given).
    A rating is read only with ``min_rating``, which leaves out the rows below it; without it
    every row is an interaction, whatever its rating.

    A pair that comes twice is an error, unless ``duplicates`` is ``"keep-first"``: then the
    earliest is kept and the others are counted in ``Interactions.repeats``.

    Raises:
        SparseRecError: the file is missing, empty or malformed; names the file, line and fix.
    """
    path = Path(path)
    require_content(path)
    if rating_col is not None and min_rating is None:
        raise SparseRecError(
            f"a rating column ({rating_col}) is named, but no threshold",
            "add --min-rating, or leave --rating-col out: then every row counts",
        )
    names = {"user": user_col, "item": item_col, "time": time_col, "rating": rating_col}
    read = _read_parquet if path.suffix == ".parquet" else _read_csv
    table = read(path, names, min_rating is not None)
    if not len(table.data):
        raise SparseRecError(
            f"{path}: there are no interactions below the header", "export the file again"
        )
    return _index(table, min_rating, duplicates)


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


def _index(table: _Table, min_rating: float | None, duplicates: Duplicates) -> Interactions:
    """Check the columns, apply the threshold, number the ids and settle the duplicates."""
    users, user_ids = ids_of(table.data["user"], "user", table.error)
    items, item_ids = ids_of(table.data["item"], "item", table.error)
    times = None
    if table.columns.time is not None:
        times = times_of(table.data["time"], table.columns.time, table.error)
    liked = _liked(table, min_rating)
    require_int32(len(liked), "interactions", table.path)
    keys = pair_keys(users[liked], items[liked], len(item_ids))
    repeat = first_repeat(keys)
    rows = liked
    if repeat is not None and duplicates == "error":
        second, first = (int(liked[position]) for position in repeat)
        raise table.error(
            second,
            f"duplicate: user {user_ids[users[second]]!r} took item"
            f" {item_ids[items[second]]!r} on {' '.join(map(str, table.where(first)))} already",
            "remove it, or pass --duplicates keep-first if repeats are meant",
        )
    if repeat is not None:
        rows = liked[earliest(keys, None if times is None else times[liked])]
    user_index, user_ids = _compact(users[rows], user_ids)
    item_index, item_ids = _compact(items[rows], item_ids)
    return Interactions(
        user_index,
        item_index,
        None if times is None else times[rows],
        user_ids,
        item_ids,
        repeats=len(liked) - len(rows),
        below_rating=len(users) - len(liked),
    )


def _liked(table: _Table, min_rating: float | None) -> NDArray[np.intp]:
    """Return the rows that count, ascending: all, or those whose rating reaches the threshold."""
    if min_rating is None:
        return np.arange(len(table.data))
    ratings = numbers_of(table.data["rating"], table.columns.rating or "rating", table.error)
    if ratings.max() < min_rating:
        raise SparseRecError(
            f"{table.path}: no rating reaches {min_rating:g} (highest: {ratings.max():g})",
            "choose a lower --min-rating",
        )
    return np.flatnonzero(ratings >= min_rating)


def _compact(values: NDArray[np.int32], ids: list[str]) -> tuple[NDArray[np.int32], list[str]]:
    """Renumber by first appearance, without the ids that no longer occur."""
    present, first = np.unique(values, return_index=True)
    order = present[np.argsort(first)]
    new = np.zeros(len(ids), dtype=np.int32)
    new[order] = np.arange(len(order))
    return new[values], [ids[k] for k in order]


def _read_csv(path: Path, names: dict[str, str | None], rating: bool) -> _Table:
    require_utf8(path)
    with path.open(encoding="utf-8-sig", newline="") as file:
        first = file.readline()
    separator = "\t" if "\t" in first else ","
    header = next(csv.reader([first], delimiter=separator), [])
    columns = choose_columns(path, header, names, rating)
    chosen = columns.by_role()
    positions = [str(k) for k in range(len(header))]
    wanted = {str(header.index(name)): role for role, name in chosen.items()}
    try:
        data = pyarrow.csv.read_csv(
            path,
            # Columns go by position, as two that are not read may have the same name.
            pyarrow.csv.ReadOptions(column_names=positions, skip_rows=1),
            pyarrow.csv.ParseOptions(
                delimiter=separator, newlines_in_values=True, ignore_empty_lines=False
            ),
            pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(wanted, pa.string()), include_columns=list(wanted)
            ),
        )
    except pa.ArrowInvalid as error:
        raise _malformed(path, separator, len(header), error) from error
    data = data.rename_columns(list(wanted.values()))

    def where(row: int) -> tuple[str, int]:
        return "line", next(islice(_records(path, separator), row + 1, None))[0]

    return _Table(path, columns, data, where)


def _records(path: Path, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Yield every record, the header too, with the line it starts on."""
    line = 1
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=separator)
        try:
            for record in reader:
                yield line, record
                line = reader.line_num + 1
        except csv.Error as error:
            raise at(path, line, f"malformed: {error}", "mend the line's quotes") from error


def _malformed(path: Path, separator: str, width: int, error: Exception) -> SparseRecError:
    """Find the first line that is not a record of ``width`` fields, after pyarrow refused."""
    for line, record in _records(path, separator):
        if len(record) != width:
            return at(
                path,
                line,
                f"malformed: {len(record)} fields where the header has {width}",
                "give the line as many fields as the header; close every quote, and quote a"
                " field that holds the separator",
            )
    return at(path, 1, f"not a table ({error})", "export the file again as plain CSV")


def _read_parquet(path: Path, names: dict[str, str | None], rating: bool) -> _Table:
    try:
        file = pyarrow.parquet.ParquetFile(path)
        columns = choose_columns(path, file.schema_arrow.names, names, rating)
        chosen = columns.by_role()
        data = file.read(columns=list(chosen.values())).select(list(chosen.values()))
        data.validate(full=True)
    except (pa.ArrowException, OSError) as error:
        raise _bad_parquet(path, error) from error
    data = data.rename_columns(list(chosen))
    for role, column in chosen.items():
        kind = data.schema.field(role).type
        if pa.types.is_dictionary(kind):
            data = data.set_column(
                data.schema.get_field_index(role), role, pc.cast(data[role], kind.value_type)
            )
            kind = kind.value_type
        if role in ("user", "item") and not (pa.types.is_integer(kind) or _is_text(kind)):
            raise at(
                path,
                1,
                f"column {column!r} holds {kind}, which cannot be ids",
                "store ids as integers or as UTF-8 text",
                "row",
            )
    return _Table(path, columns, data, lambda row: ("row", row + 1))


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _bad_parquet(path: Path, error: Exception) -> SparseRecError:
    if "UTF8" in str(error):
        return SparseRecError(
            f"{path}: a text column is not UTF-8 ({error})", "write the file again with UTF-8 text"
        )
    return SparseRecError(
        f"{path}, row 1: damaged, or not a Parquet file ({error})", "write the file again"
    )
