"""The best of many scores, a chunk of queries at a time, so that memory stays flat."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from pipeline.table import F32, I64
from pipeline.top import ranked
from sparserec.errors import SparseRecError

NOTHING = -1
"""Stands where fewer candidates are left than were asked for; its score is -inf."""


def best(
    score: Callable[[I64, Tensor], Tensor],
    vectors: Tensor,
    hidden: sp.csr_matrix,
    chunk: int,
    count: int,
    left_out: I64,
    chosen: I64 | None,
) -> tuple[I64, F32]:
    """Rank candidates for Q queries.

    Args:
        score: of queries (A,), by place in [0, Q), and vectors (C, w'): float32 (A, C).
        vectors: of all candidates, float32 (C, w').
        hidden: CSR (Q, C): what each query is not given.
        chunk: queries at a time.
        count: how many candidates each query is given.
        left_out: candidates that no query is given.
        chosen: distinct candidates to rank, ascending; None for all.

    Returns:
        int64 and float32 (Q, min(count, candidates)), best first, equal scores by candidate;
        ``NOTHING`` and -inf at the end where fewer are left.

    Raises:
        SparseRecError: ``count`` is negative.
    """
    if count < 0:
        raise SparseRecError(f"N is {count}", "give 0 or more")
    if chosen is not None:
        vectors, hidden = vectors[torch.from_numpy(chosen)], hidden[:, chosen]
        left_out = np.flatnonzero(np.isin(chosen, left_out))
    queries, candidates = hidden.shape
    count = min(count, candidates)
    ids = np.empty((queries, count), np.int64)
    scores = np.empty((queries, count), np.float32)
    if count == 0:
        return ids, scores
    for start in range(0, queries, chunk):
        at = np.arange(start, min(start + chunk, queries))
        found = score(at, vectors)
        past = hidden[at].tocoo()
        found[torch.from_numpy(past.row), torch.from_numpy(past.col)] = -torch.inf
        found[:, torch.from_numpy(left_out)] = -torch.inf
        top = ranked(found, count)
        ids[at], scores[at] = top.numpy(), found.gather(1, top).numpy()
    if chosen is not None:
        ids = chosen[ids]
    ids[np.isneginf(scores)] = NOTHING
    return ids, scores


def one(ids: I64, scores: F32) -> tuple[I64, F32]:
    """Give the answer to a single query, (1, N), without its dimension and its empty places."""
    left = ids[0] != NOTHING
    return ids[0, left], scores[0, left]
