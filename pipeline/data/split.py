"""Splits: the host's past, the device's log, and what comes later.

All three splits end in the same place (``_assemble``), which settles the order of indices: users
and items of the past first, in their old order; then those that the log brings, in the order in
which they arrive. So the first ``known_users`` rows are the host's, and a bundle's spare rows take
the newcomers one after another, as they would on a device.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.data.interactions import Int32, Int64, Interactions, first_repeat, pair_keys
from sparserec.errors import SparseRecError

TRAIN, VALID, LOG, LATER = range(4)
MIN_INTERACTIONS = 5
"""Users with fewer stay wholly in train: there is too little of them to hold anything out."""


@dataclass(frozen=True)
class Pairs:
    """Interactions of one part, ordered by time where times are known, else by file.

    Attributes:
        users: int32 (n,).
        items: int32 (n,).
        timestamps: int64 (n,) or None.
    """

    users: Int32
    items: Int32
    timestamps: Int64 | None

    def __len__(self) -> int:
        return len(self.users)


@dataclass(frozen=True)
class Split:
    """Four disjoint parts over one index space.

    Attributes:
        train, valid: the host's past.
        log: what the device trains on.
        later: what comes after the log (or a published test set), for evaluation only.
        user_ids, item_ids: raw ids; known ones first, then the log's newcomers.
        known_users, known_items: how many of each occur in train or valid.
        dropped_later: pairs kept out of ``later`` because their user or item occurs in neither
            the past nor the log, so that nothing could have predicted them.
        train_keys: int64 (n,), ascending ``pair_keys`` of train over the known items, where they
            were made beforehand.
    """

    train: Pairs
    valid: Pairs
    log: Pairs
    later: Pairs
    user_ids: list[str]
    item_ids: list[str]
    known_users: int
    known_items: int
    dropped_later: int
    train_keys: Int64 | None = None

    @property
    def num_users(self) -> int:
        """Users of the past and the log."""
        return len(self.user_ids)

    @property
    def num_items(self) -> int:
        """Items of the past and the log."""
        return len(self.item_ids)


FRACTIONS = (0.6, 0.1, 0.2)
"""Of each user's interactions: train, valid, log."""


def temporal_split(
    interactions: Interactions,
    train: float = FRACTIONS[0],
    valid: float = FRACTIONS[1],
    log: float = FRACTIONS[2],
) -> Split:
    """Cut each user's interactions by time; what the three fractions leave is ``later``.

    Ties in time go by file order. A cut that falls inside an interaction moves to before it, so
    small remainders go to the later parts. Users with fewer than ``MIN_INTERACTIONS`` stay in
    train. The cut is each user's own: one user's log may precede another user's past, as it does
    with phones that come to the service at different times.

    Raises:
        SparseRecError: there are no timestamps, or the fractions are not fractions of one whole.
    """
    if interactions.timestamps is None:
        raise no_times()
    return _per_user_split(interactions, interactions.timestamps, (train, valid, log))


def no_times() -> SparseRecError:
    """Return the error of a log that cannot be split by time."""
    return SparseRecError(
        "a temporal split needs a time for each interaction, and these have none",
        "name the time column with --time-col, or use a split that needs no time",
    )


def leave_out(
    interactions: Interactions,
    valid: float = 0.1,
    log: float = 0.0,
    later: float = 0.0,
    seed: int = 1,
) -> Split:
    """Hold out random interactions of each user; what the three fractions leave is ``train``.

    For data without times. The draw depends on ``seed`` and the order of the file only.

    Raises:
        SparseRecError: the fractions are not fractions of one whole.
    """
    train = 1.0 - valid - log - later
    order = np.random.default_rng(seed).permutation(len(interactions)).astype(np.int64)
    return _per_user_split(interactions, order, (train, valid, log))


def published_split(
    train: Interactions,
    test: Interactions,
    valid_fraction: float = 0.1,
    seed: int | None = 1,
    valid: Interactions | None = None,
) -> Split:
    """Join the files of a published split: ``test`` becomes ``later``, and the log is empty.

    Where the split has no ``valid`` of its own, ``valid_fraction`` of each user's train
    interactions are held out: drawn by ``seed``, or with None the last in the file's order.

    Raises:
        SparseRecError: the files share a pair, or ``valid_fraction`` is out of range.
    """
    files = [train, test] if valid is None else [train, valid, test]
    joint = _join(files)
    if valid is None:
        order = np.arange(len(train))
        if seed is not None:
            order = np.random.default_rng(seed).permutation(order)
        part = cut(train.users, order, (1.0 - valid_fraction, valid_fraction, 0.0))
    else:
        part = np.repeat(np.array([TRAIN, VALID], dtype=np.int8), [len(train), len(valid)])
    part = np.concatenate([part, np.full(len(test), LATER, dtype=np.int8)])
    if first_repeat(pair_keys(joint.users, joint.items, joint.num_items)) is not None:
        raise SparseRecError(
            "the files of this split share interactions, so its test would be on trained pairs",
            "remove from the test and validation files the pairs that the train file has",
        )
    return _assemble(joint, part)


