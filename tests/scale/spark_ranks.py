"""A dataset by Spark and torchrun beside the same by one process: docs/scale.md.

``python -m tests.scale.spark_ranks`` writes the train interactions of a dataset as a CSV log with
times, which the published files lack (a permutation, from a seed), and runs the commands a user
would: ``data prepare`` and ``train`` here; ``spark prepare``, ``spark factorise`` and ``train
--factors --ranks 2`` there. It prints both runs' quality on the test part.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from pipeline.data.datasets import load
from pipeline.data.logs import write_csv

TRAINING = ["--learning-rate", "0.01", "--l2", "0.01", "--batch-size", "8192"]


def sparserec(*arguments: object) -> float:
    """Run a command; gives the seconds it took."""
    start = time.monotonic()
    code = "from sparserec.cli import main; main()"
    subprocess.run([sys.executable, "-c", code, *map(str, arguments)], check=True)
    return time.monotonic() - start


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.scale.spark_ranks", description=__doc__)
    parser.add_argument("--dataset", default="gowalla")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path("runs/spark-ranks"), help="a new one")
    given = parser.parse_args()
    folder: Path = given.folder
    folder.mkdir(parents=True)
    log, train = folder / "log.csv", load(given.dataset).interactions
    times = np.random.default_rng(1).permutation(len(train.users))
    write_csv(replace(train, timestamps=times), log)

    options = [*TRAINING, "--epochs", given.epochs, "--out"]
    here, there = folder / "here", folder / "there"
    seconds = {
        "data prepare": sparserec("data", "prepare", log, here),
        "train": sparserec("train", here, *options, folder / "run-here"),
        "spark prepare": sparserec("spark", "prepare", log, there),
        "spark factorise": sparserec("spark", "factorise", there, folder / "factors"),
    }
    sharing = ["--factors", folder / "factors", "--ranks", 2]
    seconds["train --ranks 2"] = sparserec("train", there, *sharing, *options, folder / "run-there")
    Console().print({name: round(taken) for name, taken in seconds.items()})
    show([folder / "run-here", folder / "run-there"])
    return 0


def show(runs: list[Path]) -> None:
    table = Table(title="on the test part")
    for heading in ("", "one process", "Spark and 2 ranks", "ratio"):
        table.add_column(heading, justify="right")
    found = [json.loads((run / "run.json").read_text())["metrics"] for run in runs]
    for name in ("recall@20", "ndcg@20"):
        here, there = (metrics[name] for metrics in found)
        table.add_row(name, f"{here:.5f}", f"{there:.5f}", f"{there / here:.4f}")
    Console().print(table)


if __name__ == "__main__":
    raise SystemExit(main())
