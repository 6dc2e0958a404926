"""What devices print of battery and temperature, and whether the app can run on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_bench import health
from device_bench.adb import Device, Facts
from device_bench.compat import abi_of, incompatibility
from device_bench.virtual import VirtualDevice

# As Android 13 prints them (AOSP BatteryService.dumpInternal, ThermalManagerService.dump).
BATTERY = """Current Battery Service state:
  AC powered: false
  USB powered: true
  Wireless powered: false
  Dock powered: false
  Max charging current: 500000
  status: 2
  health: 2
  present: true
  level: 45
  scale: 50
  voltage: 4120
  temperature: 251
  technology: Li-ion
"""
THERMAL = """IsStatusOverride: false
ThermalEventListeners:
	callbacks: 2
Thermal Status: 2
Cached temperatures:
 Temperature{mValue=31.5, mType=3, mName=skin, mStatus=0}
HAL Ready: true
"""


def test_battery() -> None:
    assert health.battery(BATTERY) == (90, True)
    assert health.battery(BATTERY.replace("USB powered: true", "USB powered: false")) == (90, False)
    assert health.battery("Current Battery Service state:\n  present: false\n") == (None, None)
    assert health.battery("Can't find service: battery") == (None, None)
    assert health.battery("  level: 5\n  scale: 0\n") == (None, None)


def test_thermal_status() -> None:
    assert health.thermal_status(THERMAL) == 2
    assert health.thermal_status("HAL Ready: false") is None
    assert health.thermal_status("Thermal Status: 9\n") is None


@given(st.text())
def test_any_text_is_read_or_passed_over(text: str) -> None:
    percent, _ = health.battery(text)
    assert percent is None or percent >= 0
    assert health.thermal_status(text) in (None, *range(7))


def test_what_a_device_says(phone_with: Callable[..., tuple[Device, VirtualDevice]]) -> None:
    device, _ = phone_with(
        battery={"level": 9, "charging": True}, thermal=[{"after_seconds": 0, "status": 3}]
    )
    assert health.read(device) == health.Health(9, True, 3)


FACTS = Facts("S", "phone", "Pixel", ("arm64-v8a", "armeabi-v7a"), 34, "14", 1 << 40, 4096)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        ({"page_bytes": 16384}, None),
        ({"abis": (), "sdk": None, "page_bytes": None}, None),
        ({"page_bytes": 65536}, "pages of 64 KiB"),
        ({"abis": ("armeabi-v7a",)}, "its ABI is armeabi-v7a"),
        ({"sdk": 25, "release": "7.1"}, "SDK 25"),
    ],
)
def test_compatibility(changes: dict[str, object], words: str | None) -> None:
    found = incompatibility("S", replace(FACTS, **changes))  # type: ignore[arg-type]
    if words is None:
        assert found is None
    else:
        assert found is not None
        assert words in found.message
        assert found.fix


def test_abi_is_the_devices_best() -> None:
    assert abi_of(FACTS) == "arm64-v8a"
    assert abi_of(replace(FACTS, abis=("armeabi-v7a", "x86_64", "arm64-v8a"))) == "x86_64"
    assert abi_of(replace(FACTS, abis=("riscv64",))) is None
