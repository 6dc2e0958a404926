import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.split import Pairs
from pipeline.evaluate import evaluate
from pipeline.recommender import Recommender
from pipeline.table import PackedTable


def case(seed: int) -> tuple[PackedTable, Pairs, Pairs, int]:
    rng = np.random.default_rng(seed)
    users, items, dim = int(rng.integers(1, 30)), int(rng.integers(25, 60)), 8
    known = int(rng.integers(22, items + 1))
    mask = rng.random((users + items, dim)) < 0.6
    mask[:, 0] = True  # no score is exactly 0, so there are no ties, whose order is anyone's
    values = rng.normal(size=mask.shape).astype(np.float32)
    keys = rng.permutation(users * known)[: int(rng.integers(2, users * known // 2))]
    pairs = Pairs((keys // known).astype(np.int32), (keys % known).astype(np.int32), None)
    cut = int(rng.integers(1, len(pairs)))
    held_out = Pairs(pairs.users[:cut], pairs.items[:cut], None)
    seen = Pairs(pairs.users[cut:], pairs.items[cut:], None)
    return PackedTable.from_dense(values, mask, users), held_out, seen, known


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_agrees_with_trec_eval(seed: int) -> None:
    table, held_out, seen, known = case(seed)
    dense = table.dense(0, table.num_rows)
    scores = dense[: table.num_users] @ dense[table.num_users : table.num_users + known].T
    truth: dict[str, dict[str, int]] = {}
    for user, item in zip(held_out.users, held_out.items, strict=True):
        truth.setdefault(str(user), {})[str(item)] = 1
    past = {(u, i) for u, i in zip(seen.users, seen.items, strict=True)}
    run = {
        user: {
            str(i): float(scores[int(user), i]) for i in range(known) if (int(user), i) not in past
        }
        for user in truth
    }
    measures = {"recall.5,10,20", "ndcg_cut.5,10,20"}
    reference = pytrec_eval.RelevanceEvaluator(truth, measures).evaluate(run)
    quality = evaluate(Recommender(table), held_out, seen, known)
    assert len(quality.users) == len(truth)
    for k in (5, 10, 20):
        mean = np.mean([reference[u][f"recall_{k}"] for u in truth])
        assert quality.recall[k] == pytest.approx(mean, abs=1e-6)
        mean = np.mean([reference[u][f"ndcg_cut_{k}"] for u in truth])
        assert quality.ndcg[k] == pytest.approx(mean, abs=1e-6)


def test_a_part_of_the_users_and_of_the_interactions_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table, held_out, seen, known = case(7)
    whole = evaluate(Recommender(table), held_out, seen, known)
    monkeypatch.setattr("pipeline.evaluate.USERS_AT_A_TIME", 3)
    monkeypatch.setattr("pipeline.evaluate.PAIRS_AT_A_TIME", 5)
    half = len(seen) // 2
    parts = [Pairs(seen.users[s], seen.items[s], None) for s in (slice(half), slice(half, None))]
    found = evaluate(Recommender(table), held_out, parts, known)
    assert found.users.tolist() == sorted(set(held_out.users.tolist()))
    np.testing.assert_array_equal(found.hits, whole.hits)
    np.testing.assert_array_equal(found.relevant, whole.relevant)


def test_of_the_users_asked_for_those_with_something_to_find_count() -> None:
    table, pairs, seen, known = case(7)
    has_none = pairs.users == 2
    held_out = Pairs(pairs.users[~has_none], pairs.items[~has_none], None)
    whole = evaluate(Recommender(table), held_out, seen, known)
    asked = np.arange(0, table.num_users, 2)
    found = evaluate(Recommender(table), held_out, seen, known, asked)
    chosen = np.isin(whole.users, asked)
    assert 0 < chosen.sum() < min(len(chosen), len(asked))
    np.testing.assert_array_equal(found.users, whole.users[chosen])
    np.testing.assert_array_equal(found.hits, whole.hits[chosen])


def test_of_equal_scores_the_smaller_items_come_first() -> None:
    table = PackedTable.from_dense(np.ones((31, 2), np.float32), np.ones((31, 2), bool), 1)
    held_out = Pairs(np.zeros(5, np.int32), np.arange(5, dtype=np.int32), None)
    nothing = Pairs(np.empty(0, np.int32), np.empty(0, np.int32), None)
    found = evaluate(Recommender(table), held_out, nothing, 30).as_dict()
    assert found == dict.fromkeys(found, 1)  # one user, and all of it found at each cutoff


def test_fewer_items_than_the_cutoff() -> None:
    table = PackedTable.from_dense(np.ones((4, 2), np.float32), np.ones((4, 2), bool), 1)
    held_out = Pairs(np.zeros(3, np.int32), np.arange(3, dtype=np.int32), None)
    nothing = Pairs(np.empty(0, np.int32), np.empty(0, np.int32), None)
    quality = evaluate(Recommender(table), held_out, nothing, 3)
    assert quality.recall[20] == 1
    assert quality.ndcg[20] == pytest.approx(1)


def test_nothing_held_out_is_refused() -> None:
    table = PackedTable.from_dense(np.ones((2, 2), np.float32), np.ones((2, 2), bool), 1)
    nothing = Pairs(np.empty(0, np.int32), np.empty(0, np.int32), None)
    with pytest.raises(ValueError, match="held-out"):
        evaluate(Recommender(table), nothing, nothing, 1)
