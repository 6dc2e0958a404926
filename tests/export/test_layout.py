"""Spare rows, capacities and the CSR of the past."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from export.layout import capacity, interaction_tensors, kept_spare, with_spare_rows
from pipeline.data.split import Split
from pipeline.nmf import random_table
from pipeline.run import TrainedRun


@given(
    st.integers(1, 6),
    st.integers(1, 6),
    st.integers(0, 4),
    st.integers(0, 4),
    st.integers(0, 5),
    st.integers(0, 2**32 - 1),
)
def test_spare_rows_follow_each_side_and_leave_the_rest_alone(
    users: int, items: int, spare_users: int, spare_items: int, floor: int, seed: int
) -> None:
    table = random_table(users, items, 4, 0.5, min(floor, 1), 1.0, seed)
    grown = with_spare_rows(table, users + spare_users, items + spare_items, floor)
    _, mask, _ = grown.gather(np.arange(grown.num_rows))
    values = grown.dense(0, grown.num_rows)
    first_item = users + spare_users
    kept = [*range(users), *range(first_item, first_item + items)]
    spare = [k for k in range(grown.num_rows) if k not in kept]
    _, old_mask, _ = table.gather(np.arange(table.num_rows))
    np.testing.assert_array_equal(values[kept], table.dense(0, table.num_rows))
    np.testing.assert_array_equal(mask[kept], old_mask)
    assert np.all(values[spare] == 0)
    assert np.all(mask[spare].sum(axis=1) == min(floor, 4))
    assert (grown.num_users, grown.num_items) == (users + spare_users, items + spare_items)


def test_spare_rows_start_where_the_other_side_is_heavy() -> None:
    table = random_table(3, 3, 4, 1.0, 0, 0.0, seed=0)
    table.vals[:] = 0.1
    table.vals[3 * 4 + 2] = table.vals[4 * 4 + 1] = -5.0  # items: columns 2 and 1
    table.vals[0 * 4 + 3] = table.vals[1 * 4 + 0] = 5.0  # users: columns 3 and 0
    grown = with_spare_rows(table, 4, 4, 2)
    mask = grown.gather(np.array([3, 7]))[1]
    assert [list(np.flatnonzero(row)) for row in mask] == [[1, 2], [0, 3]]


def test_capacity() -> None:
    assert capacity(100, None) == 108
    assert capacity(1001, None) == 1022
    assert capacity(1000, 30) == 1030
    assert capacity(1000, 0) == 1000
    assert [kept_spare(10, assigned) for assigned in (8, 10, 11)] == [2, 0, None]


def test_past_is_in_csr(run: TrainedRun) -> None:
    split: Split = run.split
    tensors = interaction_tensors(split, split.num_users + 3)
    seen_ptr, seen_items = tensors["seen_ptr"], tensors["seen_items"]
    assert len(seen_ptr) == split.num_users + 4
    for user in range(split.num_users + 3):
        wanted = [
            int(item)
            for part in (split.train, split.valid)
            for item in part.items[part.users == user]
        ]
        assert list(seen_items[seen_ptr[user] : seen_ptr[user + 1]]) == sorted(wanted)
