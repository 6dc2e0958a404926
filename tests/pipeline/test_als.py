"""Against the objective written out densely in float64, and its derivatives by autograd."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch import Tensor

from pipeline.als import AlsOptions, Side, exchange, refine, row_slices
from pipeline.data.split import Pairs, temporal_split
from pipeline.data.synthetic import generate
from pipeline.evaluate import evaluate
from pipeline.nmf import random_table
from pipeline.recipes import sparserec
from pipeline.recommender import Recommender
from pipeline.start import initial_table
from pipeline.table import F32, Bool, PackedTable

USERS, ITEMS, DIM = 30, 40, 6
SPLIT = temporal_split(generate(200, 300, 20000, seed=3))


def some_pairs(seed: int = 0) -> Pairs:
    liked = np.random.default_rng(seed).random((USERS, ITEMS)) < 0.2
    liked[:, 0] |= ~liked.any(axis=1)
    users, items = np.nonzero(liked)
    return Pairs(users.astype(np.int32), items.astype(np.int32), None)


def matrix_of(pairs: Pairs) -> sp.csr_matrix:
    ones = np.ones(len(pairs), np.float32)
    return sp.csr_matrix((ones, (pairs.users, pairs.items)), shape=(USERS, ITEMS))


def objective(users: Tensor, items: Tensor, pairs: Pairs, options: AlsOptions) -> Tensor:
    """Sum over all pairs, as the module's docstring has it."""
    liked = torch.zeros(len(users), len(items), dtype=torch.float64)
    liked[pairs.users, pairs.items] = 1
    scores = users @ items.T
    weight = options.zeros * liked.sum() / liked.numel()
    fit = (liked * (1 - scores) ** 2).sum() + weight * (scores**2).sum()
    of_users = torch.sqrt(liked.sum(1) + weight * len(items))
    of_items = torch.sqrt(liked.sum(0) + weight * len(users))
    norms = (of_users * (users**2).sum(1)).sum() + (of_items * (items**2).sum(1)).sum()
    return fit + options.penalty * norms


def dense(values: F32) -> Tensor:
    return torch.from_numpy(values.astype(np.float64))


def of_table(table: PackedTable, pairs: Pairs, options: AlsOptions) -> float:
    rows = dense(table.dense(0, table.num_rows))
    return float(objective(rows[: table.num_users], rows[table.num_users :], pairs, options))


def solved_users(options: AlsOptions) -> tuple[F32, F32, Bool, F32, Pairs]:
    """Solve users of at most three active entries, which three steps do exactly."""
    random, pairs = np.random.default_rng(1), some_pairs()
    active = random.random((USERS, DIM)).argsort(axis=1) < random.integers(1, 4, (USERS, 1))
    values = (random.standard_normal((USERS, DIM)) * active).astype(np.float32)
    items = random.standard_normal((ITEMS, DIM)).astype(np.float32)
    weight = options.zeros * len(pairs) / (USERS * ITEMS)
    side = Side(values, active, items, matrix_of(pairs), weight, options.penalty)
    return side.values, items, active, side.solve(want_changes=True), pairs


def test_a_turn_ends_where_no_active_entry_has_a_slope() -> None:
    options = AlsOptions(penalty=0.1)
    values, items, active, _, pairs = solved_users(options)
    users = dense(values).requires_grad_()
    objective(users, dense(items), pairs, options).backward()
    assert users.grad is not None
    slopes = users.grad.numpy()
    assert np.abs(slopes[active]).max() < 1e-3 * np.abs(slopes[~active]).max()
    assert not values[~active].any()


def test_changes_are_what_removing_or_adding_an_entry_does_to_the_objective() -> None:
    options = AlsOptions(penalty=0.1)
    values, items, active, changes, pairs = solved_users(options)
    now = float(objective(dense(values), dense(items), pairs, options))
    for row, col in ((0, 0), (1, 3), (7, 5), (12, 2), (20, 1), (29, 4)):
        tried = dense(values)
        tried[row, col] = 0
        without = float(objective(tried, dense(items), pairs, options))
        if active[row, col]:
            assert changes[row, col] == pytest.approx(without - now, rel=1e-3, abs=1e-4)
            continue
        entry = torch.zeros((), dtype=torch.float64, requires_grad=True)
        of_row = torch.nn.functional.one_hot(torch.tensor(row), USERS)[:, None]
        place = of_row * torch.nn.functional.one_hot(torch.tensor(col), DIM)

        def at(x: Tensor, place: Tensor = place) -> Tensor:
            return objective(dense(values) + x * place, dense(items), pairs, options)

        (slope,) = torch.autograd.grad(at(entry), entry)
        curve = torch.autograd.functional.hessian(at, entry.detach())
        best = float(at(-slope / curve))
        assert changes[row, col] == pytest.approx(now - best, rel=1e-3, abs=1e-4)


def test_the_exchange_takes_pairs_that_pay_and_leaves_a_rows_floor() -> None:
    active = np.array([[True, True, False, False], [True, False, False, True]])
    values = np.where(active, np.float32(1), np.float32(0))
    changes = np.array([[1, 9, 5, 2], [3, 4, 0, 8]], np.float32)
    # Free to go by a floor of 1: (0, 0) at 1 and (1, 0) at 3. To grow: (0, 2) for 5, (1, 1) for 4.
    assert exchange(values, active, changes, fraction=1.0, floor=1) == 2
    assert active.tolist() == [[False, True, True, False], [False, True, False, True]]
    assert values.tolist() == [[0, 1, 0, 0], [0, 0, 0, 1]]


