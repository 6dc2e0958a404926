"""The commands that reach a device: devices, deploy, virtual-device."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from device_bench import bundle as bundles
from device_bench import devices as device_list
from device_bench import keys, virtual_process
from device_bench.adb import parse_address
from device_bench.bundle import Bundle
from device_bench.deploy import Deployed
from device_bench.deploy import deploy as deploy_bundle
from device_bench.options import DeviceName, say_to
from sparserec.errors import SparseRecError
from sparserec.progress import bars

BundlePath = Annotated[
    Path, typer.Argument(metavar="BUNDLE", help="Directory that `sparserec export` wrote.")
]


def devices(
    connect: Annotated[
        list[str] | None,
        typer.Option(
            "--connect",
            metavar="HOST:PORT",
            help="Look also at this address: an emulator, or a phone after `adb tcpip 5555`. "
            "May be given several times.",
        ),
    ] = None,
) -> None:
    """List the devices that can be used: phones on USB, running virtual devices, addresses."""
    from device_bench.device_table import show_devices

    addresses = []
    for text in connect or []:
        address = parse_address(text)
        if address is None:
            raise SparseRecError(f"--connect {text}: not HOST:PORT", "write it like 10.0.0.7:5555")
        addresses.append(address)
    console = Console()
    found, usb_problem = device_list.survey(addresses)
    if found:
        show_devices(console, found)
    if usb_problem is not None:
        console.print(f"[yellow]{escape(usb_problem.message)}[/]", soft_wrap=True)
        console.print(f"  fix: {escape(usb_problem.fix)}", soft_wrap=True)
    if not any(device.facts for device in found):
        console.print(
            "No device is ready. `sparserec deploy` and `sparserec bench` will start a virtual "
            "device on this computer.",
            soft_wrap=True,
        )


def deploy(
    bundle: BundlePath,
    device: DeviceName = None,
    apk: Annotated[
        Path | None, typer.Option(metavar="APK", help="The Android app to install first.")
    ] = None,
    build_app: Annotated[
        bool,
        typer.Option("--build-app", help="Build the Android app for the phone first, if possible."),
    ] = False,
) -> None:
    """Bring the app and a bundle, or a delta, to a device.

    The app is installed or updated if an APK is given or was built (`sparserec apk`). What is there
    already is not sent again, and what broke off goes on. A delta (`sparserec export --since`) goes
    to a device that holds the bundle that it is for, which makes the new one of the two.
    """
    from device_bench import delta, delta_commands, install
    from export.delta import is_delta

    console = Console()
    with bars() as progress:
        checked = delta.load(bundle) if is_delta(bundle) else bundles.load(bundle, progress)
    say = say_to(console)
    with device_list.choose(device, say=say) as connected:
        with bars() as progress:
            install.provide(connected, apk, build=build_app, say=say, progress=progress)
        if isinstance(checked, delta.LoadedDelta):
            delta_commands.deploy_delta(console, connected, checked)
            return
        with bars() as progress:
            done = deploy_bundle(connected, checked, progress)
        _show_deployed(console, checked, done)


def virtual_device(
    root: Annotated[
        Path | None,
        typer.Option(help="Directory of its files. Default: one in the state folder."),
    ] = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port on loopback; 0 takes a free one.")
    ] = 0,
    count: Annotated[int, typer.Option(min=1, max=64, help="How many devices to run.")] = 1,
    fault: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TOML",
            help="What is to go wrong, such as 'latency_ms = 20' (docs/virtual-device.md). "
            "May be given several times.",
        ),
    ] = None,
    faults: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The same from a TOML or JSON file.")
    ] = None,
) -> None:
    """Run virtual devices until Ctrl-C. They speak adb and listen on loopback only.

    Other sparserec commands find them by themselves; stock adb can connect to them too.
    """
    console = Console()
    options = [f"--fault={line}" for line in fault or []]
    options += ["--faults", str(faults)] if faults else []
    with virtual_process.start_listed(count, root, port, options=options) as devices:
        for device in devices:
            console.print(
                f"virtual device [bold]{device.serial}[/] on [bold]{device.address}[/], "
                f"files in {device.root}",
                soft_wrap=True,
            )
        device = devices[0]
        console.print(f"  sparserec bench BUNDLE --device {device.address}", soft_wrap=True)
        if not keys.public(keys.user_key_path()).exists():
            console.print(
                "  for stock adb, once: adb kill-server; "
                f"ADB_VENDOR_KEYS={keys.virtual_key()} adb start-server",
                soft_wrap=True,
            )
        console.print(f"  adb connect {device.address}")
        console.print("Ctrl-C stops it.")
        try:
            virtual_process.wait(devices)
        except KeyboardInterrupt:
            console.print("stopped")
            return
    raise SparseRecError("a virtual device ended by itself", "start it again")


def _show_deployed(console: Console, bundle: Bundle, done: Deployed) -> None:
    kept = len(bundle.files) - len(done.pushed)
    rate = f", {done.bytes / 1e6 / done.seconds:.1f} MB/s" if done.bytes and done.seconds else ""
    console.print(
        f"{bundle.bundle_id}: {len(done.pushed)} files pushed "
        f"({done.bytes / 1e6:.2f} MB{rate}), {kept} were there already",
        soft_wrap=True,
    )
