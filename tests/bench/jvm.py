"""A JVM with Android's ExecuTorch library and the harness, that times what it is told to."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DESKTOP = ROOT / "android_app" / "target" / "desktop"
MARK = "RESULT\t"


class Runtime:
    """A private copy of the desktop runtime, with ``Driver.java`` compiled against it.

    Raises:
        FileNotFoundError: where the harness has not been built.
    """

    def __init__(self, folder: Path, desktop: Path = DESKTOP) -> None:
        if not (desktop / "jars" / "harness.jar").exists():
            raise FileNotFoundError(f"{desktop}: the harness is not built; run `make setup`")
        # A build that replaces a jar under a running JVM would end it.
        self.desktop = Path(shutil.copytree(desktop, folder / "desktop", symlinks=True))
        self.classes = folder / "classes"
        self.errors = folder / "stderr.txt"
        sources = map(str, sorted(Path(__file__).parent.glob("*.java")))
        options = ["-Xlint:all,-path", "-Werror", "-cp", f"{self.desktop}/jars/*"]
        subprocess.run(["javac", *options, "-d", str(self.classes), *sources], check=True)


class Jvm:
    """A running ``Driver``. A context manager: leaving it ends the process."""

    def __init__(self, runtime: Runtime, *options: str) -> None:
        self._errors_path = runtime.errors
        self._errors = runtime.errors.open("w")
        self._process = subprocess.Popen(
            [str(runtime.desktop / "bin" / "java-with-executorch"), *options, "Driver"],
            env={**os.environ, "HARNESS_CLASSPATH": str(runtime.classes)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def __enter__(self) -> Jvm:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def ask(self, *parts: object) -> Any:
        """Give a command of ``Driver.java``; returns its answer.

        Raises:
            RuntimeError: if the process ends instead, with what it said last.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\t".join(map(str, parts)) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith(MARK):
                return json.loads(line.removeprefix(MARK))
        raise RuntimeError(f"{parts[0]}: {self._errors_path.read_text()[-2000:]}")

    def time(self, name: str, repetitions: int) -> list[int]:
        """Repeat the work of this name; returns nanoseconds of each."""
        taken: list[int] = self.ask("time", name, repetitions)
        return taken
