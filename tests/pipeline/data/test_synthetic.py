"""The synthetic log: deterministic, popular, and drifting."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.split import temporal_split
from pipeline.data.synthetic import SyntheticConfig, generate
from sparserec.errors import SparseRecError


def test_same_seed_same_log():
    one, again, other = generate(40, 80, 900, 7), generate(40, 80, 900, 7), generate(40, 80, 900, 8)
    assert np.array_equal(one.users, again.users)
    assert np.array_equal(one.items, again.items)
    assert np.array_equal(one.timestamps, again.timestamps)
    assert one.item_ids == again.item_ids
    assert not np.array_equal(one.items, other.items)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.data())
def test_shape(num_users, num_items, data):
    count = data.draw(st.integers(num_users, num_users * num_items))
    log = generate(num_users, num_items, count)
    assert len(log) == count
    assert len(set(zip(log.users.tolist(), log.items.tolist(), strict=True))) == count
    assert log.num_users == num_users
    assert np.all(np.bincount(log.users) >= 1)
    assert np.all(np.bincount(log.items) >= 1)  # an item that nobody took has no index
    assert len(np.bincount(log.items)) == log.num_items <= num_items
    assert np.all(np.diff(log.timestamps) >= 0)


@pytest.mark.parametrize("arguments", [(0, 5, 5), (3, 5, 2), (3, 5, 16)])
def test_impossible_numbers(arguments):
    with pytest.raises(SparseRecError, match="not possible"):
        generate(*arguments)


def test_popularity_is_skewed():
    degrees = np.sort(np.bincount(generate(400, 400, 12_000).items))[::-1]
    flat = generate(400, 400, 12_000, config=SyntheticConfig(popularity=0, taste=0))
    flat_degrees = np.sort(np.bincount(flat.items))[::-1]
    top = 40  # a tenth of the items
    assert degrees[:top].sum() > 0.3 * degrees.sum()
    assert flat_degrees[:top].sum() < 0.2 * flat_degrees.sum()


@pytest.mark.parametrize("seed", [1, 2])
def test_recent_interactions_say_more_about_later_ones(seed):
    split = temporal_split(generate(400, 300, 16_000, seed), train=0.2, valid=0.5, log=0.2)
    # A neighbourhood recommender: items are alike that share users in the middle of the log.
    middle = np.zeros((split.num_users, split.num_items))
    middle[split.valid.users, split.valid.items] = 1
    middle /= np.maximum(np.linalg.norm(middle, axis=0), 1)
    similarity = middle.T @ middle
    np.fill_diagonal(similarity, 0)

    def hit_rate(profile):
        """Share of later interactions among the 20 items nearest to a profile of 20%."""
        taken = np.zeros((split.num_users, split.num_items))
        taken[profile.users, profile.items] = 1
        scores = taken @ similarity
        for part in (split.train, split.valid, split.log):
            scores[part.users, part.items] = -1
        hits = np.zeros(scores.shape, bool)
        np.put_along_axis(hits, np.argsort(-scores, axis=1)[:, :20], True, axis=1)
        return hits[split.later.users, split.later.items].mean()

    assert hit_rate(split.log) > 1.2 * hit_rate(split.train)
