"""Preparing a log in bounded memory: the same split as in memory, whatever the log."""

import signal
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data import sources, spill
from pipeline.data.datasets import load
from pipeline.data.interactions import pair_keys
from pipeline.data.logs import read_log, write_csv
from pipeline.data.prepare import prepare
from pipeline.data.prepared import PARTS, describe, load_prepared, write_split
from pipeline.data.spill import Buckets, TimeCuts
from pipeline.data.split import temporal_split
from pipeline.data.synthetic import generate
from pipeline.files import whole_folder
from sparserec.errors import SparseRecError

# Few users, items and times, so that repeats, ties and newcomers are common; blanks are no part.
row = st.tuples(
    st.integers(0, 4), st.integers(0, 30), st.integers(0, 6), st.integers(1, 5), st.booleans()
)


@pytest.fixture(autouse=True, scope="module")
def _small_pieces():
    """Have even a short log come in several pieces and buckets."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "PIECE_BYTES", 64)
        patch.setattr(sources, "PIECE_ROWS", 7)
        patch.setattr(spill, "BUCKET_RECORDS", 5)
        yield


def times_of(folder, part):
    files = sorted(folder.glob(f"{part}.parquet/*")) or [folder / f"{part}.parquet"]
    return [time for file in files for time in pq.read_table(file)["time"].to_pylist()]


def check_same(folder, expected):
    """Compare a prepared folder with the split that memory holds."""
    described, found = load_prepared(folder)
    for part in PARTS:
        ours, theirs = getattr(found, part), getattr(expected, part)
        assert ours.users.dtype == ours.items.dtype == np.int32
        assert ours.users.tolist() == theirs.users.tolist()
        assert ours.items.tolist() == theirs.items.tolist()
        if theirs.timestamps is not None:
            assert times_of(folder, part) == theirs.timestamps.tolist()
        assert described.interactions[part] == len(theirs)
    for name in ("user_ids", "item_ids", "known_users", "known_items", "dropped_later"):
        assert getattr(found, name) == getattr(expected, name), name
    train = expected.train
    assert found.train_keys is not None
    keys = np.sort(pair_keys(train.users, train.items, expected.known_items))
    assert found.train_keys.tolist() == keys.tolist()
    for kind, values, known in (
        ("users", train.users, expected.known_users),
        ("items", train.items, expected.known_items),
    ):
        table = pq.read_table(folder / f"{kind}.parquet")
        assert table["index"].to_pylist() == list(range(table.num_rows))
        degrees = [values.tolist().count(k) for k in range(table.num_rows)]
        assert table["degree"].to_pylist() == degrees
        quartiles = np.percentile(degrees[:known], [0, 25, 50, 75, 100])
        assert described.degrees[kind] == pytest.approx(quartiles.tolist())


def write_log(folder, rows, kind, parts):
    """Write rows to a log of some parts; returns its path."""
    source = folder / "log"
    source.mkdir()
    for k in range(parts):
        some = rows[k * len(rows) // parts : (k + 1) * len(rows) // parts]
        names = ("user", "item", "time", "rating")
        columns = {
            "user": [f" u{u}" if blank else f"u{u}" for u, _, _, _, blank in some],
            "item": [f"i{i}" for _, i, _, _, _ in some],
            "time": [t for _, _, t, _, _ in some],
            "rating": [r for _, _, _, r, _ in some],
        }
        path = source / f"part-{k:05}.{kind}"
        if kind == "parquet":
            types = (pa.string(), pa.string(), pa.int64(), pa.int64())
            schema = pa.schema(list(zip(names, types, strict=True)))
            pq.write_table(pa.table(columns, schema=schema), path, row_group_size=11)
        else:
            lines = [",".join(map(str, line)) for line in zip(*columns.values(), strict=True)]
            path.write_text("\n".join([",".join(names), *lines]) + "\n")
    (source / "_SUCCESS").write_text("")
    return source


@settings(max_examples=60, deadline=None)
@given(st.lists(row, min_size=1, max_size=120), st.data())
def test_equals_the_split_in_memory(tmp_path_factory, rows, data):
    folder = tmp_path_factory.mktemp("log")
    kind = data.draw(st.sampled_from(["csv", "parquet"]))
    source = write_log(folder, rows, kind, data.draw(st.integers(1, 3)))
    options = {"duplicates": "keep-first"}
    if data.draw(st.booleans()):
        options["min_rating"] = data.draw(st.integers(1, max(rating for *_, rating, _ in rows)))
    fractions = data.draw(st.sampled_from([(0.6, 0.1, 0.2), (0.1, 0.0, 0.5), (0.3, 0.3, 0.4)]))
    log = read_log(source, **options)
    described = prepare(source, folder / "out", fractions, **options)
    assert (described.repeats, described.below_rating) == (log.repeats, log.below_rating)
    check_same(folder / "out", temporal_split(log, *fractions))


def test_a_log_of_many_buckets(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "PIECE_BYTES", 1 << 14)
    monkeypatch.setattr(spill, "BUCKET_RECORDS", 700)
    write_csv(generate(300, 400, 9000, seed=2), tmp_path / "log.csv")
    prepare(tmp_path / "log.csv", tmp_path / "out")
    check_same(tmp_path / "out", load(str(tmp_path / "log.csv")).split())
    assert not list(tmp_path.glob("*.part"))


def test_a_split_in_memory_can_be_written(tmp_path):
    split = temporal_split(generate(40, 60, 900))
    write_split(split, tmp_path / "out", "made", "00")
    check_same(tmp_path / "out", split)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 99)), min_size=1, unique=True),
    st.integers(1, 9),
)
def test_time_cuts_are_lexicographic(rows, parts):
    times, numbers = np.array(rows).T
    found = TimeCuts(times, numbers, parts).part(times, numbers)
    order = sorted(range(len(rows)), key=lambda k: rows[k])
    cuts = [rows[order[len(rows) * k // parts]] for k in range(1, parts)]
    assert found.tolist() == [sum(cut <= row for cut in cuts) for row in rows]


def test_buckets_keep_the_order_of_their_records(tmp_path):
    buckets = Buckets(tmp_path / "b", 5 * spill.BUCKET_RECORDS, np.int64)
    for start in (0, 50):
        values = np.arange(start, start + 50)
        buckets.scatter(values, values % 5)
    assert [b.tolist() for b in buckets.drain()] == [
        *[list(range(k, 100, 5)) for k in range(5)],
        [],
    ]
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("text", "place", "problem"),
    [
        ("user,item,time\na,x,1\nb,x,2\na,x,3\n", "line 4", "took item 'x' on line 2 already"),
        ("user,item,time\na,x,1\nb,,2\n", "line 3", "empty item"),
        ("user,item,time\na,x,1\nb\n", "line 3", "1 fields where the header has 3"),
        ("user,item\na,x\n", "", "needs a time for each"),
    ],
)
def test_what_is_refused(tmp_path, text, place, problem):
    path = tmp_path / "log.csv"
    path.write_text(text)
    with pytest.raises(SparseRecError, match=problem) as error:
        prepare(path, tmp_path / "out")
    assert place in error.value.message
    assert [file.name for file in tmp_path.iterdir()] == ["log.csv"]


def test_the_first_repeat_of_all_buckets_is_named(tmp_path):
    path = tmp_path / "log.csv"
    rows = [f"u{k % 10},i{k},{k}" for k in range(40)]
    path.write_text("\n".join(["user,item,time", *rows, "u7,i17,99", "u1,i11,99", ""]))
    with pytest.raises(SparseRecError, match=r"line 42: .*'u7' took item 'i17' on line 19"):
        prepare(path, tmp_path / "out")


def test_a_repeat_in_another_part_is_named_with_its_file(tmp_path):
    source = write_log(tmp_path, [(1, 1, 1, 1, False), (1, 1, 2, 1, False)], "csv", 2)
    with pytest.raises(SparseRecError, match=r"00001.csv, line 2: .* on line 2 of .*00000.csv"):
        read_log(source)


def test_times_have_one_form_in_all_pieces(tmp_path):
    path = tmp_path / "log.csv"
    rows = [f"u{k},i,{k}" for k in range(40)]
    path.write_text("\n".join(["user,item,time", *rows, "a,b,2024-01-01", ""]))
    with pytest.raises(SparseRecError, match="line 42: time '2024-01-01' is not a time as"):
        read_log(path)
    path.write_text("\n".join(["user,item,time", *rows, "a,b,7.5", ""]))
    assert read_log(path).timestamps.tolist() == [*range(40), 7]
    path.write_text("\n".join(["user,item,time", f"a,b,{2**60}", *rows, "a,c,7.5", ""]))
    with pytest.raises(SparseRecError, match=r"line 43: time '7\.5' is not a time as"):
        read_log(path)


@pytest.mark.parametrize("first", [pa.array([5]), pa.array([5], pa.timestamp("ms"))])
def test_parts_whose_times_differ_in_kind(tmp_path, first):
    times = [first, pa.array([5], pa.timestamp("s") if first.type == pa.int64() else pa.int64())]
    for k, time_ in enumerate(times):
        pq.write_table(
            pa.table({"user": [k], "item": [k], "time": time_}), tmp_path / f"{k}.parquet"
        )
    with pytest.raises(SparseRecError, match=r"1\.parquet, row 1: .* as the others are"):
        read_log(tmp_path)


def test_parts_of_one_format(tmp_path):
    (tmp_path / "a.csv").write_text("user,item\na,x\n")
    (tmp_path / "b.tsv").write_text("user\titem\na\tx\n")
    with pytest.raises(SparseRecError, match=r"\.csv, \.tsv; a log's parts have one format"):
        read_log(tmp_path)


def test_a_folder_is_whole_or_not_there(tmp_path):
    out = tmp_path / "out"

    def fail():
        with whole_folder(out) as folder:
            (folder / "half").write_text("")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not list(tmp_path.iterdir())
    with whole_folder(out) as folder:
        (folder / "a").write_text("a")
        with pytest.raises(SparseRecError, match="another run is writing"), whole_folder(out):
            pass
    assert (out / "a").read_text() == "a"
    with pytest.raises(SparseRecError, match="is there already"), whole_folder(out):
        pass


PROGRAM = """
import sys
from pathlib import Path
from pipeline.data.prepare import prepare

