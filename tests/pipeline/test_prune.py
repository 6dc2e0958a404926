import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.prune import gradual_density, magnitude_prune, small_dim
from pipeline.table import PackedTable
from sparserec.errors import SparseRecError


def test_magnitude_pruning_hand_computed() -> None:
    values = np.array([[9, -8, 7, 6], [0.1, 0.4, -0.3, 0.2], [5, 4, -3, 2]], np.float32)
    table = PackedTable.from_dense(values, np.ones_like(values, bool), num_users=1)
    # Half of twelve: each row's strongest (9, 0.4, 5), then -8, 7 and 6 of the others.
    pruned, state = magnitude_prune(table, 0.5, 1, {"m": table.vals * 10})
    expected = np.array([[9, -8, 7, 6], [0, 0.4, 0, 0], [5, 0, 0, 0]], np.float32)
    np.testing.assert_array_equal(pruned.dense(0, 3), expected)
    assert pruned.row_ptr.tolist() == [0, 4, 5, 6]
    np.testing.assert_array_equal(state["m"], pruned.vals * 10)
    # Without a floor the middle row empties.
    assert magnitude_prune(table, 0.5, 0, {})[0].row_ptr.tolist() == [0, 4, 4, 6]
    with pytest.raises(SparseRecError, match=r"cannot be pruned to density 0\.9"):
        magnitude_prune(pruned, 0.9, 1, {})
    with pytest.raises(SparseRecError, match="3 rows of 4 at least 2 each"):
        magnitude_prune(table, 0.4, 2, {})


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.3, 1), st.integers(0, 2))
def test_pruning_meets_the_budget_with_the_strongest(seed: int, density: float, floor: int) -> None:
    rng = np.random.default_rng(seed)
    rows, dim = int(rng.integers(1, 12)), int(rng.integers(8, 12))
    values = np.round(rng.normal(size=(rows, dim)), 1).astype(np.float32)  # rounding makes ties
    table = PackedTable.from_dense(values, np.ones_like(values, bool), num_users=0)
    pruned, _ = magnitude_prune(table, density, floor, {})
    assert pruned.nnz == round(density * rows * dim)
    assert np.diff(pruned.row_ptr).min() >= floor
    if not floor:
        size = np.sort(np.abs(values).ravel())[::-1]
        np.testing.assert_array_equal(np.sort(np.abs(pruned.vals))[::-1], size[: pruned.nnz])


def test_gradual_density_is_the_published_cube() -> None:
    # s_f = 0.9, t_0 = 100, n dT = 200: half way, s = 0.9 - 0.9 / 8.
    assert gradual_density(50, 100, 300, 0.1) == 1.0
    assert gradual_density(200, 100, 300, 0.1) == pytest.approx(1 - (0.9 - 0.9 / 8))
    assert gradual_density(300, 100, 300, 0.1) == pytest.approx(0.1)
    assert gradual_density(999, 100, 300, 0.1) == pytest.approx(0.1)
    assert gradual_density(200, 100, 300, 0.2, start=0.6) == pytest.approx(0.25)
    # It ends where it begins: at once.
    assert gradual_density(0, 1, 1, 0.1) == 1.0
    assert gradual_density(1, 1, 1, 0.1) == 0.1


def test_small_dim_stays_within_the_budget() -> None:
    sizes = [small_dim(64, density) for density in (0.05, 0.1, 0.2, 0.5, 0.9, 1.0)]
    assert sizes == [3, 6, 12, 32, 57, 64]
    assert small_dim(100, 0.29) == 29
    assert small_dim(8, 0.05) == 1
