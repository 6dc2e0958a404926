"""A bundle is checked before it is pushed, and the manifest is the last to go."""

from __future__ import annotations

from pathlib import Path

import pytest

from device_bench.bundle import load
from sparserec.errors import SparseRecError


def test_whole_bundle(bundle_dir: Path) -> None:
    bundle = load(bundle_dir)
    assert bundle.bundle_id.startswith("tiny-mf-d8-40pct-")
    assert bundle.files[-1].name == "manifest.json"
    sizes = {path.name: path.stat().st_size for path in bundle_dir.iterdir()}
    assert {file.name: file.size for file in bundle.files} == sizes
    assert len(bundle.golden["losses"]) == bundle.golden["steps"]


def test_flipped_byte_is_found(bundle_dir: Path) -> None:
    data = bytearray((bundle_dir / "step.pte").read_bytes())
    data[1234] ^= 1
    (bundle_dir / "step.pte").write_bytes(data)
    with pytest.raises(SparseRecError, match=r"step\.pte"):
        load(bundle_dir)
