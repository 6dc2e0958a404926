"""Full-ranking evaluation: Recall@K and NDCG@K over all items that a user has not seen."""

from __future__ import annotations

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
    seen: Pairs,
    known_items: int,
    users: I64 | None = None,
) -> Quality:
    """Rank items [0, known_items) for every user who has a relevant item, leaving out seen ones.

    Equal scores rank by item, the smaller first, as on a device.

    Args:
        recommender: trained.
        relevant: held-out pairs to find.
        seen: pairs that are never recommended.
        known_items: items that are candidates.
        users: only these, if given.

    Raises:
        ValueError: if there is nothing relevant.
    """
    table = recommender.table
    shape = (table.num_users, table.num_items)
    liked, hidden = _csr(relevant, shape), _csr(seen, shape)
    counts = np.diff(liked.indptr)
    chosen = np.flatnonzero(counts).astype(np.int64)
    if users is not None:
        chosen = np.intersect1d(chosen, users)
    if len(chosen) == 0:
        raise ValueError("no held-out interactions to evaluate on")
    items = recommender.items(known_items)
    k = min(max(CUTOFFS), known_items)
    hits = np.zeros((len(chosen), k), np.bool_)
    size = recommender.users_at_a_time(known_items)
    for start in range(0, len(chosen), size):
        chunk = chosen[start : start + size]
        score = recommender.scores(chunk, items)  # (A, C)
        past = hidden[chunk].tocoo()
        score[torch.from_numpy(past.row), torch.from_numpy(past.col)] = -torch.inf
        top = ranked(score, k).numpy()  # (A, k)
        held_out = np.zeros(score.shape, np.bool_)
        truth = liked[chunk].tocoo()
        held_out[truth.row, truth.col] = True
        hits[start : start + len(chunk)] = np.take_along_axis(held_out, top, axis=1)
    return metrics(hits, counts[chosen].astype(np.int64), chosen)


def _csr(pairs: Pairs, shape: tuple[int, int]) -> sp.csr_matrix:
    return sp.csr_matrix((np.ones(len(pairs), np.float32), (pairs.users, pairs.items)), shape=shape)


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
