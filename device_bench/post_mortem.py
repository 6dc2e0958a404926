"""What Android knows about how the app's process ended: its exit records and its log.

Android 11 keeps exit records, ``dumpsys activity exit-info`` (``ApplicationExitInfo``); not every
device reports a kill for low memory there, and older ones have no records, so the low memory
killer's own line in the log counts as well.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from device_bench.adb import Device
from device_bench.paths import PACKAGE

LOW_MEMORY = 3
USER_REQUESTED = (10, 11)
LOG_LINES = 2000
"""How much of the log is looked at after a failure; the harness itself writes little."""

_RECORD = re.compile(
    r"timestamp=(?P<timestamp>[^\n]*?) pid=(?P<pid>\d+)\b[^\n]*\n"
    rf"\s*process={re.escape(PACKAGE)} reason=(?P<reason>\d+) \((?P<name>[^\n]*?)\)"
    r" subreason=[^\n]*\bstatus=(?P<status>-?\d+)"
)
_LINE = re.compile(
    r"\S+ \S+ +(?P<pid>\d+) +\d+ (?P<level>[A-Z]) (?P<tag>[^:]*?) *: (?P<text>.*)", re.DOTALL
)
_STARTED = re.compile(rf"Start proc (\d+):{re.escape(PACKAGE)}\b")
_KILLED = re.compile(rf"Kill(?:ing)? '{re.escape(PACKAGE)}' \((\d+)\)")
_LMKD_TAGS = ("lowmemorykiller", "lmkd")
_OUR_TAGS = ("sparserec", "AndroidRuntime")


@dataclass(frozen=True)
class Exit:
    """One of Android's records of a process of the app that ended.

    Attributes:
        pid: of the process.
        timestamp: the device's time, as it prints it.
        reason: Android's number, such as 3 for low memory, and its name.
        status: the exit code or the signal.
    """

    pid: int
    timestamp: str
    reason: int
    name: str
    status: int


@dataclass(frozen=True)
class Before:
    """What there was before a run, so that what is new afterwards is of the run."""

    exits: frozenset[Exit]
    last_line: str


@dataclass(frozen=True)
class Death:
    """How a run's process ended, as far as the device says.

    Attributes:
        low_memory: the system killed it to get memory back.
        stopped: somebody stopped the app, or removed it, on the device.
        reason: Android's words, empty where it has none.
        log: the lines of the device's log that are about our process.
    """

    low_memory: bool
    stopped: bool
    reason: str
    log: tuple[str, ...]


def before(device: Device) -> Before:
    """Look at the records before a run.

    Raises:
        DeviceError: the connection failed.
    """
    lines = _log(device, 1)
    return Before(frozenset(_exits(device)), lines[-1] if lines else "")


def examine(device: Device, known: Before) -> Death:
    """Look at what is new since ``known``.

    Raises:
        DeviceError: the connection failed.
    """
    exits = [one for one in _exits(device) if one not in known.exits]
    log = ours(since(_log(device, LOG_LINES), known.last_line), {one.pid for one in exits})
    return judge(exits, log)


def judge(exits: list[Exit], log: list[str]) -> Death:
    """Put records and log together.

    Android stops the app itself before and after an instrumentation, so a record of a requested
    stop says something only where there is no other.
    """
    reasons = {one.reason for one in exits}
    killed = any(_is_low_memory(line) for line in log)
    kinds = [one for one in exits if one.reason not in USER_REQUESTED] or exits
    worst = next((one for one in kinds if one.reason == LOW_MEMORY), kinds[0] if kinds else None)
    return Death(
        low_memory=LOW_MEMORY in reasons or killed,
        stopped=bool(reasons) and reasons <= set(USER_REQUESTED) and not killed,
        reason="" if worst is None else f"{worst.name.replace('_', ' ').lower()}{_status(worst)}",
        log=tuple(log),
    )


def _status(record: Exit) -> str:
    return f", status {record.status}" if record.status else ""


def _is_low_memory(line: str) -> bool:
    found = _LINE.fullmatch(line)
    return (
        found is not None
        and found["tag"] in _LMKD_TAGS
        and _KILLED.search(found["text"]) is not None
    )


def parse_exits(text: str) -> list[Exit]:
    """The app's records in what ``dumpsys activity exit-info`` printed, in its order."""
    return [
        Exit(
            int(found["pid"]),
            found["timestamp"],
            int(found["reason"]),
            found["name"],
            int(found["status"]),
        )
        for found in _RECORD.finditer(text)
    ]


def since(lines: list[str], last: str) -> list[str]:
    """The lines after the last one that is ``last``; all of them where it is not there any more."""
    for index in range(len(lines) - 1, -1, -1):
        if last and lines[index] == last:
            return lines[index + 1 :]
    return lines


def ours(lines: list[str], pids: set[int]) -> list[str]:
    """Those lines of a ``threadtime`` log that are of the app's process or about it.

    Args:
        lines: the log.
        pids: processes that are known to be the app's; those that the log tells are added, and
            the process that prints a native crash of the app.
    """
    found = [(line, _LINE.fullmatch(line)) for line in lines]
    known = set(pids)
    for _, match in found:
        if match is None:
            continue
        started = _STARTED.search(match["text"])
        if started is not None:
            known.add(int(started[1]))
        if match["tag"] in _OUR_TAGS[:1] or (match["tag"] == "DEBUG" and PACKAGE in match["text"]):
            known.add(int(match["pid"]))
        if match["tag"] == "AndroidRuntime" and f"Process: {PACKAGE}" in match["text"]:
            known.add(int(match["pid"]))
    return [
        line
        for line, match in found
        if PACKAGE in line or (match is not None and int(match["pid"]) in known)
    ]


def said(log: tuple[str, ...], count: int = 5) -> list[str]:
    """The newest messages that the harness or its runtime wrote, without time and process."""
    found = [match for line in log if (match := _LINE.fullmatch(line))]
    return [match["text"] for match in found if match["tag"] in _OUR_TAGS][-count:]


def _exits(device: Device) -> list[Exit]:
    return parse_exits(device.shell(f"dumpsys activity exit-info {PACKAGE}").output)


def _log(device: Device, count: int) -> list[str]:
    lines = device.shell(f"logcat -d -t {count}").output.splitlines()
    return [line for line in lines if not line.startswith("--------- ")]
