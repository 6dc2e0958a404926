"""Deploying to a virtual device: what is sent, and what a fault leaves behind."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from device_bench import deploy as deploying
from device_bench import keys, lock, retry, transfer
from device_bench.adb import Device, Facts, Socket
from device_bench.bundle import Bundle
from device_bench.deploy import ROOT, deploy
from device_bench.device_errors import DeviceError
from device_bench.virtual import VirtualDevice
from export.manifest import NAME as MANIFEST


@pytest.fixture
def folder(virtual: VirtualDevice, bundle: Bundle) -> Path:
    """The bundle's folder on the device, seen from the host."""
    return virtual.device.files.root / ROOT.lstrip("/") / "bundles" / bundle.bundle_id


def test_every_file_arrives_and_the_manifest_last(
    device: Device, bundle: Bundle, folder: Path
) -> None:
    seen: list[tuple[str, int, int | None]] = []
    done = deploy(device, bundle, lambda what, at, total: seen.append((what, at, total)))
    assert {path.name for path in folder.iterdir()} == {file.name for file in bundle.files}
    for file in bundle.files:
        assert (folder / file.name).read_bytes() == (bundle.path / file.name).read_bytes()
    assert done.pushed[-1] == MANIFEST
    assert done.bytes == sum(file.size for file in bundle.files)
    assert seen[-1][1] == seen[-1][2] == done.bytes // 1000


def test_the_caller_keeps_its_lock_while_a_bundle_is_pushed(
    device: Device, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "PIECE_SECONDS", 0.0)
    monkeypatch.setattr(lock, "LEASE_SECONDS", 0)
    with lock.hold(device, "harness", "a bench") as held:
        shown = []

        def alive() -> None:
            held.refresh()
            shown.append(held.shown)

        deploy(device, bundle, alive=alive)
    assert len(shown) > 10


def test_the_caller_keeps_its_lock_while_another_deploys(
    device: Device, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "POLL_SECONDS", 0.01)
    name = f"bundle-{bundle.bundle_id}"
    calls = []
    with contextlib.ExitStack() as stack:
        stack.enter_context(lock.hold(device, name, "deploying"))

        def alive() -> None:
            calls.append(0)
            if len(calls) == 3:
                stack.close()

        deploy(device, bundle, alive=alive)
    assert len(calls) >= 3


