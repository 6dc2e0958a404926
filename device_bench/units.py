"""Figures as people read them; what could not be read says so."""

from __future__ import annotations

NOT_READABLE = "not readable"
THERMAL_STATES = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
"""Android's names of thermal status 0 to 6 (PowerManager.THERMAL_STATUS_*); from light on the phone
throttles."""


def number(value: float | None, digits: int = 4) -> str:
    """A plain figure with ``digits`` decimals."""
    return NOT_READABLE if value is None else f"{value:.{digits}f}"


def small(value: float | None) -> str:
    """A figure that may be tiny, such as an error."""
    return NOT_READABLE if value is None else f"{value:.2g}"


def count(value: int | None) -> str:
    """A whole number with thin groups of thousands."""
    return NOT_READABLE if value is None else f"{value:,}".replace(",", "\u202f")


def duration(nanoseconds: float | None) -> str:
    """Nanoseconds in the largest unit that leaves a figure of at least 1."""
    if nanoseconds is None:
        return NOT_READABLE
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if nanoseconds >= size:
            return f"{_three(nanoseconds / size)} {unit}"
    return f"{nanoseconds:.0f} ns"


def size(value: float | None) -> str:
    """Bytes in KiB, MiB or GiB."""
    if value is None:
        return NOT_READABLE
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if value >= factor:
            return f"{_three(value / factor)} {unit}"
    return f"{value:.0f} B"


def kilobytes(value: float | None) -> str:
    """Kilobytes (of 1024 bytes, as Linux counts them) in KiB, MiB or GiB."""
    return size(None if value is None else value * 1024)


def change(before: float | None, after: float | None) -> str:
    """The relative change in percent, signed; empty where it cannot be told."""
    if before is None or after is None or before == 0:
        return ""
    return f"{(after / before - 1) * 100:+.1f} %"


def _three(value: float) -> str:
    """About three significant digits."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"
