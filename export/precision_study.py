"""What a precision costs and saves: ``python -m export.precision_study RUN...``.

For each run that ``sparserec train`` wrote, a device's whole run is repeated on the host in each
precision. It chooses nothing: the numbers on the later interactions are what a device would report.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from export import layout
from pipeline.evaluate import evaluate
from pipeline.incremental import Incremental, device_recommender, incremental_trainer
from pipeline.precision import Precision, Rounding, decoded, encoded
from pipeline.run import TrainedRun, load_run
from pipeline.sampling import join

CASES: tuple[tuple[Precision, Rounding], ...] = (
    ("float32", "stochastic"),
    ("float16", "stochastic"),
    ("int8", "stochastic"),
    ("int8", "nearest"),
)
SEEDS = 3


def study(run: TrainedRun, precision: Precision, rounding: Rounding, seed: int) -> list[float]:
    """Learn on from a run as a device does.

    Returns:
        Recall@20 on the later interactions before and after, and the table's bytes.
    """
    split, step = run.split, run.recipe.step
    recipe = replace(
        Incremental.of(step.model, step.loss), floor=step.floor, precision=precision, seed=seed
    )
    users, items = layout.capacity(split.num_users, None), layout.capacity(split.num_items, None)
    table = layout.with_spare_rows(run.table, users, items, recipe.floor)
    stored = encoded(table, precision)
    table.vals = decoded(table, stored)
    tensors = layout.table_tensors(table, stored, run.dense)
    seen, known = layout.past(split), split.num_items
    steps = recipe.steps(len(split.log))
    trainer = incremental_trainer(table, split.log, seen, known, recipe, steps, run.dense)
    trainer.config = replace(trainer.config, rounding=rounding)
    hidden, recalls = join(seen, split.log), []
    for count in (0, steps):
        for _ in range(count):
            trainer.run_step()
        current = device_recommender(trainer.table, recipe, seen, trainer.dense)
        recalls.append(evaluate(current, split.later, hidden, known).recall[20])
    return [*recalls, float(sum(array.nbytes for array in tensors.values()))]


def main() -> None:
    """Print a table for each run."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for name in sys.argv[1:]:
        run = load_run(Path(name))
        title = f"{run.dataset}, {run.recipe.step.model}: Recall@20, mean of {SEEDS} seeds"
        shown = Table("precision", "rounding", "before", "after", "table bytes", title=title)
        for precision, rounding in CASES:
            found = [study(run, precision, rounding, seed) for seed in range(1, SEEDS + 1)]
            before, _, size = found[0]
            after = [values[1] for values in found]
            spread = f"{sum(after) / SEEDS:.4f} ({min(after):.4f} to {max(after):.4f})"
            how = rounding if precision == "int8" else ""
            shown.add_row(precision, how, f"{before:.4f}", spread, f"{int(size):,}")
            console.print(f"{precision} {how} done", style="dim")
        console.print(shown)


if __name__ == "__main__":
    main()
