"""One rank that measures: ``torchrun ... -m pipeline.scale.process '[case, ...]'``."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch

from pipeline.distributed.partition import Partition
from pipeline.distributed.ranks import Ranks, joined
from pipeline.distributed.trainer import ShardTrainer
from pipeline.exchange import Schedule
from pipeline.memory import Meter
from pipeline.memory_process import state_bytes, uniform_sampler
from pipeline.scale.cases import STEPS, WINDOW, Case, Measured
from pipeline.table import PackedTable
from pipeline.train import StepConfig

CHUNK = 1 << 20


def main(cases: list[Case]) -> None:
    """Measure each case and print it, one line of JSON a rank."""
    torch.set_num_threads(1)
    with joined(torch.device("cpu")) as ranks:
        # Libraries load what they need in a first run, which is not the step's.
        measure(ranks, replace(cases[0], num_rows=2000, batch_size=256))
        for case in cases:
            found = measure(ranks, case)
            lines = ranks.gather(np.array(list(json.dumps(asdict(found)).encode()), np.uint8))
            if ranks.rank == 0:
                for line in lines:
                    print(line.tobytes().decode(), flush=True)


def measure(ranks: Ranks, case: Case) -> Measured:
    """Train some steps, mask updates among them."""
    parts = case.of_ranks or 1
    half, batch = case.num_rows // 2 // parts, case.batch_size // parts
    sampler = uniform_sampler(half)
    log = sampler.log.users.nbytes + sampler.log.items.nbytes + sampler.known.nbytes
    config = StepConfig(batch_size=batch, sampled_fraction=case.sampled_fraction)
    borders = np.arange(ranks.world + 1) * half // ranks.world
    partition = Partition(borders, borders)
    meter = Meter()
    table = _table(*partition.sizes(ranks.rank), case.dim, case.density, ranks.rank)
    schedule = Schedule(4 * STEPS, WINDOW, 0.2)
    trainer = ShardTrainer(table, sampler, config, schedule, ranks=ranks, partition=partition)
    del table
    for values in trainer.state.values():
        values.fill(0)  # a page counts once it is touched
    waits = _Waits(ranks)
    rows: list[int] = []
    drawn = trainer._slots
    trainer._slots = lambda: _noted(rows, drawn())  # type: ignore[method-assign]
    lines: list[tuple[float, float, float, int]] = []
    largest = 0
    for _ in range(STEPS):
        ranks.wait()
        before = time.perf_counter(), time.process_time(), waits.seconds, ranks.sent
        trainer.run_step()
        after = time.perf_counter(), time.process_time(), waits.seconds, ranks.sent
        lines.append(tuple(b - a for a, b in zip(before, after, strict=True)))  # type: ignore[arg-type]
        largest = max(largest, state_bytes(trainer))
    waits.end()
    meter.end("all")
    # The first step of a window draws S and makes room for its sums; its last changes the mask.
    at = np.arange(WINDOW, STEPS)  # the first window warms up
    plain = np.array(lines)[at[(at % WINDOW != 0) & (at % WINDOW != WINDOW - 1)]]
    wall, cpu, wait, sent = np.median(plain, axis=0)
    ends = np.array(lines)[at[at % WINDOW == WINDOW - 1]]
    starts = np.array(lines)[at[at % WINDOW == 0]]
    updates = np.median(ends, axis=0) + np.median(starts, axis=0)
    return Measured(
        case,
        ranks.rank,
        float(wall),
        float(cpu),
        float(wait),
        float(updates[1] - 2 * cpu),
        float(sent),
        float(updates[3] - 2 * sent),
        float(np.mean(rows)),
        largest,
        meter.peaks["all"],
        log,
    )


def _noted(rows: list[int], slots: Any) -> Any:
    rows.append(len(np.unique(slots)))
    return slots


class _Waits:
    """Seconds that pass inside collectives."""

    def __init__(self, ranks: Ranks) -> None:
        self.seconds, self._ranks = 0.0, ranks
        for name in ("swap", "total", "gather"):
            setattr(ranks, name, self._timed(getattr(ranks, name)))

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args)
            finally:
                self.seconds += time.perf_counter() - start

        return run

    def end(self) -> None:
        """Give the methods back."""
        for name in ("swap", "total", "gather"):
            delattr(self._ranks, name)


def _table(users: int, items: int, dim: int, density: float, rank: int) -> PackedTable:
    """Make a shard whose rows have nearly ``density dim`` entries, one in each stretch of columns.

    Rows need not be random for what is measured, and drawing N d numbers would take minutes.
    """
    rng = np.random.default_rng(rank)
    num_rows, mean = users + items, density * dim
    row_ptr = np.zeros(num_rows + 1, np.int64)
    np.floor(np.arange(1, num_rows + 1) * mean, out=row_ptr[1:], casting="unsafe")
    cols = np.empty(int(row_ptr[-1]), np.uint8)
    stretch = dim // int(np.ceil(mean))
    for start in range(0, num_rows, CHUNK):
        part = row_ptr[start : start + CHUNK + 1]
        counts = np.diff(part)
        within = np.arange(part[-1] - part[0]) - np.repeat(part[:-1] - part[0], counts)
        cols[part[0] : part[-1]] = within * stretch + rng.integers(0, stretch, len(within))
    vals = rng.standard_normal(len(cols), np.float32)
    vals *= np.float32(0.1)
    return PackedTable(row_ptr, cols, vals, users, items, dim)


if __name__ == "__main__":
    main([Case(**values) for values in json.loads(sys.argv[1])])
