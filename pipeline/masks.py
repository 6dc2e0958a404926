"""Choosing the best entries of a table that is not held: scores come a chunk of rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from pipeline.table import F32, Bool

CHUNK_ROWS = 16_384
"""Rows looked at in one go."""

Chunks = Callable[[], Iterator[F32]]
"""Starts over: yields the scores of rows after rows, float32 (R, d) each, the same every time."""
Keys = npt.NDArray[np.int32]
HALF = 1 << 16


def slices(num_rows: int) -> Iterator[slice]:
    """Cut [0, num_rows) into chunks."""
    for start in range(0, num_rows, CHUNK_ROWS):
        yield slice(start, min(start + CHUNK_ROWS, num_rows))


def choose(chunks: Chunks, shape: tuple[int, int], count: int, floor: int) -> Iterator[Bool]:
    """Pick ``count`` entries: each row's best ``floor``, then the best of all others.

    Ties go to the smaller (row, column). Nothing as large as the table is held: the score at which
    the choice ends is found digit by digit, from two histograms of 65,536 bins, so the scores are
    gone through three times.

    Args:
        chunks: of scores.
        shape: (N, d).
        count: at least N * floor, at most N d.
        floor: least entries of a row.

    Yields:
        For each chunk, bool (R, d): the entries chosen.
    """
    if count == shape[0] * shape[1]:
        for scores in chunks():
            yield np.ones(scores.shape, np.bool_)
        return
    more = count - shape[0] * floor
    bound, ties = _bound(chunks, floor, more) if more > 0 else (np.int32(0), 0)
    for keys, chosen in _ranked(chunks, floor):
        if more > 0:
            equal = np.flatnonzero((keys == bound) & ~chosen)[:ties]
            ties -= len(equal)
            above = keys > bound
            above |= chosen
            above.ravel()[equal] = True
            yield above
        else:
            yield chosen


def _bound(chunks: Chunks, floor: int, more: int) -> tuple[np.int32, int]:
    """Find the key of the ``more``-th best entry beyond the floors, and how many of it to take."""
    high = np.zeros(HALF, np.int64)
    for keys, chosen in _ranked(chunks, floor):
        high += np.bincount((keys[~chosen] >> 16) + HALF // 2, minlength=HALF)
    top, more = last_bin(high, more)
    low = np.zeros(HALF, np.int64)
    for keys, chosen in _ranked(chunks, floor):
        inside = keys[((keys >> 16) == top - HALF // 2) & ~chosen]
        low += np.bincount(inside & (HALF - 1), minlength=HALF)
    bottom, more = last_bin(low, more)
    return np.int32((top - HALF // 2) * HALF + bottom), more


def last_bin(bins: npt.NDArray[np.int64], more: int) -> tuple[int, int]:
    """Find the bin in which the ``more``-th largest lies, and which of that bin's it is."""
    above = np.cumsum(bins[::-1])
    place = int(np.searchsorted(above, more))
    before = int(above[place - 1]) if place else 0
    return len(bins) - 1 - place, more - before


def _ranked(chunks: Chunks, floor: int) -> Iterator[tuple[Keys, Bool]]:
    """Give each chunk's scores as integers in the same order, and its rows' best ``floor``."""
    for scores in chunks():
        bits = (scores + np.float32(0)).view(np.int32)  # -0 becomes 0, which it equals
        keys = bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))
        yield keys, best_of_rows(keys, floor)


def best_of_rows(keys: Keys, count: int) -> Bool:
    """Mark each row's ``count`` largest keys, bool (R, d); of equal ones the first."""
    chosen = np.zeros(keys.shape, np.bool_)
    rest, rows = keys.copy(), np.arange(len(keys))
    for _ in range(count):
        best = rest.argmax(axis=1)
        chosen[rows, best] = True
        rest[rows, best] = np.iinfo(np.int32).min
    return chosen
