"""One holder at a time of something on a device, whichever computer or process it is.

A lock is a directory, since making one either succeeds or says that it is there; in it lies one
file, named by the holder's token and telling who that is. Of a lock whose holder has died that very
file is removed, and the lock is made anew: of several who try, one succeeds, and a lock that a live
holder has taken meanwhile has another file in it. Whoever made one holds it only if it finds its
own file there and no other. On the device only ``mkdir``, ``ls``, ``rm``, ``rmdir``, ``stat``,
``date`` and ``touch`` are needed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from device_bench.adb import Device
from device_bench.device_errors import DeviceError
from device_bench.paths import LOCKS, PACKAGE
from device_bench.retry import TRIES, persist

LEASE_SECONDS = 120
"""A holder that has not shown itself for so long, by the device's clock, is taken to be dead."""
POLL_SECONDS = 0.5

_TOKEN = re.compile(r"[0-9a-f]{32}")
_mine: set[str] = set()
"""Tokens that this process holds or tries to get: a lock of its own that is none of them is old."""


class LockedError(DeviceError):
    """Someone else holds the lock."""


def app_running(device: Device) -> bool:
    """Whether a process of the app lives on the device."""
    return device.shell(f"pidof {PACKAGE}").exit_code == 0


def trains_by_hand(device: Device) -> bool:
    """Whether the app trains as its user started it on its screen.

    Only then it has a service in the foreground; that it has a process says as little as that its
    screen was opened once.
    """
    output = device.shell(f"dumpsys activity services {PACKAGE}").output
    return re.search(r"^\s*isForeground=true\b", output, re.MULTILINE) is not None


@dataclass
class Held:
    """A lock that this process holds."""

    device: Device
    folder: str
    token: str
    shown: float

    def refresh(self) -> None:
        """Show that the holder lives; to be called at least every LEASE_SECONDS.

        Raises:
            LockedError: it was taken over, because the holder did not show itself in time.
        """
        if time.monotonic() - self.shown < LEASE_SECONDS / 8:
            return
        file = shlex.quote(f"{self.folder}/{self.token}")
        # With -c a lock that was taken over is not made ours again beside the new holder's.
        if self.device.shell(f"touch -c {file}; [ -e {file} ]").exit_code != 0:
            raise LockedError(
                f"{self.device.name}: another process took over, as this one was silent for long",
                "run the command again",
            )
        self.shown = time.monotonic()


@contextmanager
def hold(
    device: Device,
    name: str,
    what: str,
    *,
    in_use: Callable[[Device], bool] = lambda _: False,
    wait: bool = False,
    root: str = LOCKS,
    say: Callable[[str], None] = lambda _: None,
    alive: Callable[[], None] = lambda: None,
) -> Iterator[Held]:
    """Hold the lock ``name`` on a connected device while the block runs.

    A holder on this computer whose process is gone is replaced at once; any other one when it has
    not shown itself for LEASE_SECONDS and ``in_use`` does not say that its work goes on.

    Args:
        device: connected; a lost connection is made anew.
        name: of the lock, such as ``bundle-<bundle id>``.
        what: what the holder does, for the message that others get.
        in_use: asked before a silent holder is replaced, for one that cannot refresh.
        wait: wait for the holder instead of raising an error.
        root: the folder on the device that locks are in.
        say: told once for whom this waits.
        alive: called again and again while this waits, to refresh another lock of the caller's.

    Raises:
        LockedError: someone else holds it.
        DeviceError: the device cannot be used.
    """
    token = uuid.uuid4().hex
    _mine.add(token)
    try:
        yield from _hold(device, f"{root}/{name}", token, what, in_use, wait, say, alive)
    finally:
        _mine.discard(token)


@contextmanager
def harness(device: Device, what: str) -> Iterator[Held]:
    """Hold the lock of the app: starting it ends what it does, so one at a time may.

    Args:
        device: connected; a lost connection is made anew.
        what: what the holder does, for the message that others get.

    Raises:
        LockedError: someone else holds it.
        DeviceError: the app trains as its user wants, or the device cannot be used.
    """
    with hold(device, "harness", what, in_use=app_running) as held:
        if persist(device, lambda _: trains_by_hand(device)):
            raise DeviceError(
                f"{device.name}: the app trains there, as someone started it on its screen",
                "wait until that has ended, or press Stop in the app: it goes on from its "
                "checkpoint when it is started again",
            )
        yield held


