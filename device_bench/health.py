"""A device's battery and temperature, as its own services print them; None where they do not."""

from __future__ import annotations

import re
from dataclasses import dataclass

from device_bench.adb import Device
from device_bench.units import THERMAL_STATES


@dataclass(frozen=True)
class Health:
    """What a device says of itself at one moment."""

    battery_percent: int | None
    charging: bool | None
    thermal_status: int | None
    """0 to 6, see THERMAL_STATES."""


def read(device: Device) -> Health:
    """Ask a connected device.

    Raises:
        ConnectionLostError: the connection failed.
    """
    percent, charging = battery(device.shell("dumpsys battery").output)
    return Health(percent, charging, thermal_status(device.shell("dumpsys thermalservice").output))


def battery(text: str) -> tuple[int | None, bool | None]:
    """Level in percent, and whether it is on a charger, out of ``dumpsys battery``."""
    values = dict(re.findall(r"^ *([A-Za-z ]+): *(\S+) *$", text, re.MULTILINE))
    if values.get("present", "true") == "false":
        return None, None
    powered = [value == "true" for name, value in values.items() if name.endswith(" powered")]
    level, scale = values.get("level", ""), values.get("scale", "100")
    if not level.isdecimal() or not scale.isdecimal() or int(scale) == 0:
        return None, any(powered) if powered else None
    return round(100 * int(level) / int(scale)), any(powered) if powered else None


def thermal_status(text: str) -> int | None:
    """Android's thermal status, 0 to 6, out of ``dumpsys thermalservice``."""
    found = re.search(r"^ *Thermal Status: (\d)\s*$", text, re.MULTILINE)
    status = int(found[1]) if found else None
    return status if status is not None and status < len(THERMAL_STATES) else None
