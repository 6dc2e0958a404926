"""Waiting until a device is as cool as the plan wants it, so that runs start alike."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from device_bench import health
from device_bench.adb import Device
from device_bench.plan import CoolDown

POLL_SECONDS = 5.0


@dataclass(frozen=True)
class Heat:
    """How warm a device is; None where that cannot be read."""

    status: int | None
    """Android's thermal status, 0 none to 6 shutdown."""
    battery_celsius: float | None


def read(device: Device) -> Heat:
    """How warm the device is; a virtual device and most emulators have no sensors.

    Raises:
        DeviceError: the connection failed.
    """
    status = health.thermal_status(device.shell("dumpsys thermalservice").output)
    return Heat(
        status=status, battery_celsius=battery_celsius(device.shell("dumpsys battery").output)
    )


def battery_celsius(text: str) -> float | None:
    """The temperature in what ``dumpsys battery`` printed, in tenths of a degree there."""
    found = re.search(r"^\s*temperature: (-?\d+)\s*$", text, re.MULTILINE)
    return int(found[1]) / 10 if found else None


def is_cool(now: Heat, wanted: CoolDown) -> bool:
    """Whether a run may start; what cannot be read keeps nobody waiting."""
    return (now.status is None or now.status <= wanted.thermal_status) and (
        now.battery_celsius is None or now.battery_celsius <= wanted.battery_celsius
    )


def wait(
    device: Device,
    wanted: CoolDown,
    show: Callable[[Heat, float], None],
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[Heat, float]:
    """Wait until the device is cool enough, at most as long as the plan says.

    Args:
        device: connected.
        wanted: how cool, and for how long that is waited for.
        show: told of each reading that is too warm, and the seconds that are left.
        sleep: waits; may raise to end the waiting.
        clock: seconds that only grow.

    Returns:
        The last reading, which may still be too warm, and the seconds that were waited.

    Raises:
        DeviceError: the connection failed.
    """
    started = clock()
    while True:
        now = read(device)
        waited = clock() - started
        left = wanted.wait_seconds - waited
        if is_cool(now, wanted) or left <= 0:
            return now, waited
        show(now, left)
        sleep(min(POLL_SECONDS, left))
