"""Checking what the files of a bundle hold: docs/formats.md sections 1.1 to 1.4."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from export.manifest import AGAIN, GRAPH, Manifest, bad, decode, read_object
from pipeline.files import decode_ids
from sparserec.errors import SparseRecError

Arrays = dict[str, NDArray[Any]]

_ID_PARTS = {"utf8": "uint8", "offsets": "int64"}


@dataclass(frozen=True)
class Golden:
    """What the host saw: ``golden.json``."""

    seed: int
    steps: int
    batch_size: int
    losses: tuple[float, ...]
    tolerance: float
    quality_before: dict[str, float]


def check(bundle: Path, manifest: Manifest) -> None:
    """Check that the files fit the manifest and themselves.

    Raises:
        SparseRecError: naming file and tensor or field.
    """
    _check_table(bundle / "table.safetensors", manifest)
    if manifest.has_graph:
        check_graph(bundle / GRAPH, manifest)
    _check_interactions(bundle / "interactions.safetensors", manifest)
    _check_ids(bundle / "ids.safetensors", manifest)
    _check_golden(bundle / "golden.json", manifest)


def load_tensors(path: Path, dtypes: dict[str, str]) -> Arrays:
    """Read the one-dimensional tensors that ``dtypes`` names.

    Raises:
        SparseRecError: if the file is damaged, or one is missing or of another type.
    """
    try:
        with safe_open(path, "numpy") as file:
            return {name: _tensor(file, path, name, dtype) for name, dtype in dtypes.items()}
    except (OSError, SafetensorError) as error:
        raise SparseRecError(f"{path}: not safetensors ({error})", AGAIN) from None


def _tensor(file: Any, path: Path, name: str, dtype: str) -> NDArray[Any]:
    if name not in file.keys():  # noqa: SIM118 - the file is no mapping
        raise bad(path, name, "is missing")
    try:
        found: NDArray[Any] = file.get_tensor(name)
    except (TypeError, AttributeError):  # NumPy has no such type
        kind = file.get_slice(name).get_dtype()
        raise bad(path, name, f"is {kind}, not {dtype} [n]") from None
    if found.dtype != dtype or found.ndim != 1:
        raise bad(path, name, f"is {found.dtype} {list(found.shape)}, not {dtype} [n]")
    return found


def _check_table(path: Path, manifest: Manifest) -> None:
    dtypes = {"row_ptr": "int32", "cols": "uint8", "vals": manifest.precision}
    if manifest.precision == "int8":
        dtypes["scales"] = "float32"
    if manifest.dense:
        dtypes["dense"] = "float32"
    arrays = load_tensors(path, dtypes)
    row_ptr, cols = arrays["row_ptr"], arrays["cols"]
    rows = manifest.num_users + manifest.num_items
    _check_pointers(path, "row_ptr", row_ptr, rows, manifest.nnz)
    _check_length(path, "cols", cols, manifest.nnz)
    density = manifest.nnz / (rows * manifest.dim)
    if abs(density - manifest.density) > 1e-6:
        raise bad(path, "row_ptr", f"density {density:g}, the manifest says {manifest.density:g}")
    if np.any(np.diff(row_ptr) < manifest.floor):
        row = int(np.argmax(np.diff(row_ptr) < manifest.floor))
        raise bad(path, "row_ptr", f"row {row} has fewer than floor = {manifest.floor} entries")
    if not np.all(cols < manifest.dim):
        raise bad(path, "cols", f"holds a column that is not below dim = {manifest.dim}")
    if not _ascending_in_rows(row_ptr, cols):
        raise bad(path, "cols", "does not increase strictly inside each row")
    lengths = {"vals": manifest.nnz, "scales": rows, "dense": manifest.dense_size}
    for name, length in lengths.items():
        if name in dtypes:
            _check_length(path, name, arrays[name], length)
            if not np.all(np.isfinite(arrays[name])):
                raise bad(path, name, "holds a value that is not finite")


def check_graph(path: Path, manifest: Manifest) -> None:
    """Check ``graph.safetensors`` (docs/formats.md section 1.6).

    Raises:
        SparseRecError: it is not as the page says; the message names the tensor.
    """
    arrays = load_tensors(path, {"graph_ptr": "int32", "graph_rows": "int32"})
    ptr, rows = arrays["graph_ptr"], arrays["graph_rows"]
    users, size = manifest.num_users, manifest.num_users + manifest.num_items
    _check_pointers(path, "graph_ptr", ptr, size, len(rows))
    if len(rows) and not 0 <= rows.min() <= rows.max() < size:
        raise bad(path, "graph_rows", f"holds a row outside [0, {size})")
    if not _ascending_in_rows(ptr, rows):
        raise bad(path, "graph_rows", "does not increase strictly inside each row's part")
    first_item = ptr[users]
    if np.any(rows[:first_item] < users) or np.any(rows[first_item:] >= users):
        raise bad(path, "graph_rows", "joins two users, or two items")
    ends = np.repeat(np.arange(size), np.diff(ptr))
    there = np.sort(ends[:first_item].astype(np.int64) * size + rows[:first_item])
    back = np.sort(rows[first_item:].astype(np.int64) * size + ends[first_item:])
    if not np.array_equal(there, back):
        raise bad(path, "graph_rows", "holds a pair once only; each is there from both ends")


def _check_interactions(path: Path, manifest: Manifest) -> None:
    pairs = ("log_users", "log_items", "later_users", "later_items")
    arrays = load_tensors(path, dict.fromkeys((*pairs, "seen_ptr", "seen_items"), "int32"))
    for part in ("log", "later"):
        _check_length(path, f"{part}_items", arrays[f"{part}_items"], len(arrays[f"{part}_users"]))
    seen_ptr, seen_items = arrays["seen_ptr"], arrays["seen_items"]
    _check_pointers(path, "seen_ptr", seen_ptr, manifest.num_users, len(seen_items))
    for name in (*pairs, "seen_items"):
        kind = "known_users" if name.endswith("users") else "known_items"
        values, end = arrays[name], getattr(manifest, kind)
        if len(values) and not 0 <= values.min() <= values.max() < end:
            raise bad(path, name, f"holds an index outside [0, {kind} = {end})")
    if not len(arrays["log_users"]):
        raise bad(path, "log_users", "is empty, so there is nothing to train on")
    if not _ascending_in_rows(seen_ptr, seen_items):
        raise bad(path, "seen_items", "does not increase strictly inside each user's part")
    seen_users = np.repeat(np.arange(manifest.num_users), np.diff(seen_ptr))
    users = np.concatenate([seen_users, arrays["log_users"], arrays["later_users"]])
    items = np.concatenate([seen_items, arrays["log_items"], arrays["later_items"]])
    keys = users.astype(np.int64) * manifest.num_items + items
    if len(np.unique(keys)) != len(keys):
        raise bad(path, "log_items", "a pair occurs twice among seen, log and later")


def _check_ids(path: Path, manifest: Manifest) -> None:
    kinds = {"users": manifest.known_users, "items": manifest.known_items}
    dtypes = {f"{kind}_{part}": t for kind in kinds for part, t in _ID_PARTS.items()}
    arrays = load_tensors(path, dtypes)
    for kind, known in kinds.items():
        utf8, offsets = arrays[f"{kind}_utf8"], arrays[f"{kind}_offsets"]
        _check_pointers(path, f"{kind}_offsets", offsets, known, len(utf8))
        try:
            decode_ids(kind, arrays)
        except UnicodeDecodeError as error:
            raise bad(path, f"{kind}_utf8", f"is not UTF-8 ({error.reason})") from None


def _check_golden(path: Path, manifest: Manifest) -> None:
    golden = decode(Golden, read_object(path), path, "")
    if len(golden.losses) != golden.steps:
        raise bad(path, "losses", f"has {len(golden.losses)} values for {golden.steps} steps")
    if not 1 <= golden.steps <= manifest.training.steps:
        raise bad(path, "steps", f"is {golden.steps}, the run has {manifest.training.steps}")
    for field in ("seed", "batch_size"):
        wanted = getattr(manifest.training, field)
        if getattr(golden, field) != wanted:
            raise bad(path, field, f"is {getattr(golden, field)}, the manifest says {wanted}")


def _check_pointers(path: Path, name: str, pointers: NDArray[Any], rows: int, end: int) -> None:
    _check_length(path, name, pointers, rows + 1)
    steps = np.diff(pointers.astype(np.int64))
    if pointers[0] != 0 or pointers[-1] != end or np.any(steps < 0):
        raise bad(path, name, f"does not rise from 0 to {end}")


def _check_length(path: Path, name: str, values: NDArray[Any], length: int) -> None:
    if len(values) != length:
        raise bad(path, name, f"has {len(values)} elements, not {length}")


def _ascending_in_rows(row_ptr: NDArray[Any], values: NDArray[Any]) -> bool:
    """Whether the values of each row increase strictly."""
    rises = np.diff(values.astype(np.int64)) > 0
    starts = row_ptr[(row_ptr > 0) & (row_ptr < len(values))]
    rises[starts - 1] = True  # from one row to the next it may fall
    return bool(np.all(rises))
