"""A fitted model in one file: safetensors, with the recipe as JSON in its header. No pickle."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from pipeline.data.split import Pairs
from pipeline.files import checksum, decode_ids, encode_ids, verify, write_atomic
from pipeline.history import History
from pipeline.recipes import Recipe
from pipeline.run import load_run
from pipeline.sampling import join
from pipeline.table import F32, PackedTable
from sparserec.errors import SparseRecError, writing

FORMAT = "sparserec-model-1"


@dataclass(frozen=True)
class Saved:
    """What a fitted model is made of.

    Attributes:
        recipe: that trained it.
        table: trained.
        dense: the model's dense parameters.
        seen: all interactions it was given.
        in_graph: how many of them, from the first on, its graph is made of.
        user_ids, item_ids: raw ids by row and column.
        history: see ``pipeline.history``.
    """

    recipe: Recipe
    table: PackedTable
    dense: dict[str, F32]
    seen: Pairs
    in_graph: int
    user_ids: list[str]
    item_ids: list[str]
    history: History


def write(path: Path, model: Saved) -> None:
    """Write a model to ``path``, atomically.

    Raises:
        SparseRecError: it cannot be written.
    """
    table = model.table
    tensors: dict[str, np.ndarray] = {
        "seen_users": model.seen.users,
        "seen_items": model.seen.items,
    }
    tensors |= {"row_ptr": table.row_ptr, "cols": table.cols, "vals": table.vals}
    tensors |= {f"dense.{name}": values for name, values in model.dense.items()}
    tensors |= encode_ids("users", model.user_ids) | encode_ids("items", model.item_ids)
    described = {
        "format": FORMAT,
        "recipe": model.recipe.as_dict(),
        "num_users": table.num_users,
        "num_items": table.num_items,
        "dim": table.dim,
        "in_graph": model.in_graph,
        "history": model.history,
    }
    tensors = {name: np.ascontiguousarray(values) for name, values in tensors.items()}
    described["sha256"] = checksum(tensors, described)
    # One key alone: the library writes several in an order that changes.
    with writing(path):
        write_atomic(path, save(tensors, metadata={"model": json.dumps(described)}))


def read(path: Path) -> Saved:
    """Read what ``write`` wrote, or the folder of a finished ``sparserec train``.

    Raises:
        SparseRecError: it is missing, damaged, or of another version.
    """
    if path.is_dir():
        return _of_run(path)
    try:
        with safe_open(path, framework="numpy") as file:
            described = json.loads((file.metadata() or {}).get("model", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise SparseRecError(f"{path}: {error}", "check the path, or fit and save again") from None
    if described.get("format") != FORMAT:
        raise SparseRecError(
            f"{path}: format is {described.get('format')}, this version reads {FORMAT}",
            "give a file that SparseRec.save wrote, or the folder of a run",
        )
    try:
        verify(tensors, described.pop("sha256", None), described)
        return _of_file(described, tensors)
    except (KeyError, TypeError, ValueError) as error:
        raise SparseRecError(
            f"{path}: damaged, or of another version: {error!r}", "fit and save again"
        ) from None


def _of_file(described: dict[str, object], tensors: dict[str, np.ndarray]) -> Saved:
    sizes = [int(str(described[name])) for name in ("num_users", "num_items", "dim", "in_graph")]
    table = PackedTable(tensors["row_ptr"], tensors["cols"], tensors["vals"], *sizes[:3])
    prefix = "dense."
    dense = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    seen = Pairs(tensors["seen_users"], tensors["seen_items"], None)
    ids = decode_ids("users", tensors), decode_ids("items", tensors)
    if (len(table.row_ptr), len(ids[0]), len(ids[1])) != (
        table.num_rows + 1,
        table.num_users,
        table.num_items,
    ):
        raise ValueError("rows and ids do not match")
    recipe, history = described["recipe"], described["history"]
    if not isinstance(recipe, dict) or not isinstance(history, list):
        raise TypeError("recipe or history")
    return Saved(Recipe.from_dict(recipe), table, dense, seen, sizes[3], *ids, history)


def _of_run(path: Path) -> Saved:
    """Take over a run; what comes after its past is not part of it."""
    run = load_run(path)
    split, table = run.split, run.table
    ids = split.user_ids[: table.num_users], split.item_ids[: table.num_items]
    seen = join(split.train, split.valid)
    in_graph = len(seen) if run.recipe.refit else len(split.train)
    return Saved(run.recipe, table, run.dense, seen, in_graph, *ids, run.history)
