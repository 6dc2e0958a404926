"""Runs the cells of an experiment that have no record yet, each in a fresh process."""

from __future__ import annotations

import contextlib
import fcntl
import json
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from pipeline.history import epoch_of
from pipeline.recipes import Recipe
from pipeline.reproduce.cells import Cell, Override, digest, recipe_of
from pipeline.reproduce.grids import needs, tuning
from pipeline.reproduce.options import Options
from pipeline.reproduce.records import Record, append, read
from pipeline.reproduce.worker import Job
from sparserec.errors import SparseRecError, writing
from sparserec.progress import Progress, silent

GRACE_S = 120.0
"""How long a stopped run may take to end its step and write its checkpoint."""
RETRY_S = 5.0
"""How often runs that another process is at are looked at again."""


@dataclass(frozen=True)
class Outcome:
    """What a call of ``run`` did.

    Attributes:
        done: runs recorded.
        left: cells without a record, this call's failures among them.
        failed: messages by cell id.
        stopped: ``budget`` or ``interrupted`` if that ended it.
    """

    done: int
    left: int
    failed: dict[str, str]
    stopped: str = ""


def selected(options: Options, cell: Cell) -> list[Override] | None:
    """Give the settings that tuning selected for a cell: those best on validation.

    Returns:
        None while a tuning run is missing, or under ``stale`` was made with another recipe;
        nothing for a cell that has its own.
    """
    if cell.is_tuned:
        return []
    records = read(options.results, "tune")
    tried = tuning(cell.tuned_by)
    found = [records[one.id] for one in tried if not _to_run(one, records.get(one.id), options)]
    if len(found) < len(tried):
        return None
    return list(max(found, key=lambda record: record.trained_recall).cell.overrides)


def pending(cells: Sequence[Cell], options: Options) -> list[Cell]:
    """Give the cells to run and, before each setting's first, the tuning that it waits for."""
    recorded = {name: read(options.results, name) for name in {c.experiment for c in cells}}
    tuned = read(options.results, "tune")
    left: dict[Cell, None] = {}
    for cell in cells:
        if _to_run(cell, recorded[cell.experiment].get(cell.id), options):
            runs = (run for run in needs([cell]) if _to_run(run, tuned.get(run.id), options))
            left |= dict.fromkeys(runs)
            left[cell] = None
    return list(left)


def _to_run(cell: Cell, record: Record | None, options: Options) -> bool:
    return record is None or (options.stale and is_stale(cell, record, options))


def is_stale(cell: Cell, record: Record, options: Options) -> bool:
    """Tell whether a cell's recipe, today's, is another one than its record was run by."""
    settings = selected(options, cell)
    return settings is None or record.recipe != recipe_of(cell, settings, options.epochs)


def run(
    cells: Sequence[Cell],
    options: Options,
    progress: Progress = silent,
    say: Callable[[str], None] = lambda text: None,
) -> Outcome:
    """Run cells in their order until all are recorded, the budget is over, or Ctrl-C.

    A cell that fails is told and passed over. One that another process is at is left to it.

    Args:
        cells: of an experiment; what is recorded is not run again.
        options: how.
        progress: gets the runs done, and each run's epochs.
        say: gets one line for each run that ends.
    """
    return _Pool(pending(cells, options), options, progress, say).run()


def run_one(cell: Cell, recipe: Recipe, options: Options) -> dict[str, Any]:
    """Run a cell with a given recipe in a process of its own; give its record, unwritten.

    Raises:
        SparseRecError: the run failed.
    """
    job = Job(cell, recipe, options.work, options.results)
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.reproduce.worker"],
        input=job.as_json(),
        capture_output=True,
        text=True,
        check=False,
    )
    for line in done.stdout.splitlines():
        if line.startswith('{"record"'):
            record: dict[str, Any] = json.loads(line)["record"]
            return record
        if line.startswith('{"error"'):
            message, fix = json.loads(line)["error"]
            raise SparseRecError(f"{cell.id}: {message}", fix)
    text = (done.stderr or done.stdout).strip().splitlines()
    raise SparseRecError(f"{cell.id}: failed: {text[-1] if text else done.returncode}")


@dataclass
class _Running:
    """A worker process, and the lock that keeps others from its folder."""

    cell: Cell
    folder: Path
    process: subprocess.Popen[str]
    lock: IO[str]
    errors: Path
    slot: int
    record: dict[str, Any] | None = None
    error: str = ""