def test_second_time_sends_nothing(device: Device, bundle: Bundle, folder: Path) -> None:
    deploy(device, bundle)
    times = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert deploy(device, bundle).pushed == ()
    assert times == {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_only_the_changed_file_and_the_manifest_are_sent(
    device: Device, bundle: Bundle, folder: Path
) -> None:
    deploy(device, bundle)
    (folder / "step.pte").write_bytes(b"something else")
    assert deploy(device, bundle).pushed == ("step.pte", MANIFEST)
    assert (folder / "step.pte").read_bytes() == (bundle.path / "step.pte").read_bytes()


def spoil(
    device: Device, monkeypatch: pytest.MonkeyPatch, name: str, action: Callable[[str], None]
) -> None:
    """Let ``action`` happen on the device after the file ``name`` was pushed."""
    push = device.push_bytes

    def spoiled(file: BinaryIO, size: int, target: str, *rest: Any) -> None:
        push(file, size, target, *rest)
        if target.endswith(f"/{name}.part"):
            action(target)

    monkeypatch.setattr(device, "push_bytes", spoiled)


def test_byte_flipped_on_the_way_is_found(
    device: Device,
    bundle: Bundle,
    folder: Path,
    virtual: VirtualDevice,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def flip(target: str) -> None:
        path = virtual.device.files.resolve(target)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0x10
        path.write_bytes(data)

    spoil(device, monkeypatch, "table.safetensors", flip)
    with pytest.raises(DeviceError, match=r"table\.safetensors arrived damaged"):
        deploy(device, bundle)
    names = {path.name for path in folder.iterdir()}
    assert not names & {"table.safetensors", "table.safetensors.part", MANIFEST}


def test_interrupted_push_leaves_no_final_name_and_can_be_repeated(
    device: Device, bundle: Bundle, folder: Path
) -> None:
    def interrupt(what: str, at: int, total: int | None) -> None:
        if what.startswith("push: table") and at > 1000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        deploy(device, bundle, interrupt)
    names = {path.name for path in folder.iterdir()}
    assert not names & {"table.safetensors", MANIFEST}
    device.connect()
    assert "score.pte" not in deploy(device, bundle).pushed
    assert {path.name for path in folder.iterdir()} >= {file.name for file in bundle.files}


def test_device_that_goes_away_in_a_push(
    device: Device,
    bundle: Bundle,
    folder: Path,
    virtual: VirtualDevice,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spoil(device, monkeypatch, "score.pte", lambda target: virtual.stop())
    monkeypatch.setattr(retry, "PAUSE_SECONDS", 0.0)
    with pytest.raises(DeviceError, match=r"refused.*5 times in a row"):
        deploy(device, bundle)
    assert MANIFEST not in {path.name for path in folder.iterdir()}


def test_replacing_takes_the_manifest_away_first(
    device: Device, bundle: Bundle, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deploy(device, bundle)
    (folder / "step.pte").write_bytes(b"old")

    def fail(*_: object) -> None:
        assert MANIFEST not in {path.name for path in folder.iterdir()}
        raise DeviceError("gone")

    monkeypatch.setattr(device, "push_bytes", fail)
    with pytest.raises(DeviceError, match="gone"):
        deploy(device, bundle)


FACTS = Facts("S", "phone", "Pixel", ("arm64-v8a",), 34, "14", 1 << 40)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"abis": ("armeabi-v7a",)}, "ABI is armeabi-v7a"),
        ({"sdk": 25, "release": "7.1"}, r"Android 7\.1 \(SDK 25\) is too old"),
        ({"free_bytes": 1 << 20}, "1 MiB free, 67 MiB needed"),
    ],
)
def test_device_that_does_not_fit(
    device: Device,
    bundle: Bundle,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, object],
    message: str,
) -> None:
    monkeypatch.setattr(device, "facts", lambda: replace(FACTS, **changes))  # type: ignore[arg-type]
    with pytest.raises(DeviceError, match=message):
        deploy(device, bundle)
    assert not folder.exists() or not list(folder.iterdir())


def test_figures_that_cannot_be_read_do_not_hinder(
    device: Device, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = replace(FACTS, abis=(), sdk=None, free_bytes=None)
    monkeypatch.setattr(device, "facts", lambda: facts)
    assert deploy(device, bundle).pushed


def test_missing_app(
    device: Device, bundle: Bundle, app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app.unlink()
    with pytest.raises(DeviceError, match="harness is not built"):
        deploying.check(device)
    monkeypatch.setattr(device, "facts", lambda: FACTS)
    with pytest.raises(DeviceError, match="not installed") as caught:
        deploy(device, bundle)
    assert "virtual" in caught.value.fix


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    drops=st.lists(
        st.tuples(
            st.sampled_from(["shell:", "shell:sha256sum", "shell:mkdir", "shell:mv", "sync:"]),
            st.integers(1, 4),
            st.integers(0, 100_000),
            st.booleans(),
        ),
        min_size=1,
        max_size=3,
    )
)
@pytest.mark.usefixtures("_no_pauses")
def test_connection_may_drop_anywhere(
    bundle: Bundle,
    app: Path,
    tmp_path_factory: pytest.TempPathFactory,
    drops: list[tuple[str, int, int, bool]],
) -> None:
    wire = [
        {
            "action": "drop",
            "service": service,
            "nth": nth,
            "at_byte": at if service == "sync:" and not back else at % 200,
            "direction": "from_device" if back else "to_device",
        }
        for service, nth, at, back in drops
    ]
    key, root = keys.virtual_key(), tmp_path_factory.mktemp("phone")
    options = {"authorized_keys": [keys.public(key)], "harness": app}
    with VirtualDevice(root, faults={"wire": wire}, **options) as phone:  # type: ignore[arg-type]
        with Device("phone", Socket(phone.host, phone.port), [key]) as device:
            deploy(device, bundle)
        media = phone.device.files.root / ROOT.lstrip("/")
    folder = media / "bundles" / bundle.bundle_id
    assert {path.name for path in folder.iterdir()} == {file.name for file in bundle.files}
    for file in bundle.files:
        assert (folder / file.name).read_bytes() == (bundle.path / file.name).read_bytes()
    assert list((media / "locks").iterdir()) == []
