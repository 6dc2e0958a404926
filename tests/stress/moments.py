"""Instants in a run's life that its files give away, by Linux's inotify."""

from __future__ import annotations

import ctypes
import os
import select
import struct
import time
from dataclasses import dataclass
from pathlib import Path

IN_MODIFY, IN_MOVED_TO, IN_CREATE, IN_DELETE = 0x2, 0x80, 0x100, 0x200
EVENT = struct.Struct("iIII")  # wd, mask, cookie, length of the name that follows


@dataclass(frozen=True)
class Moment:
    """Something that happens to a file of ``state`` or ``out`` whose name ends so."""

    name: str
    folder: str
    event: int
    suffix: str


MOMENTS = (
    Moment("generation begun", "state", IN_CREATE, ".safetensors.part"),
    Moment("generation half written", "state", IN_MODIFY, ".safetensors.part"),
    Moment("generation renamed", "state", IN_MOVED_TO, ".safetensors"),
    Moment("old generation removed", "state", IN_DELETE, ".safetensors"),
    Moment("report half written", "out", IN_MODIFY, "report.json.part"),
    Moment("report renamed", "out", IN_MOVED_TO, "report.json"),
)


class Watch:
    """Waits for a moment in a directory, which must exist."""

    def __init__(self, moment: Moment, directory: Path) -> None:
        self._moment = moment
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.inotify_init1(os.O_CLOEXEC)
        if self._fd < 0 or libc.inotify_add_watch(self._fd, bytes(directory), moment.event) < 0:
            raise OSError(ctypes.get_errno(), f"cannot watch {directory}")

    def wait(self, times: int, seconds: float) -> bool:
        """Wait until it has happened so many times; False if ``seconds`` are over first."""
        deadline = time.monotonic() + seconds
        while times > 0:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._fd], [], [], left)[0]:
                return False
            times -= self._count(os.read(self._fd, 65536))
        return True

    def _count(self, events: bytes) -> int:
        count = place = 0
        while place < len(events):
            *_, length = EVENT.unpack_from(events, place)
            place += EVENT.size
            name = events[place : place + length].rstrip(b"\0").decode()
            place += length
            count += name.endswith(self._moment.suffix)
        return count

    def close(self) -> None:
        os.close(self._fd)
