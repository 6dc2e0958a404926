"""The memory experiment: peaks of a training step against the number of rows.

``pipeline.memory`` measures; here are its cells, one line in ``<results>/memory.jsonl`` each. What
does not fit this machine is recorded with the reason, and looked at again when the command is
given again: that takes no time, and the machine may have more to give.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any, get_args

from pipeline.memory import Memory, MemoryMethod, measure
from pipeline.models import ModelName
from pipeline.reproduce import environment
from pipeline.reproduce.records import SCHEMA_VERSION, append, lines
from sparserec.errors import SparseRecError
from sparserec.progress import Progress, silent

NAME = "memory"
MODELS: tuple[ModelName, ...] = ("mf", "neumf", "lightgcn", "ngcf")
ROWS = (10**4, 10**5, 10**6, 10**7)
METHODS: tuple[MemoryMethod, ...] = get_args(MemoryMethod)
DIM, DENSITY = 64, 0.1


@dataclass(frozen=True)
class MemoryCell:
    """One measurement: the base recommender, how it is trained, and N."""

    model: ModelName
    method: MemoryMethod
    rows: int
    dim: int = DIM
    density: float = DENSITY

    @property
    def id(self) -> str:
        """What a record is found by."""
        return f"{self.model}/{self.method}/{self.rows}/{self.dim}/{self.density:g}"


@dataclass(frozen=True)
class MemoryRecord:
    """One line of the file: the cell, what was found, and the whole JSON object."""

    cell: MemoryCell
    found: Memory
    values: dict[str, Any]


@dataclass(frozen=True)
class MemoryOutcome:
    """What a call of ``run`` did: cells measured, recorded as skipped, failed, and not come to."""

    measured: int
    skipped: int
    failed: dict[str, str]
    left: int


def memory_cells() -> list[MemoryCell]:
    """Give all cells: model by model, small tables first."""
    return [MemoryCell(m, method, n) for m, n, method in product(MODELS, ROWS, METHODS)]


def read_memory(results: Path) -> dict[str, MemoryRecord]:
    """Read the records by cell id; of two of one cell the later counts.

    Raises:
        SparseRecError: a line other than a torn last one is no record.
    """
    path = results / f"{NAME}.jsonl"
    records: dict[str, MemoryRecord] = {}
    for number, line in lines(path):
        try:
            values = json.loads(line)
            if values["schema_version"] != SCHEMA_VERSION:
                raise ValueError(f"schema_version is not {SCHEMA_VERSION}")
            record = MemoryRecord(MemoryCell(**values["cell"]), Memory(**values["memory"]), values)
        except (ValueError, LookupError, TypeError) as error:
            raise SparseRecError(
                f"{path}, line {number}: not a record of memory ({error})",
                f"restore the file: git checkout -- {path}",
            ) from None
        records[record.cell.id] = record
    return records


def measured(record: MemoryRecord | None) -> bool:
    """Tell whether a cell needs no further look."""
    return record is not None and not record.found.skipped


def run(
    cells: Sequence[MemoryCell],
    results: Path,
    limit: int,
    budget_s: float | None = None,
    progress: Progress = silent,
    say: Callable[[str], None] = lambda text: None,
) -> MemoryOutcome:
    """Measure the cells that no record holds, one after the other; a stop loses the one in flight.

    Args:
        cells: to measure.
        results: folder of the records.
        limit: bytes; what would take more is recorded as skipped.
        budget_s: no measurement begins after this many seconds.
        progress: gets the cells done.
        say: gets one line for each.
    """
    records = read_memory(results)
    todo = [cell for cell in cells if not measured(records.get(cell.id))]
    began, done, skipped = time.monotonic(), 0, 0
    failed: dict[str, str] = {}
    for k, cell in enumerate(todo):
        progress("cells", k, len(todo))
        if budget_s is not None and time.monotonic() - began >= budget_s:
            say(f"stopped (budget); the same command goes on with {cell.id}")
            return MemoryOutcome(done, skipped, failed, len(todo) - k)
        try:
            record = _record(cell, limit)
        except SparseRecError as error:
            failed[cell.id] = error.message
            say(f"failed   {error.message}")
            continue
        found = Memory(**record["memory"])
        if not found.skipped:
            done += 1
        else:
            skipped += 1
        if not found.skipped or cell.id not in records:
            append(results, NAME, record)
        say(_line(cell, found, record["seconds"]))
    progress("cells", len(todo), len(todo))
    return MemoryOutcome(done, skipped, failed, 0)


def _record(cell: MemoryCell, limit: int) -> dict[str, Any]:
    began, git, machine = time.monotonic(), environment.git(), environment.machine()
    found = measure(cell.model, cell.method, cell.rows, cell.dim, cell.density, limit=limit)
    return {
        "schema_version": SCHEMA_VERSION,
        "id": cell.id,
        "cell": asdict(cell),
        "memory": asdict(found),
        "seconds": round(time.monotonic() - began, 3),
        "git": git,
        "versions": environment.versions(),
        "machine": machine | {"threads": 1},  # of the measured process
        "finished_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _line(cell: MemoryCell, found: Memory, seconds: float) -> str:
    if found.skipped:
        return f"skipped  {cell.id}: {found.skipped}"
    peaks = ((name, getattr(found, name)) for name in ("forward", "backward", "update"))
    text = ", ".join(f"{name} {(value or 0) / 2**20:.0f}" for name, value in peaks)
    return f"measured {cell.id}: {text} MiB, {seconds:.0f} s"
