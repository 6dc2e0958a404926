"""A bundle as it lies on this machine: checked before anything is pushed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from device_bench.compat import require_runnable
from export import manifest
from export.bundle import verify_bundle
from sparserec.progress import Progress, silent


@dataclass(frozen=True)
class BundleFile:
    """One file of a bundle."""

    name: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files all match its manifest."""

    path: Path
    bundle_id: str
    files: tuple[BundleFile, ...]
    """Every file, the manifest last: the order to push them in."""

    @property
    def golden(self) -> dict[str, Any]:
        """The host's losses (docs/formats.md section 1.4)."""
        found: dict[str, Any] = json.loads((self.path / "golden.json").read_text())
        return found


def load(path: Path, progress: Progress = silent) -> Bundle:
    """Check every file of the bundle in folder ``path``.

    Raises:
        SparseRecError: not a bundle, one that is damaged, naming file and field, or one whose
            programs the app's library cannot run.
    """
    described = verify_bundle(path, progress)
    require_runnable(path, described)
    files = [BundleFile(name, info.sha256, info.bytes) for name, info in described.files.items()]
    data = (path / manifest.NAME).read_bytes()
    last = BundleFile(manifest.NAME, hashlib.sha256(data).hexdigest(), len(data))
    return Bundle(path, described.bundle_id, (*files, last))
