"""What a device's window costs and gains: ``python -m pipeline.window_study DATASET [WINDOW...]``.

An MF table is trained on seven tenths of each user's train interactions and learns on from two
tenths as a device does, at each window; the last tenth judges. The dataset's test part is not used.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from statistics import mean

import numpy as np

from pipeline.data.datasets import load
from pipeline.data.split import Pairs, Split, leave_out
from pipeline.evaluate import evaluate
from pipeline.fit import fit, known_only
from pipeline.incremental import Incremental, incremental_trainer
from pipeline.recipes import Recipe, sparserec
from pipeline.recommender import Recommender
from pipeline.sampling import join
from pipeline.table import PackedTable

WINDOWS = (25, 50, 100, 200, 300, 400, 800)
SEEDS = (1, 2, 3)
EPOCHS = 6
MOST_USERS = 4000


def host_recipe() -> Recipe:
    """Give the host's run: short, because the device's is what is looked at."""
    recipe = sparserec()
    return replace(recipe, step=replace(recipe.step, batch_size=8192), epochs=5, valid_users=4000)


class Device:
    """A device that learns on from a table, and what judges it."""

    def __init__(self, table: PackedTable, split: Split) -> None:
        self.table, self.known_items = table, split.known_items
        self.past = join(split.train, split.valid)
        self.log, self.later = known_only(split.log, split), known_only(split.later, split)
        users = np.random.default_rng(0).permutation(np.unique(self.later.users))
        self.users = np.sort(users[:MOST_USERS])

    def recall(self, table: PackedTable) -> float:
        """Give Recall@20 on what comes after the log."""
        hidden: Pairs = join(self.past, self.log)
        found = evaluate(Recommender(table), self.later, hidden, self.known_items, self.users)
        return found.recall[20]

    def learn(self, window: int | None, seed: int) -> tuple[float, int]:
        """Learn from the log; None keeps the mask.

        Returns:
            Recall@20 after it, and the entries exchanged.
        """
        recipe = replace(Incremental(), window=window, seed=seed, epochs=EPOCHS)
        if window is None:
            recipe = replace(recipe, exchange_stop=0.0)
        steps = recipe.steps(len(self.log))
        trainer = incremental_trainer(
            self.table, self.log, self.past, self.known_items, recipe, steps
        )
        for _ in range(steps):
            trainer.run_step()
        return self.recall(trainer.table), trainer.exchanged


def main() -> None:
    """Print a table."""
    from rich.console import Console
    from rich.table import Table

    name, *given = sys.argv[1:]
    split = leave_out(load(name).interactions, valid=0.1, log=0.2, later=0.1)
    device = Device(fit(host_recipe(), split).table, split)
    num_rows, slots = device.table.num_rows, Incremental().batch_slots
    title = f"{name}, {num_rows:,} rows: Recall@20 {device.recall(device.table):.4f} before the log"
    shown = Table("window", "slots a row", "exchanged", "after it, mean of seeds", title=title)
    console = Console()
    for window in (None, *([int(text) for text in given] or WINDOWS)):
        found = [device.learn(window, seed) for seed in SEEDS]
        after = [recall for recall, _ in found]
        shown.add_row(
            "none" if window is None else str(window),
            "" if window is None else f"{window * slots / num_rows:.2f}",
            f"{found[0][1]:,}",
            f"{mean(after):.4f} ({min(after):.4f} to {max(after):.4f})",
        )
        console.print(f"window {window} done", style="dim")
    console.print(shown)


if __name__ == "__main__":
    main()
