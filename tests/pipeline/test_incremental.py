import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.als import AlsOptions
from pipeline.data.split import temporal_split
from pipeline.data.synthetic import generate
from pipeline.evaluate import evaluate
from pipeline.exchange import Schedule
from pipeline.fit import fit, known_only
from pipeline.incremental import LEAST_UPDATES, WINDOW, Incremental, incremental_trainer
from pipeline.recipes import sparserec
from pipeline.recommender import Recommender
from pipeline.sampling import join
from pipeline.tune import DEVICE_GRID, device_trials

SPLIT = temporal_split(generate(200, 300, 20000, seed=3))
# Without least squares there is more left to learn.
SMALL = replace(sparserec(), dim=32, epochs=4, window=7, als=AlsOptions(sweeps=0))


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


def updates(recipe: Incremental, num_rows: int, steps: int) -> int:
    """Count the mask updates of a run."""
    window = recipe.window_of(num_rows, steps)
    schedule = Schedule(steps, window, recipe.exchange_fraction, recipe.exchange_stop)
    return sum(schedule.fraction_after(step) > 0 for step in range(steps))


@given(num_rows=st.integers(1, 10**8), steps=st.integers(1, 20_000))
@settings(max_examples=100, deadline=None)
def test_a_window_grows_with_the_table_but_not_past_what_the_run_has_room_for(
    num_rows: int, steps: int
) -> None:
    recipe = Incremental()
    window, slots = recipe.window_of(num_rows, steps), recipe.batch_slots
    wanted = 4 * num_rows
    assert window >= WINDOW
    if window > WINDOW:
        assert updates(recipe, num_rows, steps) >= LEAST_UPDATES
        assert (window - 1) * slots < wanted
    if window * slots < wanted:  # the run is what keeps it from four slots for each row
        assert updates(recipe, num_rows, steps) <= LEAST_UPDATES + 1


@pytest.mark.parametrize(("num_rows", "size"), [(1000, 250), (1 << 14, 1 << 12), (10**7, 1 << 12)])
def test_no_more_rows_are_sampled_than_a_cache_has_room_for(num_rows: int, size: int) -> None:
    # docs/formats.md section 5: |S| from the fraction in the manifest
    assert math.floor(Incremental().fraction_of(num_rows) * num_rows + 0.5) == size


def test_a_window_and_a_fraction_that_are_given_are_kept() -> None:
    given = Incremental(window=7, sampled_fraction=0.5)
    assert given.window_of(10**7, 10**6) == 7
    assert given.fraction_of(10**7) == 0.5
