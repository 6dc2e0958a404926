"""Rankings against numpy's stable sort, on scores that are mostly equal."""

import numpy as np
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.ranking import NOTHING, best


@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(0, 50), st.booleans())
def test_equal_scores_rank_by_candidate(seed: int, size: int, count: int, some: bool) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 4, (5, size)).astype(np.float32)
    hidden = sp.csr_matrix(rng.random(scores.shape) < 0.2)
    left_out = np.flatnonzero(rng.random(size) < 0.2)
    chosen = np.flatnonzero(rng.random(size) < 0.7) if some else None
    table = torch.from_numpy(scores)
    ids, found = best(
        lambda at, vectors: table[torch.from_numpy(at)][:, vectors[:, 0].long()],
        torch.arange(size)[:, None],
        hidden,
        2,
        count,
        left_out,
        chosen,
    )
    allowed = np.ones(size, np.bool_) if chosen is None else np.isin(np.arange(size), chosen)
    allowed[left_out] = False
    for query, line in enumerate(scores):
        order = np.argsort(-line, kind="stable")
        keep = allowed & ~hidden[[query]].toarray().ravel()
        wanted = order[keep[order]][:count]
        given_ids = ids[query][ids[query] != NOTHING]
        np.testing.assert_array_equal(given_ids, wanted)
        np.testing.assert_array_equal(found[query][: len(wanted)], line[wanted])
        assert np.isneginf(found[query][len(wanted) :]).all()
