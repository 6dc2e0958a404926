"""Splits: what every split must keep, checked with plain Python sets and loops."""

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.interactions import Interactions
from pipeline.data.split import leave_out, pooled_split, published_split, temporal_split
from pipeline.data.synthetic import generate
from sparserec.errors import SparseRecError

PARTS = ("train", "valid", "log", "later")


def log_of(rows):
    """Build interactions from (user, item, time or None) rows with numbers as ids."""
    user_ids = list(dict.fromkeys(user for user, _, _ in rows))
    item_ids = list(dict.fromkeys(item for _, item, _ in rows))
    times = [time for _, _, time in rows]
    return Interactions(
        np.array([user_ids.index(user) for user, _, _ in rows], np.int32),
        np.array([item_ids.index(item) for _, item, _ in rows], np.int32),
        None if None in times else np.array(times, np.int64),
        [f"u{user}" for user in user_ids],
        [f"i{item}" for item in item_ids],
    )


def raw(split, name):
    """Return the part's (raw user, raw item) pairs, in order."""
    part = getattr(split, name)
    return [
        (split.user_ids[u], split.item_ids[i])
        for u, i in zip(part.users.tolist(), part.items.tolist(), strict=True)
    ]


def source_pairs(interactions):
    return {
        (interactions.user_ids[u], interactions.item_ids[i])
        for u, i in zip(interactions.users.tolist(), interactions.items.tolist(), strict=True)
    }


def check_invariants(split, source):
    parts = [raw(split, name) for name in PARTS]
    kept = [pair for part in parts for pair in part]
    assert len(kept) == len(set(kept))
    assert set(kept) <= source
    assert len(kept) + split.dropped_later == len(source)
    past, log, later = parts[0] + parts[1], parts[2], parts[3]
    # Known first, newcomers after, and nobody without an interaction of the past or the log.
    for axis, (ids, known) in enumerate(
        ((split.user_ids, split.known_users), (split.item_ids, split.known_items))
    ):
        assert set(ids[:known]) == {pair[axis] for pair in past}
        arrivals = dict.fromkeys(pair[axis] for pair in log if pair[axis] not in set(ids[:known]))
        assert ids[known:] == list(arrivals)
        assert {pair[axis] for pair in later} <= set(ids)
    # Only what could not be predicted was dropped.
    dropped = source - set(kept)
    assert all(u not in split.user_ids or i not in split.item_ids for u, i in dropped)
    for name in PARTS:
        part = getattr(split, name)
        assert part.users.dtype == part.items.dtype == np.int32


rows = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 12), st.integers(0, 6)),
    min_size=1,
    max_size=60,
    unique_by=lambda row: row[:2],
)


@settings(max_examples=150, deadline=None)
@given(rows)
def test_temporal_invariants(rows):
    interactions = log_of(rows)
    split = temporal_split(interactions)
    check_invariants(split, source_pairs(interactions))
    time_of = {(f"u{u}", f"i{i}"): (t, k) for k, (u, i, t) in enumerate(rows)}
    by_user = defaultdict(list)
    for name in PARTS:
        pairs = raw(split, name)
        keys = [time_of[pair] for pair in pairs]
        assert keys == sorted(keys)  # within a part: time, then file order
        assert getattr(split, name).timestamps.tolist() == [time for time, _ in keys]
        for pair in pairs:
            by_user[pair[0]].append(time_of[pair])
    for keys in by_user.values():
        assert keys == sorted(keys)  # train before valid before log before later


@settings(max_examples=50, deadline=None)
@given(rows, st.integers(0, 2**32))
def test_random_invariants(rows, seed):
    interactions = log_of([(u, i, None) for u, i, _ in rows])
    split = leave_out(interactions, valid=0.2, log=0.2, later=0.2, seed=seed)
    check_invariants(split, source_pairs(interactions))
    assert split.train.timestamps is None


@settings(max_examples=50, deadline=None)
@given(rows, st.data())
def test_published_invariants(rows, data):
    rows = [(u, i, None) for u, i, _ in rows]
    cut = data.draw(st.integers(1, len(rows)))
    train, test = log_of(rows[:cut]), log_of(rows[cut:])
    split = published_split(train, test, valid_fraction=0.2)
    check_invariants(split, source_pairs(train) | source_pairs(test))
    assert set(raw(split, "train")) | set(raw(split, "valid")) == source_pairs(train)
    assert set(raw(split, "later")) <= source_pairs(test)
    assert len(split.log) == 0


def test_validation_is_the_end_of_each_list_where_the_order_goes_on_in_test():
    train = log_of([("a", item, None) for item in (7, 2, 9, 1, 4)] + [("b", 3, None)])
    split = published_split(train, log_of([("a", 0, None)]), valid_fraction=0.4, seed=None)
    assert raw(split, "valid") == [("ua", "i1"), ("ua", "i4")]
    assert raw(split, "train") == [("ua", "i7"), ("ua", "i2"), ("ua", "i9"), ("ub", "i3")]


