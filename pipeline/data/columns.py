"""Columns of an interaction log: which is which, and what their values mean."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.data.interactions import Int32, Int64
from pipeline.data.text import at
from sparserec.errors import SparseRecError

RowError = Callable[[int, str, str], SparseRecError]
"""``error(row from 0, problem, fix)`` names the file and the line."""

USUAL = {
    "user": ("user_id", "userid", "user"),
    "item": ("item_id", "itemid", "item"),
    "time": ("timestamp", "time"),
    "rating": ("rating",),
}
"""Names a column is recognised by, whatever their case, without RecBole's ``:type``."""


@dataclass(frozen=True)
class Columns:
    """The header's names of the columns to read, as written there."""

    user: str
    item: str
    time: str | None
    rating: str | None

    def by_role(self) -> dict[str, str]:
        """Return role -> name for the columns that are there."""
        return {role: name for role, name in vars(self).items() if name is not None}


def choose_columns(
    path: Path, header: list[str], names: dict[str, str | None], rating: bool
) -> Columns:
    """Find the user, item, time and (where ``rating``) rating column in a header.

    Args:
        path: for the error.
        header: the names in the file.
        names: for each role the name that the user gave, or None to recognise it.
        rating: whether the rating column is needed.

    Raises:
        SparseRecError: a header surprise: no header, a column missing or there twice.
    """
    if header and all(_is_number(name) for name in header):
        raise at(
            path,
            1,
            f"a header is expected, but these are values: {', '.join(header)}",
            "add a first line that names the columns, such as user_id,item_id,timestamp",
        )
    found = {
        role: _find(path, header, role, names[role], needed)
        for role, needed in (("user", True), ("item", True), ("time", False), ("rating", rating))
    }
    used = [name for name in found.values() if name is not None]
    for name in used:
        if used.count(name) > 1:
            raise at(path, 1, f"column {name!r} is named twice", "name a column for each part")
    return Columns(used[0], used[1], found["time"], found["rating"] if rating else None)


def _find(path: Path, header: list[str], role: str, name: str | None, needed: bool) -> str | None:
    wanted = (name.lower(),) if name is not None else USUAL[role]
    matches = [
        column
        for column in header
        if column == name or column.strip().lower().split(":")[0] in wanted
    ]
    if name is not None and name in matches:
        matches = [column for column in matches if column == name]
    if len(matches) > 1:
        raise at(
            path,
            1,
            f"header surprise: {len(matches)} columns could be the {role}: {', '.join(matches)}",
            f"give each column its own name, or choose one with --{role}-col",
        )
    if matches:
        return matches[0]
    if needed or name is not None:
        raise at(
            path,
            1,
            f"header surprise: no {role} column{f' {name!r}' if name else ''} among:"
            f" {', '.join(header) or 'nothing'} (separated by commas, semicolons, tabs or |)",
            f"name the column with --{role}-col, or rename it to {USUAL[role][0]}",
        )
    return None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


class IdMap:
    """Numbers the raw ids of columns by first appearance; blanks around an id are no part of it.

    Attributes:
        role: ``user`` or ``item``.
        index: raw id as text -> number.
    """

    def __init__(self, role: str) -> None:
        self.role = role
        self.index: dict[str, int] = {}

    def numbers(self, column: Any, error: RowError) -> Int32:
        """Number a pyarrow column, int32 (n,), adding the ids that are new.

        Raises:
            SparseRecError: an id is empty, NaN or a negative number.
        """
        encoded = pc.dictionary_encode(column).combine_chunks()
        if encoded.null_count:
            row = _first(pc.is_null(encoded))
            raise error(row, f"empty {self.role}", f"put the {self.role}'s id back")
        codes = encoded.indices.to_numpy()
        values = encoded.dictionary.cast(pa.string()).to_pylist()
        index = self.index
        found = np.empty(len(values), np.int32)
        for code, value in enumerate(values):
            raw = value.strip()
            number = index.get(raw)
            if number is None:
                problem = _bad_id(raw, self.role)
                if problem is not None:
                    raise error(int(np.flatnonzero(codes == code)[0]), *problem)
                number = index[raw] = len(index)
            found[code] = number
        numbers: Int32 = found[codes]
        return numbers


def _bad_id(raw: str, role: str) -> tuple[str, str] | None:
    if not raw:
        return f"empty {role}", f"put the {role}'s id back, or remove the line"
    if raw.lower() == "nan":
        return f"NaN where the {role}'s id should be", "put the id back, or remove the line"
    if raw[0] == "-" and raw[1:].isdigit():
        return f"{role} id {raw} is negative", "use ids from 0, or ids that are no numbers"
    return None


