"""Fuzzing everything that reads what others wrote: ``python -m tests.stress.fuzz --inputs 1000``.

docs/stress.md says what counts as what. An input that was a problem is made again, and run alone,
by ``python -m tests.stress.fuzz --seed SEED --again TARGET NUMBER``.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from sparserec.progress import Progress, bars
from tests.stress.fuzz_guard import Guard, HungError
from tests.stress.fuzz_mutate import make
from tests.stress.fuzz_targets import Target, Targets, without_side_effects

COUNTS = ("uncaught", "hung", "outside")
REFILL_EVERY = 500
MAX_SHOWN = 50


def main() -> int:
    """Fuzz, or run one input again; 1 where there was a problem."""
    parser = argparse.ArgumentParser(prog="python -m tests.stress.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000, help="how many, over all targets")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--again", nargs=2, metavar=("TARGET", "NUMBER"), help="one input again")
    options = parser.parse_args()
    if options.again is None:
        with bars() as progress:
            found = fuzz_campaign(options.inputs, options.seed, progress)
    else:
        name, number = options.again
        found = fuzz_campaign(0, options.seed, only=(name, int(number)))
    for problem in found["problems"]:
        print(problem, file=sys.stderr)
    print(" ".join(f"{key} {found[key]}" for key in ("cases", *COUNTS)))
    return int(any(found[count] for count in COUNTS))


def fuzz_campaign(
    inputs: int,
    seed: int,
    progress: Progress = lambda *_: None,
    only: tuple[str, int] | None = None,
) -> dict[str, Any]:
    """Run ``inputs`` inputs, shared out among the targets, or one input of one target.

    Returns:
        ``fuzz.json``: ``cases``, the counts, and the same for each target with its seconds and how
        many inputs it refused.
    """
    from tests.stress.fuzz_seeds import manifest_seed, report_seed

    memory = Path("/dev/shm")
    place = memory if os.access(memory, os.W_OK) else None
    without_side_effects()
    guard = Guard()
    found = []
    with tempfile.TemporaryDirectory(prefix="sparserec-fuzz-", dir=place) as folder:
        targets = Targets(Path(folder), report_seed(), manifest_seed())
        for target in targets.all:
            numbers = range(round(inputs * target.share))
            if only is not None:
                numbers = range(only[1], only[1] + (target.name == only[0]))
            run = _Run(target, targets, guard)
            run.run(numbers, seed, progress)
            found.append(run.to_json())
    problems = [problem for entry in found for problem in entry.pop("problems")]
    sums = {key: sum(entry[key] for entry in found) for key in ("cases", *COUNTS)}
    return {
        "schema_version": 1,
        "seed": seed,
        **sums,
        "seconds": round(sum(entry["seconds"] for entry in found), 1),
        "machine": {"os": platform.platform(), "cores": os.cpu_count()},
        "targets": {entry.pop("name"): entry for entry in found},
        "problems": problems[:MAX_SHOWN],
    }


class _Run:
    """One target's inputs."""

    def __init__(self, target: Target, targets: Targets, guard: Guard) -> None:
        self._target = target
        self._targets = targets
        self._guard = guard
        self._counts: Counter[str] = Counter()
        self._problems: list[str] = []
        self._seconds = 0.0
        self._slowest = 0.0

    def run(self, numbers: range, seed: int, progress: Progress) -> None:
        began = time.monotonic()
        for number in numbers:
            if number % REFILL_EVERY == 0:
                self._targets.yard.fill()
                progress(f"fuzz {self._target.name}", number, len(numbers))
            self._one(make(self._target.seeds, seed, self._target.name, number), number)
        progress(f"fuzz {self._target.name}", len(numbers), len(numbers))
        self._seconds = time.monotonic() - began

    def _one(self, data: bytes, number: int) -> None:
        """Run an input and look at what it did."""
        self._counts["cases"] += 1
        began = time.monotonic()
        try:
            with self._guard.watching(self._target.root):
                self._target.run(data)
        except self._target.refusals:
            self._counts["refused"] += 1
        except HungError:
            self._problem("hung", number, "took too long")
        except (Exception, SystemExit) as error:
            self._problem("uncaught", number, f"{type(error).__name__}: {error}")
        self._slowest = max(self._slowest, time.monotonic() - began)
        for text in self._guard.uncaught:
            self._problem("uncaught", number, text)
        for text in self._guard.outside:
            self._problem("outside", number, text)
        if self._target.root is not None and (text := self._targets.yard.touched() or ""):
            self._problem("outside", number, text)
        self._guard.uncaught.clear()
        self._guard.outside.clear()

    def _problem(self, count: str, number: int, text: str) -> None:
        self._counts[count] += 1
        self._problems.append(f"{self._target.name} {number}: {count}: {text[:300]}")

    def to_json(self) -> dict[str, Any]:
        counts = {key: self._counts[key] for key in ("cases", *COUNTS, "refused")}
        return {
            "name": self._target.name,
            **counts,
            "seconds": round(self._seconds, 1),
            "slowest_seconds": round(self._slowest, 3),
            "problems": self._problems,
        }


if __name__ == "__main__":
    sys.exit(main())
