"""The flags of ``sparserec train``: a frozen set, held to the fields of a recipe."""

from dataclasses import fields
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import pytest
import typer.main
from typer.testing import CliRunner

from pipeline.als import AlsOptions
from pipeline.commands import MethodChoice, train
from pipeline.data.logs import write_csv
from pipeline.data.synthetic import generate
from pipeline.files import alone
from pipeline.nmf import NmfOptions
from pipeline.options import FLAGS, changed
from pipeline.pep import PepOptions
from pipeline.recipes import RECIPES, Recipe, sparserec
from pipeline.run import load_run
from pipeline.train import StepConfig
from sparserec.errors import SparseRecError

FROZEN = """
--als-exchange --als-penalty --als-sweeps --als-zeros --backward --batch-size --compute
--density --dim --duplicates --ema --epochs --exchange-fraction --exchange-least --exchange-stop
--factors --floor --fresh --grow --importance --item-col --l2 --learning-rate
--learning-rate-least --loss --method
--min-rating --model --negatives --nmf-iterations --nmf-normalisation --nmf-power --nmf-solver
--nmf-start --optimizer --out --patience --pep-decay --pep-rate --pep-search --pep-start --protocol
--ranks --rating-col --refit --rescale --sampled-fraction --seed --sides --start --start-density
--time-col --user-col --valid-users --value-scale --window --yes
"""
"""What users type. A flag that goes or comes is for the changelog."""


def app() -> typer.Typer:
    found = typer.Typer(add_completion=False)
    found.command("train")(train)
    return found


def run(*arguments: object) -> None:
    result = CliRunner().invoke(app(), [str(argument) for argument in arguments])
    if isinstance(result.exception, SparseRecError):
        raise result.exception
    assert result.exit_code == 0, result.output


def test_the_set_of_flags_is_frozen() -> None:
    options = typer.main.get_command(app()).params
    names = [name for p in options if p.param_type_name == "option" for name in p.opts]
    assert sorted(names) == FROZEN.split()


def test_every_field_of_a_recipe_has_its_flag() -> None:
    """With its choices and SparseRec's default."""
    recipe = sparserec()
    of = {}
    for prefix, part, kind in (
        ("", recipe, Recipe),
        ("", recipe.step, StepConfig),
        ("nmf_", recipe.nmf, NmfOptions),
        ("als_", recipe.als, AlsOptions),
        ("pep_", recipe.pep, PepOptions),
    ):
        hints = get_type_hints(kind)
        of |= {prefix + f.name: (hints[f.name], getattr(part, f.name)) for f in fields(kind)}
    # The first four are what is flattened. A host trains in float32; export sets a device's own.
    for name in ("step", "nmf", "als", "pep", "method", "model", "precision", "rounding"):
        del of[name]
    assert {flag.name for flag in FLAGS} == set(of)
    for flag in FLAGS:
        kind, default = of[flag.name]
        assert flag.default == default, flag.name
        if get_origin(kind) is Literal:
            # RigL's and SET's own rules come with their methods.
            choices = [c for c in get_args(kind) if flag.name != "grow" or c not in ("rigl", "set")]
            assert list(get_args(flag.kind)) == choices, flag.name
        else:
            assert flag.kind is kind, flag.name
    assert [choice.value for choice in MethodChoice] == list(RECIPES)


def test_each_flag_reaches_its_field() -> None:
    values = {
        flag.name: get_args(flag.kind)[-1] if get_origin(flag.kind) else flag.kind(flag.default) + 1
        for flag in FLAGS
    } | {"density": 0.7, "ema": 0.5, "learning_rate_least": 0.5, "start_density": 0.8}
    recipe = changed(sparserec(), values)
    for name, value in values.items():
        prefix, _, rest = name.partition("_")
        if hasattr(recipe.step, name):
            assert getattr(recipe.step, name) == value
        elif prefix in ("nmf", "als", "pep"):
            assert getattr(getattr(recipe, prefix), rest) == value
        else:
            assert getattr(recipe, name) == value
    assert Recipe.from_dict(recipe.as_dict()) == recipe
    assert changed(recipe, dict.fromkeys(values)) == recipe


