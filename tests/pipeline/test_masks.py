import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import masks
from pipeline.nmf import random_table, top_entries


def by_sorting(scores: np.ndarray, count: int, floor: int) -> np.ndarray:
    """The definition: rows' best first, then the best of all; a stable sort breaks ties."""
    mask = np.zeros(scores.shape, bool)
    for row, line in zip(mask, scores, strict=True):
        row[np.argsort(-line, kind="stable")[:floor]] = True
    order = np.argsort(-scores.ravel(), kind="stable")
    rest = order[~mask.ravel()[order]]
    mask.ravel()[rest[: count - mask.sum()]] = True
    return mask


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 3), st.floats(0, 1))
def test_chosen_entries_are_those_of_a_sort(seed: int, floor: int, part: float) -> None:
    rng = np.random.default_rng(seed)
    rows, dim = int(rng.integers(1, 30)), int(rng.integers(3, 9))
    scores = rng.normal(size=(rows, dim)).astype(np.float32)
    kind = seed % 4
    if kind == 1:
        scores = np.round(scores, 1)  # ties
    elif kind == 2:
        scores = np.maximum(scores, 0) * rng.choice(np.float32([-1, 1]), scores.shape)  # 0 and -0
    elif kind == 3:
        scores = 1 + scores / 4096  # differ in their last digits
    count = rows * floor + int(part * rows * (dim - floor))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(masks, "CHUNK_ROWS", 7)
        mask = top_entries(scores, count, floor)
    np.testing.assert_array_equal(mask, by_sorting(scores, count, floor))


def test_the_bin_of_the_nth_largest_by_hand() -> None:
    bins = np.array([4, 0, 2, 3])
    assert [masks.last_bin(bins, n) for n in (1, 3, 4, 5, 6, 9)] == [
        (3, 1),
        (3, 3),
        (2, 1),
        (2, 2),
        (0, 1),
        (0, 4),
    ]


def test_a_random_table_is_the_one_drawn_whole() -> None:
    """So a seed gives what it gave before tables were drawn in chunks."""
    rng = np.random.default_rng(5)
    scores = rng.random((50, 8), np.float32)
    values = rng.normal(0, 0.3, (50, 8)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(masks, "CHUNK_ROWS", 7)
        for density, floor in ((0.4, 2), (0.5, 0), (0.25, 2), (1.0, 0)):
            if density == 1:
                mask = np.ones((50, 8), bool)
            else:
                mask = by_sorting(scores, round(density * 400), floor)
            table = random_table(20, 30, 8, density, floor, 0.3, seed=5)
            np.testing.assert_array_equal(table.dense(0, 50), values * mask)


def test_nothing_of_the_tables_size_is_held_while_it_is_drawn() -> None:
    rows, dim = 200_000, 64
    tracemalloc.start()
    table = random_table(rows // 2, rows // 2, dim, 0.05, 1, 0.1, seed=1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    packed = table.row_ptr.nbytes + table.cols.nbytes + table.vals.nbytes
    chunk = masks.CHUNK_ROWS * dim * 8
    assert peak < packed + 4 * chunk < rows * dim * 4
