"""What falls over a run along half a cosine: the exchanged fraction and the learning rate."""

from __future__ import annotations

import math
from dataclasses import dataclass


def half_cosine(first: float, least: float, done: float, end: float) -> float:
    """Give what falls from ``first`` to ``least`` after ``done`` of ``end``: slowly at both."""
    return least + (first - least) / 2 * (1 + math.cos(math.pi * done / end))


@dataclass(frozen=True)
class Annealing:
    """A learning rate that falls along half a cosine (Loshchilov and Hutter, ICLR 2017, one cycle).

    Attributes:
        steps: of the whole run.
        least: the part of the learning rate that it comes to by then; 1: it stays.
    """

    steps: int
    least: float

    def part_at(self, step: int) -> float:
        """Give the part of the learning rate that a 0-based step has."""
        return half_cosine(1, self.least, step, self.steps)


CONSTANT = Annealing(1, 1.0)
"""A learning rate that stays."""