@dataclass
class _Pool:
    cells: list[Cell]
    options: Options
    progress: Progress
    say: Callable[[str], None]
    running: list[_Running] = field(default_factory=list)
    ended: queue.Queue[_Running] = field(default_factory=queue.Queue)
    failed: dict[str, str] = field(default_factory=dict)
    done: int = 0
    stopped: str = ""

    def run(self) -> Outcome:
        waiting = list(self.cells)
        end = None if self.options.budget_s is None else time.monotonic() + self.options.budget_s
        try:
            while (waiting or self.running) and not self.stopped:
                while len(self.running) < self.options.jobs and self._start(waiting):
                    pass
                self._wait(end, RETRY_S if waiting else None)
        except KeyboardInterrupt:
            self.stopped = "interrupted"
        finally:
            self._stop()
        left = len(self.cells) - self.done
        return Outcome(self.done, left, self.failed, self.stopped)

    def _start(self, waiting: list[Cell]) -> bool:
        """Start the first cell whose settings are known and that nobody else is at."""
        for cell in list(waiting):
            settings = selected(self.options, cell)
            if settings is None:
                if not any(one in waiting or self._is_on(one) for one in tuning(cell.tuned_by)):
                    self._fail(cell, "its settings are not selected: a tuning run failed")
                    waiting.remove(cell)
                continue
            recipe = recipe_of(cell, settings, self.options.epochs)
            lock = self._lock(cell, recipe)
            if lock is None:
                continue
            waiting.remove(cell)
            if self._recorded_meanwhile(cell, recipe):
                lock.close()
                continue
            self._launch(cell, recipe, lock)
            return True
        return False

    def _is_on(self, cell: Cell) -> bool:
        return any(one.cell == cell for one in self.running)

    def _recorded_meanwhile(self, cell: Cell, recipe: Recipe) -> bool:
        """Tell whether another process has done it since this one began."""
        record = read(self.options.results, cell.experiment).get(cell.id)
        if record is None or (self.options.stale and record.recipe != recipe):
            return False
        self.done += 1
        return True

    def _lock(self, cell: Cell, recipe: Recipe) -> IO[str] | None:
        """Take a run for this process; None while another has it."""
        path = self.options.work / "locks" / digest(cell, recipe)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = path.open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return None
        return lock

    def _launch(self, cell: Cell, recipe: Recipe, lock: IO[str]) -> None:
        job = Job(cell, recipe, self.options.work, self.options.results)
        errors = job.folder / "errors.txt"
        with writing(errors):
            job.folder.mkdir(parents=True, exist_ok=True)
            stderr = errors.open("w")
        with stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "pipeline.reproduce.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                start_new_session=True,  # Ctrl-C reaches it through _stop, once
                pass_fds=[lock.fileno()],  # held by the worker too, should this process be killed
            )
        slot = min(set(range(1, self.options.jobs + 1)) - {one.slot for one in self.running})
        one = _Running(cell, job.folder, process, lock, errors, slot)
        self.running.append(one)
        # First, as _stop waits for the word of every process that is running.
        threading.Thread(target=self._listen, args=(one,), daemon=True).start()
        assert process.stdin is not None
        # A worker that is gone already is the thread's to tell.
        with contextlib.suppress(BrokenPipeError), process.stdin as stdin:
            stdin.write(job.as_json())

    def _listen(self, one: _Running) -> None:
        assert one.process.stdout is not None
        for line in one.process.stdout:
            try:
                message = json.loads(line)
            except ValueError:
                continue  # a library's own print
            if "progress" in message:
                what, done, total = message["progress"]
                self.progress(f"run {one.slot}: {one.cell.id}: {what}", done, total)
            elif "record" in message:
                one.record = message["record"]
            elif "error" in message:
                one.error = "\n  fix: ".join(message["error"])
        one.process.wait()
        self.ended.put(one)

    def _wait(self, end: float | None, retry: float | None) -> None:
        """Wait until a run ends, the budget does, or it is time to look at the others again."""
        left = None if end is None else max(0.0, end - time.monotonic())
        if not self.running:
            if retry is None:
                return
            time.sleep(min(retry, retry if left is None else left))
        else:
            timeouts = [seconds for seconds in (left, retry) if seconds is not None]
            with contextlib.suppress(queue.Empty):
                self._settle(self.ended.get(timeout=min(timeouts) if timeouts else None))
        if end is not None and time.monotonic() >= end:
            self.stopped = "budget"

    def _settle(self, one: _Running) -> None:
        self.running.remove(one)
        cell = one.cell
        try:
            if one.record is not None and one.process.returncode == 0:
                append(self.options.results, cell.experiment, one.record)
                shutil.rmtree(one.folder)
                self.done += 1
                self.say(f"{cell.experiment} {cell.id}: {_summary(one.record)}")
                self.progress("runs", self.done, len(self.cells))
            elif not self.stopped:
                self._fail(cell, one.error or _last_line(one.errors, one.process.returncode))
        finally:
            one.lock.close()

    def _fail(self, cell: Cell, why: str) -> None:
        self.failed[cell.id] = why
        self.say(f"{cell.experiment} {cell.id}: failed: {why}")

    def _stop(self) -> None:
        """Ask what still runs to write its checkpoint; record what ends whole meanwhile."""
        for one in self.running:
            one.process.send_signal(signal.SIGINT)
        end = time.monotonic() + GRACE_S
        while self.running:
            try:
                self._settle(self.ended.get(timeout=max(0.0, end - time.monotonic())))
            except (queue.Empty, KeyboardInterrupt):
                for one in self.running:
                    one.process.kill()
                end = time.monotonic() + GRACE_S


def _summary(record: dict[str, Any]) -> str:
    best = epoch_of(record["history"], record["best_epoch"])
    text = f"validation Recall@20 {best['recall@20']:.4f}"
    if "test" in record:
        text += f", test {record['test']['recall@20']:.4f}"
    mib = record["peak_rss_bytes"] / 2**20
    return f"{text}, best epoch {record['best_epoch']}, {record['seconds']:.0f} s, {mib:.0f} MiB"


def _last_line(errors: Path, code: int) -> str:
    lines = errors.read_text(errors="replace").strip().splitlines() if errors.exists() else []
    kept = errors.resolve()
    if code == -signal.SIGKILL:
        return f"killed, as when memory runs out ({kept})"
    return f"exit code {code}: {lines[-1] if lines else 'no message'} ({kept})"
