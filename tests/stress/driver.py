"""The harness for many bundles in one JVM, which is started again where a bundle ends it."""

from __future__ import annotations

import os
import select
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.stress.workshop import Workshop

MARK = b"RESULT\t"
HEAP = "-Xmx512m"
CASE_SECONDS = 30.0
"""A case takes some hundredths of a second; one that takes this long hangs."""


@dataclass(frozen=True)
class Answer:
    """``status``: succeeded, failed, thrown (an exception that the harness let through), died
    (of a signal, say) or hung. ``error`` is one line, or the end of standard error."""

    status: str
    error: str


class Driver:
    """Talks to ``Driver.java``. A context manager: leaving it ends the JVM."""

    def __init__(self, workshop: Workshop) -> None:
        self._command = [
            str(workshop.desktop / "bin" / "java-with-executorch"),
            HEAP,
            f"-XX:ErrorFile={workshop.folder}/hs_err_%p.log",
            "Driver",
        ]
        classes = workshop.compiled_driver()
        self._environment = {**os.environ, "HARNESS_CLASSPATH": str(classes)}
        self._errors = workshop.folder / "driver-stderr.txt"
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def run(self, bundle: Path, state: Path, out: Path) -> Answer:
        """Run one case."""
        if self.process is None:
            with self._errors.open("wb") as errors:
                self.process = subprocess.Popen(
                    self._command,
                    env=self._environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                )
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # then it says nothing
            self.process.stdin.write(f"{bundle}\t{state}\t{out}\n".encode())
            self.process.stdin.flush()
        said = self._answer(self.process)
        if isinstance(said, str):
            self._end()
            return Answer(said, self._errors.read_text(errors="replace")[-400:])
        status, error = said.decode().split("\t", 1)
        return Answer(status, error)

    @staticmethod
    def _answer(process: subprocess.Popen[bytes]) -> bytes | str:
        """The line after the mark, or ``died`` or ``hung``."""
        assert process.stdout is not None
        deadline = time.monotonic() + CASE_SECONDS
        heard = b""
        while not (MARK in heard and heard.endswith(b"\n")):
            left = max(0.0, deadline - time.monotonic())
            if not select.select([process.stdout], [], [], left)[0]:
                return "hung"
            read = os.read(process.stdout.fileno(), 65536)
            if not read:
                return "died"
            heard += read
        return heard[heard.index(MARK) + len(MARK) : -1]

    def _end(self) -> None:
        """Kill the JVM; it has nothing to save."""
        if self.process is None:
            return
        self.process.kill()
        with suppress(BrokenPipeError):
            self.process.communicate()
        self.process = None
