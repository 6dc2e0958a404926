"""``python -m pipeline.scale``: measure what ranks cost, and write it down (docs/scale.md)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pipeline.files import read_json, write_json
from pipeline.memory import SETTINGS
from pipeline.reproduce.environment import machine, versions
from pipeline.scale.cases import Case, Measured, memory_cases, speed_cases
from pipeline.scale.report import report
from sparserec.errors import SparseRecError, writing

STEPS, MEMORY = Path("docs/results/ranks-steps.json"), Path("docs/results/ranks-memory.json")
Out = Annotated[Path, typer.Option(help="File to write.", dir_okay=False)]
app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.command()
def steps(out: Out = STEPS) -> None:
    """Measure steps on 1 and 2 ranks of this machine: times and bytes."""
    _check(out)
    found: list[Measured] = []
    for ranks in (1, 2):
        found += _launch(ranks, [case for case in speed_cases() if case.ranks == ranks])
    _write(out, found)
    print(report(found, []))


@app.command()
def memory(
    out: Out = MEMORY,
    rows: Annotated[int, typer.Option(help="Of the largest table.")] = 10**8,
) -> None:
    """Measure what a rank keeps and its peak; of large tables one rank's shard, alone."""
    _check(out)
    found: list[Measured] = []
    for case in memory_cases(rows):  # a fresh process each, or a peak is an earlier one's
        found += _launch(case.ranks, [case])
        _write(out, found)
    print(report([], found))


@app.command("report")
def report_() -> None:
    """Fit the cost model to what was measured and print the tables of docs/scale.md."""
    print(report(*(_read(read_json(path)["measured"]) for path in (STEPS, MEMORY))))


def _check(out: Path) -> None:
    """Fail before the measurements, not after them, where the file cannot be written."""
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out.parent).close()


def _write(out: Path, found: list[Measured]) -> None:
    load = [round(value, 1) for value in os.getloadavg()]
    described = {"machine": machine(), "versions": versions(), "load_average": load}
    with writing(out):
        write_json(out, described | {"measured": [asdict(one) for one in found]})


def _read(lines: Iterable[dict[str, object]]) -> list[Measured]:
    parts = [dict(line) for line in lines]
    return [Measured(**part | {"case": Case(**part["case"])}) for part in parts]  # type: ignore[arg-type]


def _launch(ranks: int, cases: list[Case]) -> list[Measured]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={ranks}", "-m", "pipeline.scale.process"]
    command.append(json.dumps([asdict(case) for case in cases]))
    found = subprocess.run(
        command, env=os.environ | SETTINGS, capture_output=True, text=True, check=False
    )
    if found.returncode:
        last = found.stderr.strip().splitlines()[-1:] or [f"exit code {found.returncode}"]
        raise SparseRecError(f"measuring {ranks} ranks failed: {last[0]}", "free some memory")
    lines = [line for line in found.stdout.splitlines() if line.startswith("{")]
    print(f"measured {len(lines)} processes of {ranks} ranks", file=sys.stderr)
    return _read(json.loads(line) for line in lines)


if __name__ == "__main__":
    try:
        app()
    except SparseRecError as error:
        sys.exit(str(error))
