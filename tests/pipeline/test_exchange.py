import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import exchange as module
from pipeline.exchange import Schedule, exchange
from pipeline.table import PackedTable


def exchanged(
    table: PackedTable,
    sampled: np.ndarray,
    sums: np.ndarray,
    fraction: float,
    floor: int,
    state: dict[str, np.ndarray],
) -> tuple[PackedTable, dict[str, np.ndarray], int]:
    """Exchange in copies, so that they can be compared with what was."""
    new, new_state = table.copy(), {name: values.copy() for name, values in state.items()}
    return new, new_state, exchange(new, sampled, sums, fraction, floor, new_state)


def test_hand_computed_case() -> None:
    mask = np.array([[1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 1, 1]], bool)
    values = np.array([[5, -1, 0, 0], [0.5, -4, 3, 0], [0, 0, 0.1, 0.2]], np.float32)
    table = PackedTable.from_dense(values, mask, num_users=1)
    state = {name: np.arange(1, 8, dtype=np.float32) for name in ("m", "v")}
    # Rows 0 and 1 are sampled. Five active entries, 0.5 of them: two are exchanged. Dropped: 0.5
    # at (1, 0) and -1 at (0, 1). Grown: -9 at (1, 3), then 2 at (0, 3); the huge sum at (0, 0)
    # belongs to an active entry, and row 2 is not sampled, however weak its entries are.
    sums = np.array([[99, 0, 1, 2], [0, 0, 0, -9]], np.float32)
    new, new_state, count = exchanged(table, np.array([0, 1]), sums, 0.5, 1, state)
    assert count == 2
    assert new.row_ptr.tolist() == [0, 2, 5, 7]
    assert new.cols.tolist() == [0, 3, 1, 2, 3, 2, 3]
    np.testing.assert_array_equal(new.vals, np.float32([5, 0, -4, 3, 0, 0.1, 0.2]))
    np.testing.assert_array_equal(new_state["m"], np.float32([1, 0, 4, 5, 0, 6, 7]))
    # A second moment starts at its row's mean before: (1 + 2) / 2, and (3 + 4 + 5) / 3.
    np.testing.assert_array_equal(new_state["v"], np.float32([1, 1.5, 4, 5, 4, 6, 7]))


def test_a_second_moment_starts_at_0_in_an_empty_row() -> None:
    mask = np.array([[1, 1], [0, 0]], bool)
    table = PackedTable.from_dense(np.ones((2, 2), np.float32), mask, num_users=1)
    state = {"v": np.ones(2, np.float32)}
    sums = np.array([[0, 0], [0, 5]], np.float32)
    new, new_state, count = exchanged(table, np.array([0, 1]), sums, 0.5, 1, state)
    assert (count, new.row_ptr.tolist(), new.cols.tolist()) == (1, [0, 1, 2], [1, 1])
    assert new_state["v"].tolist() == [1, 0]


def test_the_floor_is_passed_over_not_stopped_at() -> None:
    mask = np.array([[1, 1, 0], [1, 1, 1]], bool)
    values = np.array([[0.1, 0.2, 0], [3, 2, 1]], np.float32)
    table = PackedTable.from_dense(values, mask, num_users=1)
    sums = np.array([[0, 0, 7], [0, 0, 0]], np.float32)
    new, _, count = exchanged(table, np.array([0, 1]), sums, 0.2, 2, {})
    assert count == 1
    assert new.row_ptr.tolist() == [0, 3, 5]
    np.testing.assert_array_equal(new.vals, np.float32([0.1, 0.2, 0, 3, 2]))


def test_nothing_to_grow_changes_nothing() -> None:
    table = PackedTable.from_dense(np.ones((2, 3), np.float32), np.ones((2, 3), bool), 1)
    new, _, count = exchanged(table, np.array([0]), np.ones((1, 3), np.float32), 1.0, 0, {})
    assert count == 0
    np.testing.assert_array_equal(new.dense(0, 2), np.ones((2, 3)))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 1), st.integers(0, 3), st.integers(1, 9))
