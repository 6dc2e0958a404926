"""Saving a host run in the middle, so that the resumed one repeats the uninterrupted one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from pipeline.files import checksum, verify, write_atomic
from pipeline.history import History
from pipeline.table import F32, PackedTable
from pipeline.train import Trainer
from sparserec.errors import SparseRecError, writing


@dataclass
class Best:
    """The epoch that validation likes most so far."""

    epoch: int
    recall: float
    table: PackedTable
    dense: dict[str, F32]


@dataclass
class Progress:
    """Where a run stands between two steps, beside the trainer's own state.

    Attributes:
        history: see ``pipeline.history``.
        loss_sum: of the current epoch's steps.
        best: None before the first epoch ends.
    """

    history: History = field(default_factory=list)
    loss_sum: float = 0.0
    best: Best | None = None


def _pack(prefix: str, table: PackedTable) -> dict[str, np.ndarray]:
    return {
        f"{prefix}row_ptr": table.row_ptr,
        f"{prefix}cols": table.cols,
        f"{prefix}vals": table.vals,
    }


def _unpack(prefix: str, tensors: dict[str, np.ndarray], like: PackedTable) -> PackedTable:
    return PackedTable(
        tensors[f"{prefix}row_ptr"],
        tensors[f"{prefix}cols"],
        tensors[f"{prefix}vals"],
        like.num_users,
        like.num_items,
        like.dim,
    )


def save_checkpoint(path: Path, fingerprint: str, trainer: Trainer, progress: Progress) -> None:
    """Write everything that the rest of the run depends on, atomically.

    Args:
        path: of the safetensors file.
        fingerprint: of recipe and data; a checkpoint of another run is refused on loading.
        trainer: between two steps.
        progress: of the run.

    Raises:
        SparseRecError: it cannot be written; one that was there is as it was.
    """
    tensors = _pack("", trainer.table)
    tensors |= {f"state.{name}": values for name, values in trainer.state.items()}
    tensors |= {"sampled": trainer.sampled, "sums": trainer.sums, "norms": trainer.norms}
    tensors |= {f"dense.{name}": values for name, values in trainer.dense.items()}
    for name, state in trainer.dense_state.items():
        tensors |= {f"dense_state.{name}/{key}": values for key, values in state.items()}
    scalars: dict[str, Any] = {
        "fingerprint": fingerprint,
        "step": trainer.step,
        "exchanged": trainer.exchanged,
        "history": progress.history,
        "loss_sum": progress.loss_sum,
        "best": None,
    }
    if progress.best is not None:
        tensors |= _pack("best.", progress.best.table)
        tensors |= {f"best_dense.{name}": v for name, v in progress.best.dense.items()}
        scalars["best"] = [progress.best.epoch, progress.best.recall]
    tensors = {name: np.ascontiguousarray(values) for name, values in tensors.items()}
    scalars["sha256"] = checksum(tensors, scalars)
    with writing(path):
        write_atomic(path, save(tensors, metadata={"run": json.dumps(scalars)}))


def load_checkpoint(path: Path, fingerprint: str, trainer: Trainer) -> Progress:
    """Put ``trainer`` where the checkpoint was taken.

    Raises:
        SparseRecError: if the file is damaged or belongs to another recipe or other data.
    """
    with opened(path) as (scalars, file):
        check(path, scalars, fingerprint)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        verify(tensors, scalars.pop("sha256", None), scalars)
        return restore(trainer, scalars, tensors)


@contextmanager
def opened(path: Path) -> Iterator[tuple[dict[str, Any], Any]]:
    """Open a checkpoint: what ``restore`` takes first, and the safetensors file to read from.

    Raises:
        SparseRecError: if the file is damaged, now or while it is read.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            yield json.loads(file.metadata()["run"]), file
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise SparseRecError(
            f"{path}: damaged checkpoint ({error})", "remove it, or start with --fresh"
        ) from None


def check(path: Path, scalars: dict[str, Any], fingerprint: str) -> None:
    """Refuse a checkpoint of another run.

    Raises:
        SparseRecError: if it is.
    """
    if scalars["fingerprint"] != fingerprint:
        raise SparseRecError(
            f"{path}: made with another recipe, model file, data or factors",
            "choose another --out, or start over with --fresh",
        )


def restore(trainer: Trainer, scalars: dict[str, Any], tensors: dict[str, np.ndarray]) -> Progress:
    """Put ``trainer``, whose table has the right shape, where a checkpoint's content says."""
    like = trainer.table
    prefix = "state."  # PEP's trainer has more of it at first
    state = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    trainer.replace_table(_unpack("", tensors, like), state)
    trainer.dense = {name: tensors[f"dense.{name}"] for name in trainer.dense}
    trainer.dense_state = {
        name: {key: tensors[f"dense_state.{name}/{key}"] for key in keys}
        for name, keys in trainer.dense_state.items()
    }
    trainer.sampled, trainer.sums = tensors["sampled"], tensors["sums"]
    trainer.norms = tensors["norms"]
    trainer.step, trainer.exchanged = scalars["step"], scalars["exchanged"]
    best = None
    if scalars["best"] is not None:
        epoch, recall = scalars["best"]
        dense = {name: tensors[f"best_dense.{name}"] for name in trainer.dense}
        best = Best(epoch, recall, _unpack("best.", tensors, like), dense)
    return Progress(scalars["history"], scalars["loss_sum"], best)
