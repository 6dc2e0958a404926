"""Factors made beforehand and elsewhere: what ``sparserec spark factorise`` writes.

A folder: ``factors.json`` says of what they are and how they were made; ``users.parquet`` and
``items.parquet``, each one file or a folder of parts, have index and vector, in any order. A user
without train interactions has none; its row is 0.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.prepared import batches
from pipeline.data.split import Split
from pipeline.files import read_json, write_json
from pipeline.nmf import Factors, side_by_side
from pipeline.recipes import Recipe
from sparserec.errors import SparseRecError

SCHEMA_VERSION = 1
DESCRIPTION = "factors.json"


def write_description(folder: Path, num_users: int, num_items: int, about: dict[str, Any]) -> None:
    """Write ``factors.json``: the folder is whole."""
    sizes = {"schema_version": SCHEMA_VERSION, "num_users": num_users, "num_items": num_items}
    write_json(folder / DESCRIPTION, sizes | about)


def read_factors(folder: Path, recipe: Recipe, split: Split) -> tuple[dict[str, Any], Factors]:
    """Read factors for a run: their description, and [W; H^T] of the split's known rows.

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
    rows, count = np.zeros((users + items, rank), np.float32), 0
    for name, part in (("users", rows[:users]), ("items", rows[users:])):
        for batch in batches(folder, name, ["index", "vector"]):
            vectors = batch["vector"].flatten().to_numpy().reshape(len(batch), -1)
            part[batch["index"].to_numpy()] = vectors
            count += len(batch)
    if count != about.get("rows") or not np.isfinite(rows).all():
        raise SparseRecError(f"{folder}: rows are missing, or not numbers", "factorise again")
    return about, side_by_side([Factors(rows, users)] * recipe.halves)
