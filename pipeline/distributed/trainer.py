"""The training step of one rank among several, on its shard of the table."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from pipeline.backward import Gradients, tile_gradients
from pipeline.distributed.exchange import exchange
from pipeline.distributed.partition import Partition
from pipeline.distributed.ranks import Ranks
from pipeline.distributed.rows import fetch, give_back
from pipeline.exchange import Schedule
from pipeline.models import MODELS
from pipeline.recipes import Recipe
from pipeline.sampling import BLOCK, Drawn, by_frequency, uniformly
from pipeline.table import F32, I64
from pipeline.train import Trainer
from sparserec.errors import SparseRecError


def check(recipe: Recipe, world: int) -> None:
    """Refuse what only one process can train.

    Raises:
        SparseRecError: what the recipe asks for needs the whole table in one place.
    """
    step = recipe.step
    refused = {
        f"model {step.model} looks at neighbours all over the table": (
            MODELS[step.model].GRAPH != "none"
        ),
        f"method {recipe.method} prunes or regrows by rules of its own": (
            recipe.method in ("magnitude", "pep", "set", "rigl", "dsl")
        ),
        "a start over its budget is pruned across the whole table": recipe.shrinks,
        "a refit trains on train and validation together": recipe.refit,
        "importance gradient ranks all rows' norms": step.importance == "gradient",
        f"precision {step.precision} rounds by a row's place in the whole table": (
            step.precision != "float32"
        ),
    }
    for what, so in refused.items():
        if so:
            raise SparseRecError(
                f"{what}, which is not shared among ranks", "train in one process: without --ranks"
            )
    if step.batch_size < world:
        raise SparseRecError(
            f"a batch of {step.batch_size} cannot be shared among {world} ranks",
            "raise --batch-size",
        )


@dataclass
class ShardTrainer(Trainer):
    """Trains one rank's shard; its peers do the same step at the same time.

    ``table``, ``state``, ``sampled`` (places in the shard) and ``sums`` are the shard's; ``dense``,
    ``dense_state``, ``step`` and ``exchanged`` are the same on all ranks.

    Attributes:
        ranks: the peers.
        partition: who owns what.
        stop: set here, it ends all ranks' runs after the same step, see ``stopped``.
        stopped: some rank's ``stop`` was set in the last step.
    """

    ranks: Ranks | None = None
    partition: Partition | None = None
    stop: bool = False
    stopped: bool = False

    def _peers(self) -> tuple[Ranks, Partition]:
        assert self.ranks is not None
        assert self.partition is not None
        return self.ranks, self.partition

    def _share(self) -> tuple[int, int]:
        """Give the examples of the batch that are this rank's: the first and how many."""
        ranks, size = self._peers()[0], self.config.batch_size
        first = size * ranks.rank // ranks.world
        return first, size * (ranks.rank + 1) // ranks.world - first

    def _slots(self) -> I64:
        """Draw this rank's examples, and all shared negatives: rows of the whole table."""
        return self._drawn(*self._share(), self._peers()[1].num_users)

    def _gradients(self, slots: I64) -> Gradients:
        """Fetch the rows of this rank's examples, differentiate, and add up at the owners."""
        (ranks, partition), config, (_, size) = self._peers(), self.config, self._share()
        looked = np.zeros(self.table.num_rows, np.bool_)
        if self._looks():
            looked[self.sampled] = True
        rows, inverse = np.unique(slots, return_inverse=True)
        fetched, place = fetch(ranks, partition, self.table, looked, rows)
        found = tile_gradients(self._objective, fetched.table, place[inverse], self.dense, size)
        found = _scaled(found, size / config.batch_size)
        found = give_back(ranks, self.table, looked, fetched, found)
        return self._with_totals(found)

    def _with_totals(self, found: Gradients) -> Gradients:
        """Add up over ranks what is not the table's: the loss and the dense gradients."""
        ranks = self._peers()[0]
        head = np.array([found.loss, self.stop], np.float32)
        flat = np.concatenate([head, *(grads.ravel() for grads in found.dense.values())])
        flat = ranks.total(flat)
        self.stopped = bool(flat[1])
        dense, start = {}, len(head)
        for name, grads in found.dense.items():
            dense[name] = flat[start : start + grads.size].reshape(grads.shape)
            start += grads.size
        return replace(found, loss=float(flat[0]), dense=dense)

    def _begin_window(self, window: int) -> None:
        """Draw this shard's part of S."""
        (ranks, partition), config = self._peers(), self.config
        seed, sampler, num_rows = self.sampler.seed, self.sampler, partition.num_rows
        size = max(1, math.floor(config.sampled_fraction * num_rows + 0.5))
        if config.importance == "all":
            self.sampled = np.arange(self.table.num_rows)
        else:
            drawn = (
                uniformly(num_rows, window, seed)
                if config.importance == "uniform"
                else by_frequency(sampler.log, partition.num_users, window, seed)
            )
            self.sampled = first_distinct(ranks, partition, drawn, size)
        self.sums = np.zeros((0, self.table.dim), np.float32)

    def _end_of_step(self, schedule: Schedule, found: Gradients) -> None:
        if self._looks():
            self._accumulate(found)
        fraction = schedule.fraction_after(self.step)
        if fraction == 0:
            return
        shard = self.table, self.sampled, self.sums
        floor = self.config.floor
        self.exchanged += exchange(self._peers()[0], *shard, fraction, floor, self.state)


def first_distinct(ranks: Ranks, partition: Partition, drawn: Drawn, size: int) -> I64:
    """Find this rank's part of the first ``size`` distinct rows of draws 0 to 16 ``size``.

    Every rank draws all and keeps its own rows; where a block of draws has more new rows than are
    left to choose, the ranks mark the draws that gave one, and the last of them is found.

    Returns:
        int64, ascending: places in this rank's shard.
    """
    taken = np.zeros(sum(partition.sizes(ranks.rank)), np.bool_)
    left = size
    for start in range(0, 16 * size, BLOCK):
        rows = drawn(np.arange(start, min(start + BLOCK, 16 * size)))
        at = np.flatnonzero(partition.owned(rows, ranks.rank))
        here = partition.local(rows[at], np.full(len(at), ranks.rank))
        fresh = ~taken[here]
        new, first = np.unique(here[fresh], return_index=True)
        at = at[fresh][first]
        count = int(ranks.total(np.array([len(new)], np.int64))[0])
        if count > left:
            marks = np.zeros(len(rows), np.int32)
            marks[at] = 1
            last = np.searchsorted(np.cumsum(ranks.total(marks)), left)
            new = new[at <= last]
        taken[new] = True
        left -= count
        if left <= 0:
            break
    return np.flatnonzero(taken)


def _scaled(found: Gradients, share: float) -> Gradients:
    """Turn means over a part of the batch into their part of the whole batch's means."""
    part = np.float32(share)
    dense: dict[str, F32] = {name: grads * part for name, grads in found.dense.items()}
    return Gradients(
        found.loss * share,
        found.index,
        found.entries * part,
        dense,
        found.rows,
        found.whole * part,
    )
