"""The commands that reach a device: devices, deploy, bench, report, virtual-device."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

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
from sparserec.errors import SparseRecError
from sparserec.progress import bars

BundlePath = Annotated[
    Path, typer.Argument(metavar="BUNDLE", help="Directory that `sparserec export` wrote.")
]
DeviceName = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="SERIAL|HOST:PORT|virtual",
        help="The device to use. Default: the only connected phone, else a virtual device.",
    ),
]
INTERRUPTED = 130


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
    from device_bench.summary import show_devices

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


def deploy(bundle: BundlePath, device: DeviceName = None) -> None:
    """Push a bundle to a device. Files that are there already are not sent again."""
    console = Console()
    with bars() as progress:
        checked = bundles.load(bundle, progress)
    with device_list.choose(device, say=_say(console)) as connected:
        with bars() as progress:
            done = deploy_bundle(connected, checked, progress)
        _show_deployed(console, checked, done)


def bench(
    bundle: BundlePath,
    device: DeviceName = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Train up to this step. Default: the bundle's.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of the runtime. Default: 1.")
    ] = None,
    checkpoint_every: Annotated[
        int | None, typer.Option(min=1, help="Steps between checkpoints. Default: 100.")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start over, whatever checkpoints the device has.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Where report.json and report.html go. Default: runs/<bundle id>."),
    ] = None,
) -> None:
    """Train on a device, fetch the report and render it.

    Pushes the bundle first. Ctrl-C stops the run on the device.

    The exit code is 0 if the run succeeded and its losses equal the host's.
    """
    from device_bench import run as runs

    console = Console()
    options = runs.Options(steps, threads, checkpoint_every, fresh=fresh)
    with bars() as progress:
        checked = bundles.load(bundle, progress)
    folder = out or Path("runs") / checked.bundle_id
    target = folder / "report.json"
    try:
        with device_list.choose(device, say=_say(console)) as connected:
            with bars() as progress:
                done = deploy_bundle(connected, checked, progress)
            _show_deployed(console, checked, done)
            with bars() as progress:
                report = runs.run(connected, checked.bundle_id, target, options, progress)
    except runs.RunFailedError as error:
        if error.report is not None:
            _show(console, error.report, folder / "report.html", checked.golden)
        raise
    except KeyboardInterrupt:
        console.print("stopped; the next run goes on from the newest checkpoint")
        raise typer.Exit(INTERRUPTED) from None
    _show(console, report, folder / "report.html", checked.golden)
    _fail_if_failed(report)


def report(
    path: Annotated[Path, typer.Argument(metavar="REPORT.json", help="A run's report.")],
    html: Annotated[Path | None, typer.Option(help="Write the page to this file.")] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(help="The run's bundle: the host's losses are drawn over the device's."),
    ] = None,
) -> None:
    """Show a report as a table, and with --html as a page of one file.

    The exit code is 0 if the run succeeded and its losses equal the host's.
    """
    from device_bench import report as reports

    console = Console()
    golden = None if bundle is None else bundles.load(bundle).golden
    found = reports.read(path)
    _show(console, found, html, golden)
    _fail_if_failed(found)


def virtual_device(
    root: Annotated[
        Path | None,
        typer.Option(help="Directory of its files. Default: one in the state folder."),
    ] = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port on loopback; 0 takes a free one.")
    ] = 0,
) -> None:
    """Run a virtual device until Ctrl-C. It speaks adb and listens on loopback only.

    Other sparserec commands find it by themselves; stock adb can connect to it too.
    """
    console = Console()
    with virtual_process.start(root, port) as device, virtual_process.listed(device):
        console.print(f"virtual device on [bold]{device.address}[/], files in {device.root}")
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
            virtual_process.wait(device)
        except KeyboardInterrupt:
            console.print("stopped")
            return
    raise SparseRecError("the virtual device ended by itself", "start it again")


def _say(console: Console) -> Any:
    return lambda text: console.print(f"[bold]device:[/] {escape(text)}", soft_wrap=True)


def _show_deployed(console: Console, bundle: Bundle, done: Deployed) -> None:
    kept = len(bundle.files) - len(done.pushed)
    rate = f", {done.bytes / 1e6 / done.seconds:.1f} MB/s" if done.bytes and done.seconds else ""
    console.print(
        f"{bundle.bundle_id}: {len(done.pushed)} files pushed "
        f"({done.bytes / 1e6:.2f} MB{rate}), {kept} were there already",
        soft_wrap=True,
    )


def _show(
    console: Console, report: dict[str, Any], html: Path | None, golden: dict[str, Any] | None
) -> None:
    from device_bench.report import render_html
    from device_bench.summary import show_report

    show_report(console, report)
    if html is not None:
        render_html(report, html, golden)
        console.print(f"report: {escape(str(html))}", soft_wrap=True)


def _fail_if_failed(report: dict[str, Any]) -> None:
    from device_bench.report import failure

    if failure(report) is not None:
        raise typer.Exit(1)
