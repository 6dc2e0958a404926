import numpy as np
import pytest

from pipeline import sampling
from pipeline.data.split import Pairs
from pipeline.draws import (
    NEGATIVES,
    POSITIVES,
    SAMPLED_ROWS,
    SHARED_NEGATIVES,
    bounded,
    draws,
)
from pipeline.sampling import TripleSampler, sampled_rows, uniform_rows


def some_pairs(rng: np.random.Generator, users: int, items: int, count: int) -> Pairs:
    keys = rng.choice(users * items, count, replace=False)
    return Pairs((keys // items).astype(np.int32), (keys % items).astype(np.int32), None)


def one(seed: int, stream: int, step: int, i: int, n: int) -> int:
    return int(bounded(draws(seed, stream, step, np.array([i])), n)[0])


def test_batches_follow_the_page_triple_by_triple() -> None:
    rng = np.random.default_rng(0)
    past, log = some_pairs(rng, 9, 12, 30), some_pairs(rng, 9, 12, 40)
    sampler = TripleSampler.of(log, past, num_items=15, known_items=12, seed=5)
    known = {*zip(log.users, log.items, strict=True), *zip(past.users, past.items, strict=True)}
    for step in (0, 3):
        users, positives, negatives = sampler.batch(step, 50)
        for b in range(50):
            j = one(5, POSITIVES, step, b, len(log))
            assert (users[b], positives[b]) == (log.users[j], log.items[j])
            for t in range(sampler.tries):
                expected = one(5, NEGATIVES, step, b * sampler.tries + t, 12)
                if (users[b], expected) not in known:
                    break
            assert negatives[b] == expected
        for part, of_all in zip(
            sampler.batch(step, 20, 30), (users, positives, negatives), strict=True
        ):
            np.testing.assert_array_equal(part, of_all[30:])
        shared = [one(5, SHARED_NEGATIVES, step, k, 12) for k in range(50)]
        np.testing.assert_array_equal(sampler.shared_negatives(step, 50), shared)


def test_a_user_who_likes_everything_gets_the_last_try() -> None:
    log = Pairs(np.zeros(4, np.int32), np.arange(4, dtype=np.int32), None)
    sampler = TripleSampler.of(log, None, num_items=4, known_items=4, seed=1)
    _, _, negatives = sampler.batch(0, 8)
    assert list(negatives) == [one(1, NEGATIVES, 0, b * 8 + 7, 4) for b in range(8)]


def test_a_pair_beyond_all_known_ones_is_not_liked() -> None:
    log = Pairs(np.zeros(1, np.int32), np.zeros(1, np.int32), None)
    _, _, negatives = TripleSampler.of(log, None, num_items=2, known_items=2, seed=1).batch(0, 20)
    assert (negatives == 1).all()


def test_sampled_rows_are_the_first_distinct_ones() -> None:
    rng = np.random.default_rng(1)
    log = some_pairs(rng, 30, 40, 200)
    rows: list[int] = []
    for i in range(16 * 20):
        j = one(3, SAMPLED_ROWS, 2, i, len(log))
        for row in (int(log.users[j]), 30 + int(log.items[j])):
            if row not in rows and len(rows) < 20:
                rows.append(row)
    assert list(sampled_rows(log, 30, window=2, size=20, seed=3)) == sorted(rows)
    assert list(sampled_rows(log, 30, 2, 20, 3, num_rows=70)) == sorted(rows)


def test_sampled_rows_stop_where_the_log_has_no_more() -> None:
    log = Pairs(np.array([1, 1], np.int32), np.array([0, 2], np.int32), None)
    assert list(sampled_rows(log, 5, window=0, size=9, seed=1)) == [1, 5, 7]


def test_frequent_rows_are_sampled_more_often() -> None:
    users = np.repeat(np.arange(20), np.where(np.arange(20) < 2, 50, 1)).astype(np.int32)
    log = Pairs(users, np.arange(len(users), dtype=np.int32), None)
    drawn = np.concatenate([sampled_rows(log, 20, w, 6, 1) for w in range(200)])
    counts = np.bincount(drawn[drawn < 20], minlength=20)
    assert counts[:2].min() > 4 * counts[2:].max()


@pytest.mark.parametrize("often", [0, 3000])
@pytest.mark.parametrize("size", [1, 7, 40, 60])
def test_rows_drawn_in_blocks_are_those_drawn_at_once(
    size: int, often: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(size)
    pairs = np.zeros((2, often + 90), np.int32)  # one pair so often that others are not met in time
    pairs[:, often:] = rng.integers(0, [[20], [40]], (2, 90))
    log = Pairs(*pairs, None)
    index = np.arange(16 * size)
    chosen = bounded(draws(3, SAMPLED_ROWS, 5, index), len(log))
    both = np.stack([log.users[chosen], 20 + log.items[chosen]], axis=1).ravel().tolist()
    by_frequency = sorted(list(dict.fromkeys(both))[:size])
    alike = bounded(draws(3, SAMPLED_ROWS, 5, index), 60).tolist()
    uniformly = sorted(list(dict.fromkeys(alike))[:size])
    for block in (1, 5, 1 << 16):
        monkeypatch.setattr(sampling, "BLOCK", block)
        assert sampled_rows(log, 20, 5, size, 3).tolist() == by_frequency
        assert uniform_rows(60, 5, size, 3).tolist() == uniformly
