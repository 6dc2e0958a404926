"""Factors made beforehand and elsewhere: what ``sparserec spark factorise`` writes.

A folder: ``factors.json`` says of what they are and how they were made; ``users.parquet`` and
``items.parquet``, each one file or a folder of parts, have index and vector, in any order. A user
without train interactions has none; its row is 0.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pyarrow.compute import list_value_length

from pipeline.data.prepared import batches
from pipeline.data.split import Split
from pipeline.files import read_json, write_json
from pipeline.nmf import Factors, side_by_side
from pipeline.recipes import Recipe
from pipeline.table import F32
from sparserec.errors import SparseRecError

SCHEMA_VERSION = 1
DESCRIPTION = "factors.json"


def write_description(folder: Path, num_users: int, num_items: int, about: dict[str, Any]) -> None:
    """Write ``factors.json``: the folder is whole."""
    sizes = {"schema_version": SCHEMA_VERSION, "num_users": num_users, "num_items": num_items}
    write_json(folder / DESCRIPTION, sizes | about)


def read_factors(
    folder: Path, recipe: Recipe, split: Split, source_sha256: str | None = None
) -> tuple[dict[str, Any], Factors]:
    """Read factors for a run: their description, and [W; H^T] of the split's known rows.

    Args:
        folder: of the factors.
        recipe: of the run.
        split: of its data.
        source_sha256: of the data's file, see ``Dataset``; factors that name another are refused.

    Raises:
        SparseRecError: they are damaged, of other data, of another rank, or the recipe has none.
    """
    if not recipe.starts_from_factors:
        raise SparseRecError(
            f"{recipe.method} does not start from factors", "leave out --factors, or --start random"
        )
    about = read_json(folder / DESCRIPTION)
    users, items, rank = split.known_users, split.known_items, recipe.dim // recipe.halves
    expected = {"schema_version": SCHEMA_VERSION, "num_users": users, "num_items": items}
    for name, value in (expected | {"rank": rank}).items():
        found = about.get(name) if isinstance(about, dict) else None
        if found != value:
            raise SparseRecError(
                f"{folder / DESCRIPTION}: {name} is {found}, this run needs {value}",
                "factorise again, what it trains on and at its --dim (NeuMF: at half of it)",
            )
    of = about.get("source_sha256")
    if of and source_sha256 and of != source_sha256:
        raise SparseRecError(
            f"{folder / DESCRIPTION}: source_sha256 is {of}, this run's data has {source_sha256}",
            "factorise what it trains on",
        )
    rows, count = np.zeros((users + items, rank), np.float32), 0
    for name, part in (("users", rows[:users]), ("items", rows[users:])):
        count += _read_side(folder, name, part)
    if count != about.get("rows") or not np.isfinite(rows).all():
        raise SparseRecError(f"{folder}: rows are missing, or not numbers", "factorise again")
    return about, side_by_side([Factors(rows, users)] * recipe.halves)


def _read_side(folder: Path, name: str, part: F32) -> int:
    """Put the vectors of one side in their rows; gives how many there are.

    Raises:
        SparseRecError: the file is missing or damaged, an index is out of range or there twice, or
            a vector has another length than a row.
    """
    file, filled = folder / f"{name}.parquet", np.zeros(len(part), np.int64)
    for batch in batches(folder, name, ["index", "vector"]):
        index = batch["index"].to_numpy(zero_copy_only=False)
        if not np.issubdtype(index.dtype, np.integer):
            raise _wrong(file, "index is not an integer in each row")
        if len(index) and not 0 <= index.min() <= index.max() < len(part):
            bad = index.min() if index.min() < 0 else index.max()
            raise _wrong(file, f"index has {bad}, there are {len(part)} {name}")
        np.add.at(filled, index, 1)
        lengths = list_value_length(batch["vector"]).to_numpy(zero_copy_only=False)
        if (lengths != part.shape[1]).any():
            bad = lengths[lengths != part.shape[1]][0]
            raise _wrong(file, f"vector has {bad:g} numbers in a row, the rank is {part.shape[1]}")
        numbers = batch["vector"].flatten().to_numpy(zero_copy_only=False)
        part[index] = numbers.reshape(len(index), part.shape[1])
    if (filled > 1).any():
        raise _wrong(file, f"index has {np.argmax(filled)} {filled.max()} times")
    return int(filled.sum())


def _wrong(file: Path, what: str) -> SparseRecError:
    return SparseRecError(f"{file}: {what}", "factorise again")
