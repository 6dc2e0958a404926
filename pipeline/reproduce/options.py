"""How an experiment's cells are run: folders, time, and how many at once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from pipeline.reproduce.records import RESULTS
from sparserec.errors import SparseRecError


@dataclass(frozen=True)
class Options:
    """How cells are run.

    Attributes:
        results: folder of the records.
        work: folder for checkpoints and factors.
        budget_s: no run goes on after this many seconds; None: no limit.
        jobs: runs at a time.
        epochs: instead of each dataset's own, for a trial.
        stale: run again what was recorded with another recipe than today's.
    """

    results: Path = RESULTS
    work: Path = Path("runs/reproduce")
    budget_s: float | None = None
    jobs: int = 1
    epochs: int | None = None
    stale: bool = False


def parse_budget(text: str, flag: str = "--budget") -> float:
    """Read a time such as ``90m``, ``2h``, ``45s`` or ``1h30m`` as seconds.

    Raises:
        SparseRecError: it is none; names the flag.
    """
    units = {"h": 3600.0, "m": 60.0, "s": 1.0}
    parts = re.findall(r"([0-9]+\.?[0-9]*|\.[0-9]+)([hms])", text)
    total = sum(float(number) * units[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != text.strip() or total <= 0:
        raise SparseRecError(f"{flag} {text!r} is no time", "write 90m, 2h or 1h30m")
    return total
