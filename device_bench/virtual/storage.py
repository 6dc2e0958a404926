"""How much fits on the device: what the host's disk holds, or a limit on all files together."""

from __future__ import annotations

import errno
import io
import os
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class Space(NamedTuple):
    """Bytes."""

    total: int
    used: int
    free: int


class Storage:
    """The space for files under ``root``: ``limit`` bytes in all, or None for no limit."""

    def __init__(self, root: Path, limit: int | None = None) -> None:
        self.limit = limit
        self._root = root
        self._used = 0
        self._lock = threading.Lock()

    def space(self) -> Space:
        """What there is, what is taken, and what is left."""
        if self.limit is None:
            disk = shutil.disk_usage(self._root)
            return Space(disk.total, disk.used, disk.free)
        used = size_below(self._root)
        return Space(self.limit, used, max(0, self.limit - used))

    def open(self, path: Path, mode: str) -> io.RawIOBase:
        """Open a file for writing, unbuffered; a write is whole or raises OSError.

        Raises:
            OSError: as ``Path.open``.
        """
        file = _Counted(path, mode, self)
        if self.limit is not None:
            with self._lock:
                self._used = size_below(self._root)
        return file

    def reserve(self, size: int) -> None:
        """Make sure that ``size`` more bytes fit.

        Raises:
            OSError: they do not.
        """
        if self.limit is not None and size > self.space().free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def take(self, size: int) -> None:
        """Count bytes that an open file is about to get.

        Raises:
            OSError: there is no space for them.
        """
        with self._lock:
            if self.limit is not None and self._used + size > self.limit:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._used += size


class _Counted(io.FileIO):
    """A file whose writes count as new bytes: no command of the device writes over old ones."""

    def __init__(self, path: Path, mode: str, storage: Storage) -> None:
        super().__init__(path, mode)
        self._storage = storage

    def write(self, data: ReadableBuffer, /) -> int:
        rest = memoryview(data)
        self._storage.take(rest.nbytes)
        while rest:
            rest = rest[super().write(rest) or 0 :]
        return memoryview(data).nbytes


def size_below(folder: Path) -> int:
    """The bytes of all files under ``folder``; one that goes meanwhile counts nothing."""
    total = 0
    for directory, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(directory, name)).st_size  # noqa: PTH118
            except OSError:
                continue
    return total
