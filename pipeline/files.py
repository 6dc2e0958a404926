"""Writing files so that no reader ever meets half of one, and raw ids as tensors."""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import numpy as np
import numpy.typing as npt
from safetensors import safe_open

from sparserec.errors import SparseRecError


def write_atomic(path: Path, data: bytes) -> None:
    """Write ``data`` beside ``path``, sync it to the disk, and rename it to ``path``.

    Raises:
        OSError: it cannot be written; nothing is left of it, and ``path`` is as it was.
    """
    with _beside(path) as file:
        file.write(data)


@contextmanager
def _beside(path: Path) -> Iterator[BinaryIO]:
    """Yield a file that becomes ``path``, on the disk, when the block ends without error.

    Of several processes that write to ``path`` at once, each waits for the one before.
    """
    part = path.with_name(path.name + ".part")
    with _taken(part) as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    _sync(path.parent)


def _taken(part: Path) -> BinaryIO:
    """Open a file, empty, that no other process has taken."""
    while True:
        file = part.open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            now = os.fstat(file.fileno())
            with suppress(FileNotFoundError):
                # Else it was renamed or removed by the process that had it.
                if os.path.samestat(now, part.stat()):
                    if now.st_size:  # a process that had it was killed
                        file.truncate(0)
                    return file
        except BaseException:
            file.close()  # at once: this process would wait for its own lock
            raise
        file.close()


def remove(path: Path) -> None:
    """Remove a file, on the disk too, if it is there."""
    if path.exists():
        path.unlink()
        _sync(path.parent)


SAFETENSORS = {"int64": "I64", "float32": "F32", "int32": "I32", "uint8": "U8"}
"""Names of dtypes, in the order in which the library writes tensors: all are aligned then."""


def checksum(tensors: Mapping[str, npt.NDArray[Any]], said: Any = None) -> str:
    """Give the SHA-256 of tensors, names and shapes and all, and of what is said of them (JSON)."""
    digest = hashlib.sha256(json.dumps(said).encode())
    for name in sorted(tensors):
        values = np.ascontiguousarray(tensors[name])
        digest.update(json.dumps([name, values.dtype.name, values.shape]).encode())
        digest.update(values.data)
    return digest.hexdigest()


PIECE_BYTES = 16 << 20
"""Of a tensor, looked at in one go."""


