"""How a run ended, in one word and one line; apart from whether its losses are right."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from device_bench.instrumentation import Outcome, Result
from device_bench.post_mortem import Death

if TYPE_CHECKING:
    from device_bench.report import Report


class State(Enum):
    """How a run ended."""

    SUCCEEDED = "succeeded"
    CRASHED = "crashed"
    """The process died, or the harness gave up with an error."""
    LOW_MEMORY = "low_memory"
    """Android killed it to get memory back, or it could get none."""
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    """Stopped by the user, here or on the device."""
    INFRASTRUCTURE_ERROR = "infrastructure_error"
    """The run never had its chance: connection, storage, installation, Android itself."""


RETRYABLE = frozenset({State.TIMED_OUT, State.CANCELLED, State.INFRASTRUCTURE_ERROR})
"""States that say nothing about the bundle on that device, so ``--resume`` runs them again."""


@dataclass(frozen=True)
class Ended:
    """A run that is over.

    Attributes:
        state: how it ended.
        message: one line on what went wrong, empty on success.
        fix: what to do about it.
        report: what could be fetched of it, valid by the schema.
        log: the device's log of our process, after a failure.
    """

    state: State
    message: str = ""
    fix: str = ""
    report: Report | None = None
    log: tuple[str, ...] = ()


_OUTCOMES = {
    Outcome.FAILED: (
        State.CRASHED,
        "failed",
        "see the message above; --fresh starts over without the device's checkpoints",
    ),
    Outcome.CRASHED: (
        State.CRASHED,
        "crashed",
        "run it again: it goes on from the newest checkpoint",
    ),
    Outcome.ABORTED: (
        State.INFRASTRUCTURE_ERROR,
        "was ended by Android",
        "wait until the device is up again and run it once more",
    ),
    Outcome.NOT_STARTED: (
        State.INFRASTRUCTURE_ERROR,
        "could not be started",
        "install the app on the device, or run `make setup` for a virtual device",
    ),
    Outcome.CUT_SHORT: (
        State.INFRASTRUCTURE_ERROR,
        "was cut short",
        "check the connection and run it again: it goes on from the checkpoint",
    ),
}
_LOW_MEMORY = (
    State.LOW_MEMORY,
    "was killed for low memory",
    "close other apps, or export a smaller table or a smaller batch",
)
_STOPPED_THERE = (State.CANCELLED, "was stopped on the device", "run it again")


def failed(result: Result, death: Death, report: Report | None) -> Ended:
    """Say how a run ended that did not succeed.

    Args:
        result: the end of the harness's output.
        death: what the device knows of its process.
        report: what it left.
    """
    state, verb, fix = _OUTCOMES[result.outcome]
    if death.low_memory or result.message.startswith("out of memory"):
        state, verb, fix = _LOW_MEMORY
    elif result.outcome is Outcome.CRASHED and death.stopped:
        state, verb, fix = _STOPPED_THERE
    why = result.message + (f" ({death.reason})" if death.reason else "")
    return Ended(state, f"the run {verb}{_where(report)}: {why}", fix, report, death.log)


def timed_out(why: str, death: Death, report: Report | None) -> Ended:
    """Say that a run was stopped because it passed a limit."""
    fix = "allow more under [time_out] of the plan, or fewer steps; logcat.txt may say what it did"
    return Ended(
        State.TIMED_OUT, f"the run timed out{_where(report)}: {why}", fix, report, death.log
    )


def _where(report: Report | None) -> str:
    return f" in phase {report['phase']}" if report is not None else ""
