"""Runs recorded cells again and compares: with the recorded recipe, by the code that is here."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.reproduce import environment
from pipeline.reproduce.options import Options
from pipeline.reproduce.records import Record
from pipeline.reproduce.runner import run_one

EXACT = 1e-6
ELSEWHERE = 0.03
"""Tolerances of test Recall@20 and NDCG@20: absolute where processor, threads and versions are
those of the record; relative elsewhere, where sums round differently and training drifts apart, and
where the record does not tell the processor."""


@dataclass(frozen=True)
class Check:
    """One run repeated.

    Attributes:
        id: of the cell.
        recorded, found: test metrics by name.
        exact: whether the machine, threads and versions are the record's.
        same: whether the metrics agree.
    """

    id: str
    recorded: dict[str, float]
    found: dict[str, float]
    exact: bool
    same: bool


def cheap(records: list[Record], most_s: float) -> list[Record]:
    """Give the records with test metrics whose run took at most so many seconds.

    Of a run that was stopped in between, ``seconds`` are those of its last process.
    """
    able = [r for r in records if r.recipe is not None and "test" in r.values]
    return [record for record in able if _seconds(record) <= most_s]


def _seconds(record: Record) -> float:
    return float(max(record.values["seconds"], record.values.get("seconds_of_epochs") or 0))


def verify(
    records: list[Record], sample: int, seed: int | None, say: Callable[[str], None]
) -> list[Check]:
    """Run ``sample`` randomly chosen records again, each from nothing."""
    chosen = random.Random(seed).sample(records, min(sample, len(records)))
    return [_check(record, say) for record in chosen]


def _check(record: Record, say: Callable[[str], None]) -> Check:
    assert record.recipe is not None
    say(f"{record.cell.id}: {_seconds(record):.0f} s when it was recorded")
    with tempfile.TemporaryDirectory() as folder:
        options = Options(Path(folder), Path(folder) / "work")
        found = run_one(record.cell, record.recipe, options)
    names = ("recall@20", "ndcg@20")
    before = {name: record.test(name) for name in names}
    after = {name: found["test"][name] for name in names}
    now, then = environment.machine(), record.values["machine"]
    exact = all(now[key] == then.get(key) for key in ("processor", "threads"))
    exact = exact and now["processor"] is not None
    exact = exact and environment.versions() == record.values["versions"]
    allowed = {name: EXACT if exact else ELSEWHERE * before[name] for name in names}
    same = all(abs(before[name] - after[name]) <= allowed[name] for name in names)
    return Check(record.cell.id, before, after, exact, same)
