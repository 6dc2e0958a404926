"""``python -m pipeline.scale``: measure what ranks cost, and write it down (docs/scale.md)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
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
from sparserec.errors import SparseRecError

RESULTS = Path("docs/results/ranks.json")
app = typer.Typer(no_args_is_help=True, add_completion=False)
Results = Annotated[Path, typer.Option(help="The measurements.")]


@app.command()
def measure(
    results: Results = RESULTS,
    rows: Annotated[int, typer.Option(help="Largest table whose memory is measured.")] = 10**8,
) -> None:
    """Measure steps and memory on 1, 2 and 4 ranks of this machine; some minutes."""
    found: list[Measured] = []
    for ranks in (1, 2, 4):
        found += _launch(ranks, [case for case in speed_cases() if case.ranks == ranks])
    memory: list[Measured] = []
    for case in memory_cases(rows):  # a fresh process each, or a peak is an earlier one's
        memory += _launch(case.ranks, [case])
    write_json(
        results,
        {
            "machine": machine(),
            "versions": versions(),
            "load": os.getloadavg()[0],
            "speed": [asdict(one) for one in found],
            "memory": [asdict(one) for one in memory],
        },
    )
    print(report(found, memory))


@app.command("report")
def report_(results: Results = RESULTS) -> None:
    """Fit the cost model to the measurements and print the tables of docs/scale.md."""
    stored = read_json(results)
    print(report(_read(stored["speed"]), _read(stored["memory"])))


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
