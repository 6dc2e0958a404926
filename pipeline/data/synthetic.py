"""Synthetic logs for tests: popular items, latent taste, and taste that drifts.

Every user has two taste vectors; over the span of the log the first fades into the second. So a
user's latest interactions say more about the next ones than the oldest do, which is what training
on the device lives on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.data.interactions import Interactions
from sparserec.errors import SparseRecError

START = 1_700_000_000
SPAN_S = 180 * 24 * 3600


@dataclass(frozen=True)
class SyntheticConfig:
    """What the log looks like.

    Attributes:
        rank: length of the taste vectors.
        popularity: exponent of the power law; the k-th item is wanted ``k ** -popularity`` times.
        taste: weight of taste against popularity and chance.
        activity: spread (sigma) of the users' log-normal activity.
    """

    rank: int = 8
    popularity: float = 0.8
    taste: float = 6.0
    activity: float = 0.6


def generate(
    num_users: int,
    num_items: int,
    num_interactions: int,
    seed: int = 1,
    config: SyntheticConfig | None = None,
) -> Interactions:
    """Return a log of distinct pairs in order of time; the same arguments give the same log.

    Each user has at least one interaction. Items that nobody took have no index. Raw ids are
    ``u<k>`` and ``i<k>``; times are seconds over 180 days.

    Raises:
        SparseRecError: the numbers cannot be met.
    """
    config = config or SyntheticConfig()
    if not 1 <= num_users <= num_interactions <= num_users * num_items:
        raise SparseRecError(
            f"{num_interactions} distinct interactions of {num_users} users (each at least one)"
            f" with {num_items} items are not possible",
            "choose a number of interactions between users and users * items",
        )
    rng = np.random.default_rng(seed)
    counts = _activity(rng, num_users, num_items, num_interactions, config.activity)
    wanted = -config.popularity * np.log(np.arange(1, num_items + 1))
    popularity = rng.permutation(wanted).astype(np.float32)
    item_taste = _unit(rng.standard_normal((num_items, config.rank)))
    first, last = (_unit(rng.standard_normal((num_users, config.rank))) for _ in range(2))
    users, items, times = [], [], []
    for user in range(num_users):
        when = np.sort(rng.random(counts[user]))
        taste = (1 - when)[:, None] * first[user] + when[:, None] * last[user]  # (n, rank)
        # The largest of scores with Gumbel noise (-log Exp(1)) is a draw from their softmax.
        scores = popularity + (config.taste * taste @ item_taste.T).astype(np.float32)
        chance = rng.standard_exponential(scores.shape, dtype=np.float32)
        scores -= np.log(np.maximum(chance, np.finfo(np.float32).tiny))
        users.append(np.full(len(when), user))
        items.append(_take(scores))
        times.append(START + (when * SPAN_S).astype(np.int64))
    return _in_time_order(np.concatenate(users), np.concatenate(items), np.concatenate(times))


def _activity(
    rng: np.random.Generator, num_users: int, num_items: int, total: int, sigma: float
) -> NDArray[np.int64]:
    """Return how many interactions each user has: 1 to ``num_items``, ``total`` in all."""
    share = rng.lognormal(sigma=sigma, size=num_users)
    counts: NDArray[np.int64] = np.clip(
        (share / share.sum() * total).astype(np.int64), 1, num_items
    )
    while (rest := total - int(counts.sum())) != 0:
        able = np.flatnonzero(counts < num_items if rest > 0 else counts > 1)
        counts[rng.permutation(able)[: abs(rest)]] += np.sign(rest)
    return counts


def _take(scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return each line's best item that no line before has taken, (n,); overwrites ``scores``."""
    taken = np.zeros(len(scores), dtype=np.int64)
    for line, row in enumerate(scores):
        row[taken[:line]] = -np.inf
        taken[line] = np.argmax(row)
    return taken


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths: NDArray[np.float64] = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / lengths


def _in_time_order(
    users: NDArray[np.int64], items: NDArray[np.int64], times: NDArray[np.int64]
) -> Interactions:
    order = np.argsort(times, kind="stable")
    present, compact = np.unique(items, return_inverse=True)
    return Interactions(
        users[order].astype(np.int32),
        compact.reshape(-1)[order].astype(np.int32),
        times[order],
        [f"u{k}" for k in range(int(users.max()) + 1)],
        [f"i{k}" for k in present.tolist()],
    )
