"""The table that a host run starts from, by its recipe: from NMF's factors or at random."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.als import refine
from pipeline.data.split import Split
from pipeline.nmf import (
    Factors,
    factorise,
    factorise_cached,
    nmf_table,
    random_table,
    rescale_values,
    side_by_side,
)
from pipeline.prune import small_dim
from pipeline.recipes import Recipe
from pipeline.table import PackedTable


def initial_table(
    recipe: Recipe, split: Split, cache: Path | None = None, factors: Factors | None = None
) -> PackedTable:
    """Build the table that training starts from, for the users and items of the past.

    Args:
        recipe: of the run.
        split: of the data.
        cache: folder where factors are kept for other runs on the same interactions.
        factors: of the same interactions, made elsewhere; no others are computed then.
    """
    users, items, seed = split.known_users, split.known_items, recipe.seed
    floor, scale = recipe.step.floor, recipe.value_scale
    if recipe.method == "small":
        dim = small_dim(recipe.dim, recipe.density)
        return random_table(users, items, dim, 1.0, 0, scale, seed)
    if recipe.start == "random":
        density = 1.0 if recipe.method in ("magnitude", "pep") else recipe.density
        return random_table(users, items, recipe.dim, density, floor, scale, seed)
    if factors is None:
        factors = _factors(recipe, split, cache)
    table = nmf_table(factors, recipe.density, floor, recipe.rescale, scale, recipe.sides)
    if recipe.start == "nmf-mask":
        rng = np.random.default_rng(seed)
        table.vals = rng.normal(0.0, scale, table.nnz).astype(np.float32)
    elif recipe.refines:
        table = refine(table, split.train, floor, recipe.als)
        rescale_values(table, scale)
    return table


def _factors(recipe: Recipe, split: Split, cache: Path | None) -> Factors:
    """Factor the training interactions."""
    users, items = split.known_users, split.known_items
    rank = recipe.dim // recipe.halves
    if cache is None:
        found = factorise(split.train, users, items, rank, recipe.seed, recipe.nmf)
    else:
        found = factorise_cached(split.train, users, items, rank, recipe.seed, recipe.nmf, cache)
    return side_by_side([found] * recipe.halves)
