"""Training from a prepared folder and from given factors: as from the log itself."""

import json
import shutil
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file
from typer.testing import CliRunner

from pipeline import factors
from pipeline.commands import data
from pipeline.data.logs import read_log, write_csv
from pipeline.data.prepared import load_prepared
from pipeline.data.split import temporal_split
from pipeline.data.synthetic import generate
from pipeline.nmf import factorise
from pipeline.recipes import sparserec
from sparserec.errors import SparseRecError
from tests.pipeline.test_commands import app

FEW = ["--dim", "16", "--density", "0.3", "--epochs", "2", "--batch-size", "64", "--window", "9"]


def run(command: str, *arguments: object) -> str:
    result = CliRunner().invoke(data if command == "data" else app(), [str(a) for a in arguments])
    if isinstance(result.exception, SparseRecError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log, what is prepared of it, and a run from the log."""
    folder = tmp_path_factory.mktemp("prepared")
    write_csv(generate(40, 60, 1500), folder / "log.csv")
    printed = run("data", "prepare", folder / "log.csv", folder / "out")
    assert "train" in printed
    run("train", folder / "log.csv", "--out", folder / "run", *FEW)
    return folder


def write_factors(folder: Path, split, rows: np.ndarray, dim: int, **more: str) -> Path:
    folder.mkdir()
    users = split.known_users
    for name, part in (("users", rows[:users]), ("items", rows[users:])):
        order = np.arange(len(part), dtype=np.int32)[::-1]
        vectors = pa.array(part[::-1].tolist(), pa.list_(pa.float32()))
        pq.write_table(pa.table({"index": order, "vector": vectors}), folder / f"{name}.parquet")
    about = {"rank": dim, "rows": len(rows), "method": "by hand"} | more
    factors.write_description(folder, users, split.known_items, about)
    return folder


def test_a_run_from_a_prepared_folder_is_the_run_from_its_log(folder: Path) -> None:
    run("train", folder / "out", "--out", folder / "again", *FEW)
    described = [json.loads((folder / name / "run.json").read_text()) for name in ("run", "again")]
    for key in ("finished_utc", "dataset"):
        assert described[0].pop(key) is not None
        assert described[1].pop(key) is not None
    assert described[0] == described[1]
    for name in ("table", "split"):
        found, expected = (
            load_file(folder / run_ / f"{name}.safetensors") for run_ in ("again", "run")
        )
        assert found.keys() == expected.keys()
        for tensor, values in expected.items():
            np.testing.assert_array_equal(found[tensor], values)


def test_given_factors_are_what_a_run_starts_from(folder: Path) -> None:
    split = temporal_split(read_log(folder / "log.csv"))
    users, items = split.known_users, split.known_items
    rows = factorise(split.train, users, items, 16, seed=1).rows
    given = write_factors(folder / "factors", split, rows, 16)
    run("train", folder / "out", "--out", folder / "given", "--factors", given, *FEW)
    found, expected = (load_file(folder / name / "table.safetensors") for name in ("given", "run"))
    for tensor, values in expected.items():
        np.testing.assert_array_equal(found[tensor], values)
    described = json.loads((folder / "given" / "run.json").read_text())
    assert described["factors"]["method"] == "by hand"


def test_a_run_from_other_factors_does_not_go_on_from_its_checkpoint(
    folder: Path, tmp_path: Path
) -> None:
    split = temporal_split(read_log(folder / "log.csv"))
    rows = np.random.default_rng(0).random((2, split.known_users + split.known_items, 16))
    given = [write_factors(tmp_path / str(k), split, part, 16) for k, part in enumerate(rows)]
    again = ["train", folder / "out", "--out", tmp_path / "run", *FEW, "--factors"]
    for refit in ([], ["--refit"]):
        run(*again, given[0], *refit, "--fresh")
        before = (tmp_path / "run" / "table.safetensors").read_bytes()
        run(*again, given[0], *refit)
        assert (tmp_path / "run" / "table.safetensors").read_bytes() == before
        with pytest.raises(SparseRecError, match="another recipe, model file, data or factors"):
            run(*again, given[1], *refit)


def test_factors_of_neumf_are_used_for_both_halves(folder: Path, tmp_path: Path) -> None:
    split = temporal_split(read_log(folder / "log.csv"))
    rows = np.random.default_rng(1).random((split.known_users + split.known_items, 32), np.float32)
    recipe = sparserec()
    given = write_factors(tmp_path / "f", split, rows, 32)
    with pytest.raises(SparseRecError, match=r"factors\.json: rank is 32, this run needs 64"):
        factors.read_factors(given, recipe, split)
    object.__setattr__(recipe.step, "model", "neumf")
    _, found = factors.read_factors(given, recipe, split)
    np.testing.assert_array_equal(found.rows, np.concatenate([rows, rows], axis=1))
    (given / "users.parquet").unlink()
    with pytest.raises(SparseRecError, match=r"users\.parquet: missing or damaged"):
        factors.read_factors(given, recipe, split)


def test_rows_that_are_missing_are_noticed(folder: Path, tmp_path: Path) -> None:
    split = temporal_split(read_log(folder / "log.csv"))
    rows = np.ones((split.known_users + split.known_items, 64), np.float32)
    given = write_factors(tmp_path / "f", split, rows, 64)
    table = pq.read_table(given / "items.parquet")
    pq.write_table(table.slice(1), given / "items.parquet")
    with pytest.raises(SparseRecError, match="rows are missing"):
        factors.read_factors(given, sparserec(), split)


def test_factors_of_other_data_are_refused(folder: Path, tmp_path: Path) -> None:
    split = temporal_split(read_log(folder / "log.csv"))
    rows = np.ones((split.known_users + split.known_items, 16), np.float32)
    of = sha256((folder / "log.csv").read_bytes()).hexdigest()
    own = write_factors(tmp_path / "own", split, rows, 16, source_sha256=of)
    other = write_factors(tmp_path / "other", split, rows, 16, source_sha256="0" * 64)
    for source in ("log.csv", "out"):  # a log, and what is prepared of it
        run("train", folder / source, "--out", tmp_path / source, "--factors", own, *FEW)
        with pytest.raises(SparseRecError, match=rf"factors\.json: source_sha256 is 0{{64}}.*{of}"):
            run("train", folder / source, "--out", tmp_path / "x", "--factors", other, *FEW)


def test_options_of_nmf_beside_given_factors_are_refused(folder: Path) -> None:
    options = ["--nmf-power", "0.9", "--nmf-iterations", "5"]
    with pytest.raises(SparseRecError, match="--nmf-power, --nmf-iterations: --factors gives"):
        run("train", folder / "log.csv", "--factors", folder, *options)


@pytest.mark.parametrize(
    ("index", "vector", "problem"),
    [
        ([0, 1, 60], [[1.0, 2.0]] * 3, "index has 60, there are 60 items"),
        ([0, -1, 2], [[1.0, 2.0]] * 3, "index has -1, there are 60 items"),
        ([7, 1, 7], [[1.0, 2.0]] * 3, "index has 7 2 times"),
        ([0, None, 2], [[1.0, 2.0]] * 3, "index is not an integer in each row"),
        ([0, 1], [[1.0, 2.0, 3.0], [4.0]], "vector has 3 numbers in a row, the rank is 2"),
        ([0, 1], [[1.0, 2.0], None], "vector has nan numbers in a row, the rank is 2"),
    ],
)
def test_damaged_factors_are_named(
    folder: Path, tmp_path: Path, index: list, vector: list, problem: str
) -> None:
    split = temporal_split(read_log(folder / "log.csv"))
    assert split.known_items == 60
    rows = np.ones((split.known_users + 60, 2), np.float32)
    given = write_factors(tmp_path / "f", split, rows, 2)
    columns = {
        "index": pa.array(index, pa.int32()),
        "vector": pa.array(vector, pa.list_(pa.float32())),
    }
    pq.write_table(pa.table(columns), given / "items.parquet")
    with pytest.raises(SparseRecError, match=rf"items\.parquet: {problem}"):
        factors.read_factors(given, replace(sparserec(), dim=2), split)


@pytest.mark.parametrize(
    "options",
    [["--protocol", "per-user"], ["--time-col", "when"], ["--duplicates", "keep-first"]],
)
def test_what_preparing_has_settled_is_refused(folder: Path, options: list[str]) -> None:
    with pytest.raises(SparseRecError, match="is prepared: its columns and its split are settled"):
        run("train", folder / "out", *options)


@pytest.mark.parametrize("name", ["train-users", "later-items", "train-keys"])
def test_damaged_arrays_are_named(name: str, folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder / "out", tmp_path / "out")
    path = copy / "arrays" / f"{name}.npy"
    whole = path.read_bytes()
    for damaged in (whole[:-4], whole[:20], b"", b"x" * len(whole)):
        path.write_bytes(damaged)
        with pytest.raises(SparseRecError, match=rf"{name}\.npy: missing or damaged"):
            load_prepared(copy)
    np.save(path, np.load(folder / "out" / "arrays" / f"{name}.npy")[1:])
    with pytest.raises(SparseRecError, match=rf"{name}\.npy: missing or damaged"):
        load_prepared(copy)
    path.unlink()
    with pytest.raises(SparseRecError, match=r"No such file.*\n.*remove .*arrays: the next run"):
        load_prepared(copy)
    shutil.rmtree(copy / "arrays")
    assert len(load_prepared(copy)[1].train) == len(load_prepared(folder / "out")[1].train)
