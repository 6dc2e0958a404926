"""Bringing deltas to a virtual device: what is sent, what is refused, and the way back."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save

from device_bench import adb, delta, lock
from device_bench.adb import Device
from device_bench.bundle import load
from device_bench.deploy import deploy
from device_bench.device_errors import DeviceError
from device_bench.devices import choose
from device_bench.paths import ROOT
from device_bench.run import Options, run
from device_bench.virtual import VirtualDevice
from device_bench.virtual.server import default_harness
from export import manifest
from export.bundle import bundle_id, file_infos
from export.delta import apply_delta, write_delta
from sparserec.errors import SparseRecError

Bundles = tuple[Path, Path]
"""A bundle, and the delta to the next one."""


@pytest.fixture(scope="session")
def made(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    """The next one has moved ten of the table's rows on."""
    folder = tmp_path_factory.mktemp("delta")
    old = manifest.read(exported / "manifest.json")
    files = {name: (exported / name).read_bytes() for name in old.files}
    table = load_file(exported / "table.safetensors")
    vals = table["vals"].copy()
    vals[: table["row_ptr"][10]] += np.float32(0.01)
    files["table.safetensors"] = save({**table, "vals": vals})
    infos = file_infos(files)
    name = bundle_id("tiny", "mf", 8, 0.4, infos, old.training)
    write_delta(exported, replace(old, bundle_id=name, files=infos), files, folder / "delta")
    return exported, folder / "delta"


@pytest.fixture
def media(virtual: VirtualDevice) -> Path:
    return virtual.device.files.root / ROOT.lstrip("/")


def test_base_whose_id_is_no_plain_name_is_refused(made: Bundles, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made[1], tmp_path / "delta"))
    path = folder / "delta.json"
    described = json.loads(path.read_text())
    described["base"]["bundle_id"] = "my log"
    path.write_text(json.dumps(described))
    with pytest.raises(SparseRecError, match=r'base\.bundle_id: "my log" is not a plain name'):
        delta.load(folder)


def test_only_the_delta_is_sent(device: Device, made: Bundles, media: Path) -> None:
    base, folder = made
    deploy(device, load(base))
    loaded = delta.load(folder)
    seen: list[str] = []
    done = delta.apply(device, loaded, lambda what, at, total: seen.append(what))
    assert set(done.pushed) == {path.name for path in folder.iterdir()}
    assert done.pushed[-1] == "delta.json"
    assert done.bytes == sum(path.stat().st_size for path in folder.iterdir())
    assert "check base" in seen
    assert list((media / "deltas").iterdir()) == []  # removed once it is applied
    assert list((media / "locks").iterdir()) == []
    assert delta.rollback(device) == "before"


def test_a_device_without_the_base_gets_nothing(device: Device, made: Bundles, media: Path) -> None:
    loaded = delta.load(made[1])
    wanted = loaded.described.base.manifest_sha256[:12]
    with pytest.raises(DeviceError, match=rf"{wanted}.*which is not there") as caught:
        delta.apply(device, loaded)
    assert "sparserec apply BASE DELTA OUT" in caught.value.fix
    assert not (media / "deltas").exists()
    deploy(device, load(made[0]))
    path = media / "bundles" / loaded.described.base.bundle_id / "manifest.json"
    path.write_text(path.read_text() + " ")
    with pytest.raises(DeviceError, match=rf"{wanted}.*but there its manifest is [0-9a-f]+"):
        delta.apply(device, loaded)
    assert list((media / "locks").iterdir()) == []


@pytest.mark.parametrize(
    ("behaviour", "message", "fix"),
    [
        ("fail", r"step\.pte: SHA-256 differs; push", "what was in use still is"),
        ("crash", "crashed", "run the command again"),
    ],
)
def test_a_harness_that_does_not_apply_it(
    device: Device,
    made: Bundles,
    monkeypatch: pytest.MonkeyPatch,
    behaviour: str,
    message: str,
    fix: str,
) -> None:
    deploy(device, load(made[0]))
    monkeypatch.setenv("APP_BEHAVIOUR", behaviour)
    with pytest.raises(DeviceError, match=message) as caught:
        delta.apply(device, delta.load(made[1]))
    assert fix in caught.value.fix


def test_a_run_that_goes_on_is_not_ended(device: Device, made: Bundles) -> None:
    deploy(device, load(made[0]))
    with (
        lock.hold(device, "harness", "a bench"),
        pytest.raises(DeviceError, match="harness is in use"),
    ):
        delta.apply(device, delta.load(made[1]))


def test_a_damaged_delta_is_refused_before_a_device_is_looked_for(
    made: Bundles, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(made[1], tmp_path / "damaged"))
    (folder / "result.json").write_text("{}")
    with pytest.raises(SparseRecError, match=r"result\.json: has 2 bytes, delta\.json says"):
        delta.load(folder)


def test_the_commands(sparserec: Callable[..., Any], made: Bundles) -> None:
    base, folder = made
    ran = sparserec("deploy", str(folder), "--device", "virtual")
    assert ran.code != 0
    assert "which is not there" in ran.err
    assert sparserec("deploy", str(base), "--device", "virtual").code == 0
    ran = sparserec("deploy", str(folder), "--device", "virtual")
    assert ran.code == 0, ran.err
    assert "and in use" in ran.out
    ran = sparserec("rollback", "--device", "virtual")
    assert (ran.code, "before: in use again" in ran.out) == (0, True)
    ran = sparserec("bench", str(folder), "--device", "virtual")
    assert ran.code != 0
    assert "is a delta, not a bundle" in ran.err
    assert "sparserec deploy DELTA" in ran.err


@pytest.mark.skipif(
    not os.access(default_harness(), os.X_OK),
    reason=f"{default_harness()} is not built: run `make setup`",
)
def test_the_whole_way_with_the_real_harness(
    made: Bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the device made is the host's, trains, and needs nothing sent to be benched."""
    base, folder = made
    monkeypatch.setattr(adb, "usb_phones", list)
    media = tmp_path / "phone" / ROOT.lstrip("/")
    out, quick = tmp_path / "report.json", Options(steps=20, evaluate=False)
    with choose(virtual_root=tmp_path / "phone") as phone:
        old, loaded = load(base), delta.load(folder)
        deploy(phone, old)
        before = run(phone, old.bundle_id, out, quick)
        delta.apply(phone, loaded)
        apply_delta(base, folder, tmp_path / "whole")
        new = load(tmp_path / "whole")
        assert deploy(phone, new).pushed == ()
        first = run(phone, new.bundle_id, out, quick)
        assert first["resumed_from_step"] is None
        assert first["state"] != before["state"]
        assert delta.rollback(phone) == old.bundle_id
        again = run(phone, old.bundle_id, out, quick)
        assert (again["resumed_from_step"], again["state"]) == (20, before["state"])
    state = json.loads((media / "bundles/generations.json").read_text())
    assert (state["current"]["bundle_id"], state["previous"]) == (old.bundle_id, None)
    assert {path.name for path in (media / "state").iterdir()} == {old.bundle_id, new.bundle_id}
