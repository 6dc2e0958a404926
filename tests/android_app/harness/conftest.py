"""The built harness, a tiny bundle, and what an independent implementation makes of it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.android_app.harness.bundles import (
    Tiny,
    write_data,
    write_golden,
    write_manifest,
    write_programs,
)
from tests.android_app.harness.reference import Reference

ROOT = Path(__file__).resolve().parents[3]
GOLDEN_STEPS = 60


@dataclass(frozen=True)
class Ended:
    """A run of the harness: exit code, output lines, and its report if it wrote one."""

    code: int
    lines: list[str]
    errors: str
    report: dict[str, Any]

    def value(self, key: str) -> str:
        """The ``INSTRUMENTATION_RESULT`` of this key."""
        prefix = f"INSTRUMENTATION_RESULT: {key}="
        (found,) = [line.removeprefix(prefix) for line in self.lines if line.startswith(prefix)]
        return found


class Harness:
    """Runs the launcher with one bundle and one directory for state and report."""

    def __init__(self, launcher: Path, bundle: Path, folder: Path) -> None:
        self.launcher, self.bundle, self.folder = launcher, bundle, folder
        self.state = folder / "state"
        self.report_path = folder / "out" / "report.json"

    def command(self, **keys: object) -> list[str]:
        values = {
            "bundle": self.bundle,
            "state": self.state,
            "out": self.report_path.parent,
            **keys,
        }
        return [str(self.launcher), *(str(part) for pair in values.items() for part in pair)]

    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.report_path.read_text(), parse_constant=_refuse)
        return found

    def run(self, **keys: object) -> Ended:
        """Run to the end."""
        return self.run_limited(None, **keys)

    def run_limited(self, limit: Callable[[], None] | None, **keys: object) -> Ended:
        """Run to the end. ``limit`` is called in the child before the launcher starts."""
        done = subprocess.run(
            self.command(**keys),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            preexec_fn=limit,
        )
        report = self.report() if self.report_path.exists() else {}
        return Ended(done.returncode, done.stdout.splitlines(), done.stderr, report)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose golden losses come from the reference."""
    folder = tmp_path_factory.mktemp("bundle")
    tiny = Tiny()
    programs = write_programs(folder, tiny)
    write_data(folder, tiny, seed=3)
    write_golden(folder, tiny, [0.0])
    write_manifest(folder, tiny, programs)
    reference = Reference(folder)
    reference.run(GOLDEN_STEPS)
    write_golden(folder, tiny, reference.losses)
    write_manifest(folder, tiny, programs)
    return folder


@pytest.fixture
def harness(launcher: Path, tiny_bundle: Path, tmp_path: Path) -> Harness:
    return Harness(launcher, tiny_bundle, tmp_path)


@pytest.fixture
def own_bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the bundle that a test may damage."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
