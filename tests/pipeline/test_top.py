"""The k best scores against numpy's stable sort, on lines that are mostly ties."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.top import best, ranked


@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(1, 6), st.floats(0, 1))
def test_smaller_indices_of_equal_scores_are_chosen(
    seed: int, count: int, levels: int, hidden: float
) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, (3, count)).astype(np.float32)
    scores[rng.random(scores.shape) < hidden] = -np.inf
    k = int(rng.integers(1, count + 1))
    values, found = (part.numpy() for part in best(torch.from_numpy(scores), k))
    wanted = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(np.sort(found, axis=1), np.sort(wanted, axis=1))
    np.testing.assert_array_equal(values, np.take_along_axis(scores, wanted, axis=1))
    np.testing.assert_array_equal(values, np.take_along_axis(scores, found, axis=1))
    np.testing.assert_array_equal(ranked(torch.from_numpy(scores), k).numpy(), wanted)
