"""Sending a file over connections that break, to storage that is full, damaged or shared."""

from __future__ import annotations

import hashlib
import multiprocessing
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from device_bench import keys, transfer
from device_bench.adb import Device, Socket
from device_bench.bundle import Bundle
from device_bench.deploy import deploy
from device_bench.device_errors import ConnectionLostError, DeviceError
from device_bench.paths import bundle_path
from device_bench.retry import persist
from device_bench.transfer import Transfer, send
from device_bench.virtual import VirtualDevice

PhoneWith = Callable[..., tuple[Device, VirtualDevice]]
DATA = random.Random(7).randbytes(1_000_000)
PIECE = 200_000
TARGET = "/sdcard/file"

pytestmark = pytest.mark.usefixtures("_no_pauses")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(DATA)
    return path


def job(
    source: Path, data: bytes = DATA, landed: Callable[[int], None] = transfer.nothing
) -> Transfer:
    return Transfer(source, TARGET, hashlib.sha256(data).hexdigest(), len(data), landed=landed)


def on_device(virtual: VirtualDevice, path: str = TARGET) -> Path:
    return virtual.device.files.resolve(path)


def names(virtual: VirtualDevice) -> set[str]:
    return {path.name for path in on_device(virtual, "/sdcard").iterdir() if path.is_file()}


@pytest.mark.parametrize("size", [0, 1, PIECE, PIECE + 1, len(DATA)])
def test_any_size_arrives(device: Device, virtual: VirtualDevice, source: Path, size: int) -> None:
    source.write_bytes(DATA[:size])
    send(device, job(source, DATA[:size]), PIECE)
    assert on_device(virtual).read_bytes() == DATA[:size]
    assert names(virtual) == {"file"}


