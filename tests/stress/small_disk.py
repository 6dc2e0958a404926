"""A disk that fills up: a small tmpfs, or a limit on file sizes where one cannot be mounted."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MOUNT = "mount"
DISK_BYTES = 2 << 20
FULL = ("No space left on device", "File too large")
"""What Linux says where a disk is full, or a file over its limit."""


class SmallDisk:
    """``folder`` is where there is little space. ``kind`` says how."""

    def __init__(self, folder: Path, mounted: bool) -> None:
        self.folder = folder
        self.kind = f"tmpfs of {DISK_BYTES >> 10} KiB" if mounted else "RLIMIT_FSIZE"
        self._mounted = mounted
        self._filler = folder / "filler"
        self._timer: threading.Timer | None = None

    def fill(self, chance: random.Random) -> None:
        """Leave a random space: none, some pages, some files' worth, or enough for a while."""
        most = chance.choice((0, 20_000, 120_000, DISK_BYTES, DISK_BYTES, DISK_BYTES))
        self._leave(chance.randint(0, most))

    def fill_later(self, chance: random.Random) -> None:
        """Fill up, or make room, after a random time, as another app does."""
        free = chance.choice((0, 0, 8_192, DISK_BYTES // 2))
        self._timer = threading.Timer(chance.uniform(0.2, 1.2), self._leave, [free])
        self._timer.start()

    def join(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()

    def leave_all(self) -> None:
        self._filler.unlink(missing_ok=True)

    def file_limit(self, chance: random.Random) -> int | None:
        """Where nothing can be mounted: how large a file may grow, around the size of ours."""
        return None if self._mounted else chance.randint(1_000, 200_000)

    def _leave(self, free: int) -> None:
        if not self._mounted:
            return
        self.leave_all()
        found = os.statvfs(self.folder)
        room = found.f_bavail * found.f_frsize - free
        # An error means that the harness was quicker: full is what was wanted.
        with suppress(OSError), self._filler.open("wb", buffering=0) as file:
            file.write(bytes(max(0, room)))


@contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk]:
    """Mount a small tmpfs at ``folder``, for as long as the context lasts."""
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={DISK_BYTES}", "sparserec-stress", str(folder)]
    mounted = subprocess.run([MOUNT, *options], capture_output=True, check=False).returncode == 0
    try:
        yield SmallDisk(folder, mounted)
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)
        shutil.rmtree(folder)
