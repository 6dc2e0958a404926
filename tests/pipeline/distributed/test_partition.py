"""Who owns which row, against lists."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.distributed.partition import Partition

COUNTS = st.lists(st.integers(0, 9), min_size=1, max_size=40)


def pointers(counts: list[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


@given(COUNTS, COUNTS, st.integers(1, 6))
def test_every_row_has_one_owner_and_one_place(
    by_user: list[int], by_item: list[int], world: int
) -> None:
    partition = Partition.balanced(pointers(by_user), pointers(by_item), world)
    rows = np.arange(len(by_user) + len(by_item))
    assert partition.num_rows == len(rows)
    owners = partition.owners(rows)
    places = partition.local(rows, owners)
    for rank in range(world):
        mine = rows[owners == rank]
        np.testing.assert_array_equal(partition.owned(rows, rank), owners == rank)
        # Users then items, ascending: the order of the whole table.
        np.testing.assert_array_equal(places[owners == rank], np.arange(len(mine)))
        users = int(np.count_nonzero(mine < len(by_user)))
        assert partition.sizes(rank) == (users, len(mine) - users)


@given(COUNTS, COUNTS, st.integers(1, 6))
def test_ranks_have_nearly_the_same_number_of_entries(
    by_user: list[int], by_item: list[int], world: int
) -> None:
    partition = Partition.balanced(pointers(by_user), pointers(by_item), world)
    for counts, borders in ((by_user, partition.users), (by_item, partition.items)):
        for rank in range(world):
            own = sum(counts[borders[rank] : borders[rank + 1]])
            # A row is on one side of a border, so each of the two may be off by a row.
            assert abs(own - sum(counts) / world) <= 2 * max(counts)