def test_a_piece_ends_in_time(
    device: Device, virtual: VirtualDevice, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is waited for a lock's next refresh is a matter of time, however slow the way is.
    monkeypatch.setattr(transfer, "PIECE_SECONDS", 0.0)
    landed: list[int] = []
    send(device, job(source, landed=landed.append))
    assert len(landed) > 4
    assert landed == sorted(landed)
    assert landed[-1] == len(DATA)
    assert on_device(virtual).read_bytes() == DATA
    assert names(virtual) == {"file"}


def test_a_file_that_was_cut_short_here_is_no_endless_transfer(
    device: Device, virtual: VirtualDevice, source: Path
) -> None:
    work = job(source)
    source.write_bytes(DATA[: PIECE + 5])
    with pytest.raises(DeviceError, match="arrived damaged"):
        send(device, work, PIECE)
    assert names(virtual) == set()


@pytest.mark.parametrize("have", [1, PIECE - 1, PIECE, 3 * PIECE, len(DATA)])
def test_goes_on_behind_what_is_there(
    device: Device,
    virtual: VirtualDevice,
    source: Path,
    have: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on_device(virtual, f"{TARGET}.part").write_bytes(DATA[:have])
    sent = 0
    push = device.push_bytes

    def counted(file: object, size: int, *rest: object) -> None:
        nonlocal sent
        sent += size
        push(file, size, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(device, "push_bytes", counted)
    send(device, job(source), PIECE)
    assert sent == len(DATA) - have
    assert on_device(virtual).read_bytes() == DATA


@pytest.mark.parametrize("there", [b"x" * 300_000, DATA + b"x", b""])
def test_something_else_there_is_thrown_away(
    device: Device, virtual: VirtualDevice, source: Path, there: bytes
) -> None:
    on_device(virtual, f"{TARGET}.part").write_bytes(there)
    on_device(virtual, f"{TARGET}.part.piece").write_bytes(b"old")
    send(device, job(source), PIECE)
    assert on_device(virtual).read_bytes() == DATA
    assert names(virtual) == {"file"}


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(at=st.integers(1, len(DATA) + 2000), back=st.booleans())
def test_dropped_anywhere_it_goes_on(
    source: Path, app: Path, tmp_path_factory: pytest.TempPathFactory, at: int, back: bool
) -> None:
    key = keys.virtual_key()
    direction = "from_device" if back else "to_device"
    at = at % 2000 if back else at
    faults = {"wire": [{"action": "drop", "at_byte": at, "direction": direction}]}
    root = tmp_path_factory.mktemp("phone")
    landed: list[int] = []
    with VirtualDevice(
        root, authorized_keys=[keys.public(key)], harness=app, faults=faults
    ) as phone:
        device = Device("phone", Socket(phone.host, phone.port), [key])
        persist(device, lambda _: device.connect())
        on_device(phone, "/sdcard").mkdir(exist_ok=True)
        work = job(source, landed=landed.append)
        persist(device, lambda _: send(device, work, PIECE), lambda: max(landed, default=0))
        device.close()
        assert on_device(phone).read_bytes() == DATA
        assert names(phone) == {"file"}


def test_only_the_piece_that_broke_is_sent_again(phone_with: PhoneWith, source: Path) -> None:
    # Each piece is a sync service of its own: the third is cut.
    device, phone = phone_with(
        wire=[{"action": "drop", "at_byte": 1000, "service": "sync:", "nth": 3}]
    )
    with pytest.raises(ConnectionLostError):
        send(device, job(source), PIECE)
    assert "file" not in names(phone)
    assert on_device(phone, f"{TARGET}.part").read_bytes() == DATA[: 2 * PIECE]
    device.connect()
    sent: list[int] = []
    send(device, Transfer(source, TARGET, job(source).sha256, len(DATA), sent.append), PIECE)
    assert sent[0] == 2 * PIECE
    assert sent[-1] == len(DATA)
    assert on_device(phone).read_bytes() == DATA


def test_connection_that_never_holds_ends_in_one_error(phone_with: PhoneWith, source: Path) -> None:
    drops = [
        {"action": "drop", "at_byte": 20_000, "service": "sync:", "nth": nth} for nth in range(1, 9)
    ]
    device, phone = phone_with(wire=drops)
    with pytest.raises(ConnectionLostError, match="5 times in a row") as caught:
        persist(device, lambda _: send(device, job(source), PIECE))
    assert caught.value.fix
    assert "file" not in names(phone)


def test_bit_that_flips_in_storage_is_found(phone_with: PhoneWith, source: Path) -> None:
    device, phone = phone_with(storage={"damage_pushes": 1})
    with pytest.raises(DeviceError, match="source arrived damaged"):
        send(device, job(source))
    assert names(phone) == set()
    send(device, job(source))
    assert on_device(phone).read_bytes() == DATA


@pytest.mark.parametrize("piece", [PIECE, len(DATA)])
def test_full_storage_says_so_at_once(phone_with: PhoneWith, source: Path, piece: int) -> None:
    device, phone = phone_with(storage={"bytes": 3 * PIECE + 1000})
    with pytest.raises(DeviceError, match="No space left on device") as caught:
        persist(device, lambda _: send(device, job(source), piece))
    assert "free space" in caught.value.fix
    assert not isinstance(caught.value, ConnectionLostError)
    assert "file" not in names(phone)


def _deploy(port: int, key: Path, bundle: Bundle) -> int:
    with Device(f"127.0.0.1:{port}", Socket("127.0.0.1", port), [key]) as device:
        return len(deploy(device, bundle).pushed)


def test_two_processes_deploying_the_same_bundle(virtual: VirtualDevice, bundle: Bundle) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(2) as pool:
        jobs = [(virtual.port, keys.virtual_key(), bundle)] * 2
        pushed = pool.starmap(_deploy, jobs)
    assert sorted(pushed) == [0, len(bundle.files)]
    folder = on_device(virtual, bundle_path(bundle.bundle_id))
    for file in bundle.files:
        assert (folder / file.name).read_bytes() == (bundle.path / file.name).read_bytes()
    assert {path.name for path in folder.iterdir()} == {file.name for file in bundle.files}
