"""Runs the harness launcher as the app's process: one process group at a time."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from device_bench.virtual.files import PACKAGE, DeviceFiles
from device_bench.virtual.streams import Hangup, Writer

if TYPE_CHECKING:
    from device_bench.virtual.device import Log

PATH_KEYS = ("bundle", "state", "out")
"""Keys whose values are device paths (docs/formats.md section 7)."""

CRASHED = b"INSTRUMENTATION_RESULT: shortMsg=Process crashed.\nINSTRUMENTATION_CODE: 0\n"
"""What Android prints for a process that ended without a result."""


class Harness:
    """The installed app: its launcher on the host and, while it runs, its process."""

    def __init__(self, launcher: Path, files: DeviceFiles, log: Log) -> None:
        self.launcher = launcher
        self._files = files
        self._log = log
        self._starting = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

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
        the process as host paths, and its output has them as device paths again.

        Raises:
            OSError: a path leads outside the device, or the launcher cannot be started.
            BrokenPipeError: nobody reads the output any more; the process has been killed.
        """
        arguments = [
            text
            for key, value in values.items()
            for text in (key, str(self._files.resolve(value)) if key in PATH_KEYS else value)
        ]
        with self._starting:
            self.stop()
            process = subprocess.Popen(
                [str(self.launcher), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=self._files.root,
                start_new_session=True,
            )
            self._process = process
        self._log.add("ActivityManager", f"started {PACKAGE}", process.pid)
        hangup.call(lambda: _kill(process))
        errors = threading.Thread(target=self._copy_errors, args=(process,), daemon=True)
        errors.start()
        try:
            self._copy_output(process, output)
        finally:
            _kill(process)
            process.wait()
            errors.join(timeout=1.0)  # an orphan of the process may keep its stderr open
            code = process.returncode
            self._log.add("ActivityManager", f"{PACKAGE} ended with {code}", process.pid)

    def _copy_output(self, process: subprocess.Popen[bytes], output: Writer) -> None:
        root = os.fsencode(self._files.root)
        finished = False
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                finished = finished or line.startswith(b"INSTRUMENTATION_CODE:")
                output.write(line.replace(root, b""))
        process.wait()
        if not finished:
            output.write(CRASHED)

    def _copy_errors(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            text = self._files.on_device(line.decode(errors="replace"))
            self._log.add("sparserec", text, process.pid)

    def stop(self, how: signal.Signals = signal.SIGKILL) -> bool:
        """End the running process group with a signal; whether there was one."""
        process = self._process
        if process is None or process.poll() is not None:
            return False
        _kill(process, how)
        if how == signal.SIGKILL:
            process.wait()
        return True


def _kill(process: subprocess.Popen[bytes], how: signal.Signals = signal.SIGKILL) -> None:
    """Signal the whole group while its leader has not been reaped, so the id is still its own."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):  # it may have ended just now
            os.killpg(process.pid, how)
