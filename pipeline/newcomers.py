"""Rows for users and items that came after training: what they are active in and start from.

A newcomer starts from its neighbours, the mean of the rows of the items that a user took or of the
users that took an item. Folding in by NMF would need the factors, N d numbers, kept beside the
table; the neighbours' rows are there.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from pipeline.data.interactions import pair_keys
from pipeline.data.split import Pairs
from pipeline.matrices import matrix_of
from pipeline.nmf import top_entries
from pipeline.sampling import join
from pipeline.table import F32, PackedTable


def widen(
    table: PackedTable, pairs: Pairs, shape: tuple[int, int], density: float, floor: int
) -> PackedTable:
    """Give ``table`` rows for new users and items; the rows it has stay as they are.

    The budget grows by the density: the new rows share round(density N' d) - nnz entries, each the
    largest of their neighbours' mean, at least ``floor`` a row where they suffice. Newcomers
    without a neighbour that has a row start at 0.

    Args:
        table: of fewer, or as many, users and items; it is not changed.
        pairs: interactions that newcomers take part in; others are passed over.
        shape: users and items with the new ones, who come last.
        density: of the result, active entries / (N' d).
        floor: least active entries of a row.
    """
    num_users, num_items = shape
    new_users, new_items = num_users - table.num_users, num_items - table.num_items
    count = round(density * (num_users + num_items) * table.dim) - table.nnz
    if new_users + new_items == 0:
        return table
    count = max(0, min(count, (new_users + new_items) * table.dim))
    values = _from_neighbours(table, pairs, num_users, num_items)
    floor = min(floor, count // len(values))
    mask = top_entries(np.abs(values), count, floor)
    if count == 0:
        mask[:] = False
    fresh = PackedTable.from_dense(values, mask, new_users)
    parts = [
        (table, 0, table.num_users),
        (fresh, 0, new_users),
        (table, table.num_users, table.num_rows),
        (fresh, new_users, new_users + new_items),
    ]
    spans = [(part, slice(part.row_ptr[a], part.row_ptr[b])) for part, a, b in parts]
    sizes = [np.diff(part.row_ptr[a : b + 1]) for part, a, b in parts]
    return PackedTable(
        np.concatenate([np.zeros(1, np.int64), np.cumsum(np.concatenate(sizes))]),
        np.concatenate([part.cols[span] for part, span in spans]),
        np.concatenate([part.vals[span] for part, span in spans]),
        num_users,
        num_items,
        table.dim,
    )


def _from_neighbours(table: PackedTable, pairs: Pairs, num_users: int, num_items: int) -> F32:
    """Give the newcomers' rows, users then items, float32 (new, d), as long as their side's mean.

    New users come first, from the items that have rows; then new items, from all users; then the
    users that are left, from the new items.
    """
    taken = matrix_of(pairs, (num_users, num_items))
    old_users, old_items = table.num_users, table.num_items
    rows = sp.csr_matrix((table.vals, table.cols, table.row_ptr), (table.num_rows, table.dim))
    known_users, known_items = rows[:old_users], rows[old_users:]
    user_norm, item_norm = _mean_norm(known_users), _mean_norm(known_items)
    by_new_users = taken[old_users:]
    users = _scaled((by_new_users[:, :old_items] @ known_items).toarray(), user_norm)
    of_new_items = taken[:, old_items:].T.tocsr()
    items = (of_new_items[:, :old_users] @ known_users).toarray()
    items = _scaled(items + of_new_items[:, old_users:] @ users, item_norm)
    alone = np.flatnonzero(~users.any(axis=1))
    users[alone] = _scaled(by_new_users[alone][:, old_items:] @ items, user_norm)
    return np.concatenate([users, items])


def _mean_norm(rows: sp.csr_matrix) -> float:
    squared = np.asarray(rows.multiply(rows).sum(axis=1)).ravel()
    return float(np.sqrt(squared).mean()) if len(squared) else 0.0


def _scaled(rows: F32, norm: float) -> F32:
    """Give every row that is not 0 the same norm."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    scaled: F32 = (rows * (norm / np.where(norms == 0, 1, norms))).astype(np.float32)
    return scaled


def unseen(pairs: Pairs, known: Pairs, num_items: int) -> Pairs:
    """Give the distinct pairs that are not in ``known``, users ascending, then items."""
    keys = pair_keys(pairs.users, pairs.items, num_items)
    fresh = np.setdiff1d(keys, pair_keys(known.users, known.items, num_items))
    return Pairs((fresh // num_items).astype(np.int32), (fresh % num_items).astype(np.int32), None)


def with_replay(new: Pairs, old: Pairs, replay: float, seed: int) -> Pairs:
    """Put ``replay`` old pairs beside each new one, as far as there are any."""
    count = min(len(old), round(replay * len(new)))
    chosen = np.random.default_rng(seed).choice(len(old), count, replace=False)
    return join(new, Pairs(old.users[chosen], old.items[chosen], None))
