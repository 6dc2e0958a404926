"""What the harness's whole loop costs: beside the graph alone, and as the table grows."""

from __future__ import annotations

import json
import math
import os
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from pipeline.data.datasets import DATA_VARIABLE
from pipeline.incremental import WINDOW, Incremental
from tests.bench.bundles import (
    GOWALLA_ITEMS,
    GOWALLA_USERS,
    STEPS,
    Log,
    gowalla_log,
    popular_log,
    uniform_log,
    write_bundle,
    zipf_log,
)
from tests.bench.jvm import Jvm
from tests.bench.measure import Result, Timed, by_turns, compared

SMALL, LARGE = 10**4, 10**7
USER_SHARE = 0.4
MOST_STEPS = 10_000
WARM, MEASURED = 80, 40
"""Windows of ``WINDOW`` steps before a share is measured, and that it is measured over; of longer
ones as many steps. What comes once in a window is interpreted still after ten of them, and takes
four times as long as after eighty."""


def popularity() -> tuple[str, Log]:
    """Give Gowalla's interactions, or a fit where they are not at hand; and which of them it is."""
    folder = os.environ.get(DATA_VARIABLE)
    if folder and (Path(folder) / "gowalla" / "train.txt").exists():
        return "gowalla", gowalla_log(Path(folder))
    return "zipf", zipf_log(1)


def write_gowalla(folder: Path, log: Log) -> Path:
    """Write the bundle of Gowalla's sizes."""
    return write_bundle(folder / "gowalla", GOWALLA_USERS, GOWALLA_ITEMS, log)


def graph_share(jvm: Jvm, bundle: Path, name: str, target: float) -> Result:
    """Measure what part of the loop's processor time the graph is; its wall time is in ``metrics``.

    The loop is whole windows, each with its drawing of rows and its mask update. Processor time,
    because a mask update takes milliseconds, in which a busy machine runs something else as well.

    Args:
        jvm: to run in.
        bundle: to train.
        name: of the result.
        target: least part that the project aims at.
    """
    window: int = json.loads((bundle / "manifest.json").read_text())["training"]["window"]
    warm = math.ceil(WARM * WINDOW / window)
    windows = math.ceil(MEASURED * WINDOW / window)
    jvm.ask("loop", bundle.name, bundle, MOST_STEPS)
    jvm.time(f"{bundle.name} step", warm * window)
    taken = jvm.ask("share", bundle.name, windows, window)
    samples = {
        f"{part} us": [ns / 1000 / window for ns in of] for part, of in taken.items()
    }  # a step's
    share = median(taken["graph"]) / median(taken["loop"])
    return Result(name, share, None, "fraction", target, samples)


def parts(metrics: dict[str, Any]) -> dict[str, float]:
    """Give the medians in microseconds of a loop's parts."""
    return {
        name.replace("_ns", "_us"): of["p50"] / 1000 for name, of in metrics.items() if of["count"]
    }


def growth(
    jvm: Jvm, folder: Path, programs: Path, access: str, gowalla: Log | None
) -> tuple[list[Result], dict[str, dict[str, float]]]:
    """Compare steps at 10^7 rows with steps at 10^4 rows; returns also the parts of both.

    Args:
        jvm: to run in.
        folder: for the bundles.
        programs: a bundle whose programs are taken.
        access: what the bundles are called by.
        gowalla: whose popularity the rows have; None draws them uniformly.
    """
    names = {rows: f"{access}-{rows}" for rows in (SMALL, LARGE)}
    for rows, name in names.items():
        users = int(USER_SHARE * rows)
        items = rows - users
        if gowalla is None:
            log = uniform_log(users, items, 1)
        else:
            log = popular_log(users, items, gowalla)
        uniform = folder / f"uniform-{rows}"
        write_bundle(
            folder / name,
            users,
            items,
            log,
            programs,
            table_of=uniform if uniform.exists() else None,
            exchange_stop=0.0,  # a mask update moves the whole table; it is no part of a step
        )
        jvm.ask("loop", name, folder / name, MOST_STEPS)
        jvm.time(f"{name} step", 2000)  # a page that is written the first time is copied
    steps: dict[str, tuple[Timed, int]] = {
        "ours": (partial(jvm.time, f"{names[LARGE]} step"), 100),
        "peer": (partial(jvm.time, f"{names[SMALL]} step"), 100),
    }
    samples = by_turns(steps, 10)
    suffix, target = ("", 1 / 2) if gowalla is None else (f"_{access}", 1 / 1.2)
    metrics = {rows: jvm.ask("metrics", name) for rows, name in names.items()}
    graphs = {rows: _graph(of)[-1000:] for rows, of in metrics.items()}
    reads: dict[str, tuple[Timed, int]] = {  # last: they bring near what the next step reads
        "ours": (partial(jvm.ask, "accesses", names[LARGE]), 100),
        "peer": (partial(jvm.ask, "accesses", names[SMALL]), 100),
    }
    jvm.ask("accesses", names[SMALL], 2000)  # compiled by then
    accesses = by_turns(reads, 10)
    results = [
        compared(f"step_1e7_vs_1e4_rows{suffix}", **samples, target=target),
        compared(f"graph_1e7_vs_1e4_rows{suffix}", graphs[LARGE], graphs[SMALL]),
        compared(f"access_1e7_vs_1e4_rows{suffix}", **accesses),
    ]
    return results, {names[rows]: parts(of) for rows, of in metrics.items()}


def whole_loop(jvm: Jvm, folder: Path, programs: Path) -> Result:
    """Compare loops at 10^7 and 10^4 rows, mask updates and all, in processor time a step.

    Args:
        jvm: to run in.
        folder: where ``growth`` left its uniform bundles.
        programs: a bundle whose programs are taken.
    """
    taken: dict[int, list[int]] = {}
    for rows in (SMALL, LARGE):
        name = f"updated-{rows}"
        users = int(USER_SHARE * rows)
        items = rows - users
        log = uniform_log(users, items, 1)
        table = folder / f"uniform-{rows}"
        write_bundle(folder / name, users, items, log, programs, table_of=table)
        window = Incremental().window_of(rows, STEPS)
        warm, windows = (2, 3) if rows == LARGE else (80, 40)
        jvm.ask("loop", name, folder / name, (warm + windows) * window)
        jvm.time(f"{name} step", warm * window)
        loops = jvm.ask("share", name, windows, window)["loop"]
        taken[rows] = [ns // window for ns in loops]
    return compared("loop_1e7_vs_1e4_rows", taken[LARGE], taken[SMALL])


def _graph(metrics: dict[str, Any]) -> list[int]:
    """Give the nanoseconds of the graph in every step."""
    both = zip(metrics["gradients_ns"]["runs"], metrics["update_ns"]["runs"], strict=True)
    return [gradients + update for gradients, update in both]
