"""Steps on several ranks against one process: the same up to the order of sums."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipeline.data.split import Pairs
from pipeline.distributed.gather import whole_table
from pipeline.distributed.partition import Partition
from pipeline.distributed.ranks import Ranks
from pipeline.distributed.trainer import ShardTrainer, check
from pipeline.exchange import Schedule
from pipeline.models import MODELS
from pipeline.recipes import RECIPES
from pipeline.sampling import TripleSampler
from pipeline.table import PackedTable
from pipeline.train import StepConfig, Trainer
from sparserec.errors import SparseRecError
from tests.pipeline.distributed.peers import on_ranks

USERS, ITEMS, DIM, STEPS = 41, 67, 16, 18
BASE = StepConfig(batch_size=50, learning_rate=0.05, optimizer="adagrad", sampled_fraction=0.4)
CASES = {
    "mf": BASE,
    "adam": replace(BASE, optimizer="adam", learning_rate=0.01),
    "softmax": replace(BASE, loss="softmax", negatives=30, grow="magnitude"),
    "literal": replace(BASE, backward="literal", importance="uniform", optimizer="momentum"),
    "instant": replace(BASE, grow="instant", optimizer="sgd", sampled_fraction=1.0),
    "every row": replace(BASE, importance="all", loss="bce"),
    "few rows": replace(BASE, sampled_fraction=0.01),
    "neumf": replace(BASE, model="neumf"),
    "neumf adam": replace(BASE, model="neumf", loss="softmax", negatives=20, optimizer="adam"),
    "shared": replace(BASE, loss="bpr-shared", negatives=30),
    "fixed mask": BASE,
}


def single(name: str) -> Trainer:
    rng = np.random.default_rng(3)
    keys = rng.choice(USERS * ITEMS, 300, replace=False)
    log = Pairs((keys // ITEMS).astype(np.int32), (keys % ITEMS).astype(np.int32), None)
    mask = rng.random((USERS + ITEMS, DIM)) < 0.3
    mask[:, :2] = True
    values = rng.normal(0, 0.3, mask.shape).astype(np.float32)
    config = CASES[name]
    schedule = None if name == "fixed mask" else Schedule(60, 5, 0.4)
    table = PackedTable.from_dense(values, mask, USERS)
    sampler = TripleSampler.of(log, None, ITEMS, ITEMS, 3)
    dense = MODELS[config.model].initial(DIM, 1)
    return Trainer(table, sampler, config, schedule, dense=dense)


def shard(ranks: Ranks, name: str) -> ShardTrainer:
    whole = single(name)
    table = whole.table
    by_user = table.row_ptr[: USERS + 1]
    partition = Partition.balanced(
        by_user, table.row_ptr[USERS:] - table.row_ptr[USERS], ranks.world
    )
    every = np.arange(table.num_rows)
    rows = every[partition.owned(every, ranks.rank)]
    found = table.entries(rows)
    row_ptr = np.concatenate([[0], np.cumsum(np.diff(table.row_ptr)[rows])]).astype(np.int64)
    parts = table.cols[found.index], table.vals[found.index]
    mine = PackedTable(row_ptr, *parts, *partition.sizes(ranks.rank), DIM)
    made = (mine, whole.sampler, whole.config, whole.schedule, None, whole.dense)
    return ShardTrainer(*made, ranks=ranks, partition=partition)


def train(ranks: Ranks) -> dict[str, Any]:
    found = {}
    for name in CASES:
        trainer = shard(ranks, name)
        losses = [trainer.run_step() for _ in range(STEPS)]
        assert trainer.partition is not None
        table = whole_table(ranks, trainer.partition, trainer.table)
        sums = len(trainer.sampled), float(np.abs(trainer.sums).sum(dtype=np.float64))
        found[name] = (losses, table, trainer.dense, trainer.exchanged, sums, trainer.table.nnz)
    return found


@pytest.mark.parametrize("world", [1, 2, 4])
def test_steps_are_those_of_one_process(world: int) -> None:
    found = on_ranks(world, train)
    for name in CASES:
        reference = single(name)
        losses = [reference.run_step() for _ in range(STEPS)]
        got_losses, table, dense, exchanged, _, _ = found[0][name]
        expected = reference.table
        assert (exchanged > 0) == (name != "fixed mask"), name
        assert exchanged == reference.exchanged, name
        np.testing.assert_array_equal(table.row_ptr, expected.row_ptr, name)
        np.testing.assert_array_equal(table.cols, expected.cols, name)
        # One rank sums in the order of one process.
        close = {"rtol": 0, "atol": 0 if world == 1 else 3e-5}
        np.testing.assert_allclose(table.vals, expected.vals, **close, err_msg=name)
        np.testing.assert_allclose(got_losses, losses, **close, err_msg=name)
        for key, values in reference.dense.items():
            np.testing.assert_allclose(dense[key], values, **close, err_msg=f"{name} {key}")
            for other in found[1:]:  # bit for bit: ranks must not drift apart
                np.testing.assert_array_equal(other[name][2][key], dense[key])
        assert sum(part[name][4][0] for part in found) == len(reference.sampled), name
        total = np.abs(reference.sums).sum(dtype=np.float64)
        assert sum(part[name][4][1] for part in found) == pytest.approx(total, rel=1e-4), name
        # Nobody holds the whole.
        assert world == 1 or max(part[name][5] for part in found) < 0.8 * expected.nnz


@pytest.mark.parametrize("world", [2, 3])
def test_a_run_repeats_itself_bit_for_bit(world: int) -> None:
    one, other = (on_ranks(world, train)[0] for _ in range(2))
    for name in CASES:
        np.testing.assert_array_equal(
            one[name][1].vals.view(np.int32), other[name][1].vals.view(np.int32)
        )


@pytest.mark.parametrize(
    ("method", "step", "what"),
    [
        ("sparserec", {"model": "lightgcn"}, "neighbours"),
        ("sparserec", {"model": "ngcf"}, "neighbours"),
        ("pep", {}, "pep"),
        ("magnitude", {}, "magnitude"),
        ("rigl", {}, "rigl"),
        ("set", {}, "set"),
        ("sparserec", {"importance": "gradient"}, "importance gradient"),
        ("sparserec", {"precision": "int8"}, "int8"),
        ("sparserec", {"batch_size": 1}, "batch of 1"),
    ],
)
def test_what_ranks_cannot_share_is_refused(method: str, step: dict[str, Any], what: str) -> None:
    recipe = RECIPES[method]()
    with pytest.raises(SparseRecError, match=what):
        check(replace(recipe, step=replace(recipe.step, **step)), 2)


def test_a_start_over_its_budget_is_refused() -> None:
    with pytest.raises(SparseRecError, match="start over its budget"):
        check(replace(RECIPES["sparserec"](), start_density=0.3), 2)


def test_a_refit_is_refused() -> None:
    with pytest.raises(SparseRecError, match="refit"):
        check(replace(RECIPES["dense"](), refit=True), 2)