def progress(what, done, total):
    if what == sys.argv[3]:
        print("now", flush=True)
        sys.stdin.read()

prepare(Path(sys.argv[1]), Path(sys.argv[2]), progress=progress)
"""


@pytest.mark.parametrize("stage", ["reading rows", "splitting users", "writing what is later"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_killed_and_run_again(tmp_path, stage, how):
    log, out = tmp_path / "log.csv", tmp_path / "out"
    write_csv(generate(40, 60, 900), log)
    run = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, log, out, stage],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert run.stdout.readline() == b"now\n", run.stderr.read()
    run.send_signal(how)
    assert run.wait() != 0
    for pipe in (run.stdin, run.stdout, run.stderr):
        pipe.close()
    assert not out.exists()
    assert (tmp_path / "out.part").exists() == (how == signal.SIGKILL)
    prepare(log, out)
    check_same(out, load(str(log)).split())
    assert not (tmp_path / "out.part").exists()


def test_a_damaged_folder(tmp_path):
    write_split(temporal_split(generate(40, 60, 900)), tmp_path / "out", "made", "00")
    (tmp_path / "out" / "valid.parquet").write_bytes(b"PAR1")
    with pytest.raises(SparseRecError, match=r"valid\.parquet: missing or damaged"):
        load_prepared(tmp_path / "out")
    assert not (tmp_path / "out" / "arrays").exists()
    (tmp_path / "out" / "prepared.json").write_text("{}")
    with pytest.raises(SparseRecError, match=r"prepared\.json: damaged, or of another version"):
        describe(tmp_path / "out")