def numbers_of(column: Any, name: str, error: RowError) -> NDArray[np.float64]:
    """Return a column of finite numbers, float64 (n,)."""
    return _finite(_cast(column, (pa.float64(),), name, "a number", error), name, error)


_TIMES = (pa.int64(), pa.float64(), pa.timestamp("us"), pa.timestamp("us", "UTC"))
_EXACT = 2**53
"""Whole numbers up to here are exact as float64, which decimal times are read as."""


class Times:
    """Reads columns of times, all in the form of the first; see ``read_log`` for what may stand."""

    def __init__(self) -> None:
        self._forms: tuple[Any, ...] = _TIMES
        self._large = False

    def numbers(self, column: Any, name: str, error: RowError) -> Int64:
        """Return a column of times, int64 (n,).

        Raises:
            SparseRecError: a time is missing, is none, or has another form than those before.
        """
        if pa.types.is_timestamp(column.type):  # as a number it would lose its unit
            wanted: tuple[Any, ...] = _TIMES[2:]
            values = pc.cast(column, pa.timestamp("us"), safe=False)
        else:
            text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
            wanted = _TIMES if text else _TIMES[:2]  # a bare number is not taken for a date
            forms = tuple(form for form in self._forms if form in wanted)
            values = _cast(column, forms, name, "a time", error, first=self._forms is _TIMES)
        if not set(wanted) & set(self._forms):
            raise _another_form(column, 0, name, error)
        return self._settled(values, column, name, error)

    def _settled(self, values: Any, column: Any, name: str, error: RowError) -> Int64:
        """Keep the form for the columns to come; return the values as numbers."""
        if pa.types.is_timestamp(values.type):
            form = pa.timestamp("us") if pa.types.is_timestamp(column.type) else values.type
            self._forms = (form,)
            _require_values(values, name, error)
            return np.asarray(values.cast(pa.int64()))
        if not pa.types.is_floating(values.type):
            self._forms = _TIMES[:2]
            _require_values(values, name, error)
            whole = np.asarray(values)
            self._large |= bool(len(whole)) and int(np.abs(whole).max()) > _EXACT
            return whole
        if self._large:  # a number before, read exactly, would be rounded beside these
            raise _another_form(column, 0, name, error)
        self._forms = (pa.float64(),)
        numbers = np.floor(_finite(values, name, error))
        large = np.abs(numbers) >= 2.0**63
        if large.any():
            raise error(int(np.argmax(large)), f"{name} does not fit 64 bits", "mend the number")
        return numbers.astype(np.int64)


def _cast(
    column: Any, kinds: tuple[Any, ...], name: str, what: str, error: RowError, first: bool = True
) -> Any:
    """Cast to the first of ``kinds`` that the whole column takes; else name the first bad row."""
    text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    trimmed = pc.utf8_trim_whitespace(column) if text else column
    values = _try_cast(trimmed, kinds)
    if values is not None:
        return values
    # A longer beginning of the column can only be harder to cast, so bisection finds the culprit.
    row = bisect_left(
        range(1, len(trimmed) + 1),
        True,
        key=lambda count: _try_cast(trimmed.slice(0, count), kinds) is None,
    )
    if row or not first:
        raise _another_form(column, row, name, error, what)
    raise error(row, f"{name} {column[row].as_py()!r} is not {what}", _ONE_FORM[what])


_ONE_FORM = {
    "a number": "write the whole column in one form: numbers",
    "a time": "write the whole column in one form: numbers, or ISO 8601 such as"
    " 2024-05-31T08:00:00",
}


def _another_form(
    column: Any, row: int, name: str, error: RowError, what: str = "a time"
) -> SparseRecError:
    value = column[row].as_py()
    return error(row, f"{name} {value!r} is not {what} as the others are", _ONE_FORM[what])


def _try_cast(column: Any, kinds: tuple[Any, ...]) -> Any | None:
    for kind in kinds:
        try:
            return pc.cast(column, kind)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            continue
    return None


def _require_values(column: Any, name: str, error: RowError) -> None:
    if column.null_count:
        raise error(_first(pc.is_null(column)), f"empty {name}", "put the value back")


def _finite(column: Any, name: str, error: RowError) -> NDArray[np.float64]:
    _require_values(column, name, error)
    values = np.asarray(column, dtype=np.float64)
    if not np.isfinite(values).all():
        row = int(np.argmin(np.isfinite(values)))
        raise error(row, f"{name} is {values[row]} (NaN or infinite)", "put the number back")
    return values


def _first(mask: Any) -> int:
    return int(pc.index(mask, True).as_py())
