"""The benchmark: ``python -m tests.bench``. docs/performance.md says what it shows."""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from safetensors.numpy import load_file

from sparserec.progress import Progress, bars
from tests.bench import floor, loops, models, peers
from tests.bench.bundles import (
    BATCH,
    DIM,
    GOWALLA_ITEMS,
    GOWALLA_USERS,
    L2,
    Log,
    uniform_log,
    write_bundle,
)
from tests.bench.jvm import Jvm, Runtime
from tests.bench.measure import Result, Timed, by_turns, compared, timed

ROWS = GOWALLA_USERS + GOWALLA_ITEMS
FEW_USERS, FEW_ITEMS = 400, 600
DEVICE_LOG = 20_000
"""Interactions in the log of the memory comparison, as one device may have."""
RANKED, RANKED_AT_ONCE = 256, 64
"""Users of an evaluation, and those for whom its peer ranks by one product."""
WIDTH = 110
"""Columns of the table, in a log."""
HEAP = "-Xmx3g"
LITTLE_HEAP = ("-XX:+UseSerialGC", "-Xmx256m", "-Xmn2m")


def main() -> int:
    """Measure everything, print the table, and write ``bench.json`` and ``machine.json``."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    out: Path = parser.parse_args().out
    torch.set_num_threads(1)
    torch.manual_seed(0)
    out.mkdir(parents=True, exist_ok=True)
    found = Found(out)
    with tempfile.TemporaryDirectory(prefix="sparserec-bench-") as folder, bars() as progress:
        _measure(Path(folder), progress, found)
    _show(found.results, found.about)
    return 0


def _measure(folder: Path, progress: Progress, found: Found) -> None:
    """Take everything in turn: results, and what is known of machine and loop."""
    about = found.about
    about |= {"system": platform.platform(), "machine": floor.machine()}
    runtime = Runtime(folder)
    about["popularity"], log = loops.popularity()
    gowalla = loops.write_gowalla(folder, log)
    with Jvm(runtime, HEAP) as jvm:
        for step in models.model_steps():
            progress(f"step of {step.name}", 0, None)
            models.load(jvm, folder, step)
            against = models.against_eager(jvm, step)
            needs = about[f"{step.name}_step"] = floor.step(step.methods)
            least = floor.least_us(needs, about["machine"])
            found.add(against, Result(f"{step.name}_step_vs_floor", against.ours, least, "us"))
        progress("loop and peers", 0, None)
        found.add(*_against_training_module(jvm, folder, gowalla))
        about["loop"] = loops.parts(jvm.ask("metrics", gowalla.name))
        found.add(*_score(jvm, folder, gowalla, log))
        about["allocated_bytes_of_1000_steps"] = jvm.ask("allocation", gowalla.name, 1000)
        small = write_bundle(folder / "small", 4000, 6000, uniform_log(4000, 6000, 1), gowalla)
        found.add(loops.graph_share(jvm, small, "graph_share_of_loop_1e4_rows", 0.5))
    for name in models.TRAINED:
        progress(f"loop of {name}", 0, None)
        bundle = models.write_model_bundle(folder, name)
        with Jvm(runtime, HEAP) as jvm:  # of its own: a device's process trains one bundle
            found.add(loops.graph_share(jvm, bundle, f"{name}_graph_share_of_loop", 0.8))
            about[f"{name}_loop"] = loops.parts(jvm.ask("metrics", bundle.name))
    progress("memory", 0, None)
    found.add(*_memory(runtime, folder, gowalla, log))
    with Jvm(runtime, HEAP) as jvm:
        progress("updates of the optimizers", 0, None)
        found.add(*models.updates(jvm, folder))
        for access, of in (("uniform", None), (about["popularity"], log)):
            progress(f"tables, {access}", 0, None)
            results, about[access] = loops.growth(jvm, folder, gowalla, access, of)
            found.add(*results)
        progress("tables and mask updates", 0, None)
        found.add(loops.whole_loop(jvm, folder, gowalla))


class Found:
    """What has been measured, written as it grows: a run that is stopped keeps what it has.

    Attributes:
        results: of ``bench.json``.
        about: of ``machine.json``.
    """

    def __init__(self, out: Path) -> None:
        self.results: list[Result] = []
        self.about: dict[str, Any] = {}
        self._out = out

    def add(self, *results: Result) -> None:
        """Take results, and write both files."""
        self.results += results
        found = json.dumps([result.to_json() for result in self.results])
        (self._out / "bench.json").write_text(found + "\n")
        (self._out / "machine.json").write_text(json.dumps(self.about, indent=2) + "\n")


def _against_training_module(jvm: Jvm, folder: Path, gowalla: Path) -> list[Result]:
    """Compare the step, and the whole loop around it, with ExecuTorch's own way to train.

    That trains the whole dense table, rows being looked up and written inside its program; so the
    loop is what does as much as it does, and the step is what takes its arithmetic's place. Two
    other ways to write the same model are beside the first, and programs that are called as the
    step is and calculate nothing (docs/performance.md).
    """
    programs = {
        "training": (peers.joint_table(ROWS, DIM, BATCH, L2), ROWS),
        "two tables": (
            peers.two_tables(GOWALLA_USERS, GOWALLA_ITEMS, DIM, BATCH, L2),
            GOWALLA_USERS,
        ),
        "one lookup": (peers.one_lookup(ROWS, DIM, BATCH, L2), ROWS),
    }
    bare = models.bare(models.mf_step())
    models.load(jvm, folder, bare)
    sides: dict[str, tuple[Timed, int]] = {
        "ours": (partial(jvm.time, "mf"), 50),
        "bare": (partial(jvm.time, bare.name), 50),
    }
    for name, (program, rows) in programs.items():
        path = folder / f"{name}.pte"
        path.write_bytes(program)
        jvm.ask("training", name, path, rows, BATCH)
        sides[name] = (partial(jvm.time, name), 2)
    samples = by_turns(sides, 30)
    share = loops.graph_share(jvm, gowalla, "graph_share_of_loop", 0.5)
    steps = jvm.ask("metrics", gowalla.name)["train_step_ns"]["runs"][-2000:]
    return [
        compared("mf_step_vs_trainingmodule", samples["ours"], samples["training"], target=500),
        compared("mf_step_vs_trainingmodule_two_tables", samples["ours"], samples["two tables"]),
        compared("mf_step_vs_trainingmodule_one_lookup", samples["ours"], samples["one lookup"]),
        compared("mf_bare_call_vs_trainingmodule", samples["bare"], samples["training"]),
        compared("mf_loop_vs_trainingmodule", steps, samples["training"]),
        share,
    ]


def _score(jvm: Jvm, folder: Path, gowalla: Path, log: Log) -> list[Result]:
    """Compare the best 20 of all items, a user's, from the packed table and from a dense one.

    First as an evaluation ranks for many users, both sides for some of them at once, and likewise
    from a table whose values are float16; then for one user alone.
    """
    gowalla_of = partial(
        write_bundle, num_users=GOWALLA_USERS, num_items=GOWALLA_ITEMS, log=log, programs_of=gowalla
    )
    whole = gowalla_of(folder / "score", table_of=gowalla, ranked=RANKED)
    half = gowalla_of(folder / "score_float16", ranked=RANKED, precision="float16")
    alone = gowalla_of(folder / "score_alone", table_of=gowalla)
    return [
        _score_time(jvm, whole, RANKED, 1),
        _score_bytes(whole),
        _score_time(jvm, half, RANKED, 1),
        _score_bytes(half),
        _score_time(jvm, alone, 1, None),
    ]


def _score_time(jvm: Jvm, bundle: Path, ranked: int, target: float | None) -> Result:
    """Compare the time that a user's best items take."""
    name = bundle.name
    jvm.ask("loop", name, bundle, 1)
    at_once = min(ranked, RANKED_AT_ONCE)
    eager = timed(peers.eager_top(GOWALLA_USERS, GOWALLA_ITEMS, DIM, 20, at_once))
    evaluation = partial(jvm.time, f"{name} evaluation")
    samples = by_turns(
        {
            "ours": (_each(evaluation, ranked), max(1, 10 // ranked)),
            "peer": (_each(eager, at_once), max(1, 10 // at_once)),
        },
        30,
    )
    return compared(f"{name}_vs_dense", **samples, target=target)


def _each(work: Timed, users: int) -> Timed:
    """Give the time of one of the users that ``work`` is for."""
    return lambda count: [taken // users for taken in work(count)]


def _score_bytes(bundle: Path) -> Result:
    """Compare what holds the items: the packed table's part of them, and a dense float32 one."""
    table = load_file(bundle / "table.safetensors")
    ptr = table["row_ptr"][GOWALLA_USERS:]
    entry = table["cols"].itemsize + table["vals"].itemsize
    packed, dense = ptr.nbytes + int(ptr[-1] - ptr[0]) * entry, GOWALLA_ITEMS * DIM * 4
    return Result(f"{bundle.name}_bytes_vs_dense", packed / 1024, dense / 1024, "kB", 10)


def _memory(runtime: Runtime, folder: Path, gowalla: Path, log: Log) -> list[Result]:
    """Compare how much a table of Gowalla's size adds to the peak of a process that trains.

    Each process first trains a small table, so that what the JVM takes for classes and compiled
    code does not count. A second small table in place of the large one gives what does not depend
    on the table.
    """
    few = Log(log.users[:DEVICE_LOG] % FEW_USERS, log.items[:DEVICE_LOG] % FEW_ITEMS)
    unique = sorted({*zip(few.users.tolist(), few.items.tolist(), strict=True)})
    small = write_bundle(folder / "few", FEW_USERS, FEW_ITEMS, _log(unique), gowalla)
    spread = range(0, len(log.users), max(1, len(log.users) // DEVICE_LOG))
    pairs = [(int(log.users[k]), int(log.items[k])) for k in spread]
    device = write_bundle(
        folder / "device", GOWALLA_USERS, GOWALLA_ITEMS, _log(pairs), gowalla, table_of=gowalla
    )
    (folder / "small.pte").write_bytes(peers.joint_table(1000, DIM, BATCH, L2))
    ours, few_again, theirs = [], [], []
    for _ in range(3):
        with Jvm(runtime, *LITTLE_HEAP) as jvm:
            few_again.append(
                _growth(jvm, ("loop", "a", small, 200), ("loop", "b", small, 60), " step")
            )
        with Jvm(runtime, *LITTLE_HEAP) as jvm:
            ours.append(_growth(jvm, ("loop", "a", small, 200), ("loop", "b", device, 60), " step"))
        with Jvm(runtime, *LITTLE_HEAP) as jvm:
            first = ("training", "a", folder / "small.pte", 1000, BATCH)
            theirs.append(
                _growth(jvm, first, ("training", "b", folder / "training.pte", ROWS, BATCH))
            )
    names = "mf_memory_vs_trainingmodule", "mf_memory_of_1000_rows_vs_trainingmodule"
    return [
        Result(name, median(one), median(theirs), "kB", aim, {"ours": one, "peer": theirs})
        for name, one, aim in zip(names, (ours, few_again), (20, None), strict=True)
    ]


def _log(pairs: list[tuple[int, int]]) -> Log:
    users, items = np.array(pairs, np.int32).T.copy()
    return Log(users, items)


def _growth(
    jvm: Jvm, small: tuple[object, ...], large: tuple[object, ...], work: str = ""
) -> float:
    """Give kB from what a process that trained ``small`` has to its peak in training ``large``.

    That is for a window's steps and the next one's first: with its sums and its mask update.
    """
    jvm.ask(*small)
    jvm.time(f"{small[1]}{work}", 200)
    before = jvm.ask("memory")["now"]
    jvm.ask(*large)
    jvm.time(f"{large[1]}{work}", 60)
    return float(jvm.ask("memory")["peak"] - before)


def _show(results: list[Result], about: dict[str, Any]) -> None:
    table = Table("", "ours", "peer", "unit", "ratio", "aim")
    table.columns[0].no_wrap = True
    for column in (1, 2, 4, 5):
        table.columns[column].justify = "right"
    for one in results:
        peer = "" if one.peer is None else f"{one.peer:,.1f}"
        aim = "" if one.target is None else f"{one.target:.3g}"
        table.add_row(one.name, f"{one.ours:,.2f}", peer, one.unit, f"{one.ratio:.3g}", aim)
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)  # a log must have its numbers whole
    console.print(table)
    console.print_json(json.dumps(about))


if __name__ == "__main__":
    raise SystemExit(main())
