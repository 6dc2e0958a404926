"""The table that a host run starts from, by its recipe: from NMF's factors or at random."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor

from pipeline.als import refine
from pipeline.data.split import Split
from pipeline.deconvolve import deconvolve
from pipeline.graph import Graph
from pipeline.models import MODELS
from pipeline.nmf import (
    Factors,
    budget,
    factorise,
    factorise_cached,
    nmf_table,
    random_table,
    rescale_values,
    side_by_side,
)
from pipeline.recipes import Recipe
from pipeline.table import F32, PackedTable, beside
from sparserec.progress import Progress, silent

GMF_SHARE = 0.75
"""Of NeuMF's active entries, in its first half. On lastfm, Recall@20 on validation comes to .226,
.230 and .218 at 1, .75 and .5, and from NMF as it is, half and half, to .186 (docs/findings.md
has the command)."""


def initial_table(
    recipe: Recipe,
    split: Split,
    cache: Path | None = None,
    factors: Factors | None = None,
    progress: Progress = silent,
) -> PackedTable:
    """Build the table that training starts from, for the users and items of the past.

    Args:
        recipe: of the run.
        split: of the data.
        cache: folder where factors are kept for other runs on the same interactions.
        factors: of the same interactions, made elsewhere; no others are computed then.
        progress: told when factors are there, and of least squares' sweeps.
    """
    users, items, seed = split.known_users, split.known_items, recipe.seed
    floor, scale = recipe.step.floor, recipe.value_scale
    if recipe.method == "small":
        return random_table(users, items, recipe.width, 1.0, 0, scale, seed)
    if recipe.start == "random":
        return random_table(users, items, recipe.dim, recipe.first_density, floor, scale, seed)
    if factors is None:
        progress("NMF", 0, 1)
        factors = _factors(recipe, split, cache)
        progress("NMF", 1, 1)
    if recipe.refines:
        return _start_of(recipe)(recipe, split, factors, progress)
    table = nmf_table(factors, recipe.first_density, floor, recipe.rescale, scale, recipe.sides)
    if recipe.start == "nmf-mask":
        rng = np.random.default_rng(seed)
        table.vals = rng.normal(0.0, scale, table.nnz).astype(np.float32)
    return table


def _start_of(
    recipe: Recipe,
) -> Callable[[Recipe, Split, Factors, Progress], PackedTable]:
    """Give how a model's table is refined."""
    if recipe.halves == 2:
        return _refined_gmf
    return _deconvolved if MODELS[recipe.step.model].GRAPH == "linear" else _refined


def _refined(recipe: Recipe, split: Split, factors: Factors, progress: Progress) -> PackedTable:
    """Fit what is largest in the factors to the interactions."""
    floor, scale = recipe.step.floor, recipe.value_scale
    table = nmf_table(factors, recipe.first_density, floor, recipe.rescale, scale, recipe.sides)
    table = refine(table, split.train, floor, recipe.als, progress)
    rescale_values(table, scale)
    return table


def _deconvolved(recipe: Recipe, split: Split, factors: Factors, progress: Progress) -> PackedTable:
    """Fit whole vectors to the interactions, then the entries that propagate into them.

    A model with a linear graph scores by the propagated table, whose rows are whole though the
    table's are sparse: so they can come close to vectors that spend ten times the budget.
    """
    floor, users, items = recipe.step.floor, split.known_users, split.known_items

    def largest(rows: F32, density: float) -> PackedTable:
        made = Factors(rows, users)
        return nmf_table(made, density, floor, recipe.rescale, recipe.value_scale, recipe.sides)

    whole = largest(factors.rows, 1.0)
    whole = refine(whole, split.train, floor, replace(recipe.als, exchange=0.0), progress)
    vectors = whole.dense(0, whole.num_rows)
    graph = Graph.of(split.train, users, items)
    model = MODELS[recipe.step.model]

    def propagate(rows: Tensor) -> Tensor:
        return model.propagate(rows, graph.aggregate, {})

    rows = deconvolve(vectors, vectors, np.ones(vectors.shape, np.bool_), propagate)
    _, active, _ = largest(np.abs(rows), recipe.first_density).gather(np.arange(len(rows)))
    mask = active.astype(np.bool_)
    table = PackedTable.from_dense(deconvolve(vectors, rows * active, mask, propagate), mask, users)
    rescale_values(table, recipe.value_scale)
    return table


def _refined_gmf(recipe: Recipe, split: Split, factors: Factors, progress: Progress) -> PackedTable:
    """Fit the half of NeuMF's rows whose products are summed; the perceptron's is NMF's."""
    rows = len(factors.rows)
    half = Factors(factors.rows[:, : recipe.dim // 2], factors.num_users)
    size = half.rows.size
    count = budget(rows, recipe.dim, recipe.first_density, recipe.step.floor)
    for_gmf = min(max(round(GMF_SHARE * count), rows * recipe.step.floor), size)
    of_gmf = replace(recipe, density=for_gmf / size, start_density=0.0)
    gmf = _refined(of_gmf, split, half, progress)
    rest = (count - for_gmf) / size
    mlp = nmf_table(half, rest, 0, recipe.rescale, recipe.value_scale, recipe.sides)
    return beside(gmf, mlp)


def _factors(recipe: Recipe, split: Split, cache: Path | None) -> Factors:
    """Factor the training interactions."""
    users, items = split.known_users, split.known_items
    rank = recipe.dim // recipe.halves
    if cache is None:
        found = factorise(split.train, users, items, rank, recipe.seed, recipe.nmf)
    else:
        found = factorise_cached(split.train, users, items, rank, recipe.seed, recipe.nmf, cache)
    return side_by_side([found] * recipe.halves)
