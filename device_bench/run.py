"""Running the harness on a device and fetching what it leaves."""

from __future__ import annotations

import contextlib
import shlex
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from device_bench import endings, post_mortem
from device_bench import report as reports
from device_bench.adb import Device
from device_bench.device_errors import DeviceError
from device_bench.endings import Ended, State
from device_bench.instrumentation import Outcome, Parser, Result, Status
from device_bench.paths import PACKAGE, ROOT, bundle_path, state_path
from device_bench.post_mortem import Before, Death
from device_bench.report import Report
from device_bench.watchdog import CancelledError, TimedOutError, Watchdog
from sparserec.errors import SparseRecError, writing
from sparserec.progress import Progress, silent

COMPONENT = f"{PACKAGE}/.HarnessInstrumentation"
REPORT, SENSORS, LOGCAT = "report.json", "sensors.json", "logcat.txt"


@dataclass(frozen=True)
class Options:
    """What can be set for a run; None leaves it to the harness (docs/formats.md section 7)."""

    steps: int | None = None
    threads: int | None = None
    checkpoint_every: int | None = None
    evaluate: bool = True
    fresh: bool = False
    scratch: bool = False
    """Train from the bundle, in a folder of the run's own that is removed with it; what the device
    has learnt so far stays as it is."""
    workload: str | None = None
    """Repeat this instead of training (docs/formats.md section 7)."""

    def arguments(self) -> list[tuple[str, str]]:
        """The harness's keys and values."""
        numbers = [
            ("steps", self.steps),
            ("threads", self.threads),
            ("checkpoint_every", self.checkpoint_every),
        ]
        found = [(key, str(value)) for key, value in numbers if value is not None]
        if not self.evaluate:
            found.append(("evaluate", "false"))
        if self.fresh:
            found.append(("fresh", "true"))
        if self.workload is not None:
            found.append(("workload", self.workload))
        return found


class RunFailedError(SparseRecError):
    """A run that did not end well; ``report`` is what it left, if that could be fetched."""

    exit_code = 1

    def __init__(self, message: str, fix: str, report: Report | None) -> None:
        super().__init__(message, fix)
        self.report = report


def run(
    device: Device,
    bundle_id: str,
    report_path: Path,
    options: Options | None = None,
    progress: Progress = silent,
) -> Report:
    """Train on the device, wait for the end, and fetch the report.

    Args:
        device: connected, with the bundle deployed.
        bundle_id: the bundle's name on the device.
        report_path: where the report goes on this machine, also after a failure; ``sensors.json``
            and, after a failure, ``logcat.txt`` go beside it.
        options: what differs from the harness's defaults.
        progress: told of each phase, and in training of each status.

    Returns:
        The report, checked against its schema.

    Raises:
        RunFailedError: the run ended in any state but succeeded.
        DeviceError: the connection failed; the report could not be fetched.
        SparseRecError: a file cannot be written here; the id is no plain name.
        KeyboardInterrupt: passed on after the run on the device was stopped.
    """
    ended = perform(device, bundle_id, report_path, options, Watchdog(), progress)
    if ended.state is not State.SUCCEEDED or ended.report is None:
        said = "".join(f"\n  device log: {line}" for line in post_mortem.said(ended.log))
        raise RunFailedError(f"{device.name}: {ended.message}{said}", ended.fix, ended.report)
    return ended.report


def perform(
    device: Device,
    bundle_id: str,
    report_path: Path,
    options: Options | None,
    watchdog: Watchdog,
    progress: Progress = silent,
) -> Ended:
    """As ``run``, with limits, and with a value for every end that is not a fault on the way.

    Raises:
        DeviceError: the connection failed, or what must be there cannot be fetched.
        SparseRecError: a file cannot be written here; the id is no plain name.
    """
    options = options or Options()
    run_id = str(uuid.uuid4())
    place = f"{ROOT}/runs/{run_id}"
    state = state_path(bundle_id)
    if options.scratch:
        state = f"{place}/state"
    _make_room(device, place, state)
    values = [("bundle", bundle_path(bundle_id)), ("state", state), ("out", place)]
    values += [("run_id", run_id), *options.arguments()]
    known = post_mortem.before(device)
    with writing(report_path.parent):
        report_path.parent.mkdir(parents=True, exist_ok=True)
    try:
        result = instrument(device, values, watchdog, progress)
        ended = _over(device, place, report_path, result, known)
    except CancelledError:
        ended = Ended(State.CANCELLED, "the run was cancelled", "run it again")
    except TimedOutError as error:
        report, death = _remains(device, place, report_path, known)
        ended = endings.timed_out(str(error), death, report)
    if ended.log:
        logcat = report_path.parent / LOGCAT
        with writing(logcat):
            logcat.write_text("\n".join(ended.log) + "\n", encoding="utf-8")
    if options.scratch:
        with contextlib.suppress(DeviceError):
            device.shell(f"rm -rf {place}")
    return _trusted(ended, run_id, report_path)


