"""Alternating least squares on the active entries: what makes NMF's start a model by itself.

NMF fits the normalised interactions with all of its entries; with nine in ten of them gone, and for
ranking, other values fit better, and other entries. Both are found before training, from all
interactions at once:

- **Values**: the objective of implicit feedback (Hu, Koren and Volinsky, ICDM 2008, in the form of
  Rendle et al., RecSys 2022) over a masked table W,
  ``sum_R (1 - w_u.w_i)^2 + a0 sum_all (w_u.w_i)^2 + penalty sum_r sqrt(n_r + a0 M_r) |w_r|^2``,
  where row r has n_r interactions and M_r rows on the other side. One side's rows are independent
  of each other given the other side's, and a few steps of conjugate gradients (Takacs, Pilaszy and
  Tikk, RecSys 2011) on its active entries solve each.
- **Mask**: after each side's turn the entries whose removal costs the objective least make room for
  inactive ones that lower it most, by each one's own second-order model, where that is a gain.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from pipeline.data.split import Pairs
from pipeline.exchange import I32, first, magnitude
from pipeline.masks import best_of_rows
from pipeline.matrices import matrix_of
from pipeline.table import F32, I64, Bool, PackedTable
from sparserec.progress import Progress, silent

STEPS = 3
"""Of conjugate gradients, each turn: the next turn begins where this one ended."""
FIRST_SCORE = 0.5
"""Mean score of the interactions at first, about: parts of them count alike. 1 is their aim."""
PAIRS_AT_A_TIME = 1 << 16


@dataclass(frozen=True)
class AlsOptions:
    """How NMF's start is refined.

    Attributes:
        sweeps: turns of both sides; 0 leaves NMF's values as they are.
        exchange: part of a side's entries exchanged in the first sweep at most; it falls linearly
            to none in the last. Not where every entry is fitted first (``pipeline.start``).
        zeros: what all pairs weigh together, relative to all interactions: a0 is
            ``zeros |R| / (users items)``.
        penalty: on a row's squared norm, times the root of what the row's terms weigh; above 0.
    """

    sweeps: int = 12
    exchange: float = 0.3
    zeros: float = 20.0
    penalty: float = 0.15


def refine(
    table: PackedTable,
    pairs: Pairs,
    floor: int,
    options: AlsOptions,
    progress: Progress = silent,
) -> PackedTable:
    """Fit a table's entries to the interactions, and exchange those that do not help.

    Takes the memory of NMF: the unpacked table and one side's scores, float32 (N, d) in all.

    Args:
        table: to start from; it is not changed.
        pairs: training interactions of its rows.
        floor: no row falls below this many active entries, unless it has fewer.
        options: see there.
        progress: told of the sweeps.

    Returns:
        A table with as many active entries on each side.
    """
    users, items = table.num_users, table.num_items
    matrix = matrix_of(pairs, (users, items))
    values, mask, _ = table.gather(np.arange(table.num_rows))
    active = mask.astype(np.bool_)
    del mask
    score = float(np.mean([scores.mean() for scores in _observed(values, matrix, users)]))
    if score > 0:  # as NMF's are, unless no interaction's rows share a column
        values *= np.float32(np.sqrt(FIRST_SCORE / score))
    weight = options.zeros * len(pairs) / (users * items)
    of_users, of_items = slice(0, users), slice(users, None)
    turns = (of_users, of_items, matrix), (of_items, of_users, matrix.T.tocsr())
    last = options.sweeps - 1
    for sweep in range(options.sweeps):
        progress("least squares", sweep, options.sweeps)
        left = options.exchange * (1 - sweep / last) if last else 0.0
        for rows, others, found in turns:
            side = Side(values[rows], active[rows], values[others], found, weight, options.penalty)
            changes = side.solve(want_changes=left > 0)
            if left > 0:
                exchange(side.values, side.active, changes, left, floor)
    progress("least squares", options.sweeps, options.sweeps)
    return PackedTable.from_dense(values, active, users)


def _observed(values: F32, matrix: sp.csr_matrix, users: int) -> Iterator[F32]:
    """Give the scores of the interactions."""
    for rows in row_slices(matrix):
        yield _scores(values[rows], values[users:], matrix[rows])


def row_slices(matrix: sp.csr_matrix) -> Iterator[slice]:
    """Cut the rows of a matrix where about so many of its entries come together."""
    ends: I64 = matrix.indptr
    start = 0
    while start < matrix.shape[0]:
        stop = int(np.searchsorted(ends, ends[start] + PAIRS_AT_A_TIME, side="right")) - 1
        stop = min(max(stop, start + 1), start + PAIRS_AT_A_TIME, matrix.shape[0])
        yield slice(start, stop)
        start = stop


def _scores(left: F32, right: F32, matrix: sp.csr_matrix) -> F32:
    """Multiply rows of ``left`` and ``right`` where the matrix has entries: float32 (E,)."""
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    found = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), PAIRS_AT_A_TIME):  # a popular item's row may be longer
        part = slice(start, start + PAIRS_AT_A_TIME)
        found[part] = np.einsum("ij,ij->i", left[rows[part]], right[matrix.indices[part]])
    return found


class Side:
    """One side's turn: its rows given the other's.

    Attributes:
        values: float32 (n, d), changed in place.
        active: bool (n, d).
    """

    def __init__(
        self,
        values: F32,
        active: Bool,
        others: F32,
        matrix: sp.csr_matrix,
        weight: float,
        penalty: float,
    ) -> None:
        self.values, self.active, self._others, self._matrix = values, active, others, matrix
        self._gram = np.float32(weight) * (others.T @ others)
        counts = np.diff(matrix.indptr) + weight * len(others)
        self._penalties = (penalty * np.sqrt(counts)).astype(np.float32)[:, None]

    def solve(self, want_changes: bool) -> F32:
        """Fit the active entries.

        Returns:
            float32 (n, d): by how much the objective rises without an active entry, or falls with
            an inactive one, all others fixed. (0, d) if not wanted.
        """
        size = self.values.shape if want_changes else (0, self.values.shape[1])
        changes = np.empty(size, np.float32)
        for rows in row_slices(self._matrix):
            matrix, active = self._matrix[rows], self.active[rows]
            penalties, wanted = self._penalties[rows], matrix @ self._others
            found = self._solved(self.values[rows], active, wanted, matrix, penalties)
            self.values[rows] = found
            if want_changes:
                changes[rows] = self._changes(found, active, wanted, matrix, penalties)
        return changes

    def _product(self, values: F32, matrix: sp.csr_matrix, penalties: F32) -> F32:
        """Multiply rows by their halved Hessians."""
        seen = matrix.copy()
        seen.data = _scores(values, self._others, matrix)
        product: F32 = values @ self._gram + seen @ self._others + penalties * values
        return product

    def _solved(
        self, values: F32, active: Bool, wanted: F32, matrix: sp.csr_matrix, penalties: F32
    ) -> F32:
        """Take ``STEPS`` steps of conjugate gradients, each row its own."""
        left = (wanted - self._product(values, matrix, penalties)) * active
        way, size = left, _squared(left)
        for _ in range(STEPS):
            product = self._product(way, matrix, penalties) * active
            step = _ratio(size, (way * product).sum(1, keepdims=True))
            values = values + step * way
            left = left - step * product
            before, size = size, _squared(left)
            way = left + _ratio(size, before) * way
        return values

    def _changes(
        self, values: F32, active: Bool, wanted: F32, matrix: sp.csr_matrix, penalties: F32
    ) -> F32:
        curves = np.diag(self._gram) + matrix @ (self._others * self._others) + penalties
        slopes = wanted - self._product(values, matrix, penalties)
        gains = _ratio(slopes * slopes, curves)
        changes: F32 = np.where(active, values * values * curves, gains)
        return changes


def _ratio(above: F32, below: F32) -> F32:
    """Divide; 0 where there is nothing to divide by: a row is fitted, or nothing fits it."""
    return np.divide(above, below, out=np.zeros_like(above), where=below > 1e-20)


def _squared(rows: F32) -> F32:
    found: F32 = (rows * rows).sum(1, keepdims=True)
    return found


def exchange(values: F32, active: Bool, changes: F32, fraction: float, floor: int) -> int:
    """Swap the active entries that cost least for the inactive ones that gain most.

    Args:
        values: float32 (n, d); those dropped and grown become 0.
        active: bool (n, d), changed in place.
        changes: from ``Side.solve``.
        fraction: of the active entries, at most; the k-th pair only if it gains more than it costs.
        floor: the costliest entries of a row, which stay.

    Returns:
        Entries exchanged.
    """
    costs = np.where(active, changes, np.float32(np.inf))
    costs[best_of_rows(np.where(active, magnitude(changes), -1), floor)] = np.inf
    gains = np.where(active, np.float32(0), changes)
    count = int(fraction * np.count_nonzero(active))
    drop, grow = _least(magnitude(costs), count), _least(-magnitude(gains), count)
    pays = gains.ravel()[grow] > costs.ravel()[drop]  # costs rise and gains fall
    drop, grow = drop[pays], grow[pays]
    for places, state in ((drop, False), (grow, True)):
        at = np.unravel_index(places, active.shape)
        active[at], values[at] = state, 0
    return len(drop)


def _least(keys: I32, count: int) -> I64:
    """Find the ``count`` least of the keys: places in them, flattened; the least first."""
    flat = keys.ravel()
    found = first(flat, count)
    order: I64 = found[np.argsort(flat[found], kind="stable")]
    return order
