"""What the experiments consist of, and the recipes that their cells run."""

from collections import Counter
from dataclasses import fields, replace

import pytest

from pipeline.reproduce.cells import Cell, digest, recipe_of, with_overrides
from pipeline.reproduce.grids import (
    GRIDS,
    RIVALS,
    SENSITIVITY,
    TWO_MODELS,
    arms,
    grid,
    long,
    needs,
    tuning,
)

CELL = Cell("grid", "gowalla", "lightgcn", "mf", "sparserec", 0.1, 2)


@pytest.mark.parametrize("name", list(GRIDS))
def test_cells_are_distinct_and_have_a_recipe(name: str) -> None:
    cells = GRIDS[name]()
    assert len({cell.id for cell in cells}) == len(cells)
    assert len({digest(cell, recipe_of(cell, [])) for cell in cells}) == len(cells)
    for cell in cells:
        assert Cell.from_dict(cell.as_dict()) == cell
        assert len(dict(cell.overrides)) == len(cell.overrides)
        recipe = recipe_of(cell, [])
        assert (recipe.seed, recipe.density) == (cell.seed, cell.density)
        assert recipe.step.model == cell.model


def test_the_grid_holds_the_papers_18_settings_with_all_methods() -> None:
    cells = [cell for cell in grid() if cell.seed == 1 and cell.protocol == "lightgcn"]
    paper = Counter(c.setting for c in cells if c.model != "mf" and c.density in (0.05, 0.1, 0.2))
    assert len(paper) == 18
    # NeuMF halves its columns three times: 3, 6 and 12 columns are no small NeuMF.
    assert set(paper.values()) == {1 + len(RIVALS)} | {len(RIVALS)}
    dense = [cell for cell in cells if cell.method == "dense"]
    assert len(dense) == len({(cell.dataset, cell.model) for cell in dense}) == 8


def test_a_grid_that_is_cut_short_is_the_most_informative_part() -> None:
    cells = grid()
    seeds = [cell.seed for cell in cells]
    assert seeds == sorted(seeds)
    first = cells[: 2 + len(RIVALS)]
    assert len({cell.method for cell in first}) == len(first)
    assert {cell.dataset for cell in first} == {"gowalla"}


def test_every_method_is_tuned_with_as_many_runs() -> None:
    methods = Counter(cell.method for cell in needs(grid()))
    per_tuning = len(tuning(replace(CELL, model="neumf").tuned_by))
    # NeuMF has no small table, on two datasets.
    assert len({methods[m] for m in methods if m != "small"}) == 1
    assert methods["small"] == methods["set"] - 2 * per_tuning
    assert all(cell.density == (1.0 if cell.method == "dense" else 0.1) for cell in needs(grid()))


def test_tables_trained_to_their_end_have_settings_of_their_own() -> None:
    assert needs(long()) == []
    for cell in long():
        recipe = recipe_of(cell, [])
        assert recipe.refit, cell.id
        assert recipe_of(cell, [], epochs=1) == replace(recipe, epochs=1)
        wide = cell.variant == "10% of 128 columns from half of all"
        entries = pytest.approx(12.8 if wide else 6.4)
        assert (recipe.dim * cell.density == entries) == (cell.method != "dense"), cell.id
        if cell.method == "sparserec":
            called = f"{100 * cell.density:g}% of {recipe.dim} columns"
            assert cell.variant.startswith(called), cell.id


def test_layers_of_a_recipe_override_each_other() -> None:
    tuned = [("step.learning_rate", 0.5), ("step.l2", 0.25)]
    recipe = recipe_of(CELL, tuned)
    assert (recipe.step.learning_rate, recipe.step.l2) == (0.5, 0.25)
    changed = replace(CELL, overrides=(("step.l2", 0.75), ("nmf.solver", "mu"), ("window", 9)))
    recipe = recipe_of(changed, tuned, epochs=3)
    assert (recipe.step.learning_rate, recipe.step.l2, recipe.window) == (0.5, 0.75, 9)
    assert (recipe.nmf.solver, recipe.epochs) == ("mu", 3)
    with pytest.raises(TypeError):
        with_overrides(recipe, [("step.no_such", 1)])


def test_ablation_and_sensitivity_name_fields_that_exist() -> None:
    recipe = recipe_of(CELL, [])
    for name, values in SENSITIVITY.items():
        for value in values:
            changed = with_overrides(recipe, [(name, value)])
            assert [f.name for f in fields(changed)] == [f.name for f in fields(recipe)]
        # One of the values is the default, so that each curve passes through it.
        assert sum(with_overrides(recipe, [(name, v)]) == recipe for v in values) == 1, name
    for model in TWO_MODELS:
        own = recipe_of(replace(CELL, model=model), [])
        for arm, (overrides, _) in arms(model).items():
            assert (with_overrides(own, overrides) == own) == (arm == "as it is"), arm
        (third,), _ = arms(model)["values: a third"]
        assert third == ("value_scale", pytest.approx(own.value_scale / 3))
