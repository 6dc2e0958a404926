"""Mask updates and sampled rows on several ranks, against those of one process, bit for bit."""

import numpy as np
import pytest

from pipeline.data.split import Pairs
from pipeline.distributed.exchange import exchange
from pipeline.distributed.partition import Partition
from pipeline.distributed.ranks import Ranks
from pipeline.distributed.trainer import first_distinct
from pipeline.exchange import exchange as alone
from pipeline.sampling import by_frequency, sampled_rows, uniform_rows, uniformly
from pipeline.table import PackedTable
from tests.pipeline.distributed.peers import on_ranks

CASES = 60


def case(seed: int) -> tuple[PackedTable, np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Make a table whose values and sums are full of ties, zeros among them."""
    rng = np.random.default_rng(seed)
    users, items, dim = (int(n) for n in rng.integers(1, [12, 12, 9]))
    mask = rng.random((users + items, dim)) < rng.random()
    values = rng.integers(-3, 4, mask.shape).astype(np.float32)
    table = PackedTable.from_dense(values, mask, users)
    size = int(rng.integers(1, users + items + 1))
    sampled = np.sort(rng.choice(users + items, size, replace=False))
    sums = rng.integers(-2, 3, (size, dim)).astype(np.float32)
    state = {name: rng.random(table.nnz).astype(np.float32) for name in ("m", "v")}
    return table, sampled, sums, state


def shard_of(table: PackedTable, rows: np.ndarray, users: int) -> tuple[PackedTable, np.ndarray]:
    found = table.entries(rows)
    row_ptr = np.concatenate([[0], np.cumsum(np.diff(table.row_ptr)[rows])]).astype(np.int64)
    parts = table.cols[found.index], table.vals[found.index]
    return PackedTable(row_ptr, *parts, users, len(rows) - users, table.dim), found.index


def exchanges(ranks: Ranks) -> list[tuple[np.ndarray, ...]]:
    results = []
    for seed in range(CASES):
        table, sampled, sums, state = case(seed)
        by_user = table.row_ptr[: table.num_users + 1]
        by_item = table.row_ptr[table.num_users :] - table.row_ptr[table.num_users]
        partition = Partition.balanced(by_user, by_item, ranks.world)
        every = np.arange(table.num_rows)
        rows = every[partition.owned(every, ranks.rank)]
        shard, index = shard_of(table, rows, partition.sizes(ranks.rank)[0])
        mine = partition.owned(sampled, ranks.rank)
        places = np.searchsorted(rows, sampled[mine])
        fraction, floor = seed % 7 / 6, seed % 3
        own = {name: values[index] for name, values in state.items()}
        count = exchange(ranks, shard, places, sums[mine], fraction, floor, own)
        row = np.repeat(rows, np.diff(shard.row_ptr))
        results.append((row, shard.cols, shard.vals, own["m"], own["v"], np.array(count)))
    return results


@pytest.mark.parametrize("world", [1, 2, 3])
def test_exchanges_are_those_of_one_process(world: int) -> None:
    exchanged = 0
    for seed, parts in enumerate(zip(*on_ranks(world, exchanges), strict=True)):
        table, sampled, sums, state = case(seed)
        count = alone(table, sampled, sums, seed % 7 / 6, seed % 3, state)
        row, cols, vals, m, v = (np.concatenate([part[k] for part in parts]) for k in range(5))
        order = np.lexsort((cols, row))
        np.testing.assert_array_equal(
            row[order], np.repeat(np.arange(table.num_rows), np.diff(table.row_ptr))
        )
        np.testing.assert_array_equal(cols[order], table.cols)
        np.testing.assert_array_equal(vals[order], table.vals)
        np.testing.assert_array_equal(m[order], state["m"])
        np.testing.assert_array_equal(v[order], state["v"])
        assert {int(part[5]) for part in parts} == {count}
        exchanged += count
    assert exchanged > CASES


def log(users: int, items: int) -> Pairs:
    rng = np.random.default_rng(users)
    drawn = rng.zipf(1.3, 4 * items) % users, rng.zipf(1.3, 4 * items) % items
    return Pairs(*(part.astype(np.int32) for part in drawn), None)


SIZES = [(7, 5, 4), (200, 300, 37), (200, 300, 500), (9000, 30000, 5000)]


def draw(ranks: Ranks) -> list[np.ndarray]:
    results = []
    for users, items, size in SIZES:
        pairs = log(users, items)
        num_rows = users + int(pairs.items.max()) + 1
        ones = np.arange(users + 1), np.arange(num_rows - users + 1)
        partition = Partition.balanced(*ones, ranks.world)
        every = np.arange(num_rows)
        rows = every[partition.owned(every, ranks.rank)]
        for drawn in (by_frequency(pairs, users, 3, 5), uniformly(num_rows, 3, 5)):
            results.append(rows[first_distinct(ranks, partition, drawn, size)])
    return results


@pytest.mark.parametrize("world", [1, 3])
def test_sampled_rows_are_those_of_one_process(world: int) -> None:
    parts = iter(zip(*on_ranks(world, draw), strict=True))
    for users, items, size in SIZES:
        pairs = log(users, items)
        num_rows = users + int(pairs.items.max()) + 1
        for expected in (
            sampled_rows(pairs, users, 3, size, 5),
            uniform_rows(num_rows, 3, size, 5),
        ):
            np.testing.assert_array_equal(np.sort(np.concatenate(next(parts))), expected)
