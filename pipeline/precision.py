"""How values are stored: float32, float16, or int8 with a scale for each row.

All arithmetic is float32. Values are rounded where a row is written back, here as on a device:
docs/formats.md section 1.7.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pipeline.draws import ROUNDING, draws, unit
from pipeline.table import F32, I64, PackedTable

Precision = Literal["float32", "float16", "int8"]
LEVELS = 127
Rounding = Literal["stochastic", "nearest"]
"""Of int8; a device rounds at random, and ``nearest`` is there to be compared with it."""


def encoded(table: PackedTable, precision: Precision) -> dict[str, npt.NDArray[Any]]:
    """Give a table's values as stored, to nearest: ``vals`` and, for int8, ``scales``."""
    if precision == "float32":
        return {"vals": table.vals}
    if precision == "float16":
        return {"vals": _half(table.vals)}
    scales = _scales(table, np.arange(table.num_rows))
    row = np.repeat(np.arange(table.num_rows), np.diff(table.row_ptr))
    levels = np.clip(np.rint(_in_scales(table.vals, scales[row])), -LEVELS, LEVELS)
    return {"vals": levels.astype(np.int8), "scales": scales}


def decoded(table: PackedTable, stored: dict[str, npt.NDArray[Any]]) -> F32:
    """Give the float32 values, (nnz,), that ``encoded`` stands for."""
    vals: F32 = stored["vals"].astype(np.float32)
    if "scales" in stored:
        vals *= stored["scales"][np.repeat(np.arange(table.num_rows), np.diff(table.row_ptr))]
    return vals


def round_rows(
    table: PackedTable,
    rows: I64,
    precision: Precision,
    seed: int,
    step: int,
    rounding: Rounding = "stochastic",
) -> None:
    """Round the active entries of distinct ``rows`` to what can be stored, in place.

    int8 rounds at random, up with the probability of what is lost: to nearest, an update of less
    than half a scale would be lost for ever. The draws are a function of the step and the entry's
    place, so that the order of rows does not matter.
    """
    if precision == "float32":
        return
    found = table.entries(rows)
    vals = table.vals[found.index]
    if precision == "float16":
        table.vals[found.index] = _half(vals).astype(np.float32)
        return
    scales = _scales(table, rows)[found.slot]
    places = rows[found.slot] * table.dim + found.col
    chance = np.full(len(places), 0.5)
    if rounding == "stochastic":
        chance = unit(draws(seed, ROUNDING, step, places))
    levels = np.clip(np.floor(_in_scales(vals, scales) + chance), -LEVELS, LEVELS)
    table.vals[found.index] = levels.astype(np.float32) * scales


def _half(vals: F32) -> npt.NDArray[np.float16]:
    most = np.finfo(np.float16).max
    return np.clip(vals, -most, most).astype(np.float16)


def _scales(table: PackedTable, rows: I64) -> F32:
    """Give the largest magnitude of each row over the levels: float32 (R,)."""
    found = table.entries(rows)
    most = np.zeros(len(rows), np.float32)
    np.maximum.at(most, found.slot, np.abs(table.vals[found.index]))
    return most / np.float32(LEVELS)


def _in_scales(vals: F32, scales: F32) -> npt.NDArray[np.float64]:
    """Divide in float64, by 1 where a row is all zeros."""
    return vals.astype(np.float64) / np.where(scales > 0, scales, 1).astype(np.float64)
