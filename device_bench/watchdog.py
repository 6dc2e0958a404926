"""What ends a run that would not end by itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

SILENCE_SECONDS = 600.0
"""How long the harness may say nothing: evaluation on a slow phone is one long phase."""


class TimedOutError(Exception):
    """The run was silent for too long, or took too long."""


class CancelledError(Exception):
    """The user wants no more."""


@dataclass(frozen=True)
class Limits:
    """Seconds that a run may be silent, and may take in all (None: as long as it likes)."""

    silence_seconds: float = SILENCE_SECONDS
    total_seconds: float | None = None


class Watchdog:
    """Watches one run from its creation on.

    Args:
        limits: what the run may take.
        cancelled: set from any thread when the run is to be stopped.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        cancelled: threading.Event | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limits = limits or Limits()
        self._cancelled = cancelled or threading.Event()
        self._clock = clock
        self._started = self._heard = clock()

    def heard(self) -> None:
        """Note that the run said something."""
        self._heard = self._clock()

    def check(self) -> None:
        """Return if the run may go on.

        Raises:
            CancelledError: it is to be stopped.
            TimedOutError: a limit is passed.
        """
        if self._cancelled.is_set():
            raise CancelledError
        now, limits = self._clock(), self.limits
        if now - self._heard >= limits.silence_seconds:
            raise TimedOutError(f"the harness said nothing for {limits.silence_seconds:g} s")
        if limits.total_seconds is not None and now - self._started >= limits.total_seconds:
            raise TimedOutError(f"the run took longer than {limits.total_seconds:g} s")
