"""Runs the harness launcher as the app's process: one process group at a time."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from device_bench.virtual.faults import Faults
from device_bench.virtual.files import PACKAGE, DeviceFiles
from device_bench.virtual.log import Log
from device_bench.virtual.storage import Storage
from device_bench.virtual.streams import Hangup, Writer

PATH_KEYS = ("bundle", "state", "out", "bundles", "apply")
"""Keys whose values are device paths (docs/formats.md sections 7 and 7.1)."""

CRASHED = b"INSTRUMENTATION_RESULT: shortMsg=Process crashed.\nINSTRUMENTATION_CODE: 0\n"
"""What Android prints for a process that ended without a result."""

EXIT_SELF, SIGNALED, LOW_MEMORY, USER_REQUESTED = 1, 2, 3, 10
"""Android's ``ApplicationExitInfo`` reasons."""


@dataclass(frozen=True)
class Exit:
    """How a process of the app ended: when (seconds since 1970), its id, why, code or signal."""

    time: float
    pid: int
    reason: int
    status: int


class Harness:
    """The installed app: its launcher on the host and, while it runs, its process."""

    def __init__(
        self, launcher: Path, files: DeviceFiles, storage: Storage, log: Log, faults: Faults
    ) -> None:
        self.launcher = launcher
        self.exits: deque[Exit] = deque(maxlen=16)
        self._files = files
        self._storage = storage
        self._log = log
        self._faults = faults
        self._starting = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._reasons: dict[int, int] = {}

    @property
    def installed(self) -> bool:
        """Whether the launcher is there."""
        return os.access(self.launcher, os.X_OK) and self.launcher.is_file()

    @property
    def pid(self) -> int | None:
        """The running process, None when there is none."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def run(self, values: dict[str, str], output: Writer, hangup: Hangup) -> None:
        """Start a fresh process and copy its output, line by line, until it ends.

        As on Android, starting ends a run that is still going. Values that are device paths reach
        the process as host paths, and its output and report have them as device paths again.

        Raises:
            OSError: a path leads outside the device, or the launcher cannot be started.
            BrokenPipeError: nobody reads the output any more; the process has been killed.
        """
        paths = {key: self._files.resolve(values[key]) for key in PATH_KEYS if key in values}
        arguments = [text for key in values for text in (key, str(paths.get(key, values[key])))]
        with self._starting:
            self.stop()
            process = self._start(arguments)
            self._process = process
            number = self._faults.run_started()
        self._log.add("ActivityManager", f"started {PACKAGE}", process.pid)
        if not self._faults.spec.runs_outlive_clients:
            hangup.call(lambda: _kill(process))
        errors = threading.Thread(target=self._copy_errors, args=(process,), daemon=True)
        errors.start()
        try:
            self._copy_output(process, output, number)
        finally:
            _kill(process)
            process.wait()
            errors.join(timeout=1.0)  # an orphan of the process may keep its stderr open
            self._ended(process)
            if "out" in paths:
                _hide(self._files.root, paths["out"] / "report.json")

    def _start(self, arguments: list[str]) -> subprocess.Popen[bytes]:
        """Start the launcher; it ends with this process, even one that is killed."""
        setpriv = shutil.which("setpriv")
        bound = [setpriv, "--pdeathsig", "KILL"] if setpriv else []
        process = subprocess.Popen(
            [*bound, str(self.launcher), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self._files.root,
            start_new_session=True,
        )
        if self._storage.limit is not None:
            free = self._storage.space().free
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (free, free))
        return process

    def _copy_output(self, process: subprocess.Popen[bytes], output: Writer, number: int) -> None:
        """Pass the output on; where nobody reads it, go on if the run outlives its client."""
        root = os.fsencode(self._files.root)
        finished, heard, statuses = False, True, 0
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                finished = finished or line.startswith(b"INSTRUMENTATION_CODE:")
                try:
                    if heard:
                        output.write(line.replace(root, b""))
                except BrokenPipeError:
                    if not self._faults.spec.runs_outlive_clients:
                        raise
                    heard = False
                if line.startswith(b"INSTRUMENTATION_STATUS_CODE:"):
                    statuses += 1
                    self._faults.status(number, statuses)
        process.wait()
        if not finished and heard:
            output.write(CRASHED)

    def _copy_errors(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            text = self._files.on_device(line.decode(errors="replace"))
            self._log.add("sparserec", text, process.pid)

    def _ended(self, process: subprocess.Popen[bytes]) -> None:
        code = process.returncode
        reason = self._reasons.pop(process.pid, SIGNALED if code < 0 else EXIT_SELF)
        self.exits.append(Exit(self._log.now(), process.pid, reason, abs(code)))
        self._log.add("ActivityManager", f"Process {PACKAGE} (pid {process.pid}) has died: {code}")

    def stop(self, how: signal.Signals = signal.SIGKILL, reason: int | None = None) -> bool:
        """End the running process group with a signal; whether there was one.

        ``reason`` is what Android would say of it; None: that a signal ended it.
        """
        process = self._process
        if process is None or process.poll() is not None:
            return False
        if reason is not None:
            self._reasons[process.pid] = reason
        _kill(process, how)
        if how == signal.SIGKILL:
            process.wait()
        return True

    def kill_for_memory(self) -> None:
        """Kill the process as Android's low-memory killer does, with its line in the log."""
        pid = self.pid
        if pid is not None and self.stop(reason=LOW_MEMORY):
            self._log.add(
                "lowmemorykiller",
                f"Kill '{PACKAGE}' ({pid}), uid 10123, oom_score_adj 0 to free 262144kB rss, "
                "0kB swap; reason: min watermark is breached",
            )


def _kill(process: subprocess.Popen[bytes], how: signal.Signals = signal.SIGKILL) -> None:
    """Signal the whole group while its leader has not been reaped, so the id is still its own."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):  # it may have ended just now
            os.killpg(process.pid, how)


def _hide(root: Path, report: Path) -> None:
    """Put device paths in the place of host paths in what the harness wrote."""
    try:
        data = report.read_bytes()
        shown = data
        for name in (json.dumps(str(root)), json.dumps(str(root), ensure_ascii=False)):
            shown = shown.replace(name[1:-1].encode(), b"")
        if shown != data:
            part = report.with_name(report.name + ".part")
            part.write_bytes(shown)
            part.replace(report)
    except OSError:
        return  # there is none, or no space for another: the report stays as it is
