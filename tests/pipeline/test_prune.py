import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.prune import (
    gradual_density,
    magnitude_prune,
    pep_density,
    pep_retrain,
    pep_table,
    pep_thresholds,
    small_dim,
)
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


def test_small_dim_stays_within_the_budget() -> None:
    sizes = [small_dim(64, density) for density in (0.05, 0.1, 0.2, 0.5, 0.9, 1.0)]
    assert sizes == [3, 6, 12, 32, 57, 64]
    assert small_dim(10, 0.7) == 7
    assert small_dim(8, 0.05) == 1


def test_pep_hand_computed() -> None:
    values = torch.tensor([[2.0, -1.0], [0.25, -3.0]], requires_grad=True)
    half = math.log(0.5 / 0.5)  # sigmoid 1/2
    thresholds = torch.tensor([[half, math.log(3.0)]], requires_grad=True)  # 1/2 and 3/4
    table = pep_table(values, thresholds)
    torch.testing.assert_close(table, torch.tensor([[1.5, -0.25], [0.0, -2.25]]))
    assert pep_density(values, thresholds) == 0.75
    # d/dv is 1 where an entry survives; d/ds = -sign(v) sigmoid'(s), 1/4 and 3/16 here.
    table.sum().backward()
    torch.testing.assert_close(values.grad, torch.tensor([[1.0, 1.0], [0.0, 1.0]]))
    torch.testing.assert_close(thresholds.grad, torch.tensor([[-0.25, 2 * 0.1875]]))


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("global", (1, 1)),
        ("dimension", (1, 4)),
        ("feature", (6, 1)),
        ("feature-dimension", (6, 4)),
    ],
)
def test_pep_search_reaches_a_budget_it_can_retrain(kind: str, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    initial = rng.normal(size=(6, 4)).astype(np.float32)
    values = torch.tensor(initial, requires_grad=True)
    thresholds = pep_thresholds(kind, 6, 4, start=-3.0).requires_grad_()
    assert thresholds.shape == shape
    optimizer = torch.optim.SGD([values, thresholds], lr=0.5)
    # A loss that needs the first column and pushes all else through zero, where it stays.
    target = -torch.sign(values.detach())
    target[:, 0] *= -4
    steps = 0
    while pep_density(values, thresholds) > 0.5:
        optimizer.zero_grad()
        ((pep_table(values, thresholds) - target) ** 2).mean().backward()
        optimizer.step()
        steps += 1
        assert steps < 2000
    assert steps > 1
    table = pep_retrain(values, thresholds, initial, 0.5, 1, num_users=2)
    assert table.nnz == 12  # the search stopped at or below; the margins make up the number
    dense = table.dense(0, 6)
    assert (dense[:, 0] != 0).all()  # what the loss needs
    np.testing.assert_array_equal(dense[dense != 0], initial[dense != 0])
    left = pep_table(values, thresholds).detach().numpy() != 0
    assert (dense[left] != 0).all()
