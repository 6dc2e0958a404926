"""The one form that every loader returns: pairs of indices, beside the raw ids they stand for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparserec.errors import SparseRecError

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

MAX_IDS = 2**31 - 1


@dataclass(frozen=True)
class Interactions:
    """Who took what, and when where that is known. Pairs are unique.

    Attributes:
        users: int32 (n,), index of each pair's user, in the order of the file.
        items: int32 (n,), index of each pair's item.
        timestamps: int64 (n,) in the source's own unit (date-times: microseconds since 1970 UTC),
            or None where the source has none. Only their order matters to the pipeline.
        user_ids: raw ids as text; ``user_ids[k]`` belongs to user index k.
        item_ids: likewise for items.
        repeats: rows left out because their pair came earlier (``duplicates="keep-first"``).
        below_rating: rows left out because their rating was below the threshold.
    """

    users: Int32
    items: Int32
    timestamps: Int64 | None
    user_ids: list[str]
    item_ids: list[str]
    repeats: int = 0
    below_rating: int = 0

    def __len__(self) -> int:
        return len(self.users)

    @property
    def num_users(self) -> int:
        return len(self.user_ids)

    @property
    def num_items(self) -> int:
        return len(self.item_ids)

    @property
    def density(self) -> float:
        """Share of all user-item pairs that are there."""
        return len(self) / (self.num_users * self.num_items)


def pair_keys(users: Int32, items: Int32, num_items: int) -> Int64:
    """Return one int64 (n,) per pair, equal where the pairs are equal."""
    return users.astype(np.int64) * num_items + items


def first_repeat(keys: Int64) -> tuple[int, int] | None:
    """Return (position of the first key that came before, position where it came), or None."""
    if len(keys) < 2:
        return None
    order = np.argsort(keys, kind="stable")
    repeated = order[1:][keys[order[1:]] == keys[order[:-1]]]
    if not len(repeated):
        return None
    second = int(repeated.min())
    return second, int(np.flatnonzero(keys == keys[second])[0])


def earliest(keys: Int64, timestamps: Int64 | None) -> NDArray[np.intp]:
    """Return the positions, ascending, of each distinct key's earliest row.

    Equal times, and rows without any, go by file order.
    """
    rows = np.arange(len(keys))
    order = np.lexsort((rows, keys) if timestamps is None else (rows, timestamps, keys))
    first = np.ones(len(keys), dtype=bool)
    first[1:] = keys[order[1:]] != keys[order[:-1]]
    return np.sort(order[first])


def require_int32(count: int, what: str, path: object) -> None:
    """Raise SparseRecError where ``count`` ids or pairs do not fit the int32 of the formats."""
    if count > MAX_IDS:
        raise SparseRecError(
            f"{path}: {count} {what} do not fit 32-bit indices",
            f"use at most {MAX_IDS} {what}",
        )
