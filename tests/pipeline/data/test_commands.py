"""``sparserec data``: what it prints, and that it asks."""

import hashlib

import pytest
from typer.testing import CliRunner

from pipeline.data.commands import app
from pipeline.data.datasets import DATASETS, Named, Url
from sparserec.errors import SparseRecError

runner = CliRunner()


def run(*arguments, **options):
    result = runner.invoke(app, list(map(str, arguments)), **options)
    if isinstance(result.exception, SparseRecError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(autouse=True)
def _wide_and_empty(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("SPARSEREC_DATA", raising=False)


def test_list_shows_address_hash_and_terms():
    printed = run("list")
    for dataset in DATASETS.values():
        assert dataset.terms in printed
        for source in dataset.files:
            assert source.sha256 in printed
            assert source.address in printed


def test_fetch_shows_the_terms_before_it_asks():
    with pytest.raises(SparseRecError, match="terms were not accepted"):
        run("fetch", "gowalla", input="n\n")
    result = runner.invoke(app, ["fetch", "gowalla"], input="n\n")
    assert result.output.index(DATASETS["gowalla"].terms) < result.output.index("Accept")


def test_fetch_with_yes_shows_the_terms_and_does_not_ask(tmp_path, monkeypatch):
    source = tmp_path / "served.txt"
    source.write_bytes(b"0 1\n")
    digest = hashlib.sha256(b"0 1\n").hexdigest()
    files = (Url("train.txt", digest, source.as_uri()),)
    monkeypatch.setitem(DATASETS, "tiny", Named("tiny", "one user", "be kind", files))
    printed = run("fetch", "tiny", "--yes", "--cache", tmp_path / "cache")
    assert "be kind" in printed
    assert "Accept" not in printed
    assert (tmp_path / "cache" / "tiny" / "train.txt").read_bytes() == b"0 1\n"
    again = run("fetch", "tiny", "--cache", tmp_path / "cache")
    assert "be kind" not in again
    assert "tiny is in" in again


def test_fetch_of_an_unknown_name():
    with pytest.raises(SparseRecError, match="nope: neither a file or folder nor a dataset"):
        run("fetch", "nope")


def test_synth_then_check(tmp_path):
    out = tmp_path / "log.csv"
    options = ["--users", 20, "--items", 30, "--interactions", 240]
    run("synth", out, *options, "--seed", 5)
    first = out.read_bytes()
    run("synth", out, *options, "--seed", 5)
    assert out.read_bytes() == first
    printed = run("check", out)
    for expected in ("20", "240", "2023-11-1", "share of all pairs", "per item"):
        assert expected in printed


def test_check_of_a_log_by_hand(tmp_path):
    path = tmp_path / "log.csv"
    # a: 3 items, b: 1; x: 2 users, y and z: 1. 4 of 2 x 3 pairs. 0 s and 86,400 s.
    path.write_text(
        "who,item,time,rating\na,x,0,5\na,y,86400,5\na,z,5,5\nb,x,5,5\nb,x,6,5\nb,y,7,1\n"
    )
    printed = run(
        "check", path, "--user-col", "who", "--duplicates", "keep-first", "--min-rating", 2
    )
    values = {}
    for line in printed.splitlines():
        cells = [cell.strip() for cell in line.split("│")]
        if len(cells) == 4:
            values[cells[1]] = cells[2]
    assert values == {
        "users": "2",
        "items": "3",
        "interactions": "4",
        "share of all pairs": "66.6667%",
        "time span": "1970-01-01 to 1970-01-02",
        "per user: min, quartiles, max": "1 1.5 2 2.5 3",
        "per item: min, quartiles, max": "1 1 1 1.5 2",
        "repeats left out": "1",
        "left out by rating": "1",
    }


def test_check_names_the_first_mistake(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("user,item\na,x\nb\n")
    with pytest.raises(SparseRecError, match="line 3: malformed"):
        run("check", path)


def test_check_of_a_split_has_a_column_for_each_file(tmp_path):
    (tmp_path / "train.txt").write_text("0 1 2\n")
    (tmp_path / "test.txt").write_text("0 3\n")
    printed = run("check", tmp_path)
    assert "train" in printed
    assert "test" in printed
    assert "no times" in printed


def test_synth_with_a_negative_seed(tmp_path):
    result = runner.invoke(app, ["synth", str(tmp_path / "log.csv"), "--seed", "-1"])
    assert result.exit_code == 2
    assert "Invalid value for '--seed'" in result.output


def test_synth_into_nowhere(tmp_path):
    with pytest.raises(SparseRecError, match="No such file"):
        run("synth", tmp_path / "none" / "log.csv")
