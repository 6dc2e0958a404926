"""What changed in a file of rows, put back, gives the same bytes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from export.rows import difference, patched

Row = tuple[tuple[int, ...], tuple[int, ...]]
"""Columns, ascending, and as many values."""
VALUES = (0.0, -0.0, 1.5, float("nan"))
NAMES = {"table.safetensors": "row_ptr", "graph.safetensors": "graph_ptr"}


@st.composite
def row(draw: st.DrawFn) -> Row:
    cols = tuple(sorted(draw(st.sets(st.integers(0, 7), max_size=4))))
    return cols, tuple(draw(st.integers(0, 3)) for _ in cols)


rows_of_one_kind = st.lists(row(), max_size=5)


@st.composite
def kind(draw: st.DrawFn) -> tuple[list[Row], list[Row]]:
    """The rows of users, or of items, before and after: some kept, some new, some gone."""
    before = draw(rows_of_one_kind)
    kept = draw(st.integers(0, len(before)))
    after = [draw(row()) if draw(st.booleans()) else old for old in before[:kept]]
    return before, after + draw(rows_of_one_kind)


def pack(rows: list[Row], dtype: str, dense: list[float]) -> bytes:
    """Write a table from its rows, straight from docs/formats.md section 1.1."""
    sizes = [len(cols) for cols, _ in rows]
    numbers = [value for _, values in rows for value in values]
    tensors: dict[str, np.ndarray] = {
        "row_ptr": np.array([sum(sizes[:k]) for k in range(len(rows) + 1)], np.int32),
        "cols": np.array([col for cols, _ in rows for col in cols], np.uint8),
        "vals": np.array(numbers if dtype == "int8" else [VALUES[k] for k in numbers], dtype),
        "dense": np.array(dense, np.float32),
    }
    if dtype == "int8":
        tensors["scales"] = np.array([sum(values) for _, values in rows], np.float32)
    return save(tensors)


@given(
    kind(),
    kind(),
    st.sampled_from(["float32", "float16", "int8"]),
    st.tuples(*2 * [st.lists(st.sampled_from(VALUES), max_size=2)]),
)
def test_base_and_difference_make_the_result(
    users: tuple[list[Row], list[Row]],
    items: tuple[list[Row], list[Row]],
    dtype: str,
    dense: tuple[list[float], list[float]],
) -> None:
    base, result = (pack(users[k] + items[k], dtype, dense[k]) for k in (0, 1))
    sizes = len(users[0]), len(users[1])
    delta = difference("table.safetensors", base, result, sizes)
    assert delta is not None
    assert patched("table.safetensors", base, delta, sizes) == result
    parts = load(delta)
    assert set(parts.get("row_ptr.rows", [])) == {
        first + k
        for first, (before, after) in ((0, users), (len(users[1]), items))
        for k, found in enumerate(after)
        if k >= len(before) or found != before[k]
    }
    assert ("dense" in parts) == (repr(dense[0]) != repr(dense[1]))


@given(kind(), kind())
def test_ids_are_rows_too(
    users: tuple[list[Row], list[Row]], items: tuple[list[Row], list[Row]]
) -> None:
    files = []
    for k in (0, 1):
        tensors = {}
        for name, rows in (("users", users[k]), ("items", items[k])):
            sizes = [len(cols) for cols, _ in rows]
            tensors[f"{name}_offsets"] = np.cumsum([0, *sizes]).astype(np.int64)
            tensors[f"{name}_utf8"] = np.array([v for _, vs in rows for v in vs], np.uint8)
        files.append(save(tensors))
    delta = difference("ids.safetensors", files[0], files[1], (1, 2))
    assert delta is not None
    assert patched("ids.safetensors", files[0], delta, (1, 2)) == files[1]


pairs = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), unique=True, max_size=12)


@given(pairs, pairs, st.data())
def test_pairs_of_the_base_are_not_told_again(
    log: list[tuple[int, int]], more: list[tuple[int, int]], data: st.DataObject
) -> None:
    """Pairs go and come, and may change places."""
    kept = [pair for pair in log if data.draw(st.booleans())]
    after = kept + [pair for pair in more if pair not in kept]
    if data.draw(st.booleans()):
        after = data.draw(st.permutations(after))
    name, files = "interactions.safetensors", []
    for found in (log, after):
        users, items = np.array(found, np.int32).reshape(-1, 2).T.copy()
        tensors = {"log_users": users, "log_items": items, "later_users": items[:0]}
        files.append(save({**tensors, "seen_ptr": np.zeros(1, np.int32), "seen_items": items[:0]}))
    delta = difference(name, files[0], files[1], (1, 1))
    assert delta is not None
    assert patched(name, files[0], delta, (1, 1)) == files[1]
    told = load(delta).get("log_users", np.empty(0))
    assert len(told) == (len(set(after) - set(log)) if after != log else 0)


def test_pairs_that_go_and_come_are_all_that_is_told() -> None:
    def file(log: list[tuple[int, int]]) -> bytes:
        users, items = np.array(log, np.int32).T.copy()
        none, one = np.empty(0, np.int32), np.zeros(1, np.int32)
        later = {"later_users": none, "later_items": none}
        seen = {"seen_ptr": one, "seen_items": none}
        return save({"log_users": users, "log_items": items, **later, **seen})

    log = [(k, k + 1) for k in range(20)]
    after = [*log[3:7], (99, 1), (98, 1), *log[10:]]
    delta = difference("interactions.safetensors", file(log), file(after), (1, 1))
    assert delta is not None
    parts = {name: found.tolist() for name, found in load(delta).items() if name != "header"}
    assert parts == {
        "log_users.starts": [3, -1, 10],
        "log_users.sizes": [4, 2, 10],
        "log_users": [99, 98],
        "log_items": [1, 1],
    }


@pytest.mark.parametrize(
    ("starts", "sizes"),
    [([0], [2]), ([1], [3]), ([0, -1], [2, 2]), ([2], [3]), ([0, 0], [1]), ([3], [-1])],
)
def test_runs_that_do_not_fit_are_an_error(starts: list[int], sizes: list[int]) -> None:
    none, log = np.empty(0, np.int32), np.arange(3, dtype=np.int32)
    tensors = {"log_users": log, "log_items": log, "later_users": none, "later_items": none}
    base = save({**tensors, "seen_ptr": np.zeros(1, np.int32), "seen_items": none})
    delta = save(
        {
            "header": np.frombuffer(base[: 8 + int.from_bytes(base[:8], "little")], np.uint8),
            "log_users": none,
            "log_items": none,
            "log_users.starts": np.array(starts, np.int32),
            "log_users.sizes": np.array(sizes, np.int32),
        }
    )
    with pytest.raises(ValueError, match=r"log_users\.starts are not runs"):
        patched("interactions.safetensors", base, delta, (1, 1))


def test_one_changed_row_is_all_that_is_told() -> None:
    rows: list[Row] = [((0, 1, 2), (k % 4, 1, 2)) for k in range(50)]
    base = pack(rows, "float32", [1.0])
    rows[17] = ((3, 5), (2, 1))
    delta = difference("table.safetensors", base, pack(rows, "float32", [1.0]), (20, 20))
    assert delta is not None
    parts = load(delta)
    assert parts.pop("header").tobytes()[8:9] == b"{"
    assert {name: values.tolist() for name, values in parts.items()} == {
        "row_ptr.rows": [17],
        "row_ptr.sizes": [2],
        "cols": [3, 5],
        "vals": [1.5, -0.0],
    }


@pytest.mark.parametrize(("before", "after"), [("float32", "int8"), ("int8", "float16")])
def test_another_precision_is_another_file(before: str, after: str) -> None:
    rows: list[Row] = [((0,), (1,))]
    made = difference("table.safetensors", pack(rows, before, []), pack(rows, after, []), (1, 1))
    assert made is None


def test_scales_and_no_scales_are_different_files() -> None:
    packed = pack([((0,), (1,))], "int8", [])
    bare = save({name: values for name, values in load(packed).items() if name != "scales"})
    assert difference("table.safetensors", packed, bare, (1, 1)) is None
    assert difference("table.safetensors", bare, packed, (1, 1)) is None
    half, whole = (pack([((0,), (1,))], dtype, []) for dtype in ("float16", "float32"))
    assert difference("table.safetensors", half, whole, (1, 1)) is None


def test_a_row_whose_scale_alone_changed_is_told() -> None:
    tensors = load(pack([((0,), (1,)), ((1,), (2,))], "int8", []))
    base = save(tensors)
    tensors["scales"] = tensors["scales"] + np.float32([0, 1])
    delta = difference("table.safetensors", base, save(tensors), (1, 1))
    assert delta is not None
    assert load(delta)["row_ptr.rows"].tolist() == [1]
    assert patched("table.safetensors", base, delta, (1, 1)) == save(tensors)


@pytest.mark.parametrize("pointers", [[1, 2, 2], [0, 2, 1]])
def test_pointers_that_do_not_rise_from_0_are_an_error(pointers: list[int]) -> None:
    whole = pack([((0,), (1,)), ((1,), (2,))], "float32", [])
    broken = save(load(whole) | {"row_ptr": np.array(pointers, np.int32)})
    with pytest.raises(ValueError, match="do not rise from 0"):
        difference("table.safetensors", broken, whole, (1, 1))


def test_a_new_row_that_is_not_told_is_an_error() -> None:
    rows: list[Row] = [((0, 1), (1, 2)), ((2,), (3,))]
    base, result = pack(rows, "float32", []), pack([*rows, ((), ())], "float32", [])
    delta = difference("table.safetensors", base, result, (1, 1))
    assert delta is not None
    untold = _with(load(delta), row_ptr__rows=[], row_ptr__sizes=[])
    with pytest.raises(ValueError, match="a row is new and not told"):
        patched("table.safetensors", base, untold, (1, 1))


def _with(parts: dict[str, np.ndarray], **changed: list[int]) -> bytes:
    new = {name.replace("__", "."): np.array(v, np.int32) for name, v in changed.items()}
    return save({**parts, **new})


def test_what_does_not_fit_is_an_error() -> None:
    rows: list[Row] = [((0, 1), (1, 2)), ((2,), (3,)), ((), ())]
    base = pack(rows, "float32", [])
    rows[1] = ((4, 5), (1, 1))
    name = "table.safetensors"
    delta = difference(name, base, pack(rows, "float32", []), (1, 1))
    assert delta is not None
    parts = load(delta)
    header = json.loads(parts["header"].tobytes()[8:])
    header["vals"]["shape"] = [2**40]
    header["vals"]["data_offsets"][1] = header["vals"]["data_offsets"][0] + 2**42
    text = json.dumps(header).encode()
    huge = np.frombuffer(len(text).to_bytes(8, "little") + text, np.uint8)
    for bad in (
        b"",
        delta[:-1],
        _with(parts, row_ptr__rows=[7]),
        _with(parts, row_ptr__rows=[-1]),
        _with(parts, row_ptr__rows=[1, 1], row_ptr__sizes=[1, 1]),
        _with(parts, row_ptr__sizes=[-2]),
        _with(parts, row_ptr__sizes=[]),
        save({**parts, "header": huge}),
        save({**parts, "cols": np.append(parts["cols"], np.uint8(7))}),
        save({key: values for key, values in parts.items() if key != "cols"}),
    ):
        with pytest.raises(ValueError, match=r"safetensors|fit|rows"):
            patched(name, base, bad, (1, 1))
    with pytest.raises(ValueError, match="no file that has rows"):
        patched("step.pte", base, delta, (1, 1))
