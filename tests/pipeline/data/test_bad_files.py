"""Every way a file can be bad, in every format: one error that names file, line and fix."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.data.datasets import load
from pipeline.data.lightgcn import read_lightgcn
from pipeline.data.logs import read_log
from sparserec.errors import SparseRecError

HEADER = b"user_id,item_id,timestamp\n"

CSV_CASES = {
    "too few fields": (HEADER + b"a,x,1\nb,y\n", 3, "2 fields where the header has 3"),
    "too many fields": (HEADER + b"a,x,1\nb,y,2,9\n", 3, "4 fields where the header has 3"),
    "blank line": (HEADER + b"a,x,1\n\nb,y,2\n", 3, "empty user"),
    "blank line before another": (HEADER + b"a,x,1\n\nb,y\n", 3, "0 fields"),
    "quote never closed": (HEADER + b'a,x,1\n"b,y,2\n', 3, "1 fields where the header has 3"),
    "endless quote": (HEADER + b'a,x,1\n"b,y,2\n' + b"c,z,3\n" * 30_000, 3, "malformed"),
    "after line breaks": (HEADER + b'a,x,1\n"b\nb",y,"2\n"\nc,z,w\n', 6, "'w' is not a time"),
    "negative user": (HEADER + b"1,2,1\n-3,2,2\n", 3, "user id -3 is negative"),
    "negative item": (HEADER + b"1,2,1\n3,-2,2\n", 3, "item id -2 is negative"),
    "NaN user": (HEADER + b"a,x,1\nNaN,x,2\n", 3, "NaN where the user's id should be"),
    "NaN item": (HEADER + b"a,x,1\na,nan,2\n", 3, "NaN where the item's id should be"),
    "NaN time": (HEADER + b"a,x,1\na,y,nan\n", 3, "timestamp is nan"),
    "infinite time": (HEADER + b"a,x,1\na,y,inf\n", 3, "timestamp is inf"),
    "huge time": (HEADER + b"a,x,1\na,y,1e30\n", 3, "does not fit 64 bits"),
    "no time": (HEADER + b"a,x,1\na,y,soon\n", 3, "'soon' is not a time"),
    "first time bad": (HEADER + b"a,x,soon\na,y,1\n", 2, "'soon' is not a time"),
    "mixed times": (HEADER + b"a,x,1\na,y,2\nb,x,2024-01-01\n", 4, "is not a time as the others"),
    "mixed zones": (
        HEADER + b"a,x,2024-01-01T00:00:00Z\na,y,2024-01-01T00:00:00\n",
        3,
        "is not a time",
    ),
    "empty time": (HEADER + b"a,x,1\na,y,\n", 3, "'' is not a time"),
    "empty user": (HEADER + b"a,x,1\n,y,2\n", 3, "empty user"),
    "blank user": (HEADER + b"a,x,1\n  ,y,2\n", 3, "empty user"),
    "empty item": (HEADER + b"a,x,1\nb,,2\n", 3, "empty item"),
    "duplicate": (HEADER + b"a,x,1\nb,x,2\na,x,3\n", 4, "took item 'x' on line 2 already"),
    "no header": (b"1,2,3\n4,5,6\n", 1, "a header is expected"),
    "other header": (b"who,what,when\na,x,1\n", 1, "no user column among: who, what, when"),
    "blanks": (b"user_id item_id\na x\n", 1, "no user column"),
    "two user columns": (b"user_id,item_id,user\na,x,a\n", 1, "2 columns could be the user"),
    "latin-1": (HEADER + b"a,x,1\ncaf\xe9,y,2\n", 3, "byte 35 is not UTF-8"),
    "utf-16": ("user_id,item_id\na,x\n".encode("utf-16"), 1, "looks like UTF-16"),
    "cut short in a character": (HEADER + b"a,caf\xc3", 2, "is not UTF-8"),
    "0 bytes": (b"", 1, "0 bytes"),
}

LIGHTGCN_CASES = {
    "word": (b"0 1 2\n1 x 3\n", 2, "malformed: 'x' is not a whole number"),
    "tab": (b"0 1 2\n1\t3\n", 2, "malformed"),
    "decimal": (b"0 1 2\n1 2.5\n", 2, "malformed: '2.5'"),
    "too many digits": (b"0 1 2\n1 12345678901234567890\n", 2, "malformed"),
    "blank line": (b"0 1 2\n\n1 3\n", 2, "the line is blank"),
    "negative user": (b"0 1 2\n-1 3\n", 2, "id -1 is negative"),
    "negative item": (b"0 1 2\n1 -3\n", 2, "id -3 is negative"),
    "NaN": (b"0 1 2\n1 NaN\n", 2, "NaN where an id should be"),
    "empty user": (b"0 1 2\n1\n2 4\n", 2, "user 1 has no items"),
    "duplicate item": (b"0 1 2\n1 3 4 3\n", 2, "item 3 stands more than once"),
    "duplicate user": (b"0 1 2\n1 3\n0 4\n", 3, "user 0 already has line 1"),
    "header": (b"user items\n0 1 2\n", 1, "a header or other text ('user')"),
    "latin-1": (b"0 1 2\n1 caf\xe9\n", 2, "byte 11 is not UTF-8"),
    "utf-16": ("0 1 2\n".encode("utf-16"), 1, "looks like UTF-16"),
    "0 bytes": (b"", 1, "0 bytes"),
}


def _table(**columns):
    return pa.table(columns)


def _not_utf8():
    """A text column that claims UTF-8 and holds b"\\xe9"."""
    offsets = pa.py_buffer(b"\x00\x00\x00\x00\x01\x00\x00\x00")
    bad = pa.StringArray.from_buffers(1, offsets, pa.py_buffer(b"\xe9"))
    return _table(user_id=bad, item_id=["x"])


PARQUET_CASES = {
    "negative user": (_table(user_id=[1, -3], item_id=[1, 2]), 2, "user id -3 is negative"),
    "missing user": (_table(user_id=[1, None], item_id=[1, 2]), 2, "empty user"),
    "empty item": (_table(user_id=["a", "b"], item_id=["x", ""]), 2, "empty item"),
    "NaN id": (_table(user_id=["a", "nan"], item_id=["x", "y"]), 2, "NaN where the user's id"),
    "ids as decimals": (_table(user_id=[1.0, 2.0], item_id=[1, 2]), 1, "cannot be ids"),
    "ids as bytes": (_table(user_id=[b"a", b"b"], item_id=[1, 2]), 1, "cannot be ids"),
    "NaN time": (
        _table(user_id=[1, 2], item_id=[1, 2], time=[1.0, float("nan")]),
        2,
        "time is nan",
    ),
    "missing time": (_table(user_id=[1, 2], item_id=[1, 2], time=[5, None]), 2, "empty time"),
    "a list as time": (_table(user_id=[1], item_id=[1], time=[[1]]), 1, "is not a time"),
    "duplicate": (_table(user_id=[1, 2, 1], item_id=[7, 7, 7]), 3, "took item '7' on row 1"),
}


def _check(error, path, place, expected):
    message = error.value.message
    assert str(path) in message
    assert f", {place}: " in message
    assert expected in message
    assert error.value.fix
    assert "\n" not in message


@pytest.mark.parametrize("name", CSV_CASES)
def test_csv(name, tmp_path):
    content, line, expected = CSV_CASES[name]
    path = tmp_path / "log.csv"
    path.write_bytes(content)
    with pytest.raises(SparseRecError) as error:
        read_log(path)
    _check(error, path, f"line {line}", expected)


@pytest.mark.parametrize("name", CSV_CASES)
def test_tsv(name, tmp_path):
    content, line, expected = CSV_CASES[name]
    path = tmp_path / "log.tsv"
    path.write_bytes(content if "utf-16" in name else content.replace(b",", b"\t"))
    with pytest.raises(SparseRecError) as error:
        read_log(path)
    _check(error, path, f"line {line}", expected)


@pytest.mark.parametrize("name", LIGHTGCN_CASES)
def test_lightgcn(name, tmp_path):
    content, line, expected = LIGHTGCN_CASES[name]
    path = tmp_path / "train.txt"
    path.write_bytes(content)
    with pytest.raises(SparseRecError) as error:
        read_lightgcn(path)
    _check(error, path, f"line {line}", expected)


@pytest.mark.parametrize("name", PARQUET_CASES)
def test_parquet(name, tmp_path):
    table, row, expected = PARQUET_CASES[name]
    path = tmp_path / "log.parquet"
    pq.write_table(table, path)
    with pytest.raises(SparseRecError) as error:
        read_log(path)
    _check(error, path, f"row {row}", expected)


def test_parquet_header_surprise(tmp_path):
    path = tmp_path / "log.parquet"
    pq.write_table(_table(who=[1], what=[2]), path)
    with pytest.raises(SparseRecError, match="no user column among: who, what"):
        read_log(path)


def test_parquet_wrong_encoding(tmp_path):
    path = tmp_path / "log.parquet"
    pq.write_table(_not_utf8(), path)
    with pytest.raises(SparseRecError, match="not UTF-8") as error:
        read_log(path)
    assert str(path) in error.value.message
    assert error.value.fix


@pytest.mark.parametrize("cut", [0, 1, 10, -1, -8])
def test_parquet_cut_short(tmp_path, cut):
    path = tmp_path / "log.parquet"
    pq.write_table(_table(user_id=[1, 2], item_id=[1, 2]), path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(SparseRecError, match=r"1: (damaged|the file is empty)") as error:
        read_log(path)
    assert str(path) in error.value.message
    assert error.value.fix


def test_the_first_bad_line_of_a_long_file_is_named(tmp_path):
    # Past pyarrow's first block (1 MB), where rows are counted anew.
    path = tmp_path / "log.csv"
    lines = [f"user{k},item{k},{k}\n" for k in range(100_000)]
    for bad, expected in (("u,i\n", "2 fields"), ("u,-1,3\n", "negative"), ("u,i,x\n", "a time")):
        lines[80_000] = lines[90_000] = bad
        path.write_text(HEADER.decode() + "".join(lines))
        with pytest.raises(SparseRecError, match=f"line 80002: .*{expected}"):
            read_log(path)


def test_wrong_byte_of_a_long_file(tmp_path):
    path = tmp_path / "log.csv"
    good = "user_id,item_id\n" + "".join(f"é{k},x\n" for k in range(200_000))
    data = good.encode()
    path.write_bytes(data + b"\xff,x\n")
    with pytest.raises(SparseRecError, match=f"line 200002: byte {len(data)} is not UTF-8"):
        read_log(path)


@pytest.mark.parametrize("read", [read_log, read_lightgcn])
def test_no_such_file(read, tmp_path):
    for path, problem in ((tmp_path / "none.csv", "does not exist"), (tmp_path, "is a directory")):
        with pytest.raises(SparseRecError, match=problem):
            read(path)


def test_header_only(tmp_path):
    path = tmp_path / "log.csv"
    path.write_bytes(HEADER)
    with pytest.raises(SparseRecError, match="no interactions below the header"):
        read_log(path)


def test_a_named_column_must_be_there(tmp_path):
    path = tmp_path / "log.csv"
    path.write_bytes(HEADER + b"a,x,1\n")
    with pytest.raises(SparseRecError, match="no time column 'clock'"):
        read_log(path, time_col="clock")
    with pytest.raises(SparseRecError, match="named twice"):
        read_log(path, user_col="item_id")


def test_ratings(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("user,item,rating\na,x,3\nb,x,4\nb,y,many\n")
    assert len(read_log(path)) == 3
    with pytest.raises(SparseRecError, match="line 4: rating 'many' is not a number"):
        read_log(path, min_rating=1)
    with pytest.raises(SparseRecError, match="no threshold"):
        read_log(path, rating_col="rating")
    path.write_text("user,item,rating\na,x,3\n")
    with pytest.raises(SparseRecError, match=r"no rating reaches 5 \(highest: 3\)"):
        read_log(path, min_rating=5)


def test_unknown_suffix_and_name(tmp_path):
    path = tmp_path / "log.json"
    path.write_text("{}")
    with pytest.raises(SparseRecError, match="says nothing about its format"):
        load(str(path))
    with pytest.raises(SparseRecError, match="neither a file or folder nor a dataset"):
        load("ml-100m")
    with pytest.raises(SparseRecError, match=r"train\.txt is missing"):
        load(str(tmp_path))
