"""Damaged bundles: refused with a clear error, or taken for what they are; never a crash."""

from __future__ import annotations

import random
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path

from sparserec.progress import Progress
from tests.android_app.harness.bundles import Tiny
from tests.android_app.harness.conftest import Harness
from tests.stress.disk_state import read_report
from tests.stress.driver import Answer, Driver
from tests.stress.mutations import Bundles, Mutation, changed_program, mutate
from tests.stress.oracle import Result, judge
from tests.stress.tally import Problem, Tally
from tests.stress.workshop import Workshop

STEPS = 40
LAUNCHED_EVERY = 50
"""Of so many cases one runs in a process of its own as well, which must say the same."""
PROCESS_SECONDS = 60


class Range:
    """Bundles to damage, and what an untouched one gives."""

    def __init__(self, workshop: Workshop) -> None:
        self.workshop = workshop
        tiny = replace(Tiny(), training={**Tiny().training, "steps": STEPS})
        self.bundles = Bundles(
            whole=workshop.bundle("whole", tiny, data_seed=3),
            twin=workshop.bundle("twin", tiny, data_seed=4),
            stranger=workshop.bundle("stranger", replace(tiny, dim=8), data_seed=5),
        )
        harness = Harness(workshop.launcher, self.bundles.whole, workshop.folder / "untouched")
        ended = harness.run()
        if ended.code != 0 or ended.report["correctness"]["verdict"] != "passed":
            raise RuntimeError(f"the untouched bundle does not pass: {ended.lines}")
        self.untouched = Result.of(ended.report)

    def fresh_case(self) -> Path:
        """A folder with a copy of the untouched bundle in it."""
        folder = self.workshop.folder / "case"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        shutil.copytree(self.bundles.whole, folder / "bundle")
        return folder

    def launch(self, folder: Path) -> Answer:
        """Run the case in a process of its own, with fresh folders."""
        for name in ("state", "out"):
            shutil.rmtree(folder / name, ignore_errors=True)
        harness = Harness(self.workshop.launcher, folder / "bundle", folder)
        done = subprocess.run(
            harness.command(),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PROCESS_SECONDS,
            check=False,
            cwd=self.workshop.folder,
        )
        if done.returncode not in {0, 1}:
            return Answer("died", f"exit code {done.returncode}")
        prefix = "INSTRUMENTATION_RESULT: error="
        found = [line for line in done.stdout.split("\n") if line.startswith(prefix)]
        error = found[0].removeprefix(prefix) if found else ""
        return Answer("succeeded" if done.returncode == 0 else "failed", error)


def mutated(range_: Range, seed: int, case: int) -> tuple[Path, Mutation]:
    """Make case number ``case`` of ``seed``; the same numbers make the same case."""
    folder = range_.fresh_case()
    chance = random.Random(f"{seed}/corruption/{case}")
    return folder, mutate(folder / "bundle", range_.bundles, chance)


def corruption_campaign(range_: Range, cases: int, seed: int, progress: Progress) -> Tally:
    """Run ``cases`` damaged bundles."""
    start, tally = time.monotonic(), Tally()
    with Driver(range_.workshop) as driver:
        for case in range(cases):
            folder, mutation = mutated(range_, seed, case)
            answer = driver.run(folder / "bundle", folder / "state", folder / "out")
            report = folder / "out" / "report.json"
            way, problems = judge(mutation, answer, folder / "bundle", report, range_.untouched)
            if case % LAUNCHED_EVERY == 0:
                problems += _same_in_a_process(range_, folder, answer)
                tally.notes["run in a process of its own too"] += 1
            tally.notes[f"{mutation.family}: {way}"] += 1
            tally.add(f"case {case} ({mutation.family}: {mutation.what})", problems)
            progress("corrupt bundles", case + 1, cases)
    tally.seconds = time.monotonic() - start
    return tally


def _same_in_a_process(range_: Range, folder: Path, answer: Answer) -> list[Problem]:
    report = folder / "out" / "report.json"
    before = Result.of(read_report(report)) if report.exists() else None
    launched = range_.launch(folder)
    if launched != answer:
        return [Problem("wrong", f"in a process of its own: {launched}, not {answer}")]
    if before is not None and Result.of(read_report(report)) != before:
        return [Problem("wrong", "in a process of its own the result is another")]
    return []


def program_campaign(range_: Range, cases: int, seed: int, progress: Progress) -> Tally:
    """Run ``cases`` bundles with a damaged program whose hash is right, a process each.

    Reported apart: what ExecuTorch does with such a program is not the harness's doing, and no
    damage by chance gets this far.
    """
    start, tally = time.monotonic(), Tally()
    for case in range(cases):
        folder = range_.fresh_case()
        chance = random.Random(f"{seed}/programs/{case}")
        mutation = changed_program(folder / "bundle", range_.bundles, chance)
        try:
            answer = range_.launch(folder)
        except subprocess.TimeoutExpired:
            answer = Answer("hung", "")
        report = folder / "out" / "report.json"
        way, problems = judge(mutation, answer, folder / "bundle", report, range_.untouched)
        tally.notes[f"{mutation.files[0]}: {way}"] += 1
        tally.add(f"case {case} ({mutation.what})", problems)
        progress("resealed programs", case + 1, cases)
    tally.seconds = time.monotonic() - start
    return tally
