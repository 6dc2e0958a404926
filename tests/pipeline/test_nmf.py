import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.decomposition import NMF

from pipeline.data.split import Pairs
from pipeline.nmf import Factors, factorise, nmf_table, random_table, top_entries
from sparserec.errors import SparseRecError


def block_pairs() -> Pairs:
    """Two groups of users who take two disjoint groups of items."""
    users, items = np.nonzero(np.kron(np.eye(2), np.ones((10, 6))))
    return Pairs(users.astype(np.int32), items.astype(np.int32), None)


@pytest.mark.filterwarnings("ignore:Maximum number of iterations")
def test_factors_multiply_to_sklearns_approximation() -> None:
    rng = np.random.default_rng(0)
    keys = rng.choice(40 * 30, 300, replace=False)
    pairs = Pairs((keys // 30).astype(np.int32), (keys % 30).astype(np.int32), None)
    factors = factorise(pairs, 40, 30, 6, seed=1)
    ones = np.zeros((40, 30))
    ones[pairs.users, pairs.items] = 1
    ones /= np.sqrt(np.outer(np.maximum(ones.sum(1), 1), np.maximum(ones.sum(0), 1)))
    model = NMF(6, init="nndsvda", max_iter=30, random_state=1)
    expected = model.fit_transform(sp.csr_matrix(ones.astype(np.float32))) @ model.components_
    np.testing.assert_allclose(factors.rows[:40] @ factors.rows[40:].T, expected, atol=2e-3)
    assert (factors.rows >= 0).all()
    norms = np.linalg.norm(factors.rows[:40], axis=0), np.linalg.norm(factors.rows[40:], axis=0)
    np.testing.assert_allclose(*norms, rtol=1e-3)


@pytest.mark.filterwarnings("ignore:invalid value encountered in sqrt")  # an exact fit
def test_the_mask_finds_the_groups() -> None:
    factors = factorise(block_pairs(), 20, 12, 4, seed=1)
    table = nmf_table(factors, density=0.25, floor=1, rescale=0.5, value_scale=0.1)
    dense = table.dense(0, 32)
    scores = dense[:20] @ dense[20:].T
    inside = np.kron(np.eye(2), np.ones((10, 6))).astype(bool)
    assert scores[inside].min() > scores[~inside].max()


def test_top_entries_is_the_floor_then_the_best() -> None:
    scores = np.array([[9, 8, 7], [3, 2, 1], [6, 5, 4]], np.float32)
    expected = np.array([[1, 1, 1], [1, 0, 0], [1, 0, 0]], bool)
    np.testing.assert_array_equal(top_entries(scores, 5, 1), expected)
    with pytest.raises(SparseRecError, match="3 rows of 3 at least 1 each"):
        top_entries(scores, 2, 1)


def test_density_scale_and_seed() -> None:
    factors = Factors(np.random.default_rng(0).random((50, 16), np.float32), 20)
    table = nmf_table(factors, density=0.3, floor=2, rescale=1.0, value_scale=0.05)
    assert table.nnz == round(0.3 * 50 * 16)
    assert np.diff(table.row_ptr).min() >= 2
    assert np.sqrt(np.mean(table.vals**2)) == pytest.approx(0.05, rel=1e-5)
    first, second = (random_table(20, 30, 16, 0.3, 2, 0.1, seed=7) for _ in range(2))
    np.testing.assert_array_equal(first.vals, second.vals)
    np.testing.assert_array_equal(first.cols, second.cols)
    assert random_table(20, 30, 16, 1.0, 2, 0.1, seed=7).nnz == 50 * 16
