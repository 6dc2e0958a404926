"""Reading what ``am instrument -w -r`` prints, line by line (docs/formats.md section 7).

The form is Android's: ``INSTRUMENTATION_STATUS: key=value`` lines closed by
``INSTRUMENTATION_STATUS_CODE: n`` make one status; ``INSTRUMENTATION_RESULT: key=value`` lines
closed by ``INSTRUMENTATION_CODE: n`` make the result. A value goes on over the lines that follow it
until the next line that starts with ``INSTRUMENTATION_``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

_PREFIX = "INSTRUMENTATION_"
SUCCESS_CODE = -1


class Outcome(Enum):
    """How a run ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """The harness said so itself."""
    CRASHED = "crashed"
    """The process died; Android says so."""
    ABORTED = "aborted"
    """Android itself went down, and the run with it."""
    NOT_STARTED = "not started"
    """Android could not start the harness."""
    CUT_SHORT = "cut short"
    """The output ended before the run did."""


@dataclass(frozen=True)
class Status:
    """One status that the harness sent: its code and values."""

    code: int
    values: dict[str, str]


@dataclass(frozen=True)
class Result:
    """The end of a run.

    Attributes:
        outcome: how it ended.
        values: the ``INSTRUMENTATION_RESULT`` values.
        message: one line on what went wrong, empty on success.
    """

    outcome: Outcome
    values: dict[str, str]
    message: str


@dataclass
class Parser:
    """Takes the output's lines one at a time; never fails, whatever they are."""

    _status: dict[str, str] = field(default_factory=dict)
    _result: dict[str, str] = field(default_factory=dict)
    _last_status: dict[str, str] = field(default_factory=dict)
    _open: tuple[dict[str, str], str] | None = None
    _code: int | None = None
    _not_started: str = ""
    _aborted: str = ""
    _stray: str = ""

    def feed(self, line: str) -> Status | None:
        """Take a line without its end; the status that it completes, if it does."""
        # Android prefixes an exception's class to this line, so it is looked for anywhere.
        name, found, rest = line.partition(_PREFIX + "FAILED:")
        if found and (not name or name.endswith(": ")):
            self._open = None
            self._not_started = rest.strip() or "unknown component"
            return None
        if not line.startswith(_PREFIX):
            self._continue(line)
            return None
        kind, _, value = line[len(_PREFIX) :].partition(": ")
        self._open = None
        if kind in ("STATUS", "RESULT"):
            key, _, text = value.partition("=")
            values = self._status if kind == "STATUS" else self._result
            values[key] = text
            self._open = (values, key)
        elif kind == "STATUS_CODE":
            self._last_status, self._status = self._status, {}
            return Status(_number(value), self._last_status)
        elif kind == "CODE":
            self._code = _number(value)
        elif kind == "ABORTED":
            self._aborted = value.strip() or "aborted"
        return None

    def _continue(self, line: str) -> None:
        if self._open is not None:
            values, key = self._open
            values[key] += "\n" + line
        elif line.strip() and not self._stray:
            self._stray = line.strip()

    def finish(self) -> Result:
        """Say how the run ended, after the last line."""
        values = self._result
        if self._not_started:
            why = self._last_status.get("Error") or f"cannot start {self._not_started}"
            return Result(Outcome.NOT_STARTED, values, _one_line(why))
        if self._aborted:
            return Result(Outcome.ABORTED, values, _one_line(self._aborted))
        if "shortMsg" in values:
            why = values.get("longMsg") or values["shortMsg"] or "process crashed"
            return Result(Outcome.CRASHED, values, _one_line(why))
        if self._code is None:
            why = "the output ended before the run did"
            return Result(
                Outcome.CUT_SHORT, values, f"{why}: {self._stray}" if self._stray else why
            )
        status = values.get("exit_status", "").strip()
        if self._code == SUCCESS_CODE and status == "succeeded":
            return Result(Outcome.SUCCEEDED, values, "")
        why = values.get("error") or f"code {self._code}, exit_status {status or 'not given'}"
        return Result(Outcome.FAILED, values, _one_line(why))


def _number(text: str) -> int:
    """A code; 0, which is no success anywhere in this form, where it is not a number."""
    try:
        return int(text)
    except ValueError:
        return 0


def _one_line(text: str) -> str:
    return " ".join(text.split())
