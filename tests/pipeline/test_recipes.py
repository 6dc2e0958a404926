"""Recipes of runs from before a field existed say what these runs did; starts suit their model."""

from dataclasses import replace
from typing import Any

import pytest

from pipeline.api import SparseRec
from pipeline.commands import _recipe
from pipeline.models import ModelName
from pipeline.options import FLAGS
from pipeline.recipes import RECIPES, VALUE_SCALES, Recipe, sparserec, suited


def before(method: str, *, refined: bool) -> dict[str, Any]:
    """Give what an earlier version wrote: without a power, and first without least squares."""
    values = RECIPES[method]().as_dict()
    del values["nmf"]["power"]
    if not refined:
        del values["als"]
    return values


@pytest.mark.parametrize("refined", [True, False])
def test_factors_were_of_a_matrix_divided_by_roots(refined: bool) -> None:
    recipe = Recipe.from_dict(before("sparserec", refined=refined))
    assert recipe.nmf.power == 0.5
    assert recipe.refines == refined


@pytest.mark.parametrize("method", [name for name in RECIPES if name != "sparserec"])
def test_what_starts_at_random_is_what_it_was(method: str) -> None:
    assert Recipe.from_dict(before(method, refined=True)) == RECIPES[method]()


@pytest.mark.parametrize("model", ["mf", "neumf", "lightgcn", "ngcf"])
def test_a_start_from_factors_suits_its_model(model: ModelName) -> None:
    recipe = replace(sparserec(), step=replace(sparserec().step, model=model))
    assert suited(recipe).value_scale == VALUE_SCALES.get(model, 0.25)
    at_random = replace(recipe, start="random")
    assert suited(at_random) == at_random
    assert SparseRec(model).recipe == suited(recipe)
    assert SparseRec(model, recipe=sparserec()).recipe == suited(recipe)
    own = replace(recipe, value_scale=0.5)
    assert SparseRec(model, recipe=own).recipe == own  # a user's own scale stays
    assert SparseRec(recipe=recipe).recipe == recipe  # and that of a recipe with its model
    options = dict.fromkeys(flag.name for flag in FLAGS) | {"window": 100}
    by_command = _recipe("sparserec", model, options)  # the same settings, the same recipe
    assert SparseRec(model, recipe=replace(sparserec(), window=100)).recipe == by_command
