"""Where things are on a device (docs/formats.md section 9).

An id that is not one plain part of a path could lead out of these folders, and is refused.
"""

from __future__ import annotations

import json

from export.manifest import AGAIN, PLAIN
from sparserec.errors import SparseRecError

PACKAGE = "org.sparserec.app"
ROOT = f"/sdcard/Android/media/{PACKAGE}"
LOCKS = f"{ROOT}/locks"


def delta_path(result_id: str) -> str:
    """Where the delta is put that makes a bundle.

    Raises:
        SparseRecError: the id is no plain name.
    """
    return f"{ROOT}/deltas/{_plain(result_id)}"


def bundle_path(bundle_id: str) -> str:
    """The folder of a bundle.

    Raises:
        SparseRecError: the id is no plain name.
    """
    return f"{ROOT}/bundles/{_plain(bundle_id)}"


def state_path(bundle_id: str) -> str:
    """Where a bundle's checkpoints are.

    Raises:
        SparseRecError: the id is no plain name.
    """
    return f"{ROOT}/state/{_plain(bundle_id)}"


def _plain(bundle_id: str) -> str:
    if not PLAIN.fullmatch(bundle_id):
        raise SparseRecError(f"bundle_id: {json.dumps(bundle_id)} is not a plain name", AGAIN)
    return bundle_id
