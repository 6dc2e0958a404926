"""Tiny synthetic bundles, written straight from docs/formats.md section 1.

Awkward on purpose: the batch is smaller than the exported one, ``update`` takes less than a batch's
entries, the catalogue needs two chunks, and there are spare rows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from export.lower import lower
from export.methods import Method
from export.program import describe
from export.score import score_methods
from export.step import step_methods

FLOOR = 2


@dataclass(frozen=True)
class Tiny:
    """Sizes of a bundle, and what its device does."""

    num_users: int = 60
    num_items: int = 90
    known_users: int = 50
    known_items: int = 80
    dim: int = 16
    density: float = 0.25
    exported_batch: int = 32
    update_chunk: int = 128
    score_chunk: int = 60
    l2: float = 1e-3
    precision: str = "float32"
    training: dict[str, Any] = field(
        default_factory=lambda: {
            "optimizer": "sgd",
            "learning_rate": 4.0,
            "l2": 1e-3,
            "batch_size": 24,
            "steps": 120,
            "seed": 7,
            "window": 10,
            "sampled_fraction": 0.4,
            "exchange_fraction": 0.3,
            "exchange_stop": 0.75,
            "negative_tries": 3,
        }
    )


def write_programs(folder: Path, tiny: Tiny) -> dict[str, Any]:
    """Export ``step.pte`` and ``score.pte``; returns ``manifest.programs``."""
    methods = {
        "step": step_methods(tiny.exported_batch, tiny.dim, tiny.l2, tiny.update_chunk),
        "score": score_methods(tiny.score_chunk, tiny.dim),
    }
    return {name: _write_program(folder / f"{name}.pte", of) for name, of in methods.items()}


def _write_program(path: Path, methods: dict[str, Method]) -> dict[str, Any]:
    path.write_bytes(lower(methods))
    plans = describe(path.read_bytes(), path)
    return {
        "file": path.name,
        "methods": {
            name: {
                "inputs": [vars(spec) for spec in method.inputs],
                "outputs": [vars(spec) for spec in method.outputs],
                "operators": plans[name].operators,
                "backends": plans[name].backends,
                "planned_arena_bytes": plans[name].planned_arena_bytes,
            }
            for name, method in methods.items()
        },
    }


def write_data(folder: Path, tiny: Tiny, seed: int) -> None:
    """Write the table, the interactions and the ids, all random."""
    random = np.random.default_rng(seed)
    rows = tiny.num_users + tiny.num_items
    mask = random.random((rows, tiny.dim)) < tiny.density
    spare = np.ones(rows, np.bool_)
    spare[: tiny.known_users] = False
    spare[tiny.num_users : tiny.num_users + tiny.known_items] = False
    mask[spare] = False
    mask[:, :FLOOR] = True
    values = random.normal(0, 0.3, (rows, tiny.dim)).astype(np.float32)
    values[spare] = 0
    save_file(
        {
            "row_ptr": np.concatenate([[0], mask.sum(axis=1).cumsum()]).astype(np.int32),
            "cols": np.nonzero(mask)[1].astype(np.uint8),
            "vals": values[mask],
        },
        folder / "table.safetensors",
    )

    # Every third pair or so of users and items, each in one of the three parts.
    pairs = random.permutation(tiny.known_users * tiny.known_items)[:1200]
    users, items = (part.astype(np.int32) for part in np.divmod(pairs, tiny.known_items))
    log, later, seen = slice(0, 400), slice(400, 600), slice(600, 1200)
    past = np.lexsort((items[seen], users[seen]))
    counts = np.bincount(users[seen], minlength=tiny.num_users)
    save_file(
        {
            "log_users": users[log].copy(),
            "log_items": items[log].copy(),
            "later_users": users[later].copy(),
            "later_items": items[later].copy(),
            "seen_ptr": np.concatenate([[0], counts.cumsum()]).astype(np.int32),
            "seen_items": items[seen][past],
        },
        folder / "interactions.safetensors",
    )
    ids: dict[str, np.ndarray] = {}
    for name, known in (("users", tiny.known_users), ("items", tiny.known_items)):
        texts = [f"{name[0]}{k}".encode() for k in range(known)]
        ids[f"{name}_utf8"] = np.frombuffer(b"".join(texts), np.uint8)
        ids[f"{name}_offsets"] = np.cumsum([0, *map(len, texts)]).astype(np.int64)
    save_file(ids, folder / "ids.safetensors")


def write_golden(folder: Path, tiny: Tiny, losses: list[float]) -> None:
    golden = {
        "seed": tiny.training["seed"],
        "steps": len(losses),
        "batch_size": tiny.training["batch_size"],
        "losses": losses,
        "tolerance": 1e-4,
        "quality_before": {"recall@20": 0.0, "ndcg@20": 0.0, "users": 0},
    }
    (folder / "golden.json").write_text(json.dumps(golden))


def write_manifest(folder: Path, tiny: Tiny, programs: dict[str, Any]) -> None:
    """Write ``manifest.json`` for the files that are there."""
    files: dict[str, dict[str, Any]] = {
        path.name: {
            "sha256": _sha256(path),
            "bytes": path.stat().st_size,
        }
        for path in sorted(folder.iterdir())
        if path.name != "manifest.json"
    }
    with safe_open(folder / "table.safetensors", "numpy") as table:
        (nnz,) = table.get_slice("vals").get_shape()
    sizes = ("num_users", "num_items", "known_users", "known_items", "dim")
    manifest = {
        "schema_version": 1,
        "bundle_id": f"tiny-mf-d{tiny.dim}-25pct-{files['table.safetensors']['sha256'][:8]}",
        "created_utc": "2026-11-23T20:00:00Z",
        "model": "mf",
        **{name: getattr(tiny, name) for name in sizes},
        "density": nnz / ((tiny.num_users + tiny.num_items) * tiny.dim),
        "nnz": nnz,
        "floor": FLOOR,
        "precision": tiny.precision,
        "training": tiny.training,
        "programs": programs,
        "producer": {},
        "provenance": {},
        "files": files,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def change_manifest(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the manifest; the hashes of the files are brought up to date first."""
    path = folder / "manifest.json"
    write_manifest(folder, Tiny(), json.loads(path.read_text())["programs"])
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))
