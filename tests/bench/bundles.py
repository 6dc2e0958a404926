"""Bundles to time: MF at d = 64 and B = 256, of any number of rows, and what happened to them.

Values are random: no time depends on them. How often a row is touched does, so the interactions
come from a uniform draw or from Gowalla.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from export.score import score_chunk
from pipeline.incremental import Incremental
from tests.android_app.harness.bundles import (
    FLOOR,
    Tiny,
    write_golden,
    write_manifest,
    write_programs,
)

DIM, BATCH, DENSITY, L2 = 64, 256, 0.1, 0.003
GOWALLA_USERS, GOWALLA_ITEMS, GOWALLA_PAIRS = 29_858, 40_981, 810_128
USER_EXPONENT, ITEM_EXPONENT = 0.67, 0.64
LOG_PAIRS = STEPS = 1_000_000
UPDATE_CHUNK = 8192
"""E, as an export chooses it for these sizes."""
BLOCK = 1 << 17
"""Distinct rows of a table; more are the same again, elsewhere in memory."""

Ints = NDArray[np.int32]


@dataclass(frozen=True)
class Log:
    """What a device trains on: user and item of each pair, int32 (n,), no pair twice."""

    users: Ints
    items: Ints


def uniform_log(num_users: int, num_items: int, seed: int) -> Log:
    """Draw ``LOG_PAIRS`` pairs, each as likely as any other."""
    random = np.random.default_rng(seed)
    drawn = np.unique(random.integers(0, num_users * num_items, LOG_PAIRS))
    users, items = np.divmod(random.permutation(drawn), num_items)
    return Log(users.astype(np.int32), items.astype(np.int32))


def gowalla_log(folder: Path) -> Log:
    """Read the interactions of Gowalla's ``train.txt``: ``user item item ...`` a line."""
    users: list[int] = []
    items: list[int] = []
    for line in (folder / "gowalla" / "train.txt").read_text().splitlines():
        user, *liked = map(int, line.split())
        users += [user] * len(liked)
        items += liked
    return Log(np.array(users, np.int32), np.array(items, np.int32))


def popular_log(num_users: int, num_items: int, gowalla: Log) -> Log:
    """Give Gowalla's interactions to rows that are anywhere in a table of this size.

    Ids are scattered over a larger table and folded into a smaller one; either way, how often the
    rows are touched falls off as in Gowalla. Pairs that fold into one are left out.
    """

    def places(ids: Ints, size: int) -> NDArray[np.int64]:
        known = int(ids.max()) + 1
        drawn = np.random.default_rng(size).permutation(size)
        return drawn[np.arange(known) % size][ids]

    pairs = places(gowalla.users, num_users) * num_items + places(gowalla.items, num_items)
    pairs = pairs[np.sort(np.unique(pairs, return_index=True)[1])]
    users, items = np.divmod(pairs, num_items)
    return Log(users.astype(np.int32), items.astype(np.int32))


def zipf_log(seed: int) -> Log:
    """Draw as many interactions as Gowalla has, popularity falling off as Zipf's law.

    The exponents are fits to the middle of Gowalla's rank-frequency curves.
    """
    random = np.random.default_rng(seed)

    def drawn(size: int, exponent: float) -> NDArray[np.int64]:
        weight = np.arange(1, size + 1) ** -exponent
        return random.choice(size, GOWALLA_PAIRS, p=weight / weight.sum())

    users, items = drawn(GOWALLA_USERS, USER_EXPONENT), drawn(GOWALLA_ITEMS, ITEM_EXPONENT)
    pairs = random.permutation(np.unique(users * GOWALLA_ITEMS + items))
    users, items = np.divmod(pairs, GOWALLA_ITEMS)
    return Log(users.astype(np.int32), items.astype(np.int32))