def test_invariants(seed: int, fraction: float, floor: int, chunk: int) -> None:
    rng = np.random.default_rng(seed)
    rows, dim = int(rng.integers(1, 15)), int(rng.integers(1, 12))
    mask = rng.random((rows, dim)) < rng.random()
    values = np.round(rng.normal(size=mask.shape), 1).astype(np.float32)  # rounding makes ties
    table = PackedTable.from_dense(values, mask, num_users=0)
    sampled = np.sort(rng.choice(rows, int(rng.integers(1, rows + 1)), replace=False))
    sums = np.round(rng.normal(size=(len(sampled), dim)), 1).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK_ENTRIES", chunk)
        moments = {"m": table.vals + 1, "v": table.vals * table.vals + 1}
        new, state, count = exchanged(table, sampled, sums, fraction, floor, moments)
    assert new.nnz == table.nnz
    after, found = np.zeros_like(mask), new.entries(np.arange(rows))
    after[found.slot, found.col] = True
    assert after.sum() == new.nnz  # columns are distinct
    assert all((np.diff(new.cols[a:b].astype(int)) > 0).all() for a, b in pairs(new.row_ptr))
    others = np.setdiff1d(np.arange(rows), sampled)
    assert (after[others] == mask[others]).all()
    assert (after.sum(1) >= np.minimum(mask.sum(1), floor)).all()
    grown, dropped = after & ~mask, mask & ~after
    assert grown.sum() == dropped.sum() == count
    assert count <= math.floor(fraction * mask[sampled].sum())
    dense, dense_state = new.dense(0, rows), np.zeros_like(values)
    dense_state[found.slot, found.col] = state["m"]
    assert (dense[grown] == 0).all()
    assert (dense_state[grown] == 0).all()
    dense_state[found.slot, found.col] = state["v"]
    squares = np.where(mask, values * values + 1, 0).sum(1, np.float64)
    means = (squares / np.maximum(mask.sum(1), 1))[np.nonzero(grown)[0]]
    np.testing.assert_allclose(dense_state[grown], means, rtol=1e-6)
    dense_state[found.slot, found.col] = state["m"]
    kept = mask & after
    np.testing.assert_array_equal(dense[kept], values[kept])
    np.testing.assert_array_equal(dense_state[kept], values[kept] + 1)
    if count:
        scores = np.zeros_like(values)
        scores[sampled] = np.abs(sums)
        left = ~mask & ~after & np.isin(np.arange(rows), sampled)[:, None]
        assert scores[grown].min() >= scores[left].max(initial=0)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 1), st.integers(0, 4), st.integers(1, 6))
def test_the_rule_of_the_page_word_for_word(
    seed: int, fraction: float, floor: int, chunk: int
) -> None:
    rng = np.random.default_rng(seed)
    rows, dim = int(rng.integers(1, 12)), int(rng.integers(1, 10))
    mask = rng.random((rows, dim)) < rng.random()
    values = np.round(rng.normal(size=mask.shape), 1).astype(np.float32)  # rounding makes ties
    sampled = np.sort(rng.choice(rows, int(rng.integers(1, rows + 1)), replace=False))
    sums = np.round(rng.normal(size=(len(sampled), dim)), 1).astype(np.float32)
    # docs/formats.md section 5, one entry at a time.
    inside = [(int(r), c) for r in sampled for c in range(dim)]
    size = dict(zip(inside, np.abs(sums.ravel()).tolist(), strict=True))
    grow = [at for at in inside if not mask[at] and size[at] != 0]
    grow.sort(key=lambda at: (-size[at], at))
    left = mask.sum(1)
    drop = []
    for at in sorted((at for at in inside if mask[at]), key=lambda at: (abs(values[at]), at)):
        if left[at[0]] > floor:
            left[at[0]] -= 1
            drop.append(at)
    n = min(math.floor(fraction * int(mask[sampled].sum())), len(grow), len(drop))
    expected, after = mask.copy(), values * mask
    for at in drop[:n]:
        expected[at], after[at] = False, 0
    for at in grow[:n]:
        expected[at] = True

    table = PackedTable.from_dense(values, mask, num_users=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK_ROWS", chunk)
        new, state, count = exchanged(table, sampled, sums, fraction, floor, {"m": table.vals})
    assert count == n
    found, got = new.entries(np.arange(rows)), np.zeros_like(mask)
    got[found.slot, found.col] = True
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(new.dense(0, rows), after)
    np.testing.assert_array_equal(state["m"], new.vals)


def pairs(ptr: np.ndarray) -> list[tuple[int, int]]:
    return list(zip(ptr[:-1].tolist(), ptr[1:].tolist(), strict=True))


def test_schedule_anneals_and_stops() -> None:
    schedule = Schedule(steps=100, window=10, fraction=0.4, stop=0.75)
    assert schedule.fraction_after(8) == 0
    assert schedule.fraction_after(9) == pytest.approx(0.2 * (1 + math.cos(math.pi * 10 / 75)))
    given_ = [schedule.fraction_after(s) for s in range(100)]
    used = [f for f in given_ if f > 0]
    assert len(used) == 7
    assert used == sorted(used, reverse=True)
    assert not any(given_[74:])
    constant = Schedule(steps=100, window=10, fraction=0.4, stop=1.0, least=0.4)
    assert {constant.fraction_after(s) for s in range(9, 99, 10)} == {0.4}
    tail = Schedule(steps=100, window=10, fraction=0.4, stop=1.0, least=0.1)
    assert tail.fraction_after(49) == pytest.approx(0.25)
