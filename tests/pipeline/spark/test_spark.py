"""Spark writes what the path in bounded memory writes; without PySpark or Java these skip."""

import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from pipeline.data.datasets import source_sha256
from pipeline.data.logs import read_log, write_csv
from pipeline.data.prepare import prepare as prepare_here
from pipeline.data.prepared import PARTS, describe, load_prepared
from pipeline.data.split import temporal_split
from pipeline.data.synthetic import generate
from pipeline.factors import read_factors
from pipeline.nmf import NmfOptions
from pipeline.nmf import factorise as factorise_here
from pipeline.recipes import Recipe, sparserec
from sparserec.errors import SparseRecError

pytest.importorskip("pyspark", reason="PySpark is not installed: pip install -e '.[spark]'")
if shutil.which("java") is None:
    pytest.skip("no Java runtime for Spark", allow_module_level=True)

from pipeline.spark.factorise import factorise
from pipeline.spark.prepare import prepare
from pipeline.spark.session import session


@pytest.fixture(scope="module")
def spark():
    with session("local[1]") as spark:
        yield spark


def write_rows(path, rows):
    path.write_text(
        "\n".join(["item,user,rating,time", *(",".join(map(str, r)) for r in rows), ""])
    )


def some_rows(seed, count):
    """Few users, items and times: repeats, ties, newcomers and low ratings are common."""
    rng = np.random.default_rng(seed)
    item, user = rng.integers(0, 25, count), rng.integers(0, 6, count)
    rating, when = rng.integers(1, 6, count), rng.integers(0, 9, count)
    rows = zip(item.tolist(), user.tolist(), rating.tolist(), when.tolist(), strict=True)
    return [(f" i{i}", f'"u{u}"', r, t) for i, u, r, t in rows]


def check_same(ours, theirs):
    """Compare two prepared folders."""
    assert describe(ours) == describe(theirs)
    (_, found), (_, expected) = load_prepared(ours), load_prepared(theirs)
    for part in PARTS:
        pairs = getattr(found, part), getattr(expected, part)
        assert pairs[0].users.tolist() == pairs[1].users.tolist()
        assert pairs[0].items.tolist() == pairs[1].items.tolist()
    assert (found.user_ids, found.item_ids) == (expected.user_ids, expected.item_ids)
    assert found.train_keys.tolist() == expected.train_keys.tolist()


def test_a_folder_of_parts_with_repeats_ties_and_ratings(spark, tmp_path):
    source = tmp_path / "log"
    source.mkdir()
    rows = some_rows(1, 260)
    # The larger part comes first to Spark, and second by name.
    write_rows(source / "a.csv", rows[:60])
    write_rows(source / "b.csv", rows[60:])
    options = {"duplicates": "keep-first", "min_rating": 2}
    fractions = (0.3, 0.1, 0.4)
    prepare_here(source, tmp_path / "here", fractions, **options)
    prepare(spark, source, tmp_path / "spark", fractions, **options)
    check_same(tmp_path / "spark", tmp_path / "here")
    assert describe(tmp_path / "spark").dropped_later > 0


def test_a_file_cut_into_pieces(spark, tmp_path):
    write_csv(generate(60, 80, 3000), tmp_path / "log.csv")
    prepare_here(tmp_path / "log.csv", tmp_path / "here")
    spark.conf.set("spark.sql.files.maxPartitionBytes", "20000")
    try:
        prepare(spark, tmp_path / "log.csv", tmp_path / "spark")
    finally:
        spark.conf.unset("spark.sql.files.maxPartitionBytes")
    check_same(tmp_path / "spark", tmp_path / "here")


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        (["a,x,1", "b,x,2", "a,x,3"], r"log\.csv: duplicate: user 'a' took item 'x' 2 times"),
        (["a,x,1", ",x,2"], "empty user"),
        (["a,x,1", "-5,x,2"], "a user id is negative: '-5'"),
        (["a,x,1", "b,x,soon"], "timestamp is not a time as the others are .*'soon'"),
    ],
)
def test_what_is_refused(tmp_path, spark, rows, problem):
    (tmp_path / "log.csv").write_text("\n".join(["user_id,item_id,timestamp", *rows, ""]))
    with pytest.raises(SparseRecError, match=problem):
        prepare(spark, tmp_path / "log.csv", tmp_path / "out")
    assert [file.name for file in tmp_path.iterdir()] == ["log.csv"]


def test_factors_are_scikit_learns(spark, tmp_path):
    write_csv(generate(60, 80, 3000), tmp_path / "log.csv")
    split = temporal_split(read_log(tmp_path / "log.csv"))
    prepare_here(tmp_path / "log.csv", tmp_path / "data")
    factorise(spark, tmp_path / "data", tmp_path / "factors", dim=4, iterations=6, seed=1)
    recipe = Recipe("sparserec", sparserec().step, dim=4)
    source = source_sha256(tmp_path / "log.csv")
    about, found = read_factors(tmp_path / "factors", recipe, split, source)
    assert about["iterations"] == 6
    users, items = split.known_users, split.known_items
    options = NmfOptions(iterations=6)
    expected = factorise_here(split.train, users, items, 4, 1, options)
    products = [f.rows[:users] @ f.rows[users:].T for f in (found, expected)]
    np.testing.assert_allclose(products[0], products[1], atol=2e-2 * products[1].max())
    with pytest.raises(SparseRecError, match="source_sha256"):
        read_factors(tmp_path / "factors", recipe, split, "0" * 64)
    with pytest.raises(SparseRecError, match="rank is 4, this run needs 64"):
        read_factors(tmp_path / "factors", sparserec(), split)


def test_killed_and_run_again(spark, tmp_path):
    log, out = tmp_path / "log.csv", tmp_path / "out"
    write_csv(generate(60, 80, 3000), log)
    code = "from sparserec.cli import main; main()"
    run = subprocess.Popen(
        [sys.executable, "-c", code, "spark", "prepare", log, out],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not list((tmp_path / "out.part").glob("run-*/users.parquet")):
        assert run.poll() is None
        time.sleep(0.05)
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert not out.exists()
    assert (tmp_path / "out.part").exists()
    prepare(spark, log, out)
    prepare_here(log, tmp_path / "here")
    check_same(out, tmp_path / "here")
