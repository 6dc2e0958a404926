"""Where things are on a device (docs/formats.md section 9)."""

from __future__ import annotations

PACKAGE = "org.sparserec.app"
ROOT = f"/sdcard/Android/media/{PACKAGE}"
LOCKS = f"{ROOT}/locks"


def delta_path(result_id: str) -> str:
    """Where the delta is put that makes a bundle."""
    return f"{ROOT}/deltas/{result_id}"


def bundle_path(bundle_id: str) -> str:
    """The folder of a bundle."""
    return f"{ROOT}/bundles/{bundle_id}"
