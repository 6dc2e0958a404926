"""What the host computes so that a device can be judged: ``golden.json``."""

from __future__ import annotations

import math
from typing import Any

from pipeline.data.split import Pairs
from pipeline.evaluate import evaluate
from pipeline.incremental import Incremental, device_recommender, incremental_trainer
from pipeline.sampling import join
from pipeline.table import F32, PackedTable
from sparserec.errors import SparseRecError

TOLERANCE = 1e-4
STEPS_PAST_UPDATES = 20
"""Steps after the second mask update: a wrong exchange shows in their losses."""


def golden(
    table: PackedTable,
    log: Pairs,
    later: Pairs,
    seen: Pairs,
    known_items: int,
    recipe: Incremental,
    steps: int,
    dense: dict[str, F32] | None = None,
) -> dict[str, Any]:
    """Run the host's trainer for the first steps of the device's run.

    Args:
        table: in the bundle's layout; it is not changed.
        log: what the device trains on.
        later: what comes after it, not empty.
        seen: the host's past.
        known_items: items [0, known_items) exist.
        recipe: of the device's run.
        steps: length of the device's run.
        dense: the model's dense parameters.

    Returns:
        The content of ``golden.json``. Its steps reach past two mask updates where the run does.

    Raises:
        SparseRecError: a loss is not finite, so a device could not train either.
    """
    trainer = incremental_trainer(table, log, seen, known_items, recipe, steps, dense)
    count = min(steps, 2 * recipe.window_of(table.num_rows, steps) + STEPS_PAST_UPDATES)
    losses: list[float] = []
    for step in range(count):
        losses.append(trainer.run_step())
        if not math.isfinite(losses[-1]):
            raise SparseRecError(
                f"training diverges: the loss of step {step + 1} is {losses[-1]},"
                f" at learning rate {recipe.learning_rate:g} and l2 {recipe.l2:g}",
                "lower --learning-rate, or --l2 where that is large",
            )
    before = device_recommender(table, recipe, seen, dense or {})
    quality = evaluate(before, later, join(seen, log), known_items)
    return {
        "seed": recipe.seed,
        "steps": count,
        "batch_size": recipe.batch_size,
        "losses": losses,
        "tolerance": TOLERANCE,
        "quality_before": {
            "recall@20": quality.recall[20],
            "ndcg@20": quality.ndcg[20],
            "users": len(quality.users),
        },
    }
