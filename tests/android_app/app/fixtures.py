"""Make what the app's tests run on: ``python -m tests.android_app.app.fixtures DIRECTORY``.

``short`` is a bundle that trains in a moment. ``long`` has the same programs and enough steps that
a test can stop or kill a run in the middle.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import export
from tests.android_app.harness import bundles as harness
from tests.android_app.harness.bundles import (
    Tiny,
    write_data,
    write_golden,
    write_manifest,
    write_programs,
)
from tests.android_app.harness.reference import Reference

GOLDEN_STEPS = 40
LONG_STEPS = 20_000


def make(folder: Path) -> None:
    """Write the bundles into ``folder``, which is replaced."""
    shutil.rmtree(folder, ignore_errors=True)
    short, long = folder / "short", folder / "long"
    short.mkdir(parents=True)
    tiny = Tiny()
    programs = write_programs(short, tiny)
    write_data(short, tiny, seed=3)
    shutil.copytree(short, long)
    _finish(short, tiny, programs)
    _finish(long, replace(tiny, training={**tiny.training, "steps": LONG_STEPS}), programs)


def _finish(bundle: Path, tiny: Tiny, programs: dict[str, Any]) -> None:
    """Write golden losses from the reference, which reads a manifest, and the manifest."""
    write_golden(bundle, tiny, [0.0])
    write_manifest(bundle, tiny, programs)
    reference = Reference(bundle)
    reference.run(GOLDEN_STEPS)
    (bundle / "manifest.json").unlink()
    write_golden(bundle, tiny, reference.losses)
    write_manifest(bundle, tiny, programs)


def is_current(folder: Path) -> bool:
    """Whether what ``folder`` holds is newer than all code that it was made with."""
    last = folder / "long" / "manifest.json"
    sources = [
        *Path(harness.__file__).parent.glob("*.py"),
        *Path(export.__file__).parent.glob("*.py"),
    ]
    newest = max(path.stat().st_mtime for path in [Path(__file__), *sources])
    return last.exists() and last.stat().st_mtime > newest


if __name__ == "__main__":
    target = Path(sys.argv[1])
    if not is_current(target):
        make(target)
