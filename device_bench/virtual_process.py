"""A virtual device as a child process, and the list of those that run for everyone to use."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from device_bench import keys
from sparserec.errors import SparseRecError

START_SECONDS = 20.0
STOP_SECONDS = 10.0
SERIAL = "sparserec-virtual"


@dataclass(frozen=True)
class Running:
    """A virtual device that runs."""

    host: str
    port: int
    serial: str
    pid: int
    root: str

    @property
    def address(self) -> str:
        """``host:port``, as stock adb takes it."""
        return f"{self.host}:{self.port}"


def default_root() -> Path:
    """Where the virtual device keeps its files from one run to the next."""
    return keys.state_dir() / "virtual-device"


def serial_of(root: Path) -> str:
    """The serial of the device with these files: the same at each start, and no other's."""
    default = default_root()
    if root.parent == default.parent and root.name.startswith(default.name):
        return SERIAL + root.name.removeprefix(default.name)
    return f"{SERIAL}-{hashlib.sha256(bytes(root.resolve())).hexdigest()[:6]}"


@contextmanager
def start(
    root: Path | None = None, port: int = 0, *, faults: Sequence[str] = ()
) -> Iterator[Running]:
    """Run a virtual device while the block runs.

    The user's own adb key may connect too where there is one, so stock adb works. The device ends
    with this process, however this process ends.

    Args:
        root: the directory that holds its files; None for ``default_root()``.
        port: port on loopback, 0 for a free one.
        faults: lines of TOML that say what is to go wrong (docs/virtual-device.md).

    Raises:
        SparseRecError: another process uses this root, or the device does not start.
    """
    root = root or default_root()
    with ExitStack() as claimed:
        lock = _claim(root, claimed)
        if lock is None:
            raise SparseRecError(
                f"{root}: another virtual device uses these files",
                "wait until it ends, or share one: sparserec virtual-device",
            )
        with _all({root: lock}, port, [f"--fault={line}" for line in faults]) as (device,):
            yield device


@contextmanager
def start_listed(
    count: int, root: Path | None = None, port: int = 0, *, options: Sequence[str] = ()
) -> Iterator[list[Running]]:
    """Run virtual devices, which other commands find, while the block runs.

    Args:
        count: how many.
        root: files of the first; a number is appended for the others. None for the default, where
            those that another command uses are passed over.
        port: port of the first, the others' follow; 0 for free ones.
        options: further ones for ``python -m device_bench.virtual``.

    Raises:
        SparseRecError: another process uses a root, or a device does not start.
    """
    first = root or default_root()
    roots: dict[Path, int] = {}
    with ExitStack() as claimed:
        number = 0
        while len(roots) < count:
            number += 1
            candidate = first if number == 1 else first.with_name(f"{first.name}-{number}")
            lock = _claim(candidate, claimed)
            if lock is not None:
                roots[candidate] = lock
            elif root is not None:
                raise SparseRecError(
                    f"{candidate}: another virtual device uses these files", "choose another root"
                )
        with _all(roots, port, [*options, "--list-in", str(_records())]) as devices:
            yield devices


@contextmanager
def _all(roots: dict[Path, int], port: int, options: Sequence[str]) -> Iterator[list[Running]]:
    """Start devices side by side, and end them with the block.

    ``roots`` has the open file that locks each root: the device holds it too, so a root is free
    only when its device has ended, also where this process was killed before.
    """
    with _sigterm_unwinds(), ExitStack() as ends, tempfile.TemporaryFile() as errors:
        processes = []
        commands = [
            _command(root, port and port + number, options) for number, root in enumerate(roots)
        ]
        for command, lock in zip(commands, roots.values(), strict=True):
            process = subprocess.Popen(
                command,
                pass_fds=[lock],
                stdin=subprocess.PIPE,  # only we hold its other end, so it ends with us
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,  # Ctrl-C is for us: we then stop it in good order
            )
            processes.append(process)
            ends.callback(_end, process)
        lines = [_first_line(process) for process in processes]
        if None in lines:
            errors.seek(0)
            said = errors.read().decode(errors="replace").strip()
            raise SparseRecError(
                f"the virtual device did not start: {said or 'it printed nothing'}",
                f"run it by hand to see more: {' '.join(commands[lines.index(None)])}",
            )
        yield [Running(**json.loads(line)) for line in lines if line is not None]


def _command(root: Path, port: int, options: Sequence[str]) -> list[str]:
    authorized = [keys.public(keys.virtual_key())]
    if keys.public(keys.user_key_path()).exists():
        authorized.append(keys.public(keys.user_key_path()))
    command = [sys.executable, "-m", "device_bench.virtual", "--root", str(root)]
    command += ["--port", str(port), "--serial", serial_of(root), "--until-stdin-ends"]
    return [*command, *options, "--authorized-keys", *map(str, authorized)]


def _first_line(process: subprocess.Popen[bytes]) -> bytes | None:
    """What the child prints when it is ready; None where it ended or takes too long."""
    assert process.stdout is not None
    deadline = time.monotonic() + START_SECONDS
    data = b""
    while not data.endswith(b"\n"):
        rest = deadline - time.monotonic()
        if rest <= 0 or not select.select([process.stdout], [], [], rest)[0]:
            return None
        part = os.read(process.stdout.fileno(), 4096)
        if not part:
            process.wait()
            return None
        data += part
    return data


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()


def _claim(root: Path, claimed: ExitStack) -> int | None:
    """Hold the root's lock: two devices on the same files would overwrite each other's runs.

    Returns:
        The open file that holds it, None where another process does.
    """
    lock = root.with_name(root.name + ".lock")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("a")
    except OSError as error:
        raise SparseRecError(
            f"{lock}: cannot be written: {error.strerror}", "choose another root"
        ) from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return claimed.enter_context(file).fileno()


def running() -> list[Running]:
    """The virtual devices that other commands may use, oldest first."""
    found = []
    for record in _records().glob("*.json"):
        one = None
        with contextlib.suppress(OSError, ValueError, TypeError):  # it may go at any moment
            one = record.stat().st_mtime, Running(**json.loads(record.read_text()))
        if one is not None and _alive(one[1].pid):
            found.append(one)
        else:
            record.unlink(missing_ok=True)
    return [device for _, device in sorted(found, key=lambda one: one[0])]


def _records() -> Path:
    path = keys.state_dir() / "running"
    path.mkdir(exist_ok=True)
    return path


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def wait(devices: Sequence[Running]) -> None:
    """Return when one of the devices that this process started has ended by itself."""
    while all(_runs(device.pid) for device in devices):
        time.sleep(0.2)


def _runs(child: int) -> bool:
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


@contextmanager
def _sigterm_unwinds() -> Iterator[None]:
    """Let SIGTERM end the block as an exception does, so that the child is stopped too."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return

    def leave(number: int, _: object) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
