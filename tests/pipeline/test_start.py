"""NeuMF's start, and a start's density; what all models share is tested where it is."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.als import AlsOptions, refine
from pipeline.data.split import temporal_split
from pipeline.data.synthetic import generate
from pipeline.evaluate import evaluate
from pipeline.models import MODELS, ModelName, neumf
from pipeline.nmf import Factors, factorise, nmf_table
from pipeline.recipes import PLAIN, Recipe, Start, sparserec
from pipeline.recommender import Recommender
from pipeline.start import GMF_SHARE, initial_table

SPLIT = temporal_split(generate(200, 300, 20000, seed=3))
ROWS = SPLIT.known_users + SPLIT.known_items


def recipe_of(density: float = 0.1, als: AlsOptions | None = None) -> Recipe:
    recipe = sparserec()
    step = replace(recipe.step, model="neumf")
    return replace(recipe, step=step, density=density, als=als or recipe.als)


@pytest.mark.parametrize("density", [0.04, 0.05, 0.1, 0.5, 0.7, 1.0])
def test_neumf_divides_the_budget_between_its_halves(density: float) -> None:
    table = initial_table(recipe_of(density), SPLIT)
    assert table.nnz == round(density * ROWS * 64)
    assert np.isfinite(table.vals).all()
    in_gmf = table.cols < 32
    expected = min(max(round(GMF_SHARE * table.nnz), 2 * ROWS), 32 * ROWS)
    assert in_gmf.sum() == expected
    rows = np.repeat(np.arange(ROWS), np.diff(table.row_ptr))
    assert np.bincount(rows[in_gmf], minlength=ROWS).min() >= 2


@pytest.mark.parametrize("model", list(MODELS))
@pytest.mark.parametrize("start", ["nmf", "nmf-mask", "random"])
def test_a_start_over_its_budget_is_that_of_its_own_density(model: ModelName, start: Start) -> None:
    recipe = replace(recipe_of(0.3), start=start)
    recipe = replace(recipe, step=replace(recipe.step, model=model))
    expected = initial_table(recipe, SPLIT)
    table = initial_table(replace(recipe, density=0.1, start_density=0.3), SPLIT)
    np.testing.assert_array_equal(table.cols, expected.cols)
    np.testing.assert_array_equal(table.vals, expected.vals)


def test_gmf_starts_as_a_refined_mf_and_the_perceptron_as_nmf() -> None:
    recipe = recipe_of()
    table = initial_table(recipe, SPLIT)
    values = table.dense(0, ROWS)
    rank = 32
    factors = factorise(SPLIT.train, SPLIT.known_users, SPLIT.known_items, rank, 1, recipe.nmf)
    for_gmf = round(GMF_SHARE * table.nnz) / (ROWS * rank)
    plain = nmf_table(factors, for_gmf, 2, recipe.rescale, 1.0)
    refined = refine(plain, SPLIT.train, 2, recipe.als)
    scale = recipe.value_scale / np.sqrt((refined.vals**2).mean())
    np.testing.assert_allclose(
        values[:, :rank], refined.dense(0, ROWS) * scale, rtol=1e-5, atol=1e-7
    )
    perceptron = values[:, rank:]
    of_nmf = perceptron != 0
    assert of_nmf.any()
    factor = perceptron[of_nmf] / factors.rows[of_nmf]  # one scale for all
    np.testing.assert_allclose(factor, factor[0], rtol=1e-5)


def test_the_better_start_recommends_better_before_any_training() -> None:
    def recall(recipe: Recipe) -> float:
        table = initial_table(recipe, SPLIT)
        found = Recommender(table, "neumf", neumf.initial(64, 1))
        return evaluate(found, SPLIT.valid, SPLIT.train, SPLIT.known_items).recall[20]

    assert recall(recipe_of()) > 1.1 * recall(recipe_of(als=PLAIN))


def test_given_factors_are_used_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    half = rng.random((ROWS, 32), np.float32)
    factors = Factors(np.concatenate([half, half], axis=1), SPLIT.known_users)
    monkeypatch.setattr("pipeline.start.factorise", None)
    assert initial_table(recipe_of(), SPLIT, factors=factors).dim == 64


def test_the_start_tells_how_far_it_is() -> None:
    told: list[tuple[str, int, int | None]] = []
    recipe = replace(sparserec(), als=AlsOptions(sweeps=2))
    initial_table(recipe, SPLIT, progress=lambda *now: told.append(now))
    sweeps = [("least squares", done, 2) for done in range(3)]
    assert told == [("NMF", 0, 1), ("NMF", 1, 1), *sweeps]
