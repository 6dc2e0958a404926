"""What the campaigns work on: a private copy of the desktop runtime, and bundles that are quick."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.android_app.harness.bundles import (
    Tiny,
    write_data,
    write_golden,
    write_manifest,
    write_programs,
)
from tests.android_app.harness.reference import Reference

ROOT = Path(__file__).resolve().parents[2]
DESKTOP = ROOT / "android_app" / "target" / "desktop"
GOLDEN_STEPS = 30


class Workshop:
    """A folder to work in, with its own copy of the runtime: a campaign takes minutes, and a build
    that replaces a jar under a running JVM would end it.

    Raises:
        FileNotFoundError: where the harness has not been built.
    """

    def __init__(self, folder: Path, desktop: Path = DESKTOP) -> None:
        if not (desktop / "jars" / "harness.jar").exists():
            raise FileNotFoundError(f"{desktop}: the harness is not built; run `make setup`")
        self.folder = folder
        self.desktop = Path(shutil.copytree(desktop, folder / "desktop", symlinks=True))
        self.launcher = self.desktop / "bin" / "harness"
        self._exports: dict[tuple[float, ...], Path] = {}

    def bundle(self, name: str, tiny: Tiny, data_seed: int) -> Path:
        """Make a bundle with golden losses of the reference."""
        folder = self.folder / name
        folder.mkdir()
        programs = self._exported(tiny, folder)
        write_data(folder, tiny, data_seed)
        write_golden(folder, tiny, [0.0])
        write_manifest(folder, tiny, programs)
        reference = Reference(folder)
        reference.run(GOLDEN_STEPS)
        write_golden(folder, tiny, reference.losses)
        write_manifest(folder, tiny, programs)
        return folder

    def _exported(self, tiny: Tiny, folder: Path) -> dict[str, Any]:
        """Put the programs into ``folder``; an export takes seconds, so equal ones are copied."""
        key = (tiny.exported_batch, tiny.dim, tiny.l2, tiny.update_chunk, tiny.score_chunk)
        if key not in self._exports:
            self._exports[key] = folder
            return write_programs(folder, tiny)
        for path in self._exports[key].glob("*.pte"):
            shutil.copy(path, folder)
        manifest = json.loads((self._exports[key] / "manifest.json").read_text())
        programs: dict[str, Any] = manifest["programs"]
        return programs

    def own_copy(self, bundle: Path) -> Path:
        """Copy ``bundle`` for one case, in the place of the case before."""
        folder = self.folder / "case-bundle"
        shutil.rmtree(folder, ignore_errors=True)
        return Path(shutil.copytree(bundle, folder))

    def compiled_driver(self) -> Path:
        """Compile ``Driver.java`` against the copied jars; returns the folder of its classes."""
        classes = self.folder / "classes"
        source = Path(__file__).with_name("Driver.java")
        jars = f"{self.desktop}/jars/*"
        options = ["-Xlint:all,-path", "-Werror", "-classpath", jars, "-d", str(classes)]
        subprocess.run(["javac", *options, str(source)], check=True)
        return classes