def test_the_exchange_does_nothing_that_costs_more_than_it_gains() -> None:
    active = np.array([[True, True, False, False]])
    changes = np.array([[3, 9, 2, 2]], np.float32)
    assert exchange(np.ones((1, 4), np.float32), active, changes, 1.0, 0) == 0
    assert active.tolist() == [[True, True, False, False]]


def test_no_more_than_the_fraction_is_exchanged() -> None:
    active = np.arange(12).reshape(2, 6) % 2 == 0
    changes = np.where(active, np.float32(1), np.float32(2))
    assert exchange(np.zeros((2, 6), np.float32), active, changes, 0.34, 0) == 2


def test_sweeps_lower_the_objective_and_exchanges_lower_it_further() -> None:
    pairs, start = some_pairs(), random_table(USERS, ITEMS, DIM, 0.4, 1, 0.3, 5)
    start.vals = np.abs(start.vals)
    found = [
        of_table(refine(start, pairs, 1, options), pairs, options)
        for options in (
            AlsOptions(sweeps=1, exchange=0.0),
            AlsOptions(sweeps=4, exchange=0.0),
            AlsOptions(sweeps=12, exchange=0.0),
            AlsOptions(sweeps=12, exchange=0.3),
        )
    ]
    assert found == sorted(found, reverse=True)
    assert found[3] < found[2] - 0.01 * found[0]


def test_before_the_first_sweep_interactions_score_a_half() -> None:
    pairs, start = some_pairs(), random_table(USERS, ITEMS, DIM, 0.9, 1, 0.3, 5)
    start.vals = np.abs(start.vals)
    rows = refine(start, pairs, 1, AlsOptions(sweeps=0)).dense(0, USERS + ITEMS)
    scores = (rows[pairs.users] * rows[USERS + pairs.items]).sum(axis=1)
    assert scores.mean() == pytest.approx(0.5, rel=1e-5)


def test_the_budget_of_each_side_and_the_floor_stay() -> None:
    pairs, start = some_pairs(), random_table(USERS, ITEMS, DIM, 0.5, 2, 0.3, 5)
    before = start.vals.copy()
    table = refine(start, pairs, 2, AlsOptions())
    np.testing.assert_array_equal(start.vals, before)
    assert table.row_ptr[USERS] == start.row_ptr[USERS]
    assert table.nnz == start.nnz
    assert np.diff(table.row_ptr).min() >= 2
    assert not np.array_equal(table.cols, start.cols)


def test_the_last_sweep_exchanges_nothing() -> None:
    """What grows in it would not be fitted: it would stay at 0."""
    pairs, start = some_pairs(), random_table(USERS, ITEMS, DIM, 0.4, 1, 0.3, 5)
    found = refine(start, pairs, 1, AlsOptions(sweeps=1, exchange=0.3))
    np.testing.assert_array_equal(found.cols, start.cols)


def test_rows_come_in_parts_that_cover_them_all() -> None:
    heavy = sp.csr_matrix(np.ones((3, 70_000), np.float32))
    assert [(part.start, part.stop) for part in row_slices(heavy)] == [(0, 1), (1, 2), (2, 3)]
    empty = sp.csr_matrix((5, 4), dtype=np.float32)
    assert [(part.start, part.stop) for part in row_slices(empty)] == [(0, 5)]
    long = sp.csr_matrix((70_000, 4), dtype=np.float32)
    assert [part.stop for part in row_slices(long)] == [1 << 16, 70_000]


def test_parts_do_not_show_in_what_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    values, _, _, changes, _ = solved_users(AlsOptions())
    monkeypatch.setattr("pipeline.als.PAIRS_AT_A_TIME", 3)  # fewer than most rows have
    in_parts, _, _, in_parts_too, _ = solved_users(AlsOptions())
    np.testing.assert_allclose(in_parts, values, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(in_parts_too, changes, rtol=1e-3, atol=1e-4)


def test_a_row_that_nothing_fits_gets_numbers() -> None:
    """A user without interactions where zeros weigh nothing."""
    one = Pairs(np.zeros(1, np.int32), np.zeros(1, np.int32), None)
    table = random_table(3, 4, DIM, 0.5, 1, 0.3, 5)
    found = refine(table, one, 1, AlsOptions(zeros=0.0))
    assert np.isfinite(found.vals).all()
    assert found.nnz == table.nnz


def test_the_start_ranks_better_for_it() -> None:
    recipe = replace(sparserec(), dim=16, density=0.2)
    plain = initial_table(replace(recipe, als=AlsOptions(sweeps=0)), SPLIT)
    refined = initial_table(recipe, SPLIT)
    assert refined.nnz == plain.nnz
    assert np.sqrt(np.mean(refined.vals**2)) == pytest.approx(recipe.value_scale, rel=1e-5)

    def recall(table: PackedTable) -> float:
        known = SPLIT.known_items
        return evaluate(Recommender(table), SPLIT.valid, SPLIT.train, known).recall[20]

    assert recall(refined) > 1.05 * recall(plain)


def test_the_mask_alone_starts_from_nmf_as_it_is() -> None:
    recipe = replace(sparserec(), dim=16, density=0.2, start="nmf-mask")
    none = replace(recipe, als=AlsOptions(sweeps=0))
    np.testing.assert_array_equal(
        initial_table(recipe, SPLIT).vals, initial_table(none, SPLIT).vals
    )
