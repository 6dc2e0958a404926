"""The command line: what it prints, how it fails, and what it must not import."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from export.build import Built, build
from export.bundle import read_manifest
from export.delta import verify_delta
from pipeline.evaluate import Quality
from pipeline.fit import Fitted
from pipeline.incremental import LEARNING_RATES, WINDOW, Incremental
from pipeline.models import MODELS, mf
from pipeline.recommender import Recommender
from pipeline.run import TrainedRun, load_run, save_run
from sparserec.cli import app
from sparserec.errors import SparseRecError


@pytest.fixture
def run_folder(run: TrainedRun, tmp_path: Path) -> Path:
    cutoffs = dict.fromkeys((5, 10, 20), 0.5)
    quality = Quality(cutoffs, cutoffs, np.arange(3), {}, np.ones((3, 20), bool), np.ones(3, int))
    save_run(
        tmp_path / "run",
        "tiny",
        "0" * 64,
        run.recipe,
        run.split,
        Fitted(Recommender(run.table), 1, [], quality),
    )
    return tmp_path / "run"


def test_export_of_a_saved_run(run_folder: Path) -> None:
    options = "--batch-size 4 --learning-rate 0.5 --l2 0.125 --steps 30 --window 7 --seed 9"
    spare = ["--spare-users", "3", "--spare-items", "20"]
    result = CliRunner().invoke(app, ["export", str(run_folder), *options.split(), *spare])
    assert result.exit_code == 0, result.output
    manifest = read_manifest(run_folder / "bundle")
    training = manifest.training
    assert (training.batch_size, training.steps, training.window, training.seed) == (4, 30, 7, 9)
    assert (training.learning_rate, training.l2) == (0.5, 0.125)
    assert manifest.num_users == 40 + 3
    assert manifest.bundle_id in result.output
    assert "max abs error" in result.output


def test_help_shows_the_defaults_that_are_taken() -> None:
    said = CliRunner().invoke(app, ["export", "--help"], env={"COLUMNS": "400"}).output
    shown = dict(re.findall(r"(--[a-z0-9-]+).*\[default: \(?(.*?)\)?\]", said))
    for name in ("batch_size", "negatives", "l2", "fanout", "seed", "window"):
        usual = getattr(Incremental(), name) or WINDOW
        assert shown[f"--{name.replace('_', '-')}"].split(",")[0] == str(usual)
    assert shown["--learning-rate"] == ", ".join(
        f"{of} {is_}" for of, is_ in LEARNING_RATES.items()
    )
    assert shown["--steps"] == f"{Incremental().epochs} passes over the log"
    (other,) = {Incremental.of(model).optimizer for model in MODELS if model != "mf"}
    of_mf = Incremental.of("mf").optimizer
    assert shown["--optimizer"] == f"{of_mf} for mf, {other} for the others"
    tiles = [f"{Incremental.of(model).tile} for {model}" for model in ("lightgcn", "ngcf")]
    assert shown["--tile"] == ", ".join(tiles)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--learning-rate", "-0.5"),
        ("--l2", "-0.5"),
        ("--seed", str(2**63)),
        ("--steps", str(2**31)),
        ("--window", str(2**31)),
        ("--spare-users", str(2**31)),
        ("--spare-items", str(2**31)),
        ("--batch-size", str(2**24 + 1)),
        ("--negatives", str(2**24 + 1)),
        ("--fanout", str(2**24 + 1)),
        ("--tile", str(2**24 + 1)),
    ],
)
def test_what_no_device_accepts_is_refused_at_once(tmp_path: Path, option: str, value: str) -> None:
    result = CliRunner().invoke(app, ["export", str(tmp_path), option, value])
    assert result.exit_code == 2  # a wrong use; without a run, it would be 1


@pytest.mark.parametrize("name", ["learning_rate", "l2"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e39, -1])
def test_numbers_that_no_device_takes_are_refused_before_anything_is_made(
    run: TrainedRun, tmp_path: Path, name: str, value: float
) -> None:
    changes: dict[str, Any] = {name: value}
    recipe = replace(Incremental(), **changes)
    with pytest.raises(SparseRecError, match=rf"^{name}: is .*, outside \[0, 3\.4028"):
        build(run, tmp_path / "bundle", recipe)


def test_export_since_a_bundle_writes_what_changed(
    run_folder: Path, built: Built, tmp_path: Path
) -> None:
    """With the base's options and another table: rows of it, and no program."""
    table = load_file(run_folder / "table.safetensors")
    table["vals"][: table["row_ptr"][5]] += 1
    save_file(table, run_folder / "table.safetensors")
    training = built.manifest.training
    options = [
        *("--batch-size", str(training.batch_size), "--learning-rate", str(training.learning_rate)),
        *("--window", str(training.window), "--steps", str(training.steps)),
    ]
    command = ["export", str(run_folder), "--since", str(built.path), *options]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    delta = verify_delta(run_folder / "delta")
    ways = {name: delta.way(name) for name in built.manifest.files}
    assert ways == {
        "golden.json": "whole",
        "ids.safetensors": "kept",
        "interactions.safetensors": "kept",
        "score.pte": "kept",
        "step.pte": "kept",
        "table.safetensors": "rows",
    }
    assert delta.base.bundle_id in result.output
    assert "of the bundle" in result.output


