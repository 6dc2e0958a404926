"""One small run and its bundle, made once for all tests of this folder."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from export.build import Built, build
from pipeline.data.interactions import Interactions
from pipeline.data.split import Split, temporal_split
from pipeline.incremental import Incremental
from pipeline.models import MODELS, ModelName
from pipeline.nmf import random_table
from pipeline.recipes import sparserec
from pipeline.run import TrainedRun

USERS, ITEMS, DIM = 40, 60, 8
DEVICE = Incremental(learning_rate=2.0, batch_size=16, epochs=10, window=8)


def make_split() -> Split:
    """Interactions whose latest ones bring items that the past does not have."""
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(USERS, dtype=np.int32), 12)
    latest = np.tile(np.arange(12) >= 7, USERS)
    draws = [rng.choice(ITEMS - 6, 12, replace=False) for _ in range(USERS)]
    items = np.concatenate(draws).astype(np.int32)
    new = latest & (rng.random(len(items)) < 0.1)
    items[new] = ITEMS - 6 + rng.integers(0, 6, new.sum())
    _, first = np.unique(users.astype(np.int64) * ITEMS + items, return_index=True)
    keep = np.sort(first)
    return temporal_split(
        Interactions(
            users[keep],
            items[keep],
            np.arange(len(keep), dtype=np.int64),
            [f"user {k}" for k in range(USERS)],
            [f"película {k}" for k in range(ITEMS)],
        )
    )


def make_run(model: ModelName = "mf") -> TrainedRun:
    split = make_split()
    step = replace(sparserec().step, model=model, floor=1)
    recipe = replace(sparserec(), dim=DIM, density=0.4, step=step)
    table = random_table(split.known_users, split.known_items, DIM, 0.4, 2, 0.3, seed=3)
    dense = MODELS[model].initial(DIM, 1)
    return TrainedRun("tiny", "0" * 64, recipe, table, dense, split, {"recall@20": 0.5}, [])


@pytest.fixture(scope="session")
def run() -> TrainedRun:
    return make_run()


@pytest.fixture(scope="session")
def built(run: TrainedRun, tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(run, tmp_path_factory.mktemp("built") / "bundle", DEVICE)


@pytest.fixture
def bundle(built: Built, tmp_path: Path) -> Path:
    """A copy of the bundle that a test may damage."""
    return Path(shutil.copytree(built.path, tmp_path / "bundle"))
