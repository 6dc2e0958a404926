"""How large a delta is beside its bundle: ``python -m tests.bench.delta_size``.

A run of the host is exported before and after each of these, and the delta between the two bundles
is written, as ``sparserec export --since`` does it:

- MF, one more epoch of training on the whole past;
- MF, the device's log of 1% of the users, with known items, learnt by ``partial_fit``;
- NeuMF, other dense parameters and the same table.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from export.build import assemble, build
from export.delta import RESULT, ROWS, write_delta
from pipeline import SparseRec
from pipeline.data.commands import ensure
from pipeline.data.datasets import load
from pipeline.data.split import Pairs, Split
from pipeline.fit import fit, known_only
from pipeline.incremental import Incremental
from pipeline.matrices import matrix_of
from pipeline.models import ModelName
from pipeline.recipes import sparserec
from pipeline.run import TrainedRun
from pipeline.sampling import join
from pipeline.saved import Saved, write
from pipeline.train import Trainer

SHARE_OF_USERS = 0.01


def main() -> int:
    """Measure and print a row for each delta, and one for each file that it ships."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="ml-100k", help="a named one with times")
    parser.add_argument(
        "--epochs", type=int, default=10, help="of training before the first export"
    )
    parser.add_argument("--yes", action="store_true", help="accept the dataset's terms")
    options = parser.parse_args()
    ensure(options.dataset, options.yes)
    data = load(options.dataset)
    split = data.split()
    print("| what happened | file | delta, bytes | bundle, bytes | share |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="delta-size-") as name:
        folder = Path(name)
        before, after = epochs(data.name, split, "mf", options.epochs)
        build(before, folder / "mf", Incremental.of("mf"))
        show("MF, one more epoch", folder / "mf", after, folder / "delta")
        learnt = learn(before, folder / "model.safetensors")
        show("MF, 1% of the users", folder / "mf", learnt, folder / "delta")
        before, after = epochs(data.name, split, "neumf", options.epochs)
        build(before, folder / "neumf", Incremental.of("neumf"))
        dense = replace(before, dense=after.dense)
        show("NeuMF, dense parameters", folder / "neumf", dense, folder / "delta")
    return 0


def epochs(
    dataset: str, split: Split, model: ModelName, count: int
) -> tuple[TrainedRun, TrainedRun]:
    """Train ``count`` epochs, and one more."""
    recipe = sparserec()
    recipe = replace(recipe, epochs=count + 1, step=replace(recipe.step, model=model))
    runs: list[TrainedRun] = []

    def snapshot(trainer: Trainer) -> dict[str, float]:
        dense = {name: values.copy() for name, values in trainer.dense.items()}
        table = trainer.table.copy()
        runs.append(TrainedRun(dataset, "0" * 64, recipe, table, dense, split, {}, []))
        return {}

    fit(recipe, split, observe=snapshot)
    return runs[-2], runs[-1]


def learn(before: TrainedRun, path: Path) -> TrainedRun:
    """Learn what 1% of the users did next, and take it out of the device's log."""
    split, table = before.split, before.table
    chosen = np.random.default_rng(1).choice(
        split.known_users, round(SHARE_OF_USERS * split.known_users), replace=False
    )
    among = np.isin(split.log.users, chosen) & (split.log.items < split.known_items)
    new = known_only(Pairs(split.log.users[among], split.log.items[among], None), split)
    rest = Pairs(split.log.users[~among], split.log.items[~among], None)
    seen = join(split.train, split.valid)
    ids = split.user_ids[: table.num_users], split.item_ids[: table.num_items]
    write(path, Saved(before.recipe, table, before.dense, seen, len(split.train), *ids, []))
    model = SparseRec.load(path)
    matrix = matrix_of(join(seen, new), (table.num_users, table.num_items))
    model.partial_fit(matrix, show_progress=False)
    print(f"1% of the users: {len(chosen)} users, {len(new)} interactions", file=sys.stderr)
    learnt = replace(split, train=join(split.train, new), log=rest)
    return replace(before, table=model.table, split=learnt)


def show(what: str, base: Path, run: TrainedRun, out: Path) -> None:
    """Write the delta to a run's bundle, and print what it takes."""
    made = assemble(run, Incremental.of(run.recipe.step.model))
    delta = write_delta(base, made.manifest, made.files, out)
    sizes = {name: info.bytes for name, info in made.manifest.files.items()}
    sizes["manifest.json"] = delta.files[RESULT].bytes
    rows = [("all", sum(info.bytes for info in delta.files.values()), sum(sizes.values()))]
    for name, info in delta.files.items():
        of = "manifest.json" if name == RESULT else name.removeprefix(ROWS)
        rows.append(
            (f"{of}, {'rows' if name.startswith(ROWS) else 'whole'}", info.bytes, sizes[of])
        )
    for name, shipped, whole in rows:
        print(f"| {what} | {name} | {shipped:,} | {whole:,} | {shipped / whole:.1%} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
