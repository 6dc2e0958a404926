from dataclasses import replace

import numpy as np

from pipeline.data.split import temporal_split
from pipeline.data.synthetic import generate
from pipeline.evaluate import evaluate
from pipeline.fit import fit, known_only
from pipeline.incremental import Incremental, incremental_trainer
from pipeline.recipes import sparserec
from pipeline.recommender import Recommender
from pipeline.sampling import join
from pipeline.tune import DEVICE_GRID, device_trials

SPLIT = temporal_split(generate(200, 300, 20000, seed=3))
SMALL = replace(sparserec(), dim=32, epochs=4, window=7)


def test_learning_on_raises_recall_on_what_comes_after() -> None:
    table = fit(SMALL, SPLIT).table
    past, known = join(SPLIT.train, SPLIT.valid), SPLIT.known_items
    log, later = known_only(SPLIT.log, SPLIT), known_only(SPLIT.later, SPLIT)
    recipe = Incremental(learning_rate=5.0, batch_size=128, window=10)
    trainer = incremental_trainer(table, log, past, known, recipe, recipe.steps(len(log)))
    before = table.vals.copy()
    while trainer.step < recipe.steps(len(log)):
        trainer.run_step()
    np.testing.assert_array_equal(table.vals, before)  # the given table is copied
    assert trainer.exchanged > 0
    assert trainer.table.nnz == table.nnz
    seen = join(past, log)
    first = evaluate(Recommender(table), later, seen, known).recall[20]
    assert evaluate(Recommender(trainer.table), later, seen, known).recall[20] > first


def test_the_device_is_tuned_on_the_past_alone() -> None:
    """Other interactions after the past do not change a single trial."""
    recipe, device = SMALL, Incremental(epochs=1, batch_size=512)
    other = temporal_split(generate(200, 300, 20000, seed=3))
    other.log.items[:] = 0
    other.later.items[:] = 0
    trials = list(device_trials(recipe, device, SPLIT))
    assert trials == list(device_trials(recipe, device, other))
    assert [(trial.learning_rate, trial.l2) for trial in trials] == list(DEVICE_GRID)
