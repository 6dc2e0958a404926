"""What callers of the Python API give, checked: CSR matrices users x items, raw ids, indices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp

from pipeline.data.interactions import MAX_IDS
from pipeline.data.split import TRAIN, VALID, Pairs, Split, cut
from pipeline.table import I64
from sparserec.errors import SparseRecError

REAL = int | float | np.integer | np.floating
NO_PAIRS = Pairs(np.empty(0, np.int32), np.empty(0, np.int32), None)


def pairs_of(user_items: sp.csr_matrix) -> Pairs:
    """Give the interactions of a matrix users x items: its cells that are not 0, each once.

    A cell that is stored more than once counts as SciPy counts it, as the sum.

    Raises:
        SparseRecError: it is no CSR matrix, or has a NaN.
    """
    if not (sp.issparse(user_items) and user_items.format == "csr" and user_items.ndim == 2):
        raise SparseRecError(
            f"user_items is {type(user_items).__name__}, not a SciPy CSR matrix of users x items",
            "give scipy.sparse.csr_matrix(...); of a COO or CSC matrix, its .tocsr()",
        )
    if max(user_items.shape) > MAX_IDS:
        raise SparseRecError(
            f"user_items is {user_items.shape[0]} x {user_items.shape[1]}: indices need 32 bits",
            f"use at most {MAX_IDS} users and items",
        )
    if np.issubdtype(user_items.dtype, np.floating) and np.isnan(user_items.data).any():
        raise SparseRecError("user_items has a NaN", "leave out what was not observed")
    if not user_items.has_canonical_format:
        # A copy, for the matrix is the caller's; a wide type, for small integers wrap around to 0.
        wide = np.result_type(user_items.dtype, np.int64)
        user_items = user_items.astype(wide, copy=True)
        user_items.sum_duplicates()
    found = user_items.tocoo()
    keep = found.data != 0
    return Pairs(found.row[keep].astype(np.int32), found.col[keep].astype(np.int32), None)


def matrix_of(pairs: Pairs, shape: tuple[int, int]) -> sp.csr_matrix:
    """Give interactions as a CSR matrix of ones."""
    return sp.csr_matrix((np.ones(len(pairs), np.float32), (pairs.users, pairs.items)), shape)


def rows_for(
    user_items: sp.csr_matrix, users: int, num_users: int, num_items: int
) -> sp.csr_matrix:
    """Check what ``recommend`` is given: one row for each of the users asked for.

    ``matrix[userid]`` of a SciPy sparse array has one dimension, and is one row.

    Raises:
        SparseRecError: it is no CSR matrix, or has other rows or columns.
    """
    if sp.issparse(user_items) and user_items.ndim == 1:
        user_items = user_items.reshape((1, -1)).tocsr()
    pairs = pairs_of(user_items)
    if user_items.shape[1] != num_items:
        raise SparseRecError(
            f"user_items is {user_items.shape[0]} x {user_items.shape[1]}, the model knows"
            f" {num_items} items{turned(user_items.shape, num_users, num_items)}",
            "one row a user, one column an item",
        )
    if user_items.shape[0] != users:
        raise SparseRecError(
            f"user_items has {user_items.shape[0]} rows for {users} users",
            "give the rows of the users asked for, in their order: user_items[userid]",
        )
    return matrix_of(pairs, user_items.shape)


def turned(shape: tuple[int, int], num_users: int, num_items: int) -> str:
    """Say that a matrix may be transposed, where its shape says so."""
    likely = shape[0] == num_items != num_users or shape == (num_items, num_users) != shape[::-1]
    return " (transposed? rows are users: .T.tocsr())" if likely else ""


def ids_of(kind: str, ids: Sequence[str] | None, known: list[str], count: int) -> list[str]:
    """Give the raw ids of indices [0, count): those known, then those given, or plain numbers.

    Raises:
        SparseRecError: there are too few, too many, or the same twice.
    """
    new = range(len(known), count)
    found = [str(raw) for raw in (new if ids is None else ids)]
    if len(found) != len(new):
        raise SparseRecError(
            f"{kind}_ids has {len(found)} ids for {len(new)} new {kind}s",
            f"give one id for each {'row' if kind == 'user' else 'column'}, in its order",
        )
    found = known + found
    if len(set(found)) < count:
        raise SparseRecError(f"{kind}_ids has an id twice", f"give each {kind} an id of its own")
    return found


def indices(name: str, values: Any, count: int) -> I64:
    """Give one index or some as int64 (n,).

    Raises:
        SparseRecError: they are no whole numbers in [0, count).
    """
    try:
        found = np.atleast_1d(np.asarray(values))
    except ValueError:  # lists of several lengths
        found = np.empty(1, object)
    if found.size == 0:
        return np.empty(0, np.int64)
    if found.ndim != 1 or not np.issubdtype(found.dtype, np.integer):
        raise SparseRecError(f"{name} is no index and no list of indices", "give whole numbers")
    if found.min() < 0 or found.max() >= count:
        wrong = found.min() if found.min() < 0 else found.max()
        raise SparseRecError(
            f"{name} has {wrong}, and the model knows 0 to {count - 1}",
            "give indices of rows or columns of the matrix it was fitted on; add new ones with"
            " partial_fit",
        )
    return found.astype(np.int64)


def whole(name: str, value: Any, least: int | None = None) -> int:
    """Give a whole number as Python's own, which JSON can write.

    Raises:
        SparseRecError: it is none, or less than ``least``.
    """
    is_whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not is_whole or (least is not None and value < least):
        bound = "" if least is None else f", {least} or more"
        raise SparseRecError(f"{name} is {value!r}", f"give a whole number{bound}")
    return int(value)


def number(name: str, value: Any) -> float:
    """Give a finite number, 0 or more, as Python's own.

    Raises:
        SparseRecError: it is none.
    """
    if not isinstance(value, REAL) or isinstance(value, bool) or not 0 <= value < math.inf:
        raise SparseRecError(f"{name} is {value!r}", "give a number, 0 or more")
    return float(value)


def past_of(
    pairs: Pairs, user_ids: list[str], item_ids: list[str], validation: float, seed: int
) -> Split:
    """Hold out a part of each user's interactions, at random; indices stay as they are.

    Raises:
        SparseRecError: there is nothing to train on, or to hold out.
    """
    if len(pairs) == 0:
        raise SparseRecError("user_items has no interactions", "give at least one entry not 0")
    if not 0 < number("validation", validation) < 1:
        raise SparseRecError(f"validation is {validation}", "give a part between 0 and 1")
    order = np.random.default_rng(seed).permutation(len(pairs)).astype(np.int64)
    part = cut(pairs.users, order, (1 - validation, validation, 0.0))
    train, valid = (
        Pairs(pairs.users[part == p], pairs.items[part == p], None) for p in (TRAIN, VALID)
    )
    if len(valid) == 0:
        raise SparseRecError(
            "no user has the 5 interactions it takes to hold one out, so no epoch can be chosen",
            "give more interactions, or a larger validation",
        )
    return Split(
        train, valid, NO_PAIRS, NO_PAIRS, user_ids, item_ids, len(user_ids), len(item_ids), 0
    )
