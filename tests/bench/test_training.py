"""What is timed on the host is what a run does, and ALS is judged as its own library ranks."""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
import pytest

from pipeline.data.split import Split, temporal_split
from pipeline.data.synthetic import generate
from pipeline.fit import fit
from pipeline.recipes import Recipe
from tests.bench.training import epoch_time, quick, same_work, time_to_recall


@pytest.fixture(scope="module")
def split() -> Split:
    return temporal_split(generate(80, 120, 3000, seed=3))


def small(recipe: Recipe) -> Recipe:
    step = replace(recipe.step, batch_size=256, negatives=64)
    density = max(recipe.density, 0.25)
    return replace(recipe, dim=16, density=density, epochs=3, valid_users=0, step=step)


def test_the_timed_run_learns_what_fit_does_and_stops_at_its_target(split: Split) -> None:
    recipe = small(quick())
    recalls = [epoch["recall@20"] for epoch in fit(recipe, split).history]
    never = time_to_recall(recipe, split, 1.0)
    assert [epoch["recall@20"] for epoch in never.curve] == recalls
    assert never.seconds is None
    target = max(recalls[1:])
    reached = time_to_recall(recipe, split, target)
    before = [epoch["recall@20"] for epoch in reached.curve[:-1]]
    assert max(before, default=0) < target <= reached.curve[-1]["recall@20"]
    assert reached.seconds == reached.curve[-1]["seconds"] > 0
    assert reached.cpu_seconds == reached.curve[-1]["cpu_seconds"]


@pytest.mark.parametrize("model", ["mf", "lightgcn"])
def test_an_epoch_is_its_steps(model: str, split: Split) -> None:
    timing = epoch_time(small(same_work(model)), split, 3)
    assert timing.steps == -(-len(split.train) // 256)
    assert len(timing.samples) == 3
    assert min(timing.samples) <= timing.seconds / timing.steps <= max(timing.samples)


def test_als_scores_as_its_library_does(split: Split) -> None:
    pytest.importorskip("implicit", reason="implicit is no dependency: pip install implicit")
    from tests.bench.als import als, factorise, matrix_of

    given = argparse.Namespace(dim=8, iterations=5, threads=1)
    matrix = matrix_of(split.train, split)
    library, _ = factorise(split.train, split, 4.0, 1.0, given)
    ours, _ = als(split.train, split, 4.0, 1.0, given)
    users = np.arange(split.known_users)
    items, scores = library.recommend(users, matrix[users], N=5, filter_already_liked_items=False)
    found = ours.scores(users, ours.items(split.known_items)).numpy()
    assert np.allclose(np.take_along_axis(found, items, axis=1), scores, atol=1e-5)
    assert np.allclose(np.sort(found, axis=1)[:, :-6:-1], scores, atol=1e-5)
