"""A virtual device as a child process, and the list of those that run for everyone to use."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
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


@contextmanager
def start(root: Path | None = None, port: int = 0) -> Iterator[Running]:
    """Run a virtual device while the block runs.

    The user's own adb key may connect too where there is one, so stock adb works.

    Args:
        root: the directory that holds its files; None for ``default_root()``.
        port: port on loopback, 0 for a free one.

    Raises:
        SparseRecError: another process uses this root, or the device does not start.
    """
    root = root or default_root()
    authorized = [keys.public(keys.virtual_key())]
    if keys.public(keys.user_key_path()).exists():
        authorized.append(keys.public(keys.user_key_path()))
    command = [sys.executable, "-m", "device_bench.virtual", "--root", str(root)]
    command += ["--port", str(port), "--serial", SERIAL]
    command += ["--authorized-keys", *map(str, authorized)]
    with _sigterm_unwinds(), _only_user(root), tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,  # Ctrl-C is for us: we then stop it in good order
        )
        try:
            line = _first_line(process)
            if line is None:
                errors.seek(0)
                said = errors.read().decode(errors="replace").strip()
                raise SparseRecError(
                    f"the virtual device did not start: {said or 'it printed nothing'}",
                    f"run it by hand to see more: {' '.join(command)}",
                )
            ready = json.loads(line)
            yield Running(ready["host"], ready["port"], ready["serial"], ready["pid"], str(root))
        finally:
            _end(process)


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
    if process.stdout is not None:
        process.stdout.close()


@contextmanager
def _only_user(root: Path) -> Iterator[None]:
    """Hold the root's lock: two devices on the same files would overwrite each other's runs."""
    lock = root.with_name(root.name + ".lock")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("a")
    except OSError as error:
        raise SparseRecError(
            f"{lock}: cannot be written: {error.strerror}", "choose another root"
        ) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SparseRecError(
                f"{root}: another virtual device uses these files",
                "wait until it ends, or share one: sparserec virtual-device",
            ) from None
        yield


@contextmanager
def listed(device: Running) -> Iterator[None]:
    """Let other commands find this device while the block runs."""
    record = _records() / f"{device.pid}.json"
    record.write_text(json.dumps(asdict(device)))
    try:
        yield
    finally:
        record.unlink(missing_ok=True)


def running() -> list[Running]:
    """The virtual devices that other commands may use, oldest first."""
    found = []
    for record in sorted(_records().glob("*.json"), key=lambda path: path.stat().st_mtime):
        device = None
        with contextlib.suppress(OSError, ValueError, TypeError):
            device = Running(**json.loads(record.read_text()))
        if device is not None and _alive(device.pid):
            found.append(device)
        else:
            record.unlink(missing_ok=True)
    return found


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


def wait(device: Running) -> None:
    """Return when a device that this process started has ended by itself."""
    os.waitid(os.P_PID, device.pid, os.WEXITED | os.WNOWAIT)


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
