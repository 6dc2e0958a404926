"""``sparserec rollback``, and what ``sparserec deploy`` does with a delta."""

from __future__ import annotations

from rich.console import Console

from device_bench import delta as deltas
from device_bench import devices as device_list
from device_bench.adb import Device
from device_bench.delta import LoadedDelta
from device_bench.options import DeviceName, say_to
from sparserec.progress import bars


def rollback(device: DeviceName = None) -> None:
    """Let a device use the bundle again that the last delta was applied to.

    What was trained from it is there as it was. What was trained from the new one stays too, but
    the new bundle itself is removed; `sparserec deploy` of the delta brings it back.
    """
    console = Console(highlight=False)
    with device_list.choose(device, say=say_to(console)) as connected:
        with bars() as progress:
            bundle_id = deltas.rollback(connected, progress)
        console.print(f"{bundle_id}: in use again", soft_wrap=True)


def deploy_delta(console: Console, device: Device, delta: LoadedDelta) -> None:
    """Bring a delta to a device, and say what that took."""
    with bars() as progress:
        done = deltas.apply(device, delta, progress)
    console.print(
        f"{delta.described.result.bundle_id}: made there of {delta.described.base.bundle_id} and "
        f"a delta of {done.bytes / 1e6:.2f} MB, and in use; the whole has "
        f"{delta.result_bytes / 1e6:.2f} MB",
        soft_wrap=True,
        highlight=False,
    )
    console.print("  go back: sparserec rollback", highlight=False)
