"""The k best scores against numpy's stable sort, on lines that are mostly ties."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.top import best


@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(1, 6), st.floats(0, 1))
def test_smaller_indices_of_equal_scores_are_chosen(
    seed: int, count: int, levels: int, hidden: float
) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, (3, count)).astype(np.float32)
    scores[rng.random(scores.shape) < hidden] = -np.inf
    k = int(rng.integers(1, count + 1))
    found = best(torch.from_numpy(scores), k).numpy()
    wanted = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(np.sort(found, axis=1), np.sort(wanted, axis=1))
    for line, chosen in zip(scores, found, strict=True):
        for value in np.unique(line[chosen]):
            assert np.all(np.diff(chosen[line[chosen] == value]) > 0)
