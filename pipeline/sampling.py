"""What a step trains on and which rows get a dense gradient: docs/formats.md sections 4 and 5."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.data.interactions import pair_keys
from pipeline.data.split import Pairs
from pipeline.draws import NEGATIVES, POSITIVES, SAMPLED_ROWS, SHARED_NEGATIVES, bounded, draws

I64 = npt.NDArray[np.int64]


def join(first: Pairs, second: Pairs) -> Pairs:
    """Put two parts together, without times."""
    users = np.concatenate([first.users, second.users])
    return Pairs(users, np.concatenate([first.items, second.items]), None)


@dataclass(frozen=True)
class TripleSampler:
    """BPR triples: a uniformly drawn interaction and an item its user is not known to like.

    Attributes:
        log: interactions to learn from, at least one; positives are drawn with replacement.
        known: sorted int64 keys of the pairs that no negative may be, the log's among them.
        num_items: the multiplier of those keys.
        known_items: negatives are drawn from items [0, known_items).
        seed: of the draws.
        tries: draws for a negative before the last one stands, liked or not.
    """

    log: Pairs
    known: I64
    num_items: int
    known_items: int
    seed: int
    tries: int = 8

    @classmethod
    def of(
        cls,
        log: Pairs,
        past: Pairs | None,
        num_items: int,
        known_items: int,
        seed: int,
        keys: I64 | None = None,
    ) -> TripleSampler:
        """Sample from ``log``; neither its pairs nor those of ``past`` are negatives.

        ``keys`` are those of ``known``, where they were made beforehand.
        """
        if keys is not None:
            return cls(log, keys, num_items, known_items, seed)
        known = log if past is None else join(log, past)
        keys = np.sort(pair_keys(known.users, known.items, num_items))
        return cls(log, keys, num_items, known_items, seed)

    def batch(self, step: int, size: int, start: int = 0) -> tuple[I64, I64, I64]:
        """Draw users, positive items and negative items, each int64 (size,).

        They are examples ``start`` and after of the step's batch: a part of it is drawn alone.
        """
        users, positives = self.positives(step, size, start)
        negatives = np.empty(size, np.int64)
        open_ = np.arange(size)
        for t in range(self.tries):
            value = draws(self.seed, NEGATIVES, step, (start + open_) * self.tries + t)
            negatives[open_] = bounded(value, self.known_items)
            open_ = open_[self._liked(users[open_], negatives[open_])]
            if len(open_) == 0:
                break
        return users, positives, negatives

    def positives(self, step: int, size: int, start: int = 0) -> tuple[I64, I64]:
        """Draw users and positive items, each int64 (size,), of examples ``start`` and after."""
        index = start + np.arange(size)
        chosen = bounded(draws(self.seed, POSITIVES, step, index), len(self.log))
        return self.log.users[chosen].astype(np.int64), self.log.items[chosen].astype(np.int64)

    def shared_negatives(self, step: int, count: int) -> I64:
        """Draw items for the whole batch, liked or not, for sampled softmax: int64 (count,)."""
        value = draws(self.seed, SHARED_NEGATIVES, step, np.arange(count))
        return bounded(value, self.known_items)

    def _liked(self, users: I64, items: I64) -> npt.NDArray[np.bool_]:
        keys = users * self.num_items + items
        place = np.minimum(np.searchsorted(self.known, keys), len(self.known) - 1)
        liked: npt.NDArray[np.bool_] = self.known[place] == keys
        return liked


Drawn = Callable[[I64], I64]
"""Rows, int64 (n k,), that draws (n,) of a window give, in their order, k for each."""


def sampled_rows(
    log: Pairs, num_users: int, window: int, size: int, seed: int, num_rows: int | None = None
) -> I64:
    """Draw the rows S of a window in proportion to their frequency in the log.

    Rows are taken from randomly drawn interactions, user then item, until there are ``size``
    distinct ones or 16 ``size`` interactions were drawn. Importance sampling without logarithms:
    exact in every language.

    Args:
        log: the interactions.
        num_users: rows of users come first.
        window: which window.
        size: |S|.
        seed: of the draws.
        num_rows: N, or None to look it up in the log, which takes a pass over it.

    Returns:
        int64 (at most size,), ascending.
    """
    if num_rows is None:
        num_rows = num_users + int(log.items.max()) + 1
    return _first_distinct(by_frequency(log, num_users, window, seed), num_rows, size)


def by_frequency(log: Pairs, num_users: int, window: int, seed: int) -> Drawn:
    """Give what draws rows as ``sampled_rows`` does."""

    def drawn(index: I64) -> I64:
        chosen = bounded(draws(seed, SAMPLED_ROWS, window, index), len(log))
        rows = np.empty(2 * len(chosen), np.int64)
        rows[0::2] = log.users[chosen]
        rows[1::2] = num_users + log.items[chosen]
        return rows

    return drawn


def uniform_rows(num_rows: int, window: int, size: int, seed: int) -> I64:
    """Draw the rows S of a window, each as likely as another: int64 (at most size,), ascending."""
    return _first_distinct(uniformly(num_rows, window, seed), num_rows, size)


def uniformly(num_rows: int, window: int, seed: int) -> Drawn:
    """Give what draws rows as ``uniform_rows`` does."""
    return lambda index: bounded(draws(seed, SAMPLED_ROWS, window, index), num_rows)


BLOCK = 1 << 16
"""Draws at a time: 16 |S| of them at once would take more memory than the rows' gradients."""


def _first_distinct(drawn: Drawn, num_rows: int, size: int) -> I64:
    """Take the first ``size`` distinct rows of draws 0 to 16 ``size``, ascending."""
    taken = np.zeros(num_rows, np.bool_)
    left = size
    for start in range(0, 16 * size, BLOCK):
        rows = drawn(np.arange(start, min(start + BLOCK, 16 * size)))
        distinct, first = np.unique(rows[~taken[rows]], return_index=True)
        taken[distinct[np.argsort(first, kind="stable")[:left]]] = True
        left = max(0, left - len(distinct))
        if left == 0:
            break
    return np.flatnonzero(taken)
