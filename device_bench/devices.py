"""Which devices there are, and the choice of the one to use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from device_bench import adb, adb_server, health, keys, virtual_process
from device_bench.adb import Device, Facts, Socket, UsbPhone, parse_address
from device_bench.adb_server import ServerPhone, ThroughServer
from device_bench.compat import incompatibility
from device_bench.device_errors import DeviceError
from device_bench.health import Health
from device_bench.virtual_process import Running
from sparserec.errors import SparseRecError

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
VIRTUAL = "virtual"

Address = tuple[str, int]
Phone = UsbPhone | ServerPhone
Target = Phone | Running | Address


@dataclass(frozen=True)
class Listed:
    """One line of ``sparserec devices``: ``facts`` where it is ready, ``problem`` where not.

    A device that is ready and that the app cannot run on has both.
    """

    name: str
    facts: Facts | None
    problem: SparseRecError | None
    transport: str = ""
    health: Health | None = None

    @property
    def state(self) -> str:
        """``ready``, ``unauthorised``, ``offline``, ``busy`` or ``no permission``."""
        if self.facts is not None:
            return "ready"
        return self.problem.state if isinstance(self.problem, DeviceError) else "offline"


def pick(wanted: str | None, phones: list[Phone], virtuals: list[Running]) -> Target | None:
    """The device that ``wanted`` names; None where a virtual device has to be started.

    Args:
        wanted: a serial, ``host:port``, ``virtual``, or None for the only phone, else a virtual
            device.
        phones: what is connected by USB or known to an adb server.
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
    return _named(wanted, phones, virtuals)


def _named(wanted: str, phones: list[Phone], virtuals: list[Running]) -> Target:
    for phone in phones:
        if phone.serial == wanted:
            return phone
    for virtual in virtuals:
        if wanted in (virtual.serial, virtual.address):
            return virtual
    address = parse_address(wanted)
    if address is not None:
        return address
    found = [*phones, *virtuals]
    connected = ", ".join(device.serial for device in found) or "none"
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
    virtuals = [] if virtual_root else virtual_process.running()
    phones, usb_problem = _phones(wanted, virtuals)
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


def _phones(wanted: str | None, virtuals: list[Running]) -> tuple[list[Phone], DeviceError | None]:
    """The phones there are, and why USB cannot be searched; not looked at where not wanted."""
    if wanted == VIRTUAL:
        return [], None
    known = {virtual.address for virtual in virtuals}
    served = [phone for phone in adb_server.phones() if phone.serial not in known]
    try:
        return merge(adb.usb_phones(), served), None
    except DeviceError as error:
        return list(served), error


def merge(plugged: list[UsbPhone], served: list[ServerPhone]) -> list[Phone]:
    """Every phone once: through the adb server where that has the device to itself.

    Args:
        plugged: what USB has; named by its port where not even its serial can be read.
        served: what the adb server knows, which may be any of these and others.
    """
    held = {name for phone in served if phone.held for name in (phone.serial, phone.usb_port)}
    own: list[Phone] = [phone for phone in plugged if phone.serial not in held]
    names = {phone.serial for phone in own}
    return own + [phone for phone in served if not names & {phone.serial, phone.usb_port}]


def _open(target: Target, say: Callable[[str], None], owner_seconds: float = 30.0) -> Device:
    """A device that is not connected yet; its key is made where it has none.

    Raises:
        DeviceError: the phone could not even be looked at.
    """

    def dialog() -> None:
        say("unlock the phone and accept 'Allow USB debugging?'")

    if isinstance(target, ServerPhone):
        return Device(target.serial, ThroughServer(target.serial))
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
    if isinstance(target, UsbPhone | ServerPhone):
        return target.serial
    if isinstance(target, Running):
        return target.address
    host, port = target
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _way(target: Target) -> str:
    """How a device is reached, as ``Transport.kind`` says it."""
    if isinstance(target, ServerPhone):
        return ThroughServer.kind
    return "USB" if isinstance(target, UsbPhone) else "TCP"


def _loopback_keys() -> list[Path]:
    """An emulator or a virtual device listens here: no need to make the user a key."""
    users = keys.user_key_path()
    return [*([keys.ensure_key(users)] if users.exists() else []), keys.virtual_key()]


def survey(addresses: list[Address]) -> tuple[list[Listed], DeviceError | None]:
    """Look at all phones, at the running virtual devices and at ``addresses``, all at once.

    Returns:
        The devices, and why USB could not be searched, None if it was.
    """
    virtuals = virtual_process.running()
    phones, usb_problem = _phones(None, virtuals)
    known = {_name(target) for target in (*phones, *virtuals)}
    others = [address for address in addresses if _name(address) not in known]
    targets: list[Target] = [*phones, *virtuals, *others]
    with ThreadPoolExecutor(max(1, len(targets))) as pool:
        return list(pool.map(_look, targets)), usb_problem


def _look(target: Target) -> Listed:
    """Connect for a moment; an owner's dialog is not waited for."""
    name, way = _name(target), _way(target)
    try:
        device = _open(target, lambda _: None, owner_seconds=2.0)
        device.connect(timeout=3.0)
        try:
            facts = device.facts()
            return Listed(name, facts, incompatibility(name, facts), way, health.read(device))
        finally:
            device.close()
    except SparseRecError as error:
        return Listed(name, None, error, way)
