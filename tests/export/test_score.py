"""score.pte, executed, against a full sort in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from export import verify
from export.lower import lower
from export.score import CANDIDATES, MAX_CHUNK, TOP_K, score_chunk, score_methods

SHAPES = [(20, 4), (37, 64), (500, 128)]


@pytest.fixture(scope="module", params=SHAPES, ids=lambda s: f"C{s[0]}-d{s[1]}")
def score(request: pytest.FixtureRequest) -> tuple[verify.Executable, int, int]:
    chunk, dim = request.param
    return verify.load(lower(score_methods(chunk, dim))), chunk, dim


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(0, 2**32), st.floats(0, 1))
def test_top_list_is_that_of_a_full_sort(
    score: tuple[verify.Executable, int, int], seed: int, hidden_share: float
) -> None:
    run, chunk, dim = score
    rng = np.random.default_rng(seed)
    user = rng.normal(size=dim).astype(np.float32)
    items = rng.normal(size=(chunk, dim)).astype(np.float32)
    hidden = rng.random(chunk) < hidden_share
    penalty = np.where(hidden, -np.inf, 0).astype(np.float32)
    values, indices = run(
        "score",
        torch.from_numpy(user)[None, None],
        torch.from_numpy(items)[None],
        torch.from_numpy(penalty)[None],
    )
    exact = items.astype(np.float64) @ user.astype(np.float64) + penalty
    wanted = np.sort(exact)[::-1][:TOP_K]
    assert indices.dtype == torch.int64
    assert len(set(indices[0].tolist())) == TOP_K
    np.testing.assert_allclose(values[0].numpy(), wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(exact[indices[0].numpy()], wanted, rtol=1e-5, atol=1e-5)


def test_of_equal_scores_the_smaller_items_are_in_the_list(
    score: tuple[verify.Executable, int, int],
) -> None:
    run, chunk, dim = score
    rng = np.random.default_rng(1)
    levels = rng.integers(-1, 2, chunk).astype(np.float32)
    user, items = torch.zeros(1, 1, dim), torch.zeros(1, chunk, dim)
    user[..., 0] = 1
    items[0, :, 0] = torch.from_numpy(levels)
    values, indices = run("score", user, items, torch.zeros(1, chunk))
    wanted = np.argsort(-levels, kind="stable")[:TOP_K]
    np.testing.assert_array_equal(values[0].numpy(), levels[wanted])
    np.testing.assert_array_equal(np.sort(indices[0].numpy()), np.sort(wanted))


@given(st.integers(1, 10**6))
def test_chunks_cover_the_catalogue_with_little_padding(items: int) -> None:
    chunk = score_chunk(items, "lightgcn")
    count = -(-items // chunk)
    assert TOP_K <= chunk <= MAX_CHUNK
    assert count * chunk >= items
    assert count == -(-items // MAX_CHUNK)
    assert count * chunk - items < max(count, TOP_K)


def test_where_scores_are_products_the_program_ranks_candidates() -> None:
    assert score_chunk(10**6) == CANDIDATES
    assert score_chunk(50) == 50
    assert score_chunk(3) == TOP_K
