from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.decomposition import NMF

from pipeline import nmf
from pipeline.data.split import Pairs
from pipeline.nmf import (
    Factors,
    NmfOptions,
    balanced,
    budget,
    factorise,
    factorise_cached,
    nmf_table,
    normalised,
    random_table,
    side_by_side,
    top_entries,
)
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
    ones /= np.outer(np.maximum(ones.sum(1), 1), np.maximum(ones.sum(0), 1)) ** 0.3
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
    assert [budget(3, 3, part / 9, 1) for part in (4.6, 5, 5.4)] == [5, 5, 5]
    with pytest.raises(SparseRecError, match="3 rows of 3 at least 1 each"):
        budget(3, 3, 2 / 9, 1)


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


def test_normalisations_by_hand() -> None:
    # User 0 takes items 0, 1, 2; user 1 takes item 0 alone. |R| = 4.
    pairs = Pairs(np.int32([0, 0, 0, 1]), np.int32([0, 1, 2, 0]), None)
    none = normalised(pairs, 2, 3, NmfOptions("none"))
    np.testing.assert_array_equal(none.toarray(), [[1, 1, 1], [1, 0, 0]])
    roots = np.array([[1 / np.sqrt(6), 1 / np.sqrt(3), 1 / np.sqrt(3)], [1 / np.sqrt(2), 0, 0]])
    for power in (0.0, 0.2, 0.5):
        degree = normalised(pairs, 2, 3, NmfOptions(power=power))
        expected = np.where(roots > 0, roots ** (2 * power), 0)
        np.testing.assert_allclose(degree.toarray(), expected, rtol=1e-6)
    # log(4 / (3 * 2)) is negative and goes; log(4 / (1 * 2)) is not.
    ppmi = normalised(pairs, 2, 3, NmfOptions("ppmi"))
    expected = [[0, np.log(4 / 3), np.log(4 / 3)], [np.log(2), 0, 0]]
    np.testing.assert_allclose(ppmi.toarray(), expected, rtol=1e-6)
    assert ppmi.nnz == 3


@pytest.mark.filterwarnings("ignore:Maximum number of iterations")
@pytest.mark.parametrize(
    "options",
    [
        NmfOptions(solver="mu"),
        NmfOptions(start="random"),
        NmfOptions(iterations=3),
        NmfOptions(power=0.5),
    ],
)
def test_options_reach_sklearn(options: NmfOptions) -> None:
    rng = np.random.default_rng(0)
    keys = rng.choice(20 * 15, 90, replace=False)
    pairs = Pairs((keys // 15).astype(np.int32), (keys % 15).astype(np.int32), None)
    rows = factorise(pairs, 20, 15, 4, 1, options).rows
    model = NMF(
        4,
        init=options.start,
        solver=options.solver,
        max_iter=options.iterations,
        random_state=1,
    )
    expected = model.fit_transform(normalised(pairs, 20, 15, options)) @ model.components_
    np.testing.assert_allclose(rows[:20] @ rows[20:].T, expected, atol=1e-5)
    default = factorise(pairs, 20, 15, 4, 1).rows
    assert np.abs(rows[:20] @ rows[20:].T - default[:20] @ default[20:].T).max() > 1e-3


def test_each_side_gets_its_share() -> None:
    rng = np.random.default_rng(0)
    rows = rng.random((60, 16), np.float32)
    rows[:20] *= 5  # users would take more than their share
    factors, density = Factors(rows, 20), 288.6 / 960  # of users 96.2, of items 192.4
    joint = nmf_table(factors, density, 1, 0.0, 0.1)
    each = nmf_table(factors, density, 1, 0.0, 0.1, sides="each")
    assert joint.row_ptr[20] > each.row_ptr[20] == 96
    assert joint.nnz == each.nnz == 289


@pytest.mark.parametrize(
    ("rescale", "first", "second"),
    [(0.0, (0, 0), (0, 1)), (0.5, (0, 0), (1, 0)), (1, (1, 0), (0, 0))],
)
def test_rows_are_rescaled_by_a_power_of_their_norm(
    rescale: float, first: tuple[int, int], second: tuple[int, int]
) -> None:
    # Norms are 15, 6 and 0; 12 / sqrt(15) > 6 / sqrt(6) > 9 / sqrt(15).
    factors = Factors(np.float32([[12, 9], [6, 0], [0, 0]]), 1)
    for count, expected in ((1, {first}), (2, {first, second})):
        table = nmf_table(factors, count / 6, 0, rescale, 0.1)
        found = table.entries(np.arange(3))
        assert set(zip(found.slot.tolist(), found.col.tolist(), strict=True)) == expected


def test_a_component_that_is_empty_on_a_side_stays_finite() -> None:
    users, items = np.float32([4, 0, 9, 0]), np.float32([1, 0, 0, 1])
    ratio = balanced(users, items)
    np.testing.assert_allclose(ratio[:2], [0.5, 1])
    assert np.isfinite(users * ratio).all()
    assert np.isfinite(items / ratio).all()


def test_a_rank_beyond_the_matrixs_leaves_columns_at_0() -> None:
    pairs = Pairs(np.int32([0, 0, 1, 2]), np.int32([0, 1, 1, 2]), None)
    rows = factorise(pairs, 3, 4, 6, seed=1).rows
    assert rows.shape == (7, 6)
    assert (rows[:, :3] > 0).any(axis=0).all()
    assert not rows[:, 3:].any()


def test_factors_side_by_side() -> None:
    left, right = Factors(np.ones((5, 2), np.float32), 3), Factors(np.zeros((5, 3), np.float32), 3)
    both = side_by_side([left, right])
    assert both.num_users == 3
    np.testing.assert_array_equal(both.rows, np.tile(np.float32([1, 1, 0, 0, 0]), (5, 1)))


@pytest.mark.filterwarnings("ignore:invalid value encountered in sqrt")  # an exact fit
def test_the_cache_is_shared_and_survives_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs, options, folder = block_pairs(), NmfOptions(iterations=5), tmp_path / "nmf"
    calls: list[int] = []

    def counting(*args: object) -> Factors:
        calls.append(1)
        return factorise(*args)

    monkeypatch.setattr(nmf, "factorise", counting)
    first = factorise_cached(pairs, 20, 12, 4, 1, options, folder)
    order = np.random.default_rng(0).permutation(len(pairs))
    shuffled = Pairs(pairs.users[order], pairs.items[order], None)
    second = factorise_cached(shuffled, 20, 12, 4, 1, options, folder)
    assert len(calls) == 1
    assert second.num_users == 20
    np.testing.assert_array_equal(first.rows, second.rows)
    (file,) = folder.iterdir()
    file.write_bytes(file.read_bytes()[:100])
    again = factorise_cached(pairs, 20, 12, 4, 1, options, folder)
    np.testing.assert_array_equal(first.rows, again.rows)
    assert len(calls) == 2
    fewer = Pairs(pairs.users[1:], pairs.items[1:], None)
    for changed in (
        factorise_cached(pairs, 20, 12, 4, 2, options, folder),
        factorise_cached(pairs, 20, 12, 5, 1, options, folder),
        factorise_cached(pairs, 20, 12, 4, 1, replace(options, iterations=6), folder),
        factorise_cached(fewer, 20, 12, 4, 1, options, folder),
    ):
        assert changed.num_users == 20
    assert len(calls) == 6
    assert len(list(folder.iterdir())) == 5
