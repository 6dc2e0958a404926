"""Checkpoints of a run on several ranks, which any number of ranks goes on from.

A folder. Each rank writes its shard, a file as ``pipeline.checkpoint`` writes of a whole table.
When all are on the disk the first rank writes ``step-<10 digits>.json``, which says which rows each
shard has, and then removes what is older: a shard without that file is no checkpoint. All ranks
see the folder, so that on several machines it is on a file system that they share.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.checkpoint import Progress, check, opened, restore, save_checkpoint
from pipeline.distributed.partition import Partition
from pipeline.distributed.ranks import Ranks
from pipeline.distributed.trainer import ShardTrainer
from pipeline.files import read_json, verify_file, write_json
from pipeline.table import I64
from pipeline.train import Trainer

Part = dict[str, np.ndarray]


@dataclass(frozen=True)
class Generation:
    """A whole checkpoint.

    Attributes:
        folder: that it is in.
        step: steps done.
        partition: which rows each of its shards has.
    """

    folder: Path
    step: int
    partition: Partition

    def shard(self, rank: int) -> Path:
        """Name the file of a rank's shard."""
        name = f"step-{self.step:010}-shard-{rank}-of-{self.partition.world}.safetensors"
        return self.folder / name

    @property
    def described(self) -> Path:
        """Name the file that makes it whole."""
        return self.folder / f"step-{self.step:010}.json"


def newest(folder: Path) -> Generation | None:
    """Find the newest checkpoint of a folder, or None.

    Raises:
        SparseRecError: its description is damaged.
    """
    found = sorted(folder.glob("step-*.json"))
    if not found:
        return None
    described = read_json(found[-1])
    borders = (np.array(described[side], np.int64) for side in ("users", "items"))
    return Generation(folder, described["step"], Partition(*borders))


def save_start(folder: Path, fingerprint: str, trainer: Trainer, progress: Progress) -> None:
    """Write a single process's trainer as a checkpoint of one shard."""
    table = trainer.table
    borders = np.array([0, table.num_users]), np.array([0, table.num_items])
    generation = Generation(folder, trainer.step, Partition(*borders))
    folder.mkdir(parents=True, exist_ok=True)
    save_checkpoint(generation.shard(0), fingerprint, trainer, progress)
    _describe(generation)


def save(
    folder: Path, fingerprint: str, ranks: Ranks, trainer: ShardTrainer, progress: Progress
) -> None:
    """Write a checkpoint; every rank calls it, between the same two steps."""
    assert trainer.partition is not None
    generation = Generation(folder, trainer.step, trainer.partition)
    save_checkpoint(generation.shard(ranks.rank), fingerprint, trainer, progress)
    ranks.wait()
    if ranks.rank == 0:
        _describe(generation)
    ranks.wait()


def _describe(generation: Generation) -> None:
    partition = generation.partition
    users, items = partition.users.tolist(), partition.items.tolist()
    write_json(generation.described, {"step": generation.step, "users": users, "items": items})
    kept = {generation.described, *(generation.shard(r) for r in range(partition.world))}
    # Descriptions go first: what is left of a checkpoint in between is no checkpoint.
    for path in sorted(generation.folder.iterdir(), key=lambda path: path.suffix != ".json"):
        if path not in kept:
            path.unlink()


def load(
    generation: Generation, fingerprint: str, partition: Partition, trainer: ShardTrainer, rank: int
) -> Progress:
    """Put a rank's trainer where a checkpoint of any number of ranks was taken.

    Args:
        generation: the checkpoint.
        fingerprint: of recipe and data.
        partition: who owns what from now on.
        trainer: this rank's, with a table of the right shape.
        rank: this one.

    Raises:
        SparseRecError: a shard is damaged or belongs to another recipe or other data.
    """
    old = generation.partition
    of_users: list[Part] = []
    of_items: list[Part] = []
    described: dict[str, Any] = {}
    whole: Part = {}
    for source in _sources(old, partition, rank):
        users = _overlap(old.users, source, partition.users, rank)
        items = _overlap(old.items, source, partition.items, rank)
        path = generation.shard(source)
        with opened(path) as (scalars, file):
            check(path, scalars, fingerprint)
            verify_file(file, scalars.pop("sha256", None), scalars)
            described = scalars
            own, new = old.sizes(source)[0], partition.sizes(rank)[0]
            shift = int(old.users[source] - partition.users[rank])
            of_users.append(_slice(file, *users, shift))
            shift = int(old.items[source] - partition.items[rank]) + new - own
            of_items.append(_slice(file, own + items[0], own + items[1], shift))
            whole = {name: file.get_tensor(name) for name in file.keys() if _whole(name)}  # noqa: SIM118
    return restore(trainer, described, _joined(of_users + of_items) | whole)