def test_inspect_shows_what_is_inside(built: Built) -> None:
    result = CliRunner().invoke(app, ["inspect", str(built.path)], terminal_width=120)
    assert result.exit_code == 0, result.output
    for text in (built.manifest.bundle_id, "gradients", "learning_rate", "aten::topk.values"):
        assert text in result.output
    assert f"{built.manifest.nnz:,} active entries" in result.output
    assert "every size, SHA-256 and content is as the manifest says" in result.output


MARKUP = "[b] [/c] [/]"
"""Of which rich would drop the first, and not know what the second ends."""


def test_texts_of_a_bundle_are_shown_as_they_are(bundle: Path) -> None:
    path = bundle / "manifest.json"
    value = json.loads(path.read_text())
    value["provenance"]["dataset"] = value["producer"]["torch"] = MARKUP
    method = value["programs"]["step"]["methods"]["update"]
    method["inputs"][0]["role"] = MARKUP
    method["operators"] = method["backends"] = [MARKUP]
    value["programs"]["step"]["methods"][MARKUP] = method
    path.write_text(json.dumps(value))
    wide = {"COLUMNS": "300"}
    result = CliRunner().invoke(app, ["inspect", str(bundle)], env=wide, catch_exceptions=False)
    # Dataset, torch; of two methods the role; and their names, operators and backends.
    inputs = len(method["inputs"]) + len(method["outputs"])
    assert result.output.count(MARKUP) == 2 + 2 + inputs + 2 + 4


@pytest.mark.parametrize("name", ["b[v2]", "c[/d]"])
def test_folders_are_shown_as_they_are(
    run_folder: Path, built: Built, tmp_path: Path, name: str
) -> None:
    def shown(*command: str) -> str:
        return CliRunner().invoke(app, [*command], catch_exceptions=False).output

    bundle, delta, made = (tmp_path / f"{kind} {name}" for kind in ("bundle", "delta", "made"))
    steps = ["--steps", "30", "--window", "7"]
    assert f" in {bundle}\n" in shown("export", str(run_folder), "--out", str(bundle), *steps)
    since = ["--since", str(built.path), "--out", str(delta)]
    assert f"delta in {delta}: " in shown("export", str(run_folder), *since, *steps)
    assert f"delta in {delta}: " in shown("inspect", str(delta))
    assert f" in {made}\n" in shown("apply", str(built.path), str(delta), str(made))


def test_a_corrupt_bundle_is_one_clear_error(bundle: Path) -> None:
    (bundle / "step.pte").write_bytes(b"")
    code = "from sparserec.cli import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", code, "inspect", str(bundle)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert result.stdout == ""
    error, fix = result.stderr.splitlines()
    assert error.startswith(f"error: {bundle / 'step.pte'}: has 0 bytes, the manifest says ")
    assert fix.startswith("fix: export the bundle again")


def test_inspect_needs_no_torch(built: Built) -> None:
    code = (
        "import sys; from pathlib import Path; from export.commands import inspect;"
        f"inspect(Path({str(built.path)!r})); assert 'torch' not in sys.modules"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_a_run_without_a_log(run: TrainedRun, tmp_path: Path) -> None:
    from pipeline.data.split import Pairs

    nothing = Pairs(np.empty(0, np.int32), np.empty(0, np.int32), None)
    empty = replace(run, split=replace(run.split, log=nothing))
    with pytest.raises(SparseRecError, match="the split of tiny has no log interactions"):
        build(empty, tmp_path / "bundle", Incremental())
    assert not (tmp_path / "bundle").exists()


def test_a_model_of_the_users_own_is_refused(
    run: TrainedRun, run_folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "own.py"
    path.write_text(Path(mf.__file__).read_text())
    own = replace(run.recipe, step=replace(run.recipe.step, model=str(path)))
    (run_folder / "run.json").write_text(
        (run_folder / "run.json").read_text().replace('"model": "mf"', f'"model": "{path}"')
    )
    assert load_run(run_folder).recipe == own
    result = CliRunner().invoke(app, ["export", str(run_folder)])
    assert isinstance(result.exception, SparseRecError)
    assert f"model {path}: a model of your own cannot be exported" in str(result.exception)
    assert not (run_folder / "bundle").exists()
