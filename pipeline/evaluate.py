"""Full-ranking evaluation: Recall@K and NDCG@K over all items that a user has not seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch

from pipeline.data.split import Pairs
from pipeline.recommender import Recommender
from pipeline.table import F32, I64, Bool
from pipeline.top import ranked

F64 = npt.NDArray[np.float64]
CUTOFFS = (5, 10, 20)
USERS_AT_A_TIME = 1 << 16
"""Users whose interactions are looked up in one pass."""
PAIRS_AT_A_TIME = 1 << 20
"""Interactions copied in one go."""


@dataclass(frozen=True)
class Quality:
    """Averages over users, and the values behind them for paired tests.

    Attributes:
        recall: by K: mean over users of hits in the top K / relevant items.
        ndcg: by K: log2 discount, ideal DCG over min(K, relevant items).
        users: int64 (U,), the users with at least one relevant item.
        recall_per_user: by K, float32 (U,).
        hits: bool (U, k), k = min(20, items): whether each user's k-th best item is relevant.
        relevant: int64 (U,), their numbers of relevant items.
    """

    recall: dict[int, float]
    ndcg: dict[int, float]
    users: I64
    recall_per_user: dict[int, F32]
    hits: Bool
    relevant: I64

    def as_dict(self) -> dict[str, float]:
        """Flatten to ``recall@20``-like keys and ``users``."""
        flat = {f"recall@{k}": v for k, v in self.recall.items()}
        flat |= {f"ndcg@{k}": v for k, v in self.ndcg.items()}
        return flat | {"users": len(self.users)}


NOT_TESTED = Quality(
    {}, {}, np.empty(0, np.int64), {}, np.empty((0, 0), np.bool_), np.empty(0, np.int64)
)
"""Of a run whose data has no test part."""


def evaluate(
    recommender: Recommender,
    relevant: Pairs,
    seen: Pairs | Sequence[Pairs],
    known_items: int,
    users: I64 | None = None,
) -> Quality:
    """Rank items [0, known_items) for every user who has a relevant item, leaving out seen ones.

    Equal scores rank by item, the smaller first, as on a device.

    Args:
        recommender: trained.
        relevant: held-out pairs to find.
        seen: pairs that are never recommended, in one part or several.
        known_items: items that are candidates.
        users: only these, if given.

    Raises:
        ValueError: if there is nothing relevant.
    """
    num_users = recommender.table.num_users
    chosen = users_of(relevant, num_users)
    if users is not None:
        chosen = np.intersect1d(chosen, users)
    if len(chosen) == 0:
        raise ValueError("no held-out interactions to evaluate on")
    items = recommender.items(known_items)
    k = min(max(CUTOFFS), known_items)
    hits = np.zeros((len(chosen), k), np.bool_)
    counts = np.zeros(len(chosen), np.int64)
    parts = (seen,) if isinstance(seen, Pairs) else tuple(seen)
    size = recommender.users_at_a_time(known_items)
    for first in range(0, len(chosen), USERS_AT_A_TIME):
        group = chosen[first : first + USERS_AT_A_TIME]
        shape = (num_users, recommender.table.num_items)
        liked, hidden = _rows(group, (relevant,), shape), _rows(group, parts, shape)
        counts[first : first + len(group)] = np.diff(liked.indptr)
        for start in range(0, len(group), size):
            chunk = slice(start, min(start + size, len(group)))
            score = recommender.scores(group[chunk], items)  # (A, C)
            past = hidden[chunk].tocoo()
            score[torch.from_numpy(past.row), torch.from_numpy(past.col)] = -torch.inf
            top = ranked(score, k).numpy()  # (A, k)
            held_out = np.zeros(score.shape, np.bool_)
            truth = liked[chunk].tocoo()
            held_out[truth.row, truth.col] = True
            found = np.take_along_axis(held_out, top, axis=1)
            hits[first + chunk.start : first + chunk.stop] = found
    return metrics(hits, counts, chosen)


def users_of(pairs: Pairs, num_users: int) -> I64:
    """Give the users that have interactions, ascending: int64 (U,)."""
    present = np.zeros(num_users, np.bool_)
    for some in _slices(pairs):
        present[pairs.users[some]] = True
    return np.flatnonzero(present)


def _slices(pairs: Pairs) -> Iterator[slice]:
    """Cut interactions, which may be mapped from disk, into what may be copied."""
    for start in range(0, len(pairs), PAIRS_AT_A_TIME):
        yield slice(start, start + PAIRS_AT_A_TIME)


def _rows(users: I64, parts: Sequence[Pairs], shape: tuple[int, int]) -> sp.csr_matrix:
    """Give the interactions of some users (A,) as a matrix of ones, (A, items)."""
    place = np.full(shape[0], -1, np.int32)
    place[users] = np.arange(len(users))
    rows, columns = [np.empty(0, np.int32)], [np.empty(0, np.int32)]
    for pairs in parts:
        for some in _slices(pairs):
            row = place[pairs.users[some]]
            wanted = row >= 0
            rows.append(row[wanted])
            columns.append(pairs.items[some][wanted])
    row, column = np.concatenate(rows), np.concatenate(columns)
    return sp.csr_matrix((np.ones(len(row), np.float32), (row, column)), (len(users), shape[1]))


def recall_per_user(hits: Bool, relevant: I64, k: int) -> F32:
    """Give hits in the top K / relevant items for each user, float32 (U,); see ``Quality``."""
    found: F32 = (hits[:, :k].sum(axis=1) / relevant).astype(np.float32)
    return found


def ndcg_per_user(hits: Bool, relevant: I64, k: int) -> F64:
    """Give each user's NDCG@K, float64 (U,): log2 discount, ideal over min(K, relevant)."""
    depth = hits.shape[1]
    discount = 1.0 / np.log2(np.arange(2, depth + 2))
    ideal = np.concatenate([[0.0], np.cumsum(discount)])
    best = ideal[np.minimum(np.minimum(relevant, k), depth)]
    found: F64 = (hits[:, :k] * discount[:k]).sum(axis=1) / best
    return found


def metrics(hits: Bool, relevant: I64, users: I64) -> Quality:
    """Turn hit lists (U, k), best first, and counts of relevant items (U,) into averages."""
    per_user = {k: recall_per_user(hits, relevant, k) for k in CUTOFFS}
    ndcg = {k: float(np.mean(ndcg_per_user(hits, relevant, k))) for k in CUTOFFS}
    recall = {k: float(np.mean(v, dtype=np.float64)) for k, v in per_user.items()}
    return Quality(recall, ndcg, users, per_user, hits, relevant)
