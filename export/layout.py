"""Laying a trained run out as a bundle's tensors, with spare rows for newcomers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.dense import flatten
from pipeline.data.split import Pairs, Split
from pipeline.neighbourhood import Neighbours
from pipeline.sampling import join
from pipeline.table import F32, PackedTable

LEAST_SPARE, SPARE_FRACTION = 8, 0.02


def capacity(assigned: int, spare: int | None) -> int:
    """Decide how many rows the bundle has for users, or for items.

    Args:
        assigned: those of the host's table and the newcomers in the device's log.
        spare: free rows beside them; None takes 2%, at least 8.
    """
    if spare is None:
        spare = max(LEAST_SPARE, math.ceil(SPARE_FRACTION * assigned))
    return assigned + spare


def kept_spare(base: int, assigned: int) -> int | None:
    """Give the free rows that leave a bundle as large as its base, which had ``base`` rows.

    Rows that come to the users move those of all items, and programs depend on sizes; so a delta is
    small where newcomers take rows that are there. None where they are too many.
    """
    return base - assigned if base >= assigned else None


def with_spare_rows(table: PackedTable, num_users: int, num_items: int, floor: int) -> PackedTable:
    """Grow a table to ``num_users`` and ``num_items`` rows.

    A spare row has ``floor`` active entries of value 0. They are in the columns that weigh most on
    the other side, because there a newcomer's first gradients are largest.
    """
    users_end = int(table.row_ptr[table.num_users])
    spare_users, spare_items = num_users - table.num_users, num_items - table.num_items
    counts = np.diff(table.row_ptr)
    floor = min(floor, table.dim)

    def heaviest(entries: slice) -> NDArray[np.uint8]:
        squares = table.vals[entries].astype(np.float64) ** 2
        weight = np.bincount(table.cols[entries], squares, minlength=table.dim)
        return np.sort(np.argsort(-weight, kind="stable")[:floor]).astype(np.uint8)

    users, items = slice(0, users_end), slice(users_end, table.nnz)
    columns = [
        table.cols[users],
        np.tile(heaviest(items), spare_users),
        table.cols[items],
        np.tile(heaviest(users), spare_items),
    ]
    values = [
        table.vals[users],
        np.zeros(spare_users * floor, np.float32),
        table.vals[items],
        np.zeros(spare_items * floor, np.float32),
    ]
    sizes = [
        counts[: table.num_users],
        np.full(spare_users, floor),
        counts[table.num_users :],
        np.full(spare_items, floor),
    ]
    row_ptr = np.zeros(num_users + num_items + 1, np.int64)
    np.cumsum(np.concatenate(sizes), out=row_ptr[1:])
    return PackedTable(
        row_ptr, np.concatenate(columns), np.concatenate(values), num_users, num_items, table.dim
    )


def table_tensors(
    table: PackedTable, stored: dict[str, NDArray[Any]], dense: dict[str, F32]
) -> dict[str, NDArray[Any]]:
    """Give the tensors of ``table.safetensors``; ``stored`` is what ``encoded`` gives."""
    tensors: dict[str, NDArray[Any]] = {
        "row_ptr": table.row_ptr.astype(np.int32),
        "cols": table.cols,
        **stored,
    }
    if dense:
        tensors["dense"] = flatten(dense)
    return tensors


def graph_tensors(split: Split, num_users: int, num_items: int) -> dict[str, NDArray[Any]]:
    """Give the tensors of ``graph.safetensors``, from the host's past; sizes are capacities."""
    found = Neighbours.of(past(split), num_users, num_items)
    return {
        "graph_ptr": found.ptr.astype(np.int32),
        "graph_rows": found.rows.astype(np.int32),
    }


def past(split: Split) -> Pairs:
    """Give what the host knew: its training and validation interactions."""
    return join(split.train, split.valid)


def interaction_tensors(split: Split, num_users: int) -> dict[str, NDArray[Any]]:
    """Give the tensors of ``interactions.safetensors``; ``num_users`` is the capacity."""
    seen = past(split)
    seen_ptr = np.zeros(num_users + 1, np.int32)
    np.cumsum(np.bincount(seen.users, minlength=num_users), out=seen_ptr[1:])
    return {
        "log_users": split.log.users,
        "log_items": split.log.items,
        "later_users": split.later.users,
        "later_items": split.later.items,
        "seen_ptr": seen_ptr,
        "seen_items": seen.items[np.lexsort((seen.items, seen.users))],
    }
