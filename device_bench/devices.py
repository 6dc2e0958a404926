"""Which devices there are, and the choice of the one to use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from device_bench import adb, keys, virtual_process
from device_bench.adb import Device, Facts, Socket, UsbPhone, parse_address
from device_bench.device_errors import DeviceError
from device_bench.virtual_process import Running
from sparserec.errors import SparseRecError

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
VIRTUAL = "virtual"

Address = tuple[str, int]
Target = UsbPhone | Running | Address


@dataclass(frozen=True)
class Listed:
    """One line of ``sparserec devices``: ``facts`` where it is ready, ``problem`` where not."""

    name: str
    facts: Facts | None
    problem: SparseRecError | None

    @property
    def state(self) -> str:
        """``ready``, ``unauthorised``, ``offline``, ``busy`` or ``no permission``."""
        if self.facts is not None:
            return "ready"
        return self.problem.state if isinstance(self.problem, DeviceError) else "offline"


def pick(wanted: str | None, phones: list[UsbPhone], virtuals: list[Running]) -> Target | None:
    """The device that ``wanted`` names; None where a virtual device has to be started.

    Args:
        wanted: a serial, ``host:port``, ``virtual``, or None for the only phone, else a virtual
            device.
        phones: what is connected by USB.
        virtuals: virtual devices that run.

    Raises:
        SparseRecError: several devices fit, or none does.
    """
    if wanted is None and len(phones) == 1:
        return phones[0]
    if wanted is None and phones:
        raise SparseRecError(
            f"several phones are connected: {', '.join(phone.serial for phone in phones)}",
            f"choose one with --device, such as --device {phones[0].serial}",
        )
    if wanted is None or wanted == VIRTUAL:
        if len(virtuals) > 1:
            addresses = ", ".join(device.address for device in virtuals)
            raise SparseRecError(
                f"several virtual devices run: {addresses}",
                f"choose one with --device, such as --device {virtuals[0].address}",
            )
        return virtuals[0] if virtuals else None
    for phone in phones:
        if phone.serial == wanted:
            return phone
    address = parse_address(wanted)
    if address is not None:
        return address
    connected = ", ".join(phone.serial for phone in phones) or "none"
    raise SparseRecError(
        f"no device {wanted!r} is connected (connected: {connected})",
        "give a serial that `sparserec devices` lists, HOST:PORT, or 'virtual'",
    )


@contextmanager
def choose(
    wanted: str | None = None,
    *,
    say: Callable[[str], None] = lambda _: None,
    virtual_root: Path | None = None,
) -> Iterator[Device]:
    """Yield a connected device; a virtual one is started if need be and ends with the block.

    Args:
        wanted: a serial, ``host:port``, ``virtual``, or None for the only connected phone, else
            a virtual device.
        say: told in one line which device is used, and when a phone waits for its owner.
        virtual_root: files of a virtual device that is started for this block only; one that runs
            already is then not used.

    Raises:
        SparseRecError: several devices fit or none does, or it cannot be connected.
    """
    phones, usb_problem = _phones(wanted)
    virtuals = [] if virtual_root else virtual_process.running()
    target = pick(wanted, phones, virtuals)
    if target is None:
        with virtual_process.start(virtual_root) as started:
            say(f"{_why(wanted, usb_problem)}using a virtual device, started on {started.address}")
            with _open(started, say) as device:
                yield device
        return
    if isinstance(target, Running):
        say(f"{_why(wanted, usb_problem)}using the virtual device that runs on {target.address}")
    with _open(target, say) as device:
        yield device


def _why(wanted: str | None, usb_problem: DeviceError | None) -> str:
    """Why a virtual device is used that was not asked for."""
    if wanted is not None:
        return ""
    return f"{usb_problem.message}: " if usb_problem else "no phone is connected: "


def _phones(wanted: str | None) -> tuple[list[UsbPhone], DeviceError | None]:
    """The phones on USB, and why they cannot be searched; not looked at where not wanted."""
    if wanted == VIRTUAL:
        return [], None
    try:
        return adb.usb_phones(), None
    except DeviceError as error:
        return [], error


def _open(target: Target, say: Callable[[str], None], owner_seconds: float = 30.0) -> Device:
    """A device that is not connected yet; its key is made where it has none.

    Raises:
        DeviceError: the phone could not even be looked at.
    """

    def dialog() -> None:
        say("unlock the phone and accept 'Allow USB debugging?'")

    if isinstance(target, UsbPhone):
        if target.problem is not None:
            raise target.problem
        transport, known = target.transport, [keys.user_key()]
    elif isinstance(target, Running):
        transport, known = Socket(target.host, target.port), [keys.virtual_key()]
    else:
        transport = Socket(*target)
        known = _loopback_keys() if target[0] in _LOOPBACK else [keys.user_key()]
    return Device(_name(target), transport, known, wait_for_owner=owner_seconds, on_dialog=dialog)


def _name(target: Target) -> str:
    if isinstance(target, UsbPhone):
        return target.serial
    if isinstance(target, Running):
        return target.address
    host, port = target
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _loopback_keys() -> list[Path]:
    """An emulator or a virtual device listens here: no need to make the user a key."""
    users = keys.user_key_path()
    return [*([keys.ensure_key(users)] if users.exists() else []), keys.virtual_key()]


def survey(addresses: list[Address]) -> tuple[list[Listed], DeviceError | None]:
    """Look at the phones on USB, at the running virtual devices and at ``addresses``.

    Returns:
        The devices, and why USB could not be searched, None if it was.
    """
    phones, usb_problem = _phones(None)
    targets: list[Target] = [*phones, *virtual_process.running(), *addresses]
    return [_look(target) for target in targets], usb_problem


def _look(target: Target) -> Listed:
    """Connect for a moment; an owner's dialog is not waited for."""
    try:
        device = _open(target, lambda _: None, owner_seconds=2.0)
        with device:
            return Listed(_name(target), device.facts(), None)
    except SparseRecError as error:
        return Listed(_name(target), None, error)
