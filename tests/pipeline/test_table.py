import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.table import PackedTable, beside

MASKS = hnp.arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 9)))


@given(MASKS, st.randoms(use_true_random=False))
def test_gather_gives_the_dense_rows(mask: np.ndarray, random: object) -> None:
    rng = np.random.default_rng(random.randrange(1000))  # type: ignore[attr-defined]
    values = rng.normal(size=mask.shape).astype(np.float32)
    table = PackedTable.from_dense(values, mask, num_users=mask.shape[0] // 2)
    rows = rng.integers(0, mask.shape[0], size=7)
    tile, tile_mask, found = table.gather(rows)
    np.testing.assert_array_equal(tile, (values * mask)[rows])
    np.testing.assert_array_equal(tile_mask, mask[rows])
    np.testing.assert_array_equal(table.vals[found.index], values[rows[found.slot], found.col])
    np.testing.assert_array_equal(table.dense(0, table.num_rows), values * mask)
    assert table.nnz == mask.sum()
    assert table.density == pytest.approx(mask.mean())


def test_columns_use_one_byte_up_to_256() -> None:
    table = PackedTable.from_dense(np.ones((2, 256), np.float32), np.ones((2, 256), bool), 1)
    assert table.cols.dtype == np.uint8
    assert table.cols[-1] == 255


@given(MASKS, st.randoms(use_true_random=False))
def test_tables_side_by_side_are_their_dense_rows_side_by_side(
    mask: np.ndarray, random: object
) -> None:
    rng = np.random.default_rng(random.randrange(1000))  # type: ignore[attr-defined]
    other = rng.random((len(mask), 5)) < 0.4
    users = mask.shape[0] // 2
    values = [rng.normal(size=part.shape).astype(np.float32) for part in (mask, other)]
    left, right = (
        PackedTable.from_dense(v, m, users) for v, m in zip(values, (mask, other), strict=True)
    )
    found, expected = (
        beside(left, right),
        PackedTable.from_dense(
            np.concatenate(values, axis=1), np.concatenate([mask, other], axis=1), users
        ),
    )
    for name in ("row_ptr", "cols", "vals"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert (found.num_users, found.num_items, found.dim) == (users, len(mask) - users, expected.dim)
