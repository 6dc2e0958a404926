"""The demo's part on the device."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from device_bench import bundle as bundles
from device_bench import devices, lock
from device_bench.adb import Device, Socket
from device_bench.bundle import Bundle
from device_bench.device_errors import DeviceError
from device_bench.keys import virtual_key
from device_bench.lock import LockedError
from device_bench.virtual import VirtualDevice
from sparserec import demo


@pytest.fixture
def on_toy(device: Device, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """The demo's device is the virtual one, and its bundle the small one, which it returns."""

    def choose(*_: object, **__: object) -> Any:
        return nullcontext(device)

    monkeypatch.setattr(devices, "choose", choose)
    monkeypatch.setattr(bundles, "load", lambda *_: bundle)
    return bundle


def test_demo_leaves_a_device_alone_that_a_bench_uses(
    on_toy: Bundle, virtual: VirtualDevice, tmp_path: Path
) -> None:
    other = Device("other", Socket(virtual.host, virtual.port), [virtual_key()])
    with other, lock.harness(other, "a bench"):
        with pytest.raises(LockedError, match="in use: a bench"):
            demo._learn(None, on_toy.path, tmp_path, {})
        assert not (tmp_path / "report.json").exists()


@pytest.mark.usefixtures("trains_by_hand")
def test_demo_does_not_end_what_the_app_trains(on_toy: Bundle, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="the app trains there"):
        demo._learn(None, on_toy.path, tmp_path, {})
