"""The peers' mask updates, on packed tables: SET, RigL and DSL (docs/baselines.md).

Each follows its paper and public code. They differ from SparseRec's ``exchange`` in three ways:
they drop from the whole table, not from sampled rows; an entry may grow in the update that drops
it, and then keeps its value and state; and what grows is drawn at random (SET) or chosen by the
gradient of one batch (RigL, DSL).
"""

from __future__ import annotations

import math

import numpy as np

from pipeline.draws import RANDOM_GROWTH, SAMPLED_ROWS, draws
from pipeline.exchange import Schedule, first, largest, magnitude, repack, weakest
from pipeline.table import F32, I64, PackedTable


def set_schedule(steps: int, steps_per_epoch: int, fraction: float) -> Schedule:
    """SET's: a constant fraction (zeta = 0.3 as published) after each epoch but the last."""
    return Schedule(steps, steps_per_epoch, fraction, stop=1.0, least=fraction)


def regrow_by_gradient(
    table: PackedTable,
    rows: I64,
    grads: F32,
    fraction: float,
    floor: int,
    state: dict[str, F32],
) -> int:
    """Drop the weakest entries of the table, grow where one batch's gradient is largest.

    The rule of RigL (Evci et al., ICML 2020) and of DSL (arXiv 2402.02855), which differ in their
    schedules. Entries without a gradient do not grow, so fewer are exchanged where a batch
    reaches fewer; the originals then grow arbitrary ones.

    Args:
        table: the table; changed in place.
        rows: int64 (R,), ascending: those whose gradient is not 0.
        grads: float32 (R, d), of the last batch. Active columns count too, if they are dropped.
        fraction: part of all active entries to drop.
        floor: no row falls below this many active entries; the originals have no such floor.
        state: optimizer state, arrays (nnz,); changed in place.

    Returns:
        The number of entries dropped, those that grew again at once among them. The number of
        active entries is unchanged.
    """
    if len(rows) == 0:
        return 0
    order = _weakest_first(table, math.floor(fraction * table.nnz), floor)
    size, place = largest(grads, table, rows, len(order))
    # Gradients at the places that are dropped: they compete with the inactive ones.
    row = np.searchsorted(table.row_ptr, order, side="right") - 1
    slot = np.minimum(np.searchsorted(rows, row), len(rows) - 1)
    here = magnitude(grads[slot, table.cols[order]]) * (rows[slot] == row)
    # With n dropped, those of them that have a gradient and all of ``place`` can grow: n must fit.
    fits = np.cumsum(here == 0) <= len(place)
    count = int(np.count_nonzero(fits))
    order, here, slot = order[:count], here[:count], slot[:count]
    back = np.flatnonzero(here)
    flat = np.concatenate([place, slot[back] * table.dim + table.cols[order[back]]])
    by_place = np.argsort(flat)
    from_place = np.concatenate([np.full(len(place), -1), order[back]])[by_place]
    chosen = first(-np.concatenate([size, here[back]])[by_place], count)
    old, grown = from_place[chosen], flat[by_place][chosen]
    dropped = np.setdiff1d(order, old[old >= 0])
    grown = grown[old < 0]
    repack(table, state, dropped, rows[grown // table.dim], grown % table.dim)
    return count


def regrow_at_random(
    table: PackedTable,
    fraction: float,
    floor: int,
    state: dict[str, F32],
    seed: int,
    window: int,
) -> int:
    """Drop the weakest entries of either sign, grow as many anywhere: SET (Mocanu et al. 2018).

    Args:
        table: the table; changed in place.
        fraction: zeta, part of the positive and part of the negative entries to drop; an entry at
            0 counts as positive.
        floor: no row falls below this many active entries; the original has no such floor.
        state: optimizer state, arrays (nnz,); changed in place.
        seed: of the draws.
        window: which of the run's updates this is.

    Returns:
        As ``regrow_by_gradient``. Grown entries start at 0, as in SET's code with masks.
    """
    order = _weakest_first(table, table.nnz, floor)
    positive = table.vals[order] >= 0
    parts = []
    for of_sign, total in (
        (order[positive], np.count_nonzero(table.vals >= 0)),
        (order[~positive], np.count_nonzero(table.vals < 0)),
    ):
        parts.append(of_sign[: math.floor(fraction * total)])
    dropped = np.sort(np.concatenate(parts))
    count = len(dropped)
    rows = np.repeat(np.arange(table.num_rows), np.diff(table.row_ptr))
    active = rows * table.dim + table.cols  # ascending
    places, taken = active[dropped], np.delete(active, dropped)
    rank = _distinct(count, table.num_rows * table.dim - len(taken), seed, window)
    # The k-th free place follows k free places and the taken ones with taken[j] - j <= k.
    grown = rank + np.searchsorted(taken - np.arange(len(taken)), rank, side="right")
    back = np.isin(places, grown)
    grown = grown[~np.isin(grown, places)]
    repack(table, state, dropped[~back], grown // table.dim, grown % table.dim)
    return count


def importance_rows(weights: F32, size: int, seed: int, window: int) -> I64:
    """Choose the sampled rows S of a window with probabilities that follow their weights.

    Rows are taken without replacement, each time in proportion to the weights of those left. All
    are drawn at once by the exponential clocks of Efraimidis and Spirakis (2006): row r rings at
    -ln(u_r) / w_r, and the first ``size`` to ring are S. Logarithms differ in their last bit from
    machine to machine, so this is the host's; a device draws by frequency (docs/formats.md).

    Args:
        weights: float32 (N,), not negative. Ones: uniform. Interactions of each row: frequency.
            Norms of gradients, summed over the last window: gradient norm; a row that no batch
            reached has none and is not chosen, and nothing would have grown in it.
        size: |S|.
        seed: of the draws.
        window: index of the window.

    Returns:
        int64 (at most size,), ascending: rows of positive weight, all of them where they are few.
    """
    able = np.flatnonzero(weights > 0)
    value = draws(seed, SAMPLED_ROWS, window, able)
    uniform = ((value >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    rings = -np.log(uniform) / weights[able]
    if size < len(able):
        able = able[np.argpartition(rings, size - 1)[:size]]
    return np.sort(able)


def _weakest_first(table: PackedTable, count: int, floor: int) -> I64:
    """Find up to ``count`` entries to drop, in the order (|value|, row, col), by the floor."""
    strength, place = weakest(table, np.arange(table.num_rows), floor, count)
    return place[np.argsort(strength, kind="stable")]


def _distinct(count: int, total: int, seed: int, window: int) -> I64:
    """Draw ``count`` distinct integers of [0, total) uniformly: int64, ascending.

    Draw i is ``draw(seed, RANDOM_GROWTH, window, i) mod total``; repeats are passed over. Where
    more than half of them are wanted, those that are left out are drawn instead.
    """
    if 2 * count > total:
        return np.setdiff1d(np.arange(total), _distinct(total - count, total, seed, window))
    size = 2 * count
    while True:
        drawn = draws(seed, RANDOM_GROWTH, window, np.arange(size)) % np.uint64(max(total, 1))
        distinct, at = np.unique(drawn.astype(np.int64), return_index=True)
        if len(distinct) >= count:
            return np.sort(distinct[np.argsort(at)[:count]])
        size *= 2