def _make_room(device: Device, place: str, state: str) -> None:
    """Make the run's folders, and remove what runs left that were killed or lost.

    That is a report half written, and a state that no run will go on from. Nothing else works in
    there: starting the app ends a run that still goes on, so that is ended first.

    Raises:
        DeviceError: they cannot be made.
    """
    device.shell(f"am force-stop {PACKAGE}")
    device.shell(f"rm -rf {ROOT}/runs/*/*.part {ROOT}/runs/*/state")
    made = device.shell(f"mkdir -p {place} {shlex.quote(state)}")
    if made.exit_code != 0:
        raise DeviceError(f"{device.name}: cannot make the run's folder: {made.output.strip()}")


def instrument(
    device: Device, values: list[tuple[str, str]], watchdog: Watchdog, progress: Progress
) -> Result:
    """Start the harness with keys and values, and read what it says to its end.

    Raises:
        CancelledError: it is to be stopped, and was.
        TimedOutError: a limit is passed; it was stopped.
        DeviceError: the connection failed.
    """
    with _stopped_on_error(device):
        return _watch(device, _command(values), watchdog, progress)


def _command(values: list[tuple[str, str]]) -> str:
    pairs = " ".join(f"-e {key} {shlex.quote(value)}" for key, value in values)
    return f"am instrument -w -r {pairs} {COMPONENT}"


def _watch(device: Device, command: str, watchdog: Watchdog, progress: Progress) -> Result:
    """Read the harness's output to its end."""
    parser = Parser()
    waiting = ""
    silence = watchdog.limits.silence_seconds + 10.0  # the watchdog is the first to notice
    for line in device.stream(command, silence, watchdog.check):
        watchdog.heard()
        watchdog.check()
        status = parser.feed(line)
        if status is not None:
            waiting = _show(status, waiting, progress)
    result = parser.finish()
    if waiting and result.outcome is Outcome.SUCCEEDED:
        progress(waiting, 1, 1)
    return result


def _show(status: Status, waiting: str, progress: Progress) -> str:
    """Pass a status on.

    Args:
        status: what the harness sent.
        waiting: the phase that is shown without numbers; it is done once another begins.
        progress: told of the phase, in training with step, steps and loss.

    Returns:
        The phase that now is shown without numbers, empty if there is none.
    """
    values = status.values
    phase = values.get("phase", "").strip().replace("_", " ")
    if not phase:
        return waiting
    if waiting not in ("", phase):
        progress(waiting, 1, 1)
    try:
        done, total = int(values["step"]), int(values["steps"])
    except (KeyError, ValueError):
        progress(phase, 0, None)
        return phase
    loss = f": loss {values['loss'].strip()}" if "loss" in values else ""
    progress(f"{phase}{loss}", done, total)
    return ""


@contextlib.contextmanager
def _stopped_on_error(device: Device) -> Iterator[None]:
    """Stop the harness when the block is left early, by Ctrl-C, a limit or a fault."""
    try:
        yield
    except BaseException:
        # The interrupted connection may be in the middle of a message, so a new one is made.
        with contextlib.suppress(DeviceError):
            device.connect()
            device.shell(f"am force-stop {PACKAGE}")
        raise


def _over(device: Device, place: str, report_path: Path, result: Result, known: Before) -> Ended:
    """What a run that ended by itself left."""
    if result.outcome is Outcome.SUCCEEDED:
        return Ended(State.SUCCEEDED, report=_fetch(device, place, report_path))
    report, death = _remains(device, place, report_path, known)
    return endings.failed(result, death, report)


def _remains(
    device: Device, place: str, report_path: Path, known: Before
) -> tuple[Report | None, Death]:
    """What is still to be had after a failure, of a device that may be gone."""
    report, death = None, Death(low_memory=False, stopped=False, reason="", log=())
    with contextlib.suppress(SparseRecError):
        death = post_mortem.examine(device, known)
    with contextlib.suppress(SparseRecError):
        report = _fetch(device, place, report_path)
    return report, death


def _fetch(device: Device, place: str, report_path: Path) -> Report:
    """Copy the run's report and what lies beside it; check the report."""
    device.pull(f"{place}/{REPORT}", report_path)
    if device.shell(f"[ -f {place}/{SENSORS} ]").exit_code == 0:
        device.pull(f"{place}/{SENSORS}", report_path.parent / SENSORS)
    return reports.read(report_path)


def _trusted(ended: Ended, run_id: str, report_path: Path) -> Ended:
    """Refuse a success that its own report does not bear out."""
    report = ended.report
    if ended.state is not State.SUCCEEDED or report is None:
        return ended
    if report["run_id"] == run_id and report["exit_status"] == "succeeded":
        return ended
    message = (
        f"{report_path}: the harness reported success, but the report says run "
        f"{report['run_id']} {report['exit_status']}"
    )
    fix = "this is a fault of the harness: please report it with the file"
    return Ended(State.INFRASTRUCTURE_ERROR, message, fix, report, ended.log)
