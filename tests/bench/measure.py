"""Samples taken by turns, and what is written about them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

KEPT = 500
"""Raw samples kept of each side."""

Timed = Callable[[int], list[int]]
"""Repeats something; returns nanoseconds of each repetition."""


@dataclass(frozen=True)
class Result:
    """One line of the table.

    Attributes:
        name: what is compared.
        ours: of this project, in ``unit``.
        peer: what it is held against, in ``unit``; None where there is no such thing.
        unit: ``us``, ``kB`` or ``fraction``.
        target: least ratio that the project aims at; None where it has set none.
        samples: raw values of both sides in ``unit``.
    """

    name: str
    ours: float
    peer: float | None
    unit: str
    target: float | None = None
    samples: dict[str, list[float]] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """How many times less than the peer; ours where there is no peer."""
        return self.ours if self.peer is None else self.peer / self.ours

    def to_json(self) -> dict[str, Any]:
        """Give the entry of ``bench.json``."""
        keys = ("name", "ours", "peer", "ratio", "unit", "target", "samples")
        return {key: getattr(self, key) for key in keys}


def timed(function: Callable[[], object]) -> Timed:
    """Make a Python function something that can be timed."""

    def repeat(repetitions: int) -> list[int]:
        taken = []
        for _ in range(repetitions):
            start = time.perf_counter_ns()
            function()
            taken.append(time.perf_counter_ns() - start)
        return taken

    return repeat


def by_turns(sides: dict[str, tuple[Timed, int]], rounds: int) -> dict[str, list[int]]:
    """Repeat every side in each round, each as often as it says. The first round warms up."""
    samples: dict[str, list[int]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name, (repeat, repetitions) in sides.items():
            taken = repeat(repetitions)
            if turn > 0:
                samples[name] += taken
    return samples


def thinned(samples: list[float]) -> list[float]:
    """Keep ``KEPT`` of the samples at most, evenly over the run."""
    step = max(1, -(-len(samples) // KEPT))
    return samples[::step]


def compared(name: str, ours: list[int], peer: list[int], target: float | None = None) -> Result:
    """Compare the medians of nanoseconds, shown in microseconds."""
    sides = {"ours": [ns / 1000 for ns in ours], "peer": [ns / 1000 for ns in peer]}
    kept = {side: thinned(values) for side, values in sides.items()}
    return Result(name, median(sides["ours"]), median(sides["peer"]), "us", target, kept)
