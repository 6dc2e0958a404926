"""A chain of runs of one bundle: each is disturbed, the last one must end as if none had been."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from safetensors.numpy import load_file

from tests.android_app.harness.bundles import Tiny
from tests.android_app.harness.conftest import Harness
from tests.stress.disk_state import Expected, Watched, read_report
from tests.stress.moments import MOMENTS, Watch
from tests.stress.tally import Problem
from tests.stress.workshop import Workshop

END_SECONDS = 60.0
"""A run of a tiny bundle takes 2 s; one that takes this long hangs."""
KILLED = -9


@dataclass(frozen=True)
class Setting:
    """A bundle and a checkpoint interval, chosen for what the time of a run goes into."""

    name: str
    tiny: Tiny
    checkpoint_every: int

    @property
    def steps(self) -> int:
        return int(self.tiny.training["steps"])


def _tiny(steps: int, **training: float) -> Tiny:
    tiny = Tiny()
    return replace(tiny, training={**tiny.training, "steps": steps, **training})


SETTINGS = (
    # Gathering tiles and writing them back, 4000 times.
    Setting("tiles", _tiny(4000), checkpoint_every=500),
    # A generation after every step.
    Setting("checkpoints", _tiny(400), checkpoint_every=1),
    # Every step ends a window, and every row of a larger table takes part in its exchange.
    Setting(
        "repacking",
        replace(
            _tiny(500, window=1, sampled_fraction=1.0, exchange_stop=1.0),
            num_users=800,
            num_items=1200,
        ),
        checkpoint_every=25,
    ),
)


@dataclass(frozen=True)
class Prepared:
    """A setting, its bundle, what an undisturbed run gave, and the parts of its training time."""

    setting: Setting
    bundle: Path
    expected: Expected
    seconds: float
    shares: dict[str, float] = field(default_factory=dict)


def prepare(workshop: Workshop, setting: Setting) -> Prepared:
    """Make the bundle and run it undisturbed."""
    bundle = workshop.bundle(f"bundle-{setting.name}", setting.tiny, data_seed=3)
    harness = Harness(workshop.launcher, bundle, workshop.folder / f"undisturbed-{setting.name}")
    start = time.monotonic()
    ended = harness.run(evaluate="false", checkpoint_every=setting.checkpoint_every)
    seconds = time.monotonic() - start
    if ended.code != 0:
        raise RuntimeError(f"{setting.name}: the undisturbed run failed: {ended.lines}")
    last = load_file(harness.state / f"gen-{setting.steps:010d}.safetensors")
    expected = Expected(last["losses"], ended.report["state"]["table_sha256"])
    metrics = ended.report["metrics"]
    parts = {
        "tiles": ("assemble_ns", "write_back_ns"),
        "programs": ("gradients_ns", "update_ns"),
        "repacking": ("exchange_ns",),
        "checkpoints": ("checkpoint_ns",),
    }
    spent = {part: sum(sum(metrics[n]["runs"]) for n in names) for part, names in parts.items()}
    shares = {part: round(ns / sum(spent.values()), 3) for part, ns in spent.items()}
    return Prepared(setting, bundle, expected, seconds, shares)


@dataclass(frozen=True)
class Ended:
    """How a run ended: ``code`` is -9 where it was killed, None where it hung."""

    code: int | None
    moment: str
    lines: list[str]
    errors: str

    @property
    def error(self) -> str:
        """The error line, empty without one."""
        prefix = "INSTRUMENTATION_RESULT: error="
        found = [line.removeprefix(prefix) for line in self.lines if line.startswith(prefix)]
        return found[0] if found else ""


class Chain:
    """Runs of a copy of one prepared bundle with one directory for state and report."""

    def __init__(self, workshop: Workshop, prepared: Prepared, folder: Path) -> None:
        self.prepared = prepared
        bundle = workshop.own_copy(prepared.bundle)
        self._harness = Harness(workshop.launcher, bundle, folder)
        self.watched = Watched(bundle, folder, prepared.expected)
        self._errors = workshop.folder / "stderr.txt"
        self._runs = 0
        self._read: list[str] = []

    def run(
        self,
        chance: random.Random,
        *,
        kill: bool = True,
        file_limit: int | None = None,
        during: Callable[[], None] = lambda: None,
    ) -> Ended:
        """Start the harness and, if asked to, kill it at a random moment.

        ``file_limit`` bounds the bytes of every file it writes; ``during`` is called once it runs.
        """
        with self._started(chance, file_limit) as process:
            during()
            moment = self._wait(process, chance) if kill else "not killed"
            if kill:
                process.kill()
            try:
                out, _ = process.communicate(timeout=END_SECONDS)
                code: int | None = process.returncode
            except subprocess.TimeoutExpired:
                process.kill()
                out, code = "", None
        lines = "".join([*self._read, out]).split("\n")
        return Ended(code, moment, lines, self._errors.read_text(errors="replace"))

    @contextmanager
    def _started(
        self, chance: random.Random, file_limit: int | None
    ) -> Iterator[subprocess.Popen[str]]:
        self._runs += 1
        self._read = []
        for folder in (self.watched.state, self.watched.out):
            folder.mkdir(parents=True, exist_ok=True)  # so that they can be watched
        command = self._harness.command(
            evaluate=chance.choice(["true", "false"]),
            checkpoint_every=self.prepared.setting.checkpoint_every,
            run_id=f"run-{self._runs}",
        )
        environment = dict(os.environ)
        if file_limit is not None:
            command = ["prlimit", f"--fsize={file_limit}", *command]
            environment["JAVA_TOOL_OPTIONS"] = "-XX:-UsePerfData"  # whose file would be too large
        with (
            self._errors.open("w") as errors,
            subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=self._errors.parent,  # a JVM that crashes leaves its log there
                env=environment,
            ) as process,
        ):
            yield process

    def _wait(self, process: subprocess.Popen[str], chance: random.Random) -> str:
        """Sleep until a random moment, and name it."""
        kind = chance.choices(("life", "training", "file"), (3, 4, 5))[0]
        if kind == "life":
            time.sleep(chance.uniform(0, min(self.prepared.seconds, 1.2)))
            return "any time"
        if kind == "training":
            assert process.stdout is not None
            for line in iter(process.stdout.readline, ""):
                self._read.append(line)
                if "phase=train" in line:
                    time.sleep(chance.uniform(0, 0.4))
                    break
            return "training"
        moment = chance.choice(MOMENTS)
        watch = Watch(moment, getattr(self.watched, moment.folder))
        try:
            watch.wait(chance.randint(1, 6), seconds=2)
        finally:
            watch.close()
        if chance.random() < 0.5:
            time.sleep(chance.uniform(0, 0.002))
        return moment.name

    def resumed_rightly(self, newest: int) -> list[Problem]:
        """Where the last run got as far as training: it began at ``newest``, without a warning."""
        path = self.watched.out / "report.json"
        try:
            report = read_report(path)
        except (OSError, ValueError):
            return []  # Watched speaks about these
        if report["run_id"] != f"run-{self._runs}" or report["phase"] != "train":
            return []
        problems = []
        if (report["resumed_from_step"] or 0) != newest:
            at = report["resumed_from_step"]
            problems.append(Problem("lost", f"resumed from {at}, there was {newest}"))
        if any("set aside" in text for text in report["warnings"]):
            problems.append(Problem("lost", f"warnings {report['warnings']}"))
        return problems

    def finish(self, chance: random.Random) -> list[Problem]:
        """Run to the end, undisturbed, and compare."""
        ended = self.run(chance, kill=False)
        if ended.code != 0:
            return [Problem("crashed", f"cannot be finished: {describe(ended)}")]
        return self.watched.check_end()


def describe(ended: Ended) -> str:
    said = ended.error or ended.errors[-300:]
    return f"exit code {ended.code} at '{ended.moment}': {said}"