def _hold(
    device: Device,
    folder: str,
    token: str,
    what: str,
    in_use: Callable[[Device], bool],
    wait: bool,
    say: Callable[[str], None],
    alive: Callable[[], None],
) -> Iterator[Held]:
    """Get the lock, yield it, release it."""
    owner = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "what": what})
    waiting = False
    while not persist(device, lambda _: _take(device, folder, token, owner, in_use)):
        holder = persist(device, lambda _: _holder(device, folder))
        if not wait:
            raise LockedError(
                f"{device.name}: {folder.rpartition('/')[2]} is in use: {holder}",
                "wait until that has ended; if it died on another computer, its place is free "
                f"{LEASE_SECONDS} s later",
            )
        if not waiting:
            say(f"waiting for {holder}")
            waiting = True
        persist(device, lambda _: alive())
        time.sleep(POLL_SECONDS)
    try:
        yield Held(device, folder, token, time.monotonic())
    except BaseException:
        # The connection may be in the middle of a message, so a new one is made.
        with contextlib.suppress(DeviceError):
            device.connect()
            _release(device, folder, token)
        raise
    else:
        persist(device, lambda _: _release(device, folder, token))


def _release(device: Device, folder: str, token: str) -> None:
    file, directory = shlex.quote(f"{folder}/{token}"), shlex.quote(folder)
    device.shell(f"rm -f {file} && rmdir {directory} 2>/dev/null")


def _take(
    device: Device, folder: str, token: str, owner: str, in_use: Callable[[Device], bool]
) -> bool:
    """Try once to get the lock; whether it is ours."""
    directory, file = shlex.quote(folder), shlex.quote(f"{folder}/{token}")
    parent = shlex.quote(folder.rpartition("/")[0])
    # Another's file is there too if its directory was removed before it wrote, as an empty one.
    make = f"mkdir {directory} && echo {shlex.quote(owner)} > {file} && ls {directory}"
    for _ in range(TRIES):
        made = device.shell(f"mkdir -p {parent} && {make}")
        if made.exit_code == 0 and made.output.split() == [token]:
            return True
        # What goes is ours, from before a lost connection or beside another's, or an empty
        # directory: its maker was cut off, or is about to write, which then fails, so that they
        # try again.
        _release(device, folder, token)
        state = _look(device, folder)
        if state is None:
            continue  # it was released just now
        if not _abandoned(state) or in_use(device):
            return False
        _release(device, folder, state.token)
    if made.exit_code == 0:
        return False
    raise DeviceError(
        f"{device.name}: cannot make {folder}: {made.output.strip()}",
        "check that the device is unlocked and its storage is neither full nor read-only",
    )


@dataclass(frozen=True)
class _State:
    token: str
    silent_seconds: int
    owner: dict[str, object]


def _look(device: Device, folder: str) -> _State | None:
    """What is known of the holder; None where there is none."""
    directory = shlex.quote(folder)
    output = device.shell(
        f"date +%s; stat -c '%Y %n' {directory}/* 2>/dev/null; cat {directory}/* 2>/dev/null"
    ).output
    now, *lines = output.splitlines() or [""]
    stamped = (match for line in lines if (match := re.fullmatch(r"(\d+) (/.*)", line)))
    times = {match[2]: int(match[1]) for match in stamped}
    names = [path.rpartition("/")[2] for path in times]  # the last one is whose owner is read
    token = next((name for name in reversed(names) if _TOKEN.fullmatch(name)), None)
    if token is None or not now.isdecimal():
        return None
    modified = times[f"{folder}/{token}"]
    owner: dict[str, object] = {}
    with contextlib.suppress(ValueError, TypeError):
        owner = dict(json.loads(lines[-1]))
    return _State(token, int(now) - modified, owner)


def _abandoned(state: _State) -> bool:
    """Whether the holder has died, or has not shown itself for too long."""
    pid = state.owner.get("pid")
    if isinstance(pid, int) and pid > 0 and state.owner.get("host") == socket.gethostname():
        if pid == os.getpid() and state.token not in _mine:
            return True  # the device was lost before it could be released
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        except (PermissionError, OverflowError):
            pass
    # A clock that was set back makes a time in the future, which says as little as an old one.
    return abs(state.silent_seconds) > LEASE_SECONDS


def _holder(device: Device, folder: str) -> str:
    """Who holds the lock, in words."""
    state = _look(device, folder)
    if state is None or not state.owner:
        return "another process"
    owner = state.owner
    return f"{owner.get('what')} by process {owner.get('pid')} on {owner.get('host')}"
