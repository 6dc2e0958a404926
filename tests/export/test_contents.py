"""A graph, or a table, that is not as docs/formats.md says is refused, and the tensor named."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from safetensors.numpy import save_file

from export.contents import _check_table, check_graph
from export.manifest import Manifest
from sparserec.errors import SparseRecError

MANIFEST = cast(Manifest, SimpleNamespace(num_users=2, num_items=3))
PTR, ROWS = [0, 2, 3, 4, 4, 6], [2, 4, 4, 0, 0, 1]
"""Rows 0 and 1 are users, 2 to 4 items; item row 3 has no neighbour."""


def check(folder: Path, ptr: object, rows: object, dtype: Any = np.int32) -> None:
    path = folder / "graph.safetensors"
    save_file({"graph_ptr": np.array(ptr, dtype), "graph_rows": np.array(rows, dtype)}, path)
    check_graph(path, MANIFEST)


def test_a_graph_is_accepted_also_one_without_pairs(tmp_path: Path) -> None:
    check(tmp_path, PTR, ROWS)
    check(tmp_path, [0] * 6, [])


@pytest.mark.parametrize(
    ("ptr", "rows", "message"),
    [
        (PTR[:-1], ROWS, "graph_ptr: has 5 elements, not 6"),
        ([1, *PTR[1:]], ROWS, "graph_ptr: "),
        ([*PTR[:-1], 5], ROWS, "graph_ptr: "),
        ([0, 3, 2, 4, 4, 6], [2, 3, 4, 0, 0, 1], "graph_ptr: "),
        (PTR, [4, 2, 4, 0, 0, 1], "graph_rows: does not increase strictly"),
        (PTR, [2, 2, 4, 0, 0, 1], "graph_rows: does not increase strictly"),
        (PTR, [2, 5, 4, 0, 0, 1], r"graph_rows: holds a row outside \[0, 5\)"),
        (PTR, [2, 4, -1, 0, 0, 1], r"graph_rows: holds a row outside \[0, 5\)"),
        (PTR, [1, 4, 4, 0, 0, 1], "graph_rows: joins two users, or two items"),
        (PTR, [2, 4, 4, 2, 0, 1], "graph_rows: joins two users, or two items"),
        ([0, 2, 3, 4, 5, 6], ROWS, "graph_rows: holds a pair once only"),
    ],
)
def test_what_is_no_graph_is_refused(
    tmp_path: Path, ptr: list[int], rows: list[int], message: str
) -> None:
    with pytest.raises(SparseRecError, match=message):
        check(tmp_path, ptr, rows)


def test_other_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SparseRecError, match=r"graph_ptr: is int64 \[6\], not int32 \[n\]"):
        check(tmp_path, PTR, ROWS, np.int64)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, None),
        ({"cols": [0, 0, 0, 2, 1]}, "cols: does not increase strictly"),
        ({"cols": [0, 0, 0, 1]}, "cols: has 4 elements, not 5"),
        ({"scales": 4}, "scales: has 4 elements, not 5"),
        ({"dense": 8}, "dense: has 8 elements, not 7"),
    ],
)
def test_what_is_no_table_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str | None
) -> None:
    table = {"num_users": 2, "num_items": 3, "dim": 4, "nnz": 5, "density": 0.25, "floor": 0}
    described = SimpleNamespace(**table, precision="int8", dense=(object(),), dense_size=7)
    content = {"cols": [0, 0, 0, 1, 2], "scales": 5, "dense": 7} | changes
    tensors = {name: np.ones(content[name], np.float32) for name in ("scales", "dense")}
    tensors |= {"row_ptr": np.int32([0, 0, 1, 2, 3, 5]), "cols": np.uint8(content["cols"])}
    path = tmp_path / "table.safetensors"
    save_file(tensors | {"vals": np.ones(5, np.int8)}, path)
    if message is None:
        _check_table(path, cast(Manifest, described))
        return
    with pytest.raises(SparseRecError, match=message):
        _check_table(path, cast(Manifest, described))
