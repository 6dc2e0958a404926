"""Where things are on a device (docs/formats.md section 9)."""

from __future__ import annotations

import json
from pathlib import Path

from export.manifest import AGAIN, PLAIN
from sparserec.errors import SparseRecError

PACKAGE = "org.sparserec.app"
ROOT = f"/sdcard/Android/media/{PACKAGE}"
LOCKS = f"{ROOT}/locks"


def delta_path(result_id: str) -> str:
    """Where the delta is put that makes a bundle; refuses an id as ``plain`` does."""
    return f"{ROOT}/deltas/{plain(result_id)}"


def bundle_path(bundle_id: str) -> str:
    """The folder of a bundle; refuses an id as ``plain`` does."""
    return f"{ROOT}/bundles/{plain(bundle_id)}"


def state_path(bundle_id: str) -> str:
    """Where a bundle's checkpoints are; refuses an id as ``plain`` does."""
    return f"{ROOT}/state/{plain(bundle_id)}"


def plain(bundle_id: str, path: Path | None = None, field: str = "bundle_id") -> str:
    """The id, if it is one plain part of a path: another could lead out of our folders.

    Args:
        bundle_id: of a bundle.
        path: the file that says it, for the message.
        field: of that file.

    Raises:
        SparseRecError: it is not.
    """
    if not PLAIN.fullmatch(bundle_id):
        where = "" if path is None else f"{path}: "
        raise SparseRecError(f"{where}{field}: {json.dumps(bundle_id)} is not a plain name", AGAIN)
    return bundle_id