def test_the_help_page_groups_the_flags() -> None:
    page = CliRunner().invoke(app(), ["--help"], env={"COLUMNS": "120", "TERM": "dumb"}).output
    for panel in ("Table and start", "Training", "Mask updates and sampled backward", "PEP"):
        assert panel in page
    assert page.index("--density") < page.index("--learning-rate") < page.index("--window")
    assert "[default: (0.5)]" in page


def test_contradictions_are_refused() -> None:
    with pytest.raises(SparseRecError, match="the window is 0"):
        changed(sparserec(), {"backward": "literal", "window": 0})
    for method, options in (
        ("magnitude", {"window": 0}),
        ("magnitude", {"start": "nmf"}),
        ("pep", {"window": 0}),
        ("pep", {"start": "nmf"}),
    ):
        with pytest.raises(SparseRecError, match=f"method {method} prunes a whole table"):
            changed(RECIPES[method](), options)
    with pytest.raises(SparseRecError, match="method dense trains every entry"):
        changed(RECIPES["dense"](), {"density": 0.1})
    for method in ("dense", "static", "small"):
        with pytest.raises(SparseRecError, match=f"method {method} keeps its mask"):
            changed(RECIPES[method](), {"window": 60})
    for method in ("set", "rigl", "dsl"):
        with pytest.raises(SparseRecError, match=f"method {method} has a rule of its own"):
            changed(RECIPES[method](), {"grow": "instant"})
        with pytest.raises(SparseRecError, match=f"method {method} updates its mask"):
            changed(RECIPES[method](), {"window": 0})
    with pytest.raises(SparseRecError, match="method pep starts anew"):
        changed(RECIPES["pep"](), {"ema": 0.9})
    with pytest.raises(SparseRecError, match="method pep starts anew"):
        changed(RECIPES["pep"](), {"learning_rate_least": 0.1})
    with pytest.raises(SparseRecError, match=r"learning_rate_least is 1\.5"):
        changed(sparserec(), {"learning_rate_least": 1.5})
    for start_density in (0.05, 1.5):
        with pytest.raises(SparseRecError, match=f"start_density is {start_density}, and the"):
            changed(sparserec(), {"start_density": start_density})
    for method, options in (("sparserec", {"window": 0}), ("rigl", {}), ("magnitude", {})):
        with pytest.raises(SparseRecError, match=f"the method is {method} and the window"):
            changed(RECIPES[method](), {"start_density": 0.3} | options)
    with pytest.raises(SparseRecError, match=r"ema is 1\.0"):
        changed(sparserec(), {"ema": 1.0})
    with pytest.raises(SparseRecError, match="pep_search is 1: its mask would be fixed after"):
        changed(RECIPES["pep"](), {"pep_search": 1.0})


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_is_one_that_every_part_takes(seed: int) -> None:
    with pytest.raises(SparseRecError, match=f"seed is {seed}\n.*give 0 to 4294967295"):
        changed(sparserec(), {"seed": seed})
    result = CliRunner().invoke(app(), ["no-such-dataset", "--seed", str(seed)])
    assert result.exit_code == 2
    assert "Invalid value for '--seed'" in result.output


@pytest.mark.parametrize("name", ["value_scale", "learning_rate", "nmf_power", "als_zeros", "ema"])
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_numbers_are_finite(name: str, value: str) -> None:
    with pytest.raises(SparseRecError, match=f"{name} is {value}"):
        changed(sparserec(), {name: float(value)})


def test_a_folder_that_cannot_be_written_to_is_named_before_the_data_is_read(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "run", Path("/proc/nope")):
        for more in ([], ["--ranks", "2"]):
            with pytest.raises(SparseRecError, match=f"{out}: cannot be made or written to"):
                run("no-such-dataset", "--out", out, *more)


def test_a_second_run_is_kept_out_of_a_folder(tmp_path: Path) -> None:
    write_csv(generate(40, 60, 1500), tmp_path / "log.csv")
    short = ("--method", "static", "--dim", 16, "--density", 0.3, "--epochs", 1)
    with (
        alone(tmp_path / "run"),
        pytest.raises(SparseRecError, match="run: another run writes there"),
    ):
        run(tmp_path / "log.csv", "--out", tmp_path / "run", *short)
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
    run(tmp_path / "log.csv", "--out", tmp_path / "run", *short)
    assert load_run(tmp_path / "run").recipe.method == "static"
