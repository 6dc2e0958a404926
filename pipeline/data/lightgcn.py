"""The LightGCN text format: one line per user, ``user item item ...``, whole numbers from 0.

The format of the NGCF and LightGCN papers' published splits. Fields are separated by spaces; a
user has one line; an item stands on it once; there are no times.
"""

from __future__ import annotations

import codecs
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.data.interactions import Interactions, first_repeat, pair_keys, require_int32
from pipeline.data.text import at, require_content, require_utf8
from sparserec.errors import SparseRecError

_DIGITS = 18  # every number of so many digits fits int64
_NEWLINE, _SPACE, _ZERO, _NINE = b"\n"[0], b" "[0], b"0"[0], b"9"[0]


def read_lightgcn(path: str | Path) -> Interactions:
    """Read one file; users and items are indexed in ascending order of their numbers.

    A byte-order mark, Windows line ends and a missing last line end are accepted. There are no
    timestamps.

    Raises:
        SparseRecError: the file is missing, empty or malformed; names the file, line and fix.
    """
    path = Path(path)
    require_content(path)
    data = path.read_bytes().removeprefix(codecs.BOM_UTF8).replace(b"\r\n", b"\n")
    if not data.endswith(b"\n"):
        data += b"\n"
    numbers, line_of = _tokens(path, data)
    per_line = np.bincount(line_of, minlength=data.count(b"\n"))
    _check_lines(path, numbers, line_of, per_line)
    head = np.concatenate([[0], np.cumsum(per_line)[:-1]])
    is_user = np.zeros(len(numbers), dtype=bool)
    is_user[head] = True
    _check_users(path, numbers[head])
    user_values, user_of_line = np.unique(numbers[head], return_inverse=True)
    item_values, item_of_pair = np.unique(numbers[~is_user], return_inverse=True)
    require_int32(len(item_of_pair), "interactions", path)
    lines = line_of[~is_user]
    users = user_of_line[lines].astype(np.int32)
    items = item_of_pair.astype(np.int32)
    repeat = first_repeat(pair_keys(users, items, len(item_values)))
    if repeat is not None:
        raise at(
            path,
            int(lines[repeat[0]]) + 1,
            f"item {item_values[items[repeat[0]]]} stands more than once on this line",
            "remove the second one; this format has no times, so a repeat means nothing here",
        )
    return Interactions(
        users, items, None, [str(u) for u in user_values], [str(i) for i in item_values]
    )


def _tokens(path: Path, data: bytes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return every number, int64 (t,), and the line it stands on, from 0, int64 (t,)."""
    raw = np.frombuffer(data, dtype=np.uint8)
    digit = (raw >= _ZERO) & (raw <= _NINE)
    odd = ~digit & (raw != _SPACE) & (raw != _NEWLINE)
    if odd.any():
        raise _odd_token(path, data, int(np.argmax(odd)))
    before = np.concatenate([[False], digit[:-1]])
    starts = np.flatnonzero(digit & ~before)
    ends = np.flatnonzero(~digit & before)
    length = ends - starts
    if len(length) and length.max() > _DIGITS:
        raise _odd_token(path, data, int(starts[np.argmax(length > _DIGITS)]))
    numbers = np.zeros(len(starts), dtype=np.int64)
    for place in range(int(length.max(initial=0))):
        here = length > place
        numbers[here] = numbers[here] * 10 + (raw[starts[here] + place] - _ZERO)
    newlines = np.flatnonzero(raw == _NEWLINE)
    return numbers, np.searchsorted(newlines, starts)


def _odd_token(path: Path, data: bytes, position: int) -> SparseRecError:
    """Say what is wrong with the token at ``position``, which is not a short whole number."""
    require_utf8(path)
    line = data.count(b"\n", 0, position) + 1
    start = max(data.rfind(b" ", 0, position), data.rfind(b"\n", 0, position)) + 1
    end = min(e for e in (data.find(b" ", position), data.find(b"\n", position)) if e >= 0)
    token = data[start:end].decode()
    if token.startswith("-") and token[1:].isdigit():
        return at(path, line, f"id {token} is negative", "number users and items from 0")
    if token.lower() == "nan":
        return at(path, line, "NaN where an id should be", "remove it, or put the id back")
    if line == 1 and not data[:1].isdigit():
        return at(
            path,
            line,
            f"a header or other text ({token!r}); this format has none",
            "remove the line; a table with columns is read as .csv, .tsv, .inter or .parquet",
        )
    return at(
        path,
        line,
        f"malformed: {token!r} is not a whole number of at most {_DIGITS} digits",
        "write each line as: user item item ..., whole numbers with single spaces",
    )


def _check_lines(
    path: Path,
    numbers: NDArray[np.int64],
    line_of: NDArray[np.int64],
    per_line: NDArray[np.int64],
) -> None:
    """Raise where a line is blank or has a user without items; the first such line is named."""
    short = np.flatnonzero(per_line < 2)
    if not len(short):
        return
    line = int(short[0])
    if per_line[line] == 0:
        raise at(path, line + 1, "malformed: the line is blank", "remove the line")
    user = numbers[np.searchsorted(line_of, line)]
    raise at(path, line + 1, f"user {user} has no items (empty user)", "remove the line")


def _check_users(path: Path, users: NDArray[np.int64]) -> None:
    repeat = first_repeat(users)
    if repeat is not None:
        raise at(
            path,
            repeat[0] + 1,
            f"duplicate: user {users[repeat[0]]} already has line {repeat[1] + 1}",
            "join the two lines into one",
        )
