"""Running the harness on a device and fetching its report."""

from __future__ import annotations

import contextlib
import shlex
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from device_bench import report as reports
from device_bench.adb import Device
from device_bench.deploy import PACKAGE, ROOT, bundle_path
from device_bench.device_errors import DeviceError
from device_bench.instrumentation import Outcome, Parser, Result, Status
from device_bench.report import Report
from sparserec.errors import SparseRecError
from sparserec.progress import Progress, silent

COMPONENT = f"{PACKAGE}/.HarnessInstrumentation"
SILENCE_SECONDS = 600.0
"""How long the harness may say nothing: evaluation on a slow phone is one long phase."""
LOG_LINES = 5


@dataclass(frozen=True)
class Options:
    """What can be set for a run; None leaves it to the harness (docs/formats.md section 7)."""

    steps: int | None = None
    threads: int | None = None
    checkpoint_every: int | None = None
    evaluate: bool = True
    fresh: bool = False

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
        report_path: where ``report.json`` goes on this machine, also after a failure.
        options: what differs from the harness's defaults.
        progress: told of each phase, and in training of each status.

    Returns:
        The report, checked against its schema.

    Raises:
        RunFailedError: the harness failed, crashed or could not be started.
        DeviceError: the connection failed; the report could not be fetched.
        KeyboardInterrupt: passed on after the run on the device was stopped.
    """
    run_id = str(uuid.uuid4())
    out = f"{ROOT}/runs/{run_id}"
    state = f"{ROOT}/state/{bundle_id}"
    made = device.shell(f"mkdir -p {out} {shlex.quote(state)}")
    if made.exit_code != 0:
        raise DeviceError(f"{device.name}: cannot make the run's folder: {made.output.strip()}")
    values = [("bundle", bundle_path(bundle_id)), ("state", state), ("out", out)]
    values += [("run_id", run_id), *(options or Options()).arguments()]
    with _stopped_on_error(device):
        result = _watch(device, _command(values), progress)
    report_path.parent.mkdir(parents=True, exist_ok=True)
    report = _fetch(device, f"{out}/report.json", report_path, result)
    if result.outcome is not Outcome.SUCCEEDED or report is None:
        raise _failure(device, result, report)
    if report["run_id"] != run_id or report["exit_status"] != "succeeded":
        raise RunFailedError(
            f"{report_path}: the harness reported success, but the report says run "
            f"{report['run_id']} {report['exit_status']}",
            "this is a fault of the harness: please report it with the file",
            report,
        )
    return report


def _command(values: list[tuple[str, str]]) -> str:
    pairs = " ".join(f"-e {key} {shlex.quote(value)}" for key, value in values)
    return f"am instrument -w -r {pairs} {COMPONENT}"


def _watch(device: Device, command: str, progress: Progress) -> Result:
    """Read the harness's output to its end."""
    parser = Parser()
    waiting = ""
    for line in device.stream(command, SILENCE_SECONDS):
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
    """Stop the harness when the block is left early, by Ctrl-C or a fault."""
    try:
        yield
    except BaseException:
        # The interrupted connection may be in the middle of a message, so a new one is made.
        with contextlib.suppress(DeviceError):
            device.connect()
            device.shell(f"am force-stop {PACKAGE}")
        raise


def _fetch(device: Device, source: str, target: Path, result: Result) -> Report | None:
    """The run's report; after a failure, None where there is none or it is damaged."""
    try:
        device.pull(source, target)
        return reports.read(target)
    except SparseRecError:
        if result.outcome is Outcome.SUCCEEDED:
            raise
        return None


def _failure(device: Device, result: Result, report: Report | None) -> RunFailedError:
    """Put together what is known of a failed run."""
    where = f" in phase {report['phase']}" if report is not None else ""
    message = f"{device.name}: the run {_ENDINGS[result.outcome]}{where}: {result.message}"
    log = _log_lines(device) if result.outcome is not Outcome.FAILED else []
    if log:
        message += "\n  device log: " + "\n  device log: ".join(log)
    return RunFailedError(message, _FIXES[result.outcome], report)


_ENDINGS = {
    Outcome.SUCCEEDED: "succeeded",
    Outcome.FAILED: "failed",
    Outcome.CRASHED: "crashed",
    Outcome.NOT_STARTED: "could not be started",
    Outcome.CUT_SHORT: "was cut short",
}
_FIXES = {
    Outcome.SUCCEEDED: "",
    Outcome.FAILED: "see the message above; --fresh starts over without the device's checkpoints",
    Outcome.CRASHED: "run it again: it goes on from the newest checkpoint",
    Outcome.NOT_STARTED: "install the app on the device, or run `make setup` for a virtual device",
    Outcome.CUT_SHORT: "check the connection and run it again: it goes on from the checkpoint",
}


def _log_lines(device: Device) -> list[str]:
    """The newest lines that the harness or the runtime wrote to the device's log."""
    with contextlib.suppress(DeviceError):
        lines = device.shell("logcat -d -t 200").output.splitlines()
        ours = [line for line in lines if " sparserec: " in line or "AndroidRuntime: " in line]
        return [line.split(": ", 1)[1] for line in ours[-LOG_LINES:]]
    return []
