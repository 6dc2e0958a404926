"""Running a plan on many devices at once: a thread for each, none of which waits for another."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from device_bench import cooldown, lock, records, stability
from device_bench.adb import Device, Facts
from device_bench.board import Board
from device_bench.bundle import Bundle
from device_bench.cooldown import Heat
from device_bench.deploy import deploy
from device_bench.device_errors import ConnectionLostError, DeviceError
from device_bench.endings import Ended, State
from device_bench.plan import Plan, Run, utc
from device_bench.records import DeviceInfo, Record
from device_bench.run import REPORT, Options, perform
from device_bench.watchdog import CancelledError, Limits, Watchdog
from sparserec.errors import SparseRecError, writing

Opener = Callable[[str, Callable[[str], None]], AbstractContextManager[Device]]
"""Connects the device of that name while a block runs; the second argument is told what happens."""

STOP_SECONDS = 60.0
"""How long devices have to stop their runs after Ctrl-C."""
WAIT_SECONDS = 0.2
RECONNECT_SECONDS = 1.0
"""Between two tries to reach a device again."""


@dataclass
class Attempt:
    """What is known of a run while it is made."""

    started_utc: str
    attempts: int = 0
    seconds: float = 0.0
    """Of the last attempt, without pushing and cooling down."""
    cooldown_seconds: float = 0.0
    heat: Heat = field(default_factory=lambda: Heat(None, None))


class Worker:
    """Makes the runs of one device, in a thread of its own.

    Args:
        name: of the device in the plan.
        jobs: its runs that are still to be made, in order.
        plan: what all of them have in common.
        bundles: by id.
        folder: the bench folder.
        opener: connects the device.
        board: told what happens.
        cancelled: set when no more is wanted.
    """

    def __init__(
        self,
        name: str,
        jobs: Sequence[Run],
        plan: Plan,
        bundles: dict[str, Bundle],
        folder: Path,
        opener: Opener,
        board: Board,
        cancelled: threading.Event,
    ) -> None:
        self.name = name
        self._jobs = list(jobs)
        self._plan, self._bundles, self._folder = plan, bundles, folder
        self._opener, self._board, self._cancelled = opener, board, cancelled
        self._facts: Facts | None = None
        self._kind: str | None = None
        self._deployed: set[str] = set()
        self._known: Attempt | None = None
        self.ended = threading.Event()
        self.defect: BaseException | None = None
        """A programming error that ended the thread, to be raised where it is seen."""

    def run(self) -> None:
        """Make all runs; nothing is raised."""
        try:
            self._all()
            self._board.leave(self.name, "cancelled" if self._cancelled.is_set() else "done")
        except CancelledError:
            self._board.leave(self.name, "cancelled")
        except BaseException as error:
            self.defect = error
            self._board.leave(self.name, "defect")
        finally:
            self.ended.set()

    def _all(self) -> None:
        """Connect and make the runs; a device that is lost fails the run that it was at."""
        try:
            with (
                self._opener(self.name, self._say) as device,
                lock.harness(device, "a bench") as held,
            ):
                self._kind = device.transport.kind
                while self._jobs and not self._cancelled.is_set():
                    self._keep(device, held)
                    self._make(device, held, self._jobs[0])
                    del self._jobs[0]
        except SparseRecError as error:
            if self._known is not None or (self._jobs and not self._cancelled.is_set()):
                self._give_up(self._jobs[0], error)

    def _keep(self, device: Device, held: lock.Held) -> None:
        """Show that the bench lives; a connection that was lost since the last run is made again.

        Raises:
            SparseRecError: the device is gone, or another process has taken over.
        """
        try:
            held.refresh()
        except ConnectionLostError:
            if not self._back(device):
                raise
            held.refresh()

    def _make(self, device: Device, held: lock.Held, job: Run) -> None:
        """Make one run, again if it fails by no fault of its own.

        Raises:
            SparseRecError: the device is gone, or nothing can be written here; the run is not
                recorded yet.
        """
        self._board.begin(self.name, job.folder)
        self._known = known = Attempt(utc())
        ended = None
        while ended is None:
            known.attempts += 1
            # What the attempt before fetched would pass for what this one did.
            records.clear(records.place(self._folder, job))
            try:
                ended = self._attempt(device, held, job, known)
            except CancelledError:
                ended = Ended(State.CANCELLED, "the run was cancelled", "run it again")
            except SparseRecError as error:
                if not self._back(device):
                    raise
                ended = Ended(State.INFRASTRUCTURE_ERROR, error.message, error.fix)
            again = known.attempts < self._plan.attempts
            if again and ended.state is State.INFRASTRUCTURE_ERROR:
                self._say(f"{ended.message}; trying once more")
                ended = None
        self._record(job, known, ended)
        self._known = None

    def _attempt(self, device: Device, held: lock.Held, job: Run, known: Attempt) -> Ended:
        """Deploy, cool down, train, fetch."""
        plan, bundle = self._plan, self._bundles[job.bundle]
        target = records.place(self._folder, job)
        if bundle.bundle_id not in self._deployed:
            self._facts = deploy(device, bundle, self._progress, held.refresh).facts
            self._deployed.add(bundle.bundle_id)
        golden = bundle.path / records.GOLDEN
        if golden.is_file():
            with writing(target / records.GOLDEN):
                shutil.copyfile(golden, target / records.GOLDEN)

        def show(now: Heat, left: float) -> None:
            held.refresh()
            self._show_heat(now, left)

        known.heat, waited = cooldown.wait(device, plan.cool_down, show, self._sleep)
        known.cooldown_seconds += waited
        options = Options(
            plan.steps,
            job.threads,
            plan.checkpoint_every,
            plan.evaluate,
            fresh=plan.state == "fresh",
            scratch=plan.state == "scratch",
        )
        limits = Limits(plan.time_out.silence_seconds, plan.time_out.total_seconds)
        watchdog = Watchdog(limits, self._cancelled)
        path = target / REPORT
        started = time.monotonic()
        try:
            return perform(device, bundle.bundle_id, path, options, watchdog, self._progress)
        finally:
            known.seconds = time.monotonic() - started

    def _back(self, device: Device) -> bool:
        """Whether the device can be reached again after its connection was lost."""
        end = time.monotonic() + self._plan.time_out.reconnect_seconds
        while True:
            try:
                device.connect()
            except DeviceError:
                if time.monotonic() >= end or self._cancelled.wait(RECONNECT_SECONDS):
                    return False
            else:
                return True

    def _say(self, text: str) -> None:
        self._board.say(self.name, text)

    def _progress(self, what: str, done: int, total: int | None) -> None:
        if self._cancelled.is_set():
            raise CancelledError
        self._board.phase(self.name, what, done, total)

    def _show_heat(self, now: Heat, left: float) -> None:
        status = "" if now.status is None else f" status {now.status}"
        battery = "" if now.battery_celsius is None else f" {now.battery_celsius:.1f} °C"
        wait = self._plan.cool_down.wait_seconds
        self._progress(f"cool down:{status}{battery}", round(wait - left), round(wait))

    def _sleep(self, seconds: float) -> None:
        if self._cancelled.wait(seconds):
            raise CancelledError

    def _give_up(self, job: Run, error: SparseRecError) -> None:
        """Record the run that the device was lost at; those after it are left for another time.

        Where not even that can be written, it is left too.
        """
        left = len(self._jobs) - 1
        try:
            if self._known is None:
                self._board.begin(self.name, job.folder)
                records.clear(records.place(self._folder, job))
            known = self._known or Attempt(utc(), attempts=1)
            self._record(job, known, Ended(State.INFRASTRUCTURE_ERROR, error.message, error.fix))
        except SparseRecError as unwritten:
            self._say(f"{unwritten.message}; {unwritten.fix}")
            left += 1
        if left:
            self._say(f"given up; its other runs ({left}) are left for --resume")

    def _record(self, job: Run, known: Attempt, ended: Ended) -> None:
        """Write ``run.json``, which ends the run."""
        target = records.place(self._folder, job)
        bundle = self._plan.bundle(job.bundle)
        step = ended.report["metrics"].get("train_step_ns") if ended.report else None
        record = Record(
            index=job.index,
            device=self._info(),
            bundle=records.BundleInfo(id=bundle.id, path=bundle.path, sha256=bundle.sha256),
            threads=job.threads,
            repetition=job.repetition,
            order=job.order,
            state=ended.state,
            correctness=records.correctness(ended.report),
            started_utc=known.started_utc,
            seconds=round(known.seconds, 3),
            attempts=known.attempts,
            cooldown_seconds=round(known.cooldown_seconds, 3),
            thermal_before=known.heat.status,
            battery_celsius_before=known.heat.battery_celsius,
            stable=stability.stable(step["runs"]) if step and step["runs"] else None,
            message=" ".join(ended.message.split()) or None,
            files=records.files_of(target),
        )
        records.write(target / records.NAME, record)
        self._board.end(self.name, ended.state, ended.message)

    def _info(self) -> DeviceInfo:
        facts = self._facts
        if facts is None:
            return DeviceInfo(
                serial=self.name,
                model=None,
                abi=None,
                sdk=None,
                virtual=None,
                transport=self._kind,
            )
        return DeviceInfo(
            serial=facts.serial,
            model=facts.model or None,
            abi=facts.abis[0] if facts.abis else None,
            sdk=facts.sdk,
            virtual=facts.kind == "virtual-device",
            kind=facts.kind,
            transport=self._kind,
        )


def execute(
    plan: Plan,
    bundles: Sequence[Bundle],
    folder: Path,
    pending: Sequence[Run],
    opener: Opener,
    board: Board,
) -> bool:
    """Make the pending runs, all devices at once.

    Args:
        plan: what is run.
        bundles: the plan's, loaded.
        folder: the bench folder, which has the plan already.
        pending: the runs to make.
        opener: connects a device.
        board: shows what happens.

    Returns:
        True if all was done, False if Ctrl-C ended it; runs on devices were stopped then.
    """
    cancelled = threading.Event()
    loaded = {bundle.bundle_id: bundle for bundle in bundles}
    workers = []
    for name in plan.devices:
        jobs = [run for run in pending if run.device == name]
        if jobs:
            workers.append(Worker(name, jobs, plan, loaded, folder, opener, board, cancelled))
    with board.shown():
        for worker in workers:
            threading.Thread(target=worker.run, daemon=True).start()
        finished = _wait(workers, cancelled)
    for worker in workers:
        if worker.defect is not None:
            raise worker.defect
    return finished


def _wait(workers: Sequence[Worker], cancelled: threading.Event) -> bool:
    """Wait for the workers; after Ctrl-C only as long as stopping may take.

    Not by ``Thread.join``: in Python 3.11, one that Ctrl-C interrupts takes the thread for ended.
    """
    try:
        for worker in workers:
            while not worker.ended.wait(WAIT_SECONDS):
                pass
        return True
    except KeyboardInterrupt:
        cancelled.set()
    end = time.monotonic() + STOP_SECONDS
    for worker in workers:
        worker.ended.wait(max(0.0, end - time.monotonic()))
    return False
