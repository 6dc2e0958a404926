"""Against the ridge regression of each column, solved in float64 with the matrix written out."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.als import refine
from pipeline.data.split import temporal_split
from pipeline.data.synthetic import generate
from pipeline.deconvolve import RIDGE, STEPS, deconvolve
from pipeline.graph import Graph
from pipeline.models import lightgcn
from pipeline.nmf import factorise, nmf_table
from pipeline.recipes import Recipe, sparserec
from pipeline.recommender import Recommender
from pipeline.start import initial_table
from tests.pipeline.graphs import DIM, ITEMS, USERS, dense_adjacency, interactions

ROWS = USERS + ITEMS
PAIRS = interactions(5)
GRAPH = Graph.of(PAIRS, USERS, ITEMS)
SPLIT = temporal_split(generate(200, 300, 20000, seed=3))


def propagate(rows: Tensor) -> Tensor:
    return lightgcn.propagate(rows, GRAPH.aggregate, {})


def written_out() -> np.ndarray:
    """P, float64 (N, N): the mean of the powers of A up to the third."""
    adjacency = dense_adjacency(PAIRS).double().numpy()
    powers = [np.linalg.matrix_power(adjacency, k) for k in range(4)]
    return np.asarray(sum(powers) / 4)


def test_each_column_is_a_ridge_regression(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.deconvolve.STEPS", 200)
    rng = np.random.default_rng(2)
    vectors = rng.standard_normal((ROWS, DIM)).astype(np.float32)
    active = rng.random((ROWS, DIM)) < 0.3
    active[:, 7] = False  # a column without entries stays empty
    begun = (rng.standard_normal((ROWS, DIM)) * active).astype(np.float32)
    found = deconvolve(vectors, begun, active, propagate)
    assert not found[~active].any()
    smooth = written_out()
    for column in range(DIM):
        own = smooth[:, active[:, column]]
        hessian = own.T @ own + RIDGE * np.eye(own.shape[1])
        expected = np.linalg.solve(hessian, own.T @ vectors[:, column].astype(np.float64))
        np.testing.assert_allclose(found[active[:, column], column], expected, atol=2e-3)


def test_vectors_that_come_of_the_active_entries_are_met() -> None:
    rng = np.random.default_rng(3)
    active = rng.random((ROWS, DIM)) < 0.1
    rows = (rng.standard_normal((ROWS, DIM)) * active).astype(np.float32)
    vectors = propagate(torch.from_numpy(rows)).numpy()
    found = deconvolve(vectors, np.zeros_like(rows), active, propagate)
    left = vectors - propagate(torch.from_numpy(found)).numpy()
    assert np.linalg.norm(left) < 0.1 * np.linalg.norm(vectors)
    assert STEPS < ROWS


def recipe_of(density: float = 0.1) -> Recipe:
    recipe = sparserec()
    return replace(recipe, step=replace(recipe.step, model="lightgcn"), density=density)


@pytest.mark.parametrize("density", [0.05, 0.1, 1.0])
def test_lightgcn_starts_within_its_budget(density: float) -> None:
    recipe = recipe_of(density)
    table = initial_table(recipe, SPLIT)
    rows = SPLIT.known_users + SPLIT.known_items
    assert table.nnz == round(density * rows * 64)
    assert np.diff(table.row_ptr).min() >= 2
    assert np.sqrt(np.mean(table.vals**2)) == pytest.approx(recipe.value_scale, rel=1e-5)


def test_the_propagated_start_comes_close_to_a_whole_table() -> None:
    recipe, users, items = recipe_of(), SPLIT.known_users, SPLIT.known_items
    factors = factorise(SPLIT.train, users, items, 64, 1, recipe.nmf)
    plain = nmf_table(factors, 1.0, 2, recipe.rescale, 0.1)
    whole = refine(plain, SPLIT.train, 2, replace(recipe.als, exchange=0.0))
    vectors = whole.dense(0, whole.num_rows)
    graph = Graph.of(SPLIT.train, users, items)

    def cosine(recommender: Recommender) -> float:
        near = recommender.vectors(np.arange(len(vectors))).numpy()
        return float((near * vectors).sum() / np.linalg.norm(near) / np.linalg.norm(vectors))

    found = cosine(Recommender(initial_table(recipe, SPLIT), "lightgcn", graph=graph))
    as_mf = initial_table(replace(recipe, step=replace(recipe.step, model="mf")), SPLIT)
    assert found > cosine(Recommender(as_mf)) + 0.1
    assert found > cosine(Recommender(as_mf, "lightgcn", graph=graph)) + 0.1
