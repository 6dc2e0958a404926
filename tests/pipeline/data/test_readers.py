"""Good files: what is read is what was written, however it was written."""

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.data.interactions import Interactions
from pipeline.data.lightgcn import read_lightgcn
from pipeline.data.logs import read_log, write_csv

SAME_FOLDER = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def triples(log):
    """Return (raw user, raw item, time) of each pair, by plain loops."""
    times = [None] * len(log) if log.timestamps is None else log.timestamps.tolist()
    return [
        (log.user_ids[u], log.item_ids[i], t)
        for u, i, t in zip(log.users.tolist(), log.items.tolist(), times, strict=True)
    ]


def _is_id(text):
    number = text[0] == "-" and text[1:].isdigit()
    return text.strip() == text and text.lower() != "nan" and not number


# Any text is an id: commas, quotes, tabs, line breaks, other scripts.
raw_ids = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), include_characters="\t\n"), min_size=1
).filter(_is_id)
pairs = st.lists(st.tuples(raw_ids, raw_ids), min_size=1, max_size=30, unique_by=lambda pair: pair)


def _interactions(rows, times):
    user_ids = list(dict.fromkeys(user for user, _ in rows))
    item_ids = list(dict.fromkeys(item for _, item in rows))
    return Interactions(
        np.array([user_ids.index(user) for user, _ in rows], np.int32),
        np.array([item_ids.index(item) for _, item in rows], np.int32),
        times,
        user_ids,
        item_ids,
    )


@SAME_FOLDER
@given(pairs, st.data())
def test_csv_round_trip(tmp_path, rows, data):
    times = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=len(rows), max_size=len(rows))
    log = _interactions(rows, np.array(data.draw(times), np.int64))
    path = tmp_path / "log.csv"
    write_csv(log, path)
    back = read_log(path)
    assert triples(back) == triples(log)
    assert (back.user_ids, back.item_ids) == (log.user_ids, log.item_ids)
    assert (back.users.dtype, back.items.dtype) == (np.int32, np.int32)


@SAME_FOLDER
@given(pairs)
def test_parquet_reads_the_same(tmp_path, rows):
    path = tmp_path / "log.parquet"
    users, items = zip(*rows, strict=True)
    pq.write_table(pa.table({"user": users, "item": items}), path)
    back = read_log(path)
    assert triples(back) == [(user, item, None) for user, item in rows]


@SAME_FOLDER
@given(
    st.dictionaries(
        st.integers(0, 10**18 - 1),
        st.lists(st.integers(0, 10**18 - 1), min_size=1, max_size=8, unique=True),
        min_size=1,
        max_size=8,
    ),
    st.booleans(),
)
def test_lightgcn_lines(tmp_path, lines, windows):
    path = tmp_path / "train.txt"
    text = "\n".join(f"{user} {' '.join(map(str, items))}" for user, items in lines.items())
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode() if windows
                     else text.encode())  # fmt: skip
    log = read_lightgcn(path)
    expected = [(str(user), str(item), None) for user, items in lines.items() for item in items]
    assert triples(log) == expected
    assert log.user_ids == [str(user) for user in sorted(lines)]
    assert log.item_ids == [str(i) for i in sorted({i for items in lines.values() for i in items})]


@pytest.mark.parametrize("separator", [",", ";", "|", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_separator_line_end_and_byte_order_mark(tmp_path, separator, end, mark):
    rows = [["item_id", "user_id"], ["x", "a"], ["ü", "b "]]
    path = tmp_path / "log.csv"
    text = mark + end.join(separator.join(row) for row in rows)
    path.write_bytes(text.encode())
    assert triples(read_log(path)) == [("a", "x", None), ("b", "ü", None)]


def test_recbole_header(tmp_path):
    path = tmp_path / "a.inter"
    path.write_text(
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n7\t9\t3\t881250949.7\n"
    )
    assert triples(read_log(path)) == [("7", "9", 881250949)]


def test_columns_by_name(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("who,what,User,when\na,x,q,5\n")
    log = read_log(path, user_col="who", item_col="what", time_col="when")
    assert triples(log) == [("a", "x", 5)]


@pytest.mark.parametrize(
    "text", ["2024-02-29T12:30:15.250Z", "2024-02-29 12:30:15.250", "2024-02-29T14:30:15.250+0200"]
)
def test_date_times_become_microseconds(tmp_path, text):
    path = tmp_path / "log.csv"
    path.write_text(f"user,item,time\na,x,{text}\n")
    expected = datetime(2024, 2, 29, 12, 30, 15, 250_000, tzinfo=UTC)
    assert read_log(path).timestamps.tolist() == [int(expected.timestamp() * 1e6)]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_parquet_timestamps_of_any_unit(tmp_path, unit):
    path = tmp_path / "log.parquet"
    when = datetime(2024, 2, 29, 12, 30, 15, tzinfo=UTC)
    times = pa.array([when], pa.timestamp(unit, "UTC"))
    pq.write_table(pa.table({"user": [1], "item": [2], "time": times}), path)
    assert triples(read_log(path)) == [("1", "2", int(when.timestamp()) * 10**6)]


def test_parquet_dictionary_columns(tmp_path):
    path = tmp_path / "log.parquet"
    users = pa.array(["a", "b", "a"]).dictionary_encode()
    pq.write_table(pa.table({"user": users, "item": [1, 2, 3]}), path)
    assert triples(read_log(path)) == [("a", "1", None), ("b", "2", None), ("a", "3", None)]


def test_keep_first_keeps_the_earliest(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("user,item,time\na,x,9\nb,y,1\na,x,3\na,x,3\nb,y,2\nc,z,0\n")
    log = read_log(path, duplicates="keep-first")
    assert triples(log) == [("b", "y", 1), ("a", "x", 3), ("c", "z", 0)]
    assert log.repeats == 3


def test_keep_first_without_times_keeps_the_first(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("user,item\na,x\nb,y\na,x\n")
    log = read_log(path, duplicates="keep-first")
    assert triples(log) == [("a", "x", None), ("b", "y", None)]
    assert log.repeats == 1


def test_threshold_leaves_no_orphan_ids(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("user,item,rating\na,x,1\nb,y,4.5\na,y,5\na,y,2\n")
    log = read_log(path, min_rating=4)
    # The low rating of (a, y) is no interaction, so it is no duplicate either.
    assert triples(log) == [("b", "y", None), ("a", "y", None)]
    assert (log.user_ids, log.item_ids, log.below_rating) == (["b", "a"], ["y"], 2)


def test_padded_ids_are_one_id_across_blocks(tmp_path):
    path = tmp_path / "log.csv"
    rows = [f"{' ' * (k % 2)}u{k % 7},{k}" for k in range(200_000)]
    path.write_text("user,item\n" + "\n".join(rows))
    log = read_log(path)
    assert log.user_ids == [f"u{k}" for k in range(7)]
    assert np.array_equal(log.users, np.arange(200_000) % 7)
    assert log.item_ids == [str(k) for k in range(200_000)]