@settings(max_examples=50, deadline=None)
@given(rows, st.data())
def test_pooled_invariants(rows, data):
    rows = [(u, i, None) for u, i, _ in rows]
    cut = data.draw(st.integers(1, len(rows)))
    files = [log_of(rows[:cut]), log_of(rows[cut:])]
    split = pooled_split(files)
    check_invariants(split, source_pairs(files[0]) | source_pairs(files[1]))
    assert len(split.log) == 0
    where = defaultdict(lambda: [0, 0, 0])
    for part, name in enumerate(("train", "valid", "later")):
        for user, _ in raw(split, name):
            where[user][part] += 1
    if split.dropped_later == 0:
        for train, valid, later in where.values():
            total = train + valid + later
            half, rest = int(total * 0.5), int(total * 0.75)
            cuts = [half, rest - half, total - rest] if total >= 5 else [total, 0, 0]
            assert [train, valid, later] == cuts
    again = pooled_split(files)
    assert all(raw(again, name) == raw(split, name) for name in PARTS)


def test_pooled_files_that_share_pairs_are_an_error():
    one = log_of([(1, 1, None), (1, 2, None)])
    with pytest.raises(SparseRecError, match="twice"):
        pooled_split([one, log_of([(1, 2, None)])])


def test_temporal_by_hand():
    # u1 took items 0..9 at times 9..0 (newest first in the file), u2 is too short to cut.
    rows = [(1, k, 9 - k) for k in range(10)] + [(2, k, k) for k in (20, 21, 22, 23)]
    split = temporal_split(log_of(rows))
    u1 = {name: [i for u, i in raw(split, name) if u == "u1"] for name in PARTS}
    assert u1 == {"train": ["i9", "i8", "i7", "i6", "i5", "i4"], "valid": ["i3"],
                  "log": ["i2", "i1"], "later": []}  # fmt: skip
    assert [i for u, i in raw(split, "train") if u == "u2"] == ["i20", "i21", "i22", "i23"]
    assert split.dropped_later == 1  # item 0 occurs only there
    assert split.item_ids[split.known_items :] == ["i2", "i1"]
    assert (split.known_users, split.num_users) == (2, 2)


@pytest.mark.parametrize("count", [5, 6, 10, 17, 100])
def test_fractions(count):
    # The second user goes the other way, so each knows what comes later for the other.
    rows = [(u, i, -i if u else i) for u in range(2) for i in range(count)]
    split = temporal_split(log_of(rows), train=0.6, valid=0.1, log=0.2)
    sizes = np.array([len(getattr(split, name)) for name in PARTS]) / 2
    ends = np.cumsum(sizes)
    exact = count * np.array([0.6, 0.7, 0.9, 1.0])
    assert np.all(ends <= exact + 1e-9)
    assert np.all(exact - ends < 1)
    assert ends[-1] == count
    if count in (10, 100):
        assert sizes.tolist() == [count * 6 // 10, count // 10, count // 5, count // 10]


def test_all_of_one_whole_leaves_nothing_later():
    split = temporal_split(log_of([(0, i, i) for i in range(7)]), train=0.7, valid=0.2, log=0.1)
    assert len(split.later) == 0


def test_a_user_newcomer_cannot_come_from_a_per_user_split():
    split = temporal_split(generate(50, 100, 1000))
    assert split.known_users == split.num_users == 50


def test_random_parts_are_of_the_sizes_asked_for():
    # Each of 20 users has all of 20 items, so that nothing is dropped.
    rows = [(u, i, None) for i in range(20) for u in range(20)]
    split = leave_out(log_of(rows), valid=0.1, log=0.2, later=0.3)
    for name, size in zip(PARTS, (8, 2, 4, 6), strict=True):
        assert np.bincount(getattr(split, name).users).tolist() == [size] * 20
    files = [log_of(rows[:250]), log_of(rows[250:])]
    split, other = pooled_split(files), pooled_split(files, seed=1)
    for name, size in (("train", 10), ("valid", 5), ("later", 5)):
        assert np.bincount(getattr(split, name).users).tolist() == [size] * 20
    assert raw(split, "valid") != raw(other, "valid")


def test_parts_of_one_whole_may_come_to_a_little_more_in_binary():
    split = temporal_split(log_of([(0, i, i) for i in range(9)]), 0.33, 0.56, 0.11)
    assert [len(getattr(split, name)) for name in PARTS] == [2, 6, 1, 0]


def test_seed_decides_what_is_held_out():
    interactions = generate(30, 60, 600)
    same, again, other = (leave_out(interactions, seed=seed) for seed in (1, 1, 2))
    assert raw(same, "valid") == raw(again, "valid")
    assert raw(same, "valid") != raw(other, "valid")


def test_published_valid_file_is_used():
    train, valid, test = (log_of([(0, i, None), (1, i, None)]) for i in (1, 2, 3))
    split = published_split(train, test, valid=valid)
    assert set(raw(split, "valid")) == source_pairs(valid)
    assert set(raw(split, "train")) == source_pairs(train)
    assert split.dropped_later == 2
    assert split.item_ids == ["i1", "i2"]


def test_a_test_file_that_repeats_train_is_an_error():
    train, test = log_of([(0, 1, None), (1, 2, None)]), log_of([(1, 2, None)])
    with pytest.raises(SparseRecError, match="share interactions"):
        published_split(train, test)


def test_no_times():
    with pytest.raises(SparseRecError, match="needs a time"):
        temporal_split(log_of([(0, 1, None)]))


@pytest.mark.parametrize("fractions", [(0.0, 0.5, 0.5), (0.6, 0.3, 0.2), (0.6, -0.1, 0.2)])
def test_fractions_that_are_none(fractions):
    with pytest.raises(SparseRecError, match="not parts of one whole"):
        temporal_split(log_of([(0, 1, 1)]), *fractions)
