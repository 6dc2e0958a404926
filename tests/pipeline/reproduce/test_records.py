"""Records survive what happens to files: torn lines, duplicates, several writers."""

import json
import multiprocessing
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.reproduce.cells import Cell
from pipeline.reproduce.records import (
    Hits,
    Record,
    TornLineWarning,
    append,
    load_hits,
    path_of,
    read,
    save_hits,
)
from sparserec.errors import SparseRecError
from tests.pipeline.reproduce.made import values
from tests.pipeline.test_files import full_disk


def cell(seed: int, variant: str = "") -> Cell:
    return Cell("grid", "lastfm", "lightgcn", "mf", "sparserec", 0.1, seed, variant)


def recalls(results: Path) -> dict[str, float]:
    return {name: record.trained_recall for name, record in read(results, "grid").items()}


variants = st.text(max_size=6)
runs = st.lists(st.tuples(st.integers(0, 3), variants, st.floats(0, 1)), max_size=8)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(runs, st.data())
def test_a_file_cut_anywhere_keeps_its_whole_records_and_goes_on(
    tmp_path_factory: pytest.TempPathFactory,
    made: list[tuple[int, str, float]],
    data: st.DataObject,
) -> None:
    results = tmp_path_factory.mktemp("results")
    lines = []
    for seed, variant, valid in made:
        line = values(cell(seed, variant), valid)
        append(results, "grid", line)
        lines.append(line)
    path = path_of(results, "grid")
    whole = path.read_bytes() if path.exists() else b""
    assert whole == b"".join(json.dumps(x, separators=(",", ":")).encode() + b"\n" for x in lines)
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    # A record is there if its text is, with or without the line end; of duplicates the last.
    ends = np.cumsum([len(line) + 1 for line in whole.split(b"\n")[:-1]])
    kept = [line for line, end in zip(lines, ends, strict=True) if end - 1 <= cut]
    expected = {line["id"]: line["history"][0]["recall@20"] for line in kept}
    torn = cut > 0 and not any(cut in (end - 1, end) for end in ends)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert recalls(results) == expected
    assert [warning.category for warning in seen] == [TornLineWarning] * torn
    append(results, "grid", values(cell(9), 0.5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert recalls(results) == expected | {cell(9).id: 0.5}


def test_a_full_disk_is_said_and_the_record_can_be_written_later(tmp_path: Path) -> None:
    append(tmp_path, "grid", values(cell(1), 0.1))
    path = path_of(tmp_path, "grid")
    with full_disk(path.stat().st_size + 100), pytest.raises(SparseRecError) as error:
        append(tmp_path, "grid", values(cell(2), 0.2))
    assert error.value.message.startswith(f"{path}: cannot be written")
    with pytest.warns(TornLineWarning):
        assert recalls(tmp_path) == {cell(1).id: 0.1}
    append(tmp_path, "grid", values(cell(2), 0.2))
    assert recalls(tmp_path) == {cell(1).id: 0.1, cell(2).id: 0.2}


def test_of_two_records_of_a_cell_the_later_counts(tmp_path: Path) -> None:
    for valid in (0.1, 0.3, 0.2):
        append(tmp_path, "grid", values(cell(1), valid))
    append(tmp_path, "grid", values(cell(2), 0.4))
    assert recalls(tmp_path) == {cell(1).id: 0.2, cell(2).id: 0.4}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"schema_version": 2}', "schema_version is 2"),
        ('{"schema_version": 1}', "'cell'"),
        ("<<<<<<< HEAD", "not a record"),
        ("[]", "not a record"),
        ("", "not a record"),
        (json.dumps(values(cell(1)) | {"best_epoch": 4}), "not a record"),
        (json.dumps(values(Cell("tune", "x", "lightgcn", "mf", "set", 0.1, 1))), "'tune'"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, told: str) -> None:
    append(tmp_path, "grid", values(cell(1)))
    path = path_of(tmp_path, "grid")
    path.write_text(path.read_text() + line + "\n" + json.dumps(values(cell(2))) + "\n")
    with pytest.raises(SparseRecError, match=r"grid\.jsonl, line 2: ") as error:
        read(tmp_path, "grid")
    assert told in error.value.message


def test_a_recipe_of_another_version_is_still_a_record(tmp_path: Path) -> None:
    old = values(cell(1))
    old["recipe"]["no_such_field_any_more"] = 1
    append(tmp_path, "grid", old)
    newer = values(cell(2))
    del newer["recipe"]["patience"]  # a field that was added since has its default
    append(tmp_path, "grid", newer)
    first, second = read(tmp_path, "grid").values()
    assert first.recipe is None
    assert second.recipe is not None
    assert second.recipe.patience == 0


def _append_many(results: Path, seed: int) -> None:
    for k in range(12):
        append(results, "grid", values(cell(seed, str(k)), padding="x" * 20_000))


def test_two_processes_append_whole_lines(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_append_many, args=(tmp_path, seed)) for seed in (1, 2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(recalls(tmp_path)) == 24


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 40), st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_hits_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, users: int, depth: int, seed: int
) -> None:
    results = tmp_path_factory.mktemp("results")
    rng = np.random.default_rng(seed)
    hits = Hits(
        np.sort(rng.choice(1000, users, replace=False)),
        rng.integers(1, 500, users),
        rng.random((users, depth)) < 0.3,
    )
    names = save_hits(results, "one", hits)
    read_back = load_hits(results, Record(cell(1), None, {"hits": names}))
    assert read_back is not None
    np.testing.assert_array_equal(read_back.users, hits.users)
    np.testing.assert_array_equal(read_back.relevant, hits.relevant)
    np.testing.assert_array_equal(read_back.found, hits.found)
    (results / "hits" / names["found"]).write_bytes(b"damaged")
    with pytest.raises(SparseRecError, match=r"one\.npy\.xz"):
        load_hits(results, Record(cell(1), None, {"hits": names}))


def test_hits_of_thirty_thousand_users_are_small(tmp_path: Path) -> None:
    """Hit rates fall with the rank about as on Gowalla: .08 at the top, .03 at the end."""
    rng = np.random.default_rng(1)
    found = rng.random((30_000, 20)) < np.linspace(0.08, 0.03, 20)
    save_hits(tmp_path, "one", Hits(np.arange(30_000), np.full(30_000, 7), found))
    assert (tmp_path / "hits" / "one.npy.xz").stat().st_size < 40_000
