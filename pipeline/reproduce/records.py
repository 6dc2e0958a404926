"""Records of runs on disk: one JSON object a line, and the hits behind the test metrics.

``<results>/<experiment>.jsonl`` is only ever appended to, whole lines at a time. A process that
dies while it writes leaves a torn last line, which is left out with a warning and cut off by the
next append. Of two records of one cell the later counts.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import lzma
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pipeline.files import write_atomic
from pipeline.history import best_trained, epoch_of
from pipeline.recipes import Recipe
from pipeline.reproduce.cells import EXPERIMENTS, Cell, Experiment
from pipeline.table import I64, Bool
from sparserec.errors import SparseRecError, writing

SCHEMA_VERSION = 1
RESULTS = Path("docs/results")
HITS = "hits"


class TornLineWarning(UserWarning):
    """A record was cut short while it was written; its run will be done again."""


@dataclass(frozen=True)
class Record:
    """One finished run.

    Attributes:
        cell: that was run.
        recipe: as it was run; None where this version cannot read it any more.
        values: the whole JSON object; docs/experiments.md lists its fields.
    """

    cell: Cell
    recipe: Recipe | None
    values: dict[str, Any]

    @property
    def trained_recall(self) -> float:
        """Recall@20 on validation of the best epoch of training, by which settings are selected."""
        return best_trained(self.values["history"], self.values["best_epoch"])["recall@20"]

    def test(self, metric: str) -> float:
        """Give a metric on the test part, such as ``recall@20``."""
        value: float = self.values["test"][metric]
        return value


def path_of(results: Path, experiment: str) -> Path:
    """Give the file of an experiment."""
    return results / f"{experiment}.jsonl"


def read(results: Path, experiment: Experiment) -> dict[str, Record]:
    """Read an experiment's records by cell id, in the order of the file.

    Raises:
        SparseRecError: a line other than a torn last one is no record.
    """
    path = path_of(results, experiment)
    records: dict[str, Record] = {}
    for number, line in lines(path):
        record = _record(path, number, line)
        records.pop(record.cell.id, None)
        records[record.cell.id] = record
    return records


def append(results: Path, experiment: str, values: dict[str, Any]) -> None:
    """Write one record at the end of its file and sync it; other processes may do so too.

    Raises:
        SparseRecError: it cannot be written; what there is of it is left out by readers.
    """
    path = path_of(results, experiment)
    data = (json.dumps(values, separators=(",", ":")) + "\n").encode()
    if b"\n" in data[:-1]:
        raise ValueError("a record is one line")
    with writing(path), _appending(path) as file:
        whole = file.seek(0, os.SEEK_END)
        if whole:
            file.seek(0)
            content = file.read()
            tail = content[content.rfind(b"\n") + 1 :]
            if tail and _is_object(tail):
                data = b"\n" + data
            elif tail:
                file.truncate(whole - len(tail))
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield line numbers, from 1, and lines; a torn last line is left out."""
    if not path.exists():
        return
    found = path.read_bytes().split(b"\n")
    for number, line in enumerate(found, 1):
        if number == len(found) and not _is_object(line):
            if line:
                text = f"{path}, line {number}: cut short while it was written; left out"
                warnings.warn(TornLineWarning(text), stacklevel=3)
            return
        yield number, line


def _is_object(line: bytes) -> bool:
    """Tell whether a line is whole: no part of a JSON object is a JSON object."""
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _record(path: Path, number: int, line: bytes) -> Record:
    fix = "restore the file: git checkout -- " + str(path)
    try:
        values = json.loads(line)
        version = values["schema_version"]
        if version != SCHEMA_VERSION:
            raise SparseRecError(
                f"{path}, line {number}: schema_version is {version}, this version reads"
                f" {SCHEMA_VERSION}",
                "use the version of the project that wrote it",
            )
        cell = Cell.from_dict(values["cell"])
        epoch_of(values["history"], values["best_epoch"])["recall@20"]
        if cell.experiment not in EXPERIMENTS or path.stem != cell.experiment:
            raise ValueError(f"a record of {cell.experiment!r}")
    except (ValueError, LookupError, TypeError) as error:
        raise SparseRecError(f"{path}, line {number}: not a record ({error})", fix) from None
    try:
        recipe = Recipe.from_dict(values["recipe"])
    except (KeyError, TypeError):
        recipe = None
    return Record(cell, recipe, values)


@contextmanager
def _appending(path: Path) -> Iterator[BinaryIO]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed
        yield file


@dataclass(frozen=True)
class Hits:
    """What a run found for each user of the test part: any metric at K <= 20 follows from it.

    Attributes:
        users: int64 (U,), ascending.
        relevant: int64 (U,), their numbers of test items.
        found: bool (U, 20): whether the k-th best item is one of them.
    """

    users: I64
    relevant: I64
    found: Bool


def save_hits(results: Path, name: str, hits: Hits) -> dict[str, str]:
    """Write a run's hits, packed to bits and compressed (about 1 byte a user).

    Who the users are and what is relevant is the same for every run on a split, and kept once.

    Args:
        results: folder of the records.
        name: of the run's file.
        hits: to write.

    Returns:
        The two files, for the record.

    Raises:
        SparseRecError: they cannot be written.
    """
    folder = results / HITS
    users = _compressed(np.stack([hits.users, hits.relevant]).astype(np.int32))
    users_name = f"users-{hashlib.sha256(users).hexdigest()[:16]}.npy.xz"
    # Rank by rank: users who found nothing at a rank make long runs of zeros.
    bits = np.packbits(hits.found.T, axis=1)  # (20, U/8)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / users_name).exists():
            write_atomic(folder / users_name, users)
        write_atomic(folder / f"{name}.npy.xz", _compressed(bits))
    return {"users": users_name, "found": f"{name}.npy.xz"}


def load_hits(results: Path, record: Record) -> Hits | None:
    """Read a record's hits; None if it has none.

    Raises:
        SparseRecError: a file is missing or damaged.
    """
    names = record.values.get("hits")
    if names is None:
        return None
    path = results / HITS / names["users"]
    try:
        users, relevant = _expanded(path).astype(np.int64)
        path = results / HITS / names["found"]
        bits = _expanded(path)
        found = np.unpackbits(bits, axis=1, count=len(users)).T.astype(np.bool_)
    except (OSError, ValueError, lzma.LZMAError, EOFError) as error:
        raise SparseRecError(
            f"{path}: {error}", f"restore it (git checkout -- {path}), or run the cell again"
        ) from None
    return Hits(users, relevant, found)


def _compressed(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return lzma.compress(buffer.getvalue(), preset=6)


def _expanded(path: Path) -> np.ndarray:
    data: np.ndarray = np.load(io.BytesIO(lzma.decompress(path.read_bytes())), allow_pickle=False)
    return data
