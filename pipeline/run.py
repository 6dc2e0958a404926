"""A finished host run on disk: what ``sparserec train`` writes and ``sparserec export`` reads.

A folder: ``run.json`` (recipe, history, test quality, where the data came from),
``table.safetensors`` (the packed table), ``split.safetensors`` (the parts and raw ids).
"""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError

from pipeline.data.split import Pairs, Split
from pipeline.files import (
    decode_ids,
    encode_ids,
    read_json,
    read_tensors,
    remove,
    write_json,
    write_tensors,
)
from pipeline.fit import Fitted
from pipeline.history import History
from pipeline.recipes import Recipe
from pipeline.table import F32, PackedTable
from sparserec import __version__
from sparserec.errors import SparseRecError, writing

SCHEMA_VERSION = 1
PARTS = ("train", "valid", "log", "later")


@dataclass(frozen=True)
class TrainedRun:
    """A run read back.

    Attributes:
        dataset: name of the dataset, or the file's stem.
        source_sha256: of the dataset's file.
        recipe: of the run.
        table: rows of known users, then known items.
        dense: the model's dense parameters.
        split: the parts, over one index space.
        metrics: test quality, ``recall@20`` and so on, and ``best_epoch``.
        history: see ``pipeline.history``.
    """

    dataset: str
    source_sha256: str
    recipe: Recipe
    table: PackedTable
    dense: dict[str, F32]
    split: Split
    metrics: dict[str, float]
    history: History


def save_run(
    path: Path,
    dataset: str,
    source_sha256: str,
    recipe: Recipe,
    split: Split,
    fitted: Fitted,
    factors: dict[str, Any] | None = None,
) -> None:
    """Write a run to the folder ``path``; ``run.json`` comes last, so a folder with it is whole.

    An earlier run's goes first: it would vouch for half of this one.

    Args:
        path: of the folder.
        dataset: name of the dataset.
        source_sha256: of the dataset's file.
        recipe: of the run.
        split: of the data.
        fitted: what came of it.
        factors: how the factors that the run started from were made, if not by its recipe.

    Raises:
        SparseRecError: it cannot be written.
    """
    table = fitted.table
    arrays: dict[str, np.ndarray] = {
        "row_ptr": table.row_ptr,
        "cols": table.cols,
        "vals": table.vals,
    }
    arrays |= {f"dense.{name}": values for name, values in fitted.recommender.dense.items()}
    tensors = encode_ids("users", split.user_ids) | encode_ids("items", split.item_ids)
    for name in PARTS:
        part: Pairs = getattr(split, name)
        tensors |= {f"{name}_users": part.users, f"{name}_items": part.items}
    described = {
        "schema_version": SCHEMA_VERSION,
        "dataset": dataset,
        "source_sha256": source_sha256,
        "recipe": recipe.as_dict(),
        "factors": factors,
        "num_users": table.num_users,
        "num_items": table.num_items,
        "known_users": split.known_users,
        "known_items": split.known_items,
        "dropped_later": split.dropped_later,
        "metrics": fitted.test.as_dict() | {"best_epoch": fitted.best_epoch},
        "history": fitted.history,
        "finished_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": {
            "sparserec": __version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        remove(path / "run.json")
        write_tensors(path / "table.safetensors", arrays)
        write_tensors(path / "split.safetensors", tensors)
        write_json(path / "run.json", described)


def load_run(path: Path) -> TrainedRun:
    """Read a run folder.

    Raises:
        SparseRecError: if it is not one, is from another version, or is damaged.
    """
    described = read_json(path / "run.json")
    try:
        if described["schema_version"] != SCHEMA_VERSION:
            raise SparseRecError(
                f"{path / 'run.json'}: schema_version is {described['schema_version']},"
                f" this version reads {SCHEMA_VERSION}",
                "train again with this version",
            )
        recipe = Recipe.from_dict(described["recipe"])
        arrays = _load(path / "table.safetensors")
        table = PackedTable(
            arrays["row_ptr"],
            arrays["cols"],
            arrays["vals"],
            described["num_users"],
            described["num_items"],
            recipe.width,
        )
        prefix = "dense."
        return TrainedRun(
            described["dataset"],
            described["source_sha256"],
            recipe,
            table,
            {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)},
            _load_split(path / "split.safetensors", described),
            described["metrics"],
            described["history"],
        )
    except (KeyError, TypeError) as error:
        raise SparseRecError(
            f"{path / 'run.json'}: field {error} is missing or has the wrong type",
            "train again: sparserec train",
        ) from None


def _load(path: Path) -> dict[str, np.ndarray]:
    try:
        return read_tensors(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise SparseRecError(f"{path}: {error}", "train again: sparserec train") from None


def _load_split(path: Path, described: dict[str, Any]) -> Split:
    tensors = _load(path)

    def part(name: str) -> Pairs:
        return Pairs(tensors[f"{name}_users"], tensors[f"{name}_items"], None)

    return Split(
        train=part("train"),
        valid=part("valid"),
        log=part("log"),
        later=part("later"),
        user_ids=decode_ids("users", tensors),
        item_ids=decode_ids("items", tensors),
        known_users=described["known_users"],
        known_items=described["known_items"],
        dropped_later=described["dropped_later"],
    )
