"""What the terminal shows of devices."""

from __future__ import annotations

from rich import box
from rich.console import Console, JustifyMethod
from rich.markup import escape
from rich.table import Table

from device_bench import units
from device_bench.devices import Listed
from device_bench.health import Health
from device_bench.units import THERMAL_STATES

_RIGHT = ("SDK", "Free", "Battery")
_ALWAYS = ("Device", "State", "By")


def show_devices(console: Console, found: list[Listed]) -> None:
    """Print a line for each device, and below what keeps those from being used that cannot be.

    A column in which no device has anything is left out.
    """
    rows = [_row(device) for device in found]
    names = [name for name in rows[0] if name in _ALWAYS or any(row[name] for row in rows)]
    table = Table(title="Devices", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in names:
        side: JustifyMethod = "right" if name in _RIGHT else "left"
        table.add_column(name, justify=side, no_wrap=name != "Model", overflow="fold")
    for row in rows:
        table.add_row(*(row[name] for name in names))
    console.print(table)
    for device in found:
        if device.problem is not None:
            console.print(f"[yellow]{escape(device.problem.message)}[/]", soft_wrap=True)
            console.print(f"  fix: {escape(device.problem.fix)}", soft_wrap=True)


def _row(device: Listed) -> dict[str, str]:
    """A device's cells by column, all of them; empty where the device does not say."""
    facts = device.facts
    color = "yellow" if facts is None else "green"
    row = dict.fromkeys((*_ALWAYS, "Model", "ABI", *_RIGHT, "Heat", "App"), "")
    row |= {"Device": escape(device.name), "State": f"[{color}]{device.state}[/]"}
    row["By"] = device.transport
    if facts is None:
        return row
    row["Model"] = escape(facts.model) + (" (emulator)" if facts.kind == "emulator" else "")
    row["ABI"] = facts.abis[0] if facts.abis else ""
    row["SDK"] = "" if facts.sdk is None else str(facts.sdk)
    row["Free"] = units.size(facts.free_bytes)
    row["App"] = "[green]yes[/]" if device.problem is None else "[yellow]no[/]"
    return row | _health(device.health)


def _health(found: Health | None) -> dict[str, str]:
    if found is None:
        return {}
    level, heat = found.battery_percent, found.thermal_status
    charging = " charging" if found.charging else ""
    return {
        "Battery": "" if level is None else f"{level} %{charging}",
        "Heat": "" if heat is None else THERMAL_STATES[heat],
    }
