"""golden.json against a device in plain Python that runs the exported programs."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from export.build import Built
from export.golden import golden
from export.layout import past
from pipeline.incremental import Incremental
from pipeline.nmf import random_table
from pipeline.run import TrainedRun
from sparserec.errors import SparseRecError
from tests.export.device import Device

TOLERANCE = 1e-4


def test_a_device_repeats_the_golden_losses(built: Built) -> None:
    expected = json.loads((built.path / "golden.json").read_text())
    device = Device(built.path)
    active = sum(map(len, device.rows))
    losses = [device.run_step() for _ in range(expected["steps"])]
    assert len(device.exchanges) >= 2
    assert min(device.exchanges[:2]) > 0
    assert sum(map(len, device.rows)) == active == built.manifest.nnz
    np.testing.assert_allclose(losses, expected["losses"], rtol=0, atol=TOLERANCE)
    assert max(losses) - min(losses) > 100 * TOLERANCE  # so that agreeing means something
    assert expected["tolerance"] == TOLERANCE
    assert expected["seed"] == built.manifest.training.seed


def test_golden_steps_reach_past_two_mask_updates(built: Built) -> None:
    expected = json.loads((built.path / "golden.json").read_text())
    training = built.manifest.training
    assert expected["steps"] > 2 * training.window
    assert 2 * training.window < training.exchange_stop * training.steps


def test_training_that_diverges_is_an_error(run: TrainedRun) -> None:
    recipe = Incremental(batch_size=4, learning_rate=1e30)
    split, table = run.split, random_table(40, run.split.num_items, 8, 1.0, 0, 1.0, seed=1)
    message = "training diverges: the loss of step [0-9]+ is (nan|inf), at learning rate 1e[+]30"
    with pytest.raises(SparseRecError, match=message) as caught:
        golden(table, split.log, split.later, past(split), split.num_items, recipe, steps=20)
    assert "lower --learning-rate" in caught.value.fix


def test_quality_before_by_hand(run: TrainedRun) -> None:
    """docs/formats.md section 3, one user at a time, on a table whose scores have no ties."""
    split, users = run.split, run.split.num_users
    table = random_table(users, split.num_items, 8, 1.0, 0, 1.0, seed=1)
    seen = past(split)
    known = split.num_items
    recipe = Incremental(batch_size=4)
    found = golden(table, split.log, split.later, seen, known, recipe, steps=1)["quality_before"]
    dense = table.dense(0, table.num_rows).astype(np.float64)
    recalls, ndcgs = [], []
    for user in np.unique(split.later.users):
        wanted = set(split.later.items[split.later.users == user].tolist())
        hidden = set(seen.items[seen.users == user]) | set(split.log.items[split.log.users == user])
        scores = dense[users:] @ dense[user]
        candidates = [item for item in range(known) if item not in hidden]
        top = sorted(candidates, key=lambda item: -scores[item])[:20]
        gains = [1 / math.log2(rank + 2) for rank, item in enumerate(top) if item in wanted]
        ideal = sum(1 / math.log2(rank + 2) for rank in range(min(20, len(wanted))))
        recalls.append(len(gains) / len(wanted))
        ndcgs.append(sum(gains) / ideal)
    assert found["users"] == len(recalls)
    assert abs(found["recall@20"] - np.mean(recalls)) < 1e-6
    assert abs(found["ndcg@20"] - np.mean(ndcgs)) < 1e-6