def pooled_split(files: list[Interactions], seed: int = 42) -> Split:
    """Pool the files and cut each user's interactions at random: 50% train, 25% valid, 25% later.

    The protocol of the public code of SparseRec's first author (BET, CIESS), where a test of 25%
    is held out per user, then a third of the rest, with seed 42. Their draw is scikit-learn's;
    ours is this module's, so the proportions agree and the pairs do not.

    Raises:
        SparseRecError: the files share a pair.
    """
    joint = _join(files)
    if first_repeat(pair_keys(joint.users, joint.items, joint.num_items)) is not None:
        raise SparseRecError(
            "the files of this split share interactions, so pooled they would hold pairs twice",
            "remove from the test and validation files the pairs that the train file has",
        )
    order = np.random.default_rng(seed).permutation(len(joint)).astype(np.int64)
    return _assemble(joint, cut(joint.users, order, (0.5, 0.25, 0.0)))


def _per_user_split(
    interactions: Interactions, order: Int64, fractions: tuple[float, float, float]
) -> Split:
    return _assemble(interactions, cut(interactions.users, order, fractions))


def cut(users: Int32, order: Int64, fractions: tuple[float, float, float]) -> NDArray[np.int8]:
    """Label each interaction with its part, int8 (n,), by its rank in its user's ``order``."""
    if min(fractions) < 0 or sum(fractions) > 1 + 1e-9 or fractions[0] <= 0:
        raise SparseRecError(
            f"split fractions {', '.join(f'{f:g}' for f in fractions)} (train, valid, log)"
            " are not parts of one whole",
            "choose train above 0, the others at least 0, and at most 1 in all",
        )
    counts = np.bincount(users)
    rows = np.lexsort((np.arange(len(users)), order, users))
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    rank = np.arange(len(users)) - starts[users[rows]]
    total = counts[users[rows]]
    part = np.zeros(len(users), dtype=np.int8)
    for end in np.cumsum(fractions):
        # The small term keeps 10 * (0.6 + 0.1 + 0.2) at 9 in binary arithmetic.
        part[rows] += rank >= np.floor(total * end + 1e-9)
    part[rows[total < MIN_INTERACTIONS]] = TRAIN
    return part


def _join(files: list[Interactions]) -> Interactions:
    """Concatenate over one index space: the first file's ids, then the next's new ones."""
    users, user_ids = _join_ids([(f.users, f.user_ids) for f in files])
    items, item_ids = _join_ids([(f.items, f.item_ids) for f in files])
    return Interactions(users, items, None, user_ids, item_ids)


def _join_ids(columns: list[tuple[Int32, list[str]]]) -> tuple[Int32, list[str]]:
    index: dict[str, int] = {}
    joined = []
    for values, ids in columns:
        new = np.array([index.setdefault(raw, len(index)) for raw in ids], dtype=np.int32)
        joined.append(new[values])
    return np.concatenate(joined), list(index)


def _assemble(interactions: Interactions, part: NDArray[np.int8]) -> Split:
    """Order the parts, drop what nothing could predict, and renumber: known first."""
    rows = np.arange(len(part))
    if interactions.timestamps is not None:
        rows = np.lexsort((rows, interactions.timestamps))
    rows_of = [rows[part[rows] == p] for p in (TRAIN, VALID, LOG, LATER)]
    past = np.concatenate([rows_of[TRAIN], rows_of[VALID]])
    users, known_users = _renumber(interactions.users, past, rows_of[LOG], interactions.num_users)
    items, known_items = _renumber(interactions.items, past, rows_of[LOG], interactions.num_items)
    known = (users[interactions.users] >= 0) & (items[interactions.items] >= 0)
    predictable = known[rows_of[LATER]]
    rows_of[LATER] = rows_of[LATER][predictable]

    def pairs(rows: NDArray[np.intp]) -> Pairs:
        times = interactions.timestamps
        return Pairs(
            users[interactions.users[rows]],
            items[interactions.items[rows]],
            None if times is None else times[rows],
        )

    train, valid, log, later = map(pairs, rows_of)
    return Split(
        train,
        valid,
        log,
        later,
        user_ids=_reorder(interactions.user_ids, users),
        item_ids=_reorder(interactions.item_ids, items),
        known_users=known_users,
        known_items=known_items,
        dropped_later=int(np.count_nonzero(~predictable)),
    )


def _renumber(
    values: Int32, past: NDArray[np.intp], log: NDArray[np.intp], count: int
) -> tuple[Int32, int]:
    """Return (new index of each old one, int32 (count,), -1 where neither has it; known)."""
    known = np.unique(values[past])
    arrivals, first = np.unique(values[log], return_index=True)
    newcomers = arrivals[np.argsort(first)]
    newcomers = newcomers[~np.isin(newcomers, known)]
    new = np.full(count, -1, dtype=np.int32)
    new[known] = np.arange(len(known))
    new[newcomers] = np.arange(len(known), len(known) + len(newcomers))
    return new, len(known)


def _reorder(ids: list[str], new: Int32) -> list[str]:
    old = np.argsort(new, kind="stable")[np.count_nonzero(new < 0) :]
    return [ids[k] for k in old]