def checksum_of_file(file: Any, said: Any = None) -> str:
    """Give the ``checksum`` of an open safetensors file, reading a piece of it at a time."""
    names = {kind: name for name, kind in SAFETENSORS.items()}
    digest = hashlib.sha256(json.dumps(said).encode())
    for name in sorted(file.keys()):
        values = file.get_slice(name)
        dtype, shape = np.dtype(names[values.get_dtype()]), values.get_shape()
        digest.update(json.dumps([name, dtype.name, shape]).encode())
        if 0 in shape:
            continue  # of which the library refuses a slice
        rows = max(1, PIECE_BYTES // (dtype.itemsize * math.prod(shape[1:])))
        for start in range(0, shape[0], rows):
            part = values[start : min(start + rows, shape[0])]
            digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()


def verify(tensors: Mapping[str, npt.NDArray[Any]], expected: str | None, said: Any = None) -> None:
    """Compare tensors with their ``checksum``; None is of a file from before there was one.

    Raises:
        ValueError: they are not as they were written.
    """
    if expected is not None:
        _same(checksum(tensors, said), expected)


def verify_file(file: Any, expected: str | None, said: Any = None) -> None:
    """Do what ``verify`` does with an open safetensors file, which memory may not hold.

    Raises:
        ValueError: as there.
    """
    if expected is not None:
        _same(checksum_of_file(file, said), expected)


def _same(found: str, expected: str) -> None:
    if found != expected:
        raise ValueError("its content is not what its SHA-256 says")


def write_tensors(path: Path, tensors: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write a safetensors file, atomically; arrays mapped from disk pass through as they are.

    The library's own writer holds a copy of all tensors. Their ``checksum`` is in the metadata.

    Raises:
        OSError: as ``write_atomic``.
    """
    header: dict[str, Any] = {"__metadata__": {"sha256": checksum(tensors)}}
    kinds, end = list(SAFETENSORS), 0
    order = sorted(tensors, key=lambda name: (kinds.index(tensors[name].dtype.name), name))
    for name in order:
        values = tensors[name]
        start, end = end, end + values.nbytes
        kind = SAFETENSORS[values.dtype.name]
        header[name] = {"dtype": kind, "shape": values.shape, "data_offsets": (start, end)}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with _beside(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            np.ascontiguousarray(tensors[name]).tofile(file)


def read_tensors(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Read what ``write_tensors`` wrote.

    Raises:
        OSError, SafetensorError: it is missing or damaged.
        ValueError: as ``verify``.
    """
    with safe_open(path, framework="numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        verify(tensors, (file.metadata() or {}).get("sha256"))
    return tensors


@contextmanager
def alone(folder: Path, patience: float = 0.0) -> Iterator[None]:
    """Make a folder, if need be, and keep other runs from writing to it while the block lasts.

    Args:
        folder: of the run.
        patience: seconds to wait for another run that is about to end.

    Raises:
        SparseRecError: it cannot be made or written to, or another run writes there.
    """
    deadline = time.monotonic() + patience
    with lock_file(folder) as lock:
        while not _locked(lock):
            if time.monotonic() >= deadline:
                raise SparseRecError(
                    f"{folder}: another run writes there", "wait for it, or choose another --out"
                )
            time.sleep(0.2)
        yield


def _locked(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def lock_file(folder: Path) -> TextIO:
    """Make a folder, if need be, and open the file in it that its one run locks.

    Raises:
        SparseRecError: it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return (folder / ".lock").open("w")
    except OSError as error:
        raise SparseRecError(
            f"{folder}: cannot be made or written to: {error.strerror}", "choose another --out"
        ) from None


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder that becomes ``path``, on the disk, when the block ends without error.

    It lies in ``<path>.part``, which is locked; what a killed run left there is removed.

    Raises:
        SparseRecError: ``path`` is there already, cannot be made, or another run is making it.
    """
    if path.exists():
        raise SparseRecError(f"{path}: is there already", "remove it, or name a new folder")
    part = path.with_name(path.name + ".part")
    try:
        part.mkdir(parents=True, exist_ok=True)
        lock = os.open(part, os.O_RDONLY)
    except OSError as error:
        raise SparseRecError(f"{part}: {error.strerror}", "name a folder to write to") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise SparseRecError(f"{path}: another run is writing it", "wait for it to end") from None
    try:
        for left in part.iterdir():
            shutil.rmtree(left)
        # A name of its own: a killed run's processes may live on a while, and write to theirs.
        folder = part / f"run-{secrets.token_hex(8)}"
        folder.mkdir()
        yield folder
        for file in folder.rglob("*"):
            _sync(file)
        _sync(folder)
        folder.rename(path)
        _sync(path.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        os.close(lock)


def _sync(path: Path) -> None:
    """Have a file or a folder's entries reach the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically.

    Raises:
        OSError: as ``write_atomic``.
        ValueError: a number is infinite or none, which JSON does not have.
    """
    write_atomic(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        SparseRecError: if it is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SparseRecError(f"{path}: {error.strerror}", "check the path") from None
    except ValueError as error:
        raise SparseRecError(f"{path}: not JSON ({error})", "write the run again") from None


def encode_ids(name: str, ids: list[str]) -> dict[str, npt.NDArray[Any]]:
    """Encode raw ids as ``<name>_utf8`` uint8 (bytes,) and ``<name>_offsets`` int64 (n+1,)."""
    texts = [text.encode() for text in ids]
    offsets = np.zeros(len(texts) + 1, np.int64)
    np.cumsum([len(text) for text in texts], out=offsets[1:])
    return {
        f"{name}_utf8": np.frombuffer(b"".join(texts), np.uint8),
        f"{name}_offsets": offsets,
    }


def decode_ids(name: str, tensors: dict[str, npt.NDArray[Any]]) -> list[str]:
    """Undo ``encode_ids``."""
    data = tensors[f"{name}_utf8"].tobytes()
    offsets = tensors[f"{name}_offsets"].tolist()
    return [data[a:b].decode() for a, b in pairwise(offsets)]
