"""What a campaign counts. Everything but ``cases`` and ``notes`` must stay 0."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

COUNTS = ("lost", "wrong", "crashed", "unclear")
MAX_SHOWN = 50


@dataclass(frozen=True)
class Problem:
    """One lapse: which count it belongs to, and what was seen."""

    count: str
    text: str


@dataclass
class Tally:
    """Counts of a campaign.

    lost: a committed generation is gone or damaged.
    wrong: a wrong result was accepted, or what is on disk is not what was computed.
    crashed: the process died, hung or reported a defect of its own.
    unclear: an error does not name file and field.
    ``notes`` says how many cases went which way.
    """

    cases: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0
    _last: str = "before the first case"

    def add(self, name: str, problems: list[Problem]) -> None:
        """Count one case, called ``name`` where it shows up among the problems."""
        self.cases += 1
        self._last = name
        self.add_to_last(problems)

    def add_to_last(self, problems: list[Problem]) -> None:
        """Add what turned out later, at the end of a chain that the last case belongs to."""
        self.counts.update({problem.count for problem in problems})
        self.problems += [f"{self._last}: {problem.count}: {problem.text}" for problem in problems]

    def to_json(self) -> dict[str, Any]:
        return {
            "cases": self.cases,
            **{count: self.counts[count] for count in COUNTS},
            "seconds": round(self.seconds, 1),
            "notes": dict(sorted(self.notes.items())),
            "problems": self.problems[:MAX_SHOWN],
        }


def total(tallies: list[Tally]) -> dict[str, int]:
    """The sums over campaigns of ``cases`` and of each count."""
    sums = {count: sum(tally.counts[count] for tally in tallies) for count in COUNTS}
    return {"cases": sum(tally.cases for tally in tallies), **sums}
