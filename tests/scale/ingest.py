"""Peak memory of reading, splitting and training on logs of growing size: docs/scale.md, Input.

``python -m tests.scale.ingest`` makes each log as it goes (distinct pairs in order of time, uniform
items), measures every stage in a process of its own, and prints a table; ``--help`` has the rest.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

CHUNK = 1 << 20
PRIME_ITEMS = {50_000: 49_999, 500_000: 499_979}
STEPS, BATCH, DIM, DENSITY = 200, 4096, 64, 0.1


def write_log(path: Path, count: int, num_users: int, num_items: int) -> None:
    """Write ``count`` interactions; every user has about as many, no pair comes twice.

    The k-th interaction of a user is with item a_u k + b_u modulo a prime. A few of the times are
    equal, and neighbours may be out of order.
    """
    rng = np.random.default_rng(1)
    step = rng.integers(1, num_items, num_users)
    first = rng.integers(0, num_items, num_users)
    schema = pa.schema(
        [("user_id", pa.string()), ("item_id", pa.string()), ("timestamp", pa.int64())]
    )
    open_ = pq.ParquetWriter if path.suffix == ".parquet" else pyarrow.csv.CSVWriter
    with open_(path, schema) as writer:
        for start in range(0, count, CHUNK):
            place = np.arange(start, min(start + CHUNK, count))
            user = (place * 7_368_787) % num_users  # a prime: every user once a round
            item = (step[user] * (place // num_users) + first[user]) % num_items
            when = 1_700_000_000 + (place + rng.integers(0, 50, len(place))) // 8
            columns = [pa.array(user).cast(pa.string()), pa.array(item).cast(pa.string())]
            writer.write_table(pa.table([*columns, pa.array(when)], schema=schema))


def prepare(log: Path, out: Path) -> None:
    """Read and split in bounded memory."""
    from pipeline.data.prepare import prepare

    prepare(log, out)


def in_memory(log: Path, out: Path) -> None:
    """Read and split as small logs are."""
    from pipeline.data.datasets import load

    load(str(log)).split()


def unpack(log: Path, out: Path) -> None:
    """Make the arrays that training maps."""
    from pipeline.data.prepared import load_prepared

    load_prepared(out)


def train(log: Path, out: Path) -> None:
    """Take training steps and validate once, on mapped arrays."""
    from pipeline.data.prepared import load_prepared
    from pipeline.evaluate import evaluate
    from pipeline.exchange import Schedule
    from pipeline.nmf import random_table
    from pipeline.recommender import Recommender
    from pipeline.sampling import TripleSampler
    from pipeline.train import StepConfig, Trainer

    _, split = load_prepared(out)
    users, items = split.known_users, split.known_items
    table = random_table(users, items, DIM, DENSITY, 2, 0.1, 1)
    sampler = TripleSampler(split.train, split.train_keys, items, items, 1)
    config = StepConfig(batch_size=BATCH, sampled_fraction=0.1)
    trainer = Trainer(table, sampler, config, Schedule(10 * STEPS, STEPS // 2, 0.2))
    for _ in range(STEPS):
        trainer.run_step()
    chosen = np.arange(500)
    evaluate(Recommender(trainer.table), split.valid, (split.train, split.valid), items, chosen)


STAGES = {"prepare": prepare, "in memory": in_memory, "unpack": unpack, "train": train}


def child(stage: str, log: Path, out: Path) -> None:
    """Run one stage; print its seconds, peak of anonymous memory, and what it had at its start."""
    import torch  # every stage pays for the same libraries  # noqa: F401

    import pipeline.data.prepare
    import pipeline.train  # noqa: F401

    before = status()
    start = time.monotonic()
    peak = watch(lambda: STAGES[stage](log, out))
    print(json.dumps({"seconds": time.monotonic() - start, "base": before["RssAnon"]} | peak))


def watch(work) -> dict[str, int]:  # type: ignore[no-untyped-def]
    """Run ``work``; sample anonymous and all resident memory meanwhile, in bytes."""
    import threading

    peak = {"RssAnon": 0, "VmHWM": 0}
    done = threading.Event()

    def sample() -> None:
        while not done.wait(0.02):
            now = status()
            for key, value in peak.items():
                peak[key] = max(value, now[key])

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        work()
    finally:
        done.set()
        thread.join()
    return peak


def status() -> dict[str, int]:
    lines = Path("/proc/self/status").read_text().splitlines()
    found = dict(line.split(":", 1) for line in lines)
    return {key: int(found[key].split()[0]) * 1024 for key in ("RssAnon", "VmHWM")}


def measured(stage: str, log: Path, out: Path) -> dict[str, float]:
    import subprocess

    command = [sys.executable, "-m", "tests.scale.ingest", "--child", stage, "--log", str(log)]
    run = subprocess.run(
        [*command, "--folder", str(out)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(run.stdout.splitlines()[-1])
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.scale.ingest", description=__doc__)
    parser.add_argument("--interactions", type=float, nargs="+", default=[1e6, 1e7, 1e8])
    parser.add_argument("--users", type=float, default=1e5)
    parser.add_argument("--items", type=int, choices=PRIME_ITEMS, default=50_000)
    parser.add_argument("--kind", choices=["parquet", "csv"], default="parquet")
    parser.add_argument(
        "--stages", nargs="+", choices=STAGES, default=["prepare", "unpack", "train"]
    )
    parser.add_argument(
        "--folder", type=Path, default=Path("runs/scale"), help="some 60 bytes an interaction"
    )
    parser.add_argument("--child", choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument("--log", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.child, given.log, given.folder)
        return 0
    given.folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for count in map(int, given.interactions):
        log, out = given.folder / f"{count}.{given.kind}", given.folder / f"{count}"
        write_log(log, count, int(given.users), PRIME_ITEMS[given.items])
        for stage in given.stages:
            found = measured(stage, log, out)
            found |= {"load": os.getloadavg()[0], "bytes": log.stat().st_size}
            rows.append({"interactions": count, "stage": stage} | found)
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
        log.unlink()
        shutil.rmtree(out, ignore_errors=True)
    show(rows)
    return 0


def show(rows: list[dict[str, float]]) -> None:
    table = Table(title="peak of anonymous memory beyond the libraries'")
    for heading in ("interactions", "stage", "MiB", "MiB with file pages", "seconds", "load"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            f"{row['interactions']:,}",
            str(row["stage"]),
            f"{(row['RssAnon'] - row['base']) / 2**20:,.0f}",
            f"{row['VmHWM'] / 2**20:,.0f}",
            f"{row['seconds']:,.0f}",
            f"{row['load']:.1f}",
        )
    Console(width=100).print(table)


if __name__ == "__main__":
    raise SystemExit(main())
