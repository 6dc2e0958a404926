"""A bundle is checked before it is pushed, and the manifest is the last to go."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from device_bench.adb import Device
from device_bench.bundle import Bundle, load
from device_bench.deploy import deploy
from device_bench.paths import ROOT
from device_bench.run import run
from device_bench.virtual import VirtualDevice
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


@pytest.mark.parametrize("name", ["", ".", ".hidden", "../../x", "a/b", "my log-mf", "x\n", "é"])
def test_id_that_is_no_plain_name_never_reaches_a_device(
    bundle_dir: Path, bundle: Bundle, device: Device, virtual: VirtualDevice, name: str
) -> None:
    path = bundle_dir / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"bundle_id": name}))
    with pytest.raises(SparseRecError, match=r"bundle_id: .* is not a plain name") as caught:
        load(bundle_dir)
    assert str(path) in caught.value.message
    refused = pytest.raises(SparseRecError, match="is not a plain name")
    with refused:
        deploy(device, replace(bundle, bundle_id=name))
    with refused:
        run(device, name, bundle_dir / "report.json")
    media = virtual.device.files.root / ROOT.lstrip("/")
    assert not (media / "bundles").exists()
    assert not (media / "state").exists()