def write_bundle(
    folder: Path,
    num_users: int,
    num_items: int,
    log: Log,
    programs_of: Path | None = None,
    table_of: Path | None = None,
    ranked: int = 1,
    precision: Literal["float32", "float16"] = "float32",
    **training: Any,
) -> Path:
    """Write a bundle of ``num_users + num_items`` rows, all of them known.

    Args:
        folder: to make.
        num_users, num_items: of the table.
        log: to train on.
        programs_of: a bundle of as many items whose programs are taken over; an export takes
            seconds.
        table_of: a bundle of as many rows, whose table is shared.
        ranked: users for whom items are ranked.
        precision: of a new table's values.
        training: what differs from a device's defaults.
    """
    folder.mkdir(parents=True)
    rows = num_users + num_items
    if table_of is None:
        _write_table(folder / "table.safetensors", rows, precision)
    else:
        (folder / "table.safetensors").hardlink_to(table_of / "table.safetensors")
    sizes = Tiny(
        num_users=num_users,
        num_items=num_items,
        known_users=num_users,
        known_items=num_items,
        dim=DIM,
        density=DENSITY,
        exported_batch=BATCH,
        update_chunk=UPDATE_CHUNK,
        score_chunk=score_chunk(min(num_items, GOWALLA_ITEMS)),
        l2=L2,
        precision=precision,
        training={**_defaults(rows), **training},
    )
    later = _later(log, num_items, ranked)
    save_file(
        {
            "log_users": log.users,
            "log_items": log.items,
            "later_users": later.users,
            "later_items": later.items,
            "seen_ptr": np.zeros(num_users + 1, np.int32),
            "seen_items": np.zeros(0, np.int32),
        },
        folder / "interactions.safetensors",
    )
    (folder / "ids.safetensors").write_bytes(b"")
    write_golden(folder, sizes, [0.0])
    if programs_of is None:
        programs = write_programs(folder, sizes)
    else:
        for path in programs_of.glob("*.pte"):
            shutil.copy(path, folder)
        programs = json.loads((programs_of / "manifest.json").read_text())["programs"]
    write_manifest(folder, sizes, programs)
    return folder


def _later(log: Log, num_items: int, ranked: int) -> Log:
    """Give one pair that is not in the log for each of so many users, who are ranked for."""
    users = np.unique(log.users)[:ranked]
    unknown = [
        np.setdiff1d(np.arange(num_items), log.items[log.users == user])[0] for user in users
    ]
    return Log(users, np.array(unknown, np.int32))


def _defaults(rows: int) -> dict[str, Any]:
    device = Incremental()
    return {
        "optimizer": "sgd",
        "learning_rate": 1e-3,  # random gradients for thousands of steps: values stay small
        "l2": L2,
        "batch_size": BATCH,
        "steps": STEPS,
        "seed": device.seed,
        "window": device.window_of(rows, STEPS),
        "sampled_fraction": device.fraction_of(rows),
        "exchange_fraction": device.exchange_fraction,
        "exchange_stop": device.exchange_stop,
        "negative_tries": device.negative_tries,
    }


def _write_table(path: Path, rows: int, precision: str) -> None:
    """Write a table with random entries at ``DENSITY``: a block of rows, over and over."""
    random = np.random.default_rng(rows)
    size = min(rows, BLOCK)
    spread = 8
    counts = FLOOR + random.binomial(spread, (DENSITY * DIM - FLOOR) / spread, size)
    ranked = random.random((size, DIM), np.float32).argsort(axis=1)
    active = ranked < counts[:, None]  # each row has the columns of the lowest ranks
    columns = np.nonzero(active)[1].astype(np.uint8)
    values = (0.1 * random.standard_normal(len(columns), np.float32)).astype(precision)
    row_ptr = np.zeros(rows + 1, np.int32)
    np.cumsum(np.resize(counts, rows), out=row_ptr[1:])
    entries = int(row_ptr[-1])
    tensors = {"cols": np.resize(columns, entries), "vals": np.resize(values, entries)}
    save_file({"row_ptr": row_ptr, **tensors}, path)
