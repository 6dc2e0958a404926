"""Bundles to compare SparseRec's step with a dense table's on a device: `sparse-vs-dense`.

Values and interactions are random, since no time depends on them; sizes and densities are what is
asked for. Everything else is an ordinary bundle's.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from export.build import Built, build
from export.dense_trainers import dense_programs, forward_program
from pipeline.data.split import Pairs, Split
from pipeline.incremental import Incremental
from pipeline.nmf import random_table
from pipeline.recipes import sparserec
from pipeline.run import TrainedRun
from sparserec.progress import Progress, silent

USER_SHARE = 0.4
"""As in Gowalla, of whose 70,839 rows 29,858 are users'."""
LOG_PAIRS = 20_000
LATER_PAIRS = 20
FLOOR = 2
STD = 0.1
RATE_PER_TRIPLE = 0.05
"""Learning rate on the mean loss, for each triple of a batch: chance has nothing to teach, and the
values must not run away."""


def comparison_bundle(
    out: Path,
    rows: int,
    density: float,
    dim: int = 64,
    batch_size: int = 256,
    steps: int = 200,
    seed: int = 1,
    progress: Progress = silent,
) -> Built:
    """Write a bundle with a random table of ``rows`` rows.

    Args:
        out: the bundle's folder.
        rows: N, users and items.
        density: of the table; at 1 the bundle also has the dense programs, with the same values.
        dim: d.
        batch_size: triples a step.
        steps: that a run does.
        seed: of values, mask and interactions.
        progress: gets the stages.
    """
    users = max(1, round(USER_SHARE * rows))
    table = random_table(users, rows - users, dim, density, FLOOR, STD, seed)
    rate = RATE_PER_TRIPLE * batch_size
    recipe = replace(Incremental(), batch_size=batch_size, seed=seed, learning_rate=rate)
    others = {"forward": forward_program(batch_size, dim, recipe.l2)}
    if density == 1:
        dense = torch.from_numpy(table.dense(0, rows))
        others |= dense_programs(dense, batch_size, recipe.l2, recipe.learning_rate)
    run = TrainedRun(
        dataset=f"random-{rows}",
        source_sha256="0" * 64,
        recipe=replace(sparserec(), dim=dim, density=density),
        table=table,
        dense={},
        split=_split(users, rows - users, seed),
        metrics={},
        history=[],
    )
    return build(run, out, recipe, steps, 0, 0, progress, others)


def _split(users: int, items: int, seed: int) -> Split:
    """A log of distinct pairs, each as likely as any other; a past of one pair; a later few."""
    rng = np.random.default_rng(seed)
    count = min(LOG_PAIRS + LATER_PAIRS + 1, users * items)
    drawn = rng.permutation(np.unique(rng.integers(0, users * items, 2 * count)))[:count]
    pairs = [part.astype(np.int32) for part in np.divmod(drawn, items)]

    def part(start: int, stop: int) -> Pairs:
        return Pairs(pairs[0][start:stop], pairs[1][start:stop], None)

    later = 1 + LATER_PAIRS
    return Split(
        train=part(0, 1),
        valid=part(0, 0),
        log=part(later, len(drawn)),
        later=part(1, later),
        user_ids=[f"u{k}" for k in range(users)],
        item_ids=[f"i{k}" for k in range(items)],
        known_users=users,
        known_items=items,
        dropped_later=0,
    )