def _sources(old: Partition, new: Partition, rank: int) -> list[int]:
    """Give the shards that have rows of a rank's new one; some shard where that has none."""

    def has_rows(source: int) -> bool:
        users = _overlap(old.users, source, new.users, rank)
        items = _overlap(old.items, source, new.items, rank)
        return users[0] < users[1] or items[0] < items[1]

    return [source for source in range(old.world) if has_rows(source)] or [0]


def _overlap(old: I64, source: int, new: I64, rank: int) -> tuple[int, int]:
    """Give the part of an old range that is in a new one, counted from the old one's start."""
    first, last = old[source : source + 2]
    start, stop = np.clip(new[rank : rank + 2], first, last)
    return int(start - first), int(stop - first)


def _whole(name: str) -> bool:
    """Tell whether every rank has all of a tensor."""
    return name.startswith(("dense.", "dense_state.", "best_dense."))


def _slice(file: Any, start: int, stop: int, shift: int) -> Part:
    """Read rows [start, stop) of a shard; their numbers in the new one are ``shift`` higher."""
    found: Part = {}
    names = set(file.keys())
    for prefix in ("", "best."):
        if f"{prefix}row_ptr" not in names:
            continue
        ptr = file.get_slice(f"{prefix}row_ptr")[start : stop + 1]
        first, last = int(ptr[0]), int(ptr[-1])
        found[f"{prefix}row_ptr"] = np.diff(ptr)
        of_entry = [f"{prefix}cols", f"{prefix}vals"]
        of_entry += [name for name in names if name.startswith("state.") and not prefix]
        for name in of_entry:
            found[name] = _part(file, name, first, last)
    sampled = file.get_tensor("sampled")
    low, high = np.searchsorted(sampled, [start, stop])
    found["sampled"] = sampled[low:high] + shift
    # In a window's first step nothing was added to the sums, and they have no rows.
    found["sums"] = _part(file, "sums", *((low, high) if _length(file, "sums") else (0, 0)))
    found["norms"] = file.get_tensor("norms")
    return found


def _length(file: Any, name: str) -> int:
    return int(file.get_slice(name).get_shape()[0])


def _part(file: Any, name: str, start: int, stop: int) -> np.ndarray:
    """Read [start, stop) of a tensor's first dimension; safetensors refuses 0:0 of nothing."""
    if start < stop:
        found: np.ndarray = file.get_slice(name)[start:stop]
    elif _length(file, name):
        found = file.get_slice(name)[0:0]
    else:
        found = file.get_tensor(name)
    return found


def _joined(parts: list[Part]) -> Part:
    """Put slices one after another; numbers of entries become row pointers again."""
    tensors = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    for name in ("row_ptr", "best.row_ptr"):
        if name in tensors:
            tensors[name] = np.concatenate([[0], np.cumsum(tensors[name])]).astype(np.int64)
    return tensors


def partition_for(generation: Generation, world: int) -> Partition:
    """Keep who owns what where the number of ranks is the same, else share out anew."""
    old = generation.partition
    if old.world == world:
        return old
    users, items = [], []
    for source in range(old.world):
        with opened(generation.shard(source)) as (_, file):
            counts = np.diff(file.get_tensor("row_ptr"))
            size = old.sizes(source)[0]
            users.append(counts[:size])
            items.append(counts[size:])
    sums = [np.concatenate([[0], np.cumsum(np.concatenate(side))]) for side in (users, items)]
    return Partition.balanced(sums[0], sums[1], world)
