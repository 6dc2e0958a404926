"""Checkpoints: what some ranks saved, any number of them goes on from, and one process too."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.checkpoint import Best, Progress, load_checkpoint
from pipeline.distributed import shards
from pipeline.distributed.gather import whole_table
from pipeline.distributed.ranks import Ranks
from pipeline.distributed.trainer import ShardTrainer
from pipeline.table import PackedTable
from sparserec.errors import SparseRecError
from tests.pipeline.distributed.peers import on_ranks
from tests.pipeline.distributed.test_trainer import DIM, shard, single

NAME, STEPS = "neumf adam", 13


def state_of(ranks: Ranks, trainer: ShardTrainer, best: Best) -> dict[str, Any]:
    """Describe all ranks' state in terms of the whole table, at the first rank."""
    partition = trainer.partition
    assert partition is not None
    tables = {"table": trainer.table, "best": best.table}
    for name, values in trainer.state.items():
        tables[name] = replace(trainer.table, vals=values)
    found: dict[str, Any] = {k: whole_table(ranks, partition, t) for k, t in tables.items()}
    every = np.arange(partition.num_rows)
    rows = every[partition.owned(every, ranks.rank)][trainer.sampled]
    parts = ranks.gather(rows), ranks.gather(trainer.sums)
    sampled, sums = (np.concatenate(part) for part in parts)
    order = np.argsort(sampled)
    found |= {"sampled": sampled[order], "sums": sums[order], "dense": trainer.dense}
    found |= {"dense_state": trainer.dense_state, "best dense": best.dense}
    return found | {"step": trainer.step, "exchanged": trainer.exchanged}


def save(ranks: Ranks, folder: Path) -> dict[str, Any]:
    trainer = shard(ranks, NAME)
    for _ in range(6):
        trainer.run_step()
    best = Best(1, 0.5, trainer.table.copy(), {k: v.copy() for k, v in trainer.dense.items()})
    for _ in range(STEPS - 6):  # the mask changes in between
        trainer.run_step()
    progress = Progress([{"epoch": 1, "loss": 0.7}], 3.5, best)
    for step in (7, STEPS):  # the second removes the first
        trainer.step = step
        shards.save(folder, "print", ranks, trainer, progress)
    return state_of(ranks, trainer, best)


def load(ranks: Ranks, folder: Path) -> dict[str, Any]:
    generation = shards.newest(folder)
    assert generation is not None
    partition = shards.partition_for(generation, ranks.world)
    sizes = partition.sizes(ranks.rank)
    empty = np.zeros(sum(sizes) + 1, np.int64), np.empty(0, np.uint8), np.empty(0, np.float32)
    like = single(NAME)
    made = PackedTable(*empty, *sizes, DIM), like.sampler, like.config, like.schedule, None
    trainer = ShardTrainer(*made, like.dense, ranks=ranks, partition=partition)
    progress = shards.load(generation, "print", partition, trainer, ranks.rank)
    assert progress.best is not None
    assert (progress.history, progress.loss_sum) == ([{"epoch": 1, "loss": 0.7}], 3.5)
    before = deepcopy(state_of(ranks, trainer, progress.best))
    trainer.run_step()
    assert trainer.step == STEPS + 1
    return before


def assert_same(one: Any, other: Any) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert_same(value, other[key])
    elif isinstance(one, PackedTable):
        assert_same(vars(one), vars(other))
    else:
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("saved_by", "world"), [(1, 3), (4, 1), (4, 2), (4, 3), (4, 4)])
def test_any_number_of_ranks_goes_on(saved_by: int, world: int, tmp_path: Path) -> None:
    saved = on_ranks(saved_by, save, tmp_path)[0]
    names = {path.name for path in tmp_path.iterdir()}
    of = [f"step-{STEPS:010}-shard-{rank}-of-{saved_by}.safetensors" for rank in range(saved_by)]
    assert names == {f"step-{STEPS:010}.json", *of}
    loaded = on_ranks(world, load, tmp_path)[0]
    for key in ("table", "best"):
        assert saved[key].nnz == single(NAME).table.nnz
    assert_same(loaded, saved)


def test_one_shard_is_a_checkpoint_of_one_process(tmp_path: Path) -> None:
    saved = on_ranks(1, save, tmp_path)[0]
    generation = shards.newest(tmp_path)
    assert generation is not None
    trainer = single(NAME)
    progress = load_checkpoint(generation.shard(0), "print", trainer)
    assert trainer.step == STEPS
    assert progress.best is not None
    assert_same(trainer.table, saved["table"])
    assert_same(progress.best.table, saved["best"])


def test_without_its_description_a_checkpoint_is_none(tmp_path: Path) -> None:
    on_ranks(2, save, tmp_path)
    (tmp_path / f"step-{99:010}-shard-0-of-2.safetensors").write_bytes(b"half")
    generation = shards.newest(tmp_path)
    assert generation is not None
    assert generation.step == STEPS
    generation.described.unlink()
    assert shards.newest(tmp_path) is None


def refuse(ranks: Ranks, folder: Path) -> str:
    try:
        load(ranks, folder)
    except SparseRecError as error:
        return error.message
    return ""


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    on_ranks(2, save, tmp_path)
    generation = shards.newest(tmp_path)
    assert generation is not None
    path = generation.shard(1)
    path.write_bytes(path.read_bytes()[:-100])
    assert all(f"{path}: damaged" in said for said in on_ranks(1, refuse, tmp_path))


def test_a_flipped_bit_in_a_shard_is_noticed(tmp_path: Path) -> None:
    on_ranks(2, save, tmp_path)
    generation = shards.newest(tmp_path)
    assert generation is not None
    path = generation.shard(1)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    (said,) = on_ranks(1, refuse, tmp_path)
    assert said.startswith(f"{path}: damaged")
    assert "SHA-256" in said
