"""The virtual device's log, which ``logcat`` shows."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable


class Log:
    """The device's log: the newest lines, in ``logcat -v threadtime`` form.

    Args:
        capacity: how many lines are kept.
        clock: the device's time, in seconds since 1970.
    """

    def __init__(self, capacity: int = 2000, clock: Callable[[], float] = time.time) -> None:
        self._lines: deque[str] = deque(maxlen=capacity)
        self._lock = threading.Lock()
        self.now = clock

    def add(self, tag: str, text: str, pid: int | None = None) -> None:
        """Append ``text``, one entry for each of its lines."""
        number = os.getpid() if pid is None else pid
        now = self.now()
        stamp = time.strftime("%m-%d %H:%M:%S", time.localtime(now)) + f".{now % 1 * 1000:03.0f}"
        with self._lock:
            for line in text.splitlines() or [""]:
                self._lines.append(f"{stamp} {number:5d} {number:5d} I {tag}: {line}")

    def lines(self) -> list[str]:
        """The lines kept, oldest first."""
        with self._lock:
            return list(self._lines)

    def clear(self) -> None:
        """Forget every line."""
        with self._lock:
            self._lines.clear()
