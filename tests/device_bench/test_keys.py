"""Key files: modes, reuse, and a public half that the device's own reader accepts."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from device_bench import keys
from device_bench.adb import Device, Socket
from device_bench.device_errors import DeviceError
from device_bench.virtual import VirtualDevice
from device_bench.virtual.auth import parse_public_key
from sparserec.errors import SparseRecError


def test_new_key_is_private_and_its_halves_fit(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        key = keys.ensure_key(tmp_path / "new" / "adbkey")
    finally:
        os.umask(before)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    private = load_pem_private_key(key.read_bytes(), None)
    public = parse_public_key(keys.public(key).read_bytes())
    assert public.public_numbers() == private.public_key().public_numbers()


def test_existing_key_is_kept_and_its_public_half_restored(tmp_path: Path) -> None:
    key = keys.ensure_key(tmp_path / "adbkey")
    private, public = key.read_bytes(), keys.public(key).read_bytes()
    keys.public(key).unlink()
    keys.ensure_key(key)
    assert (key.read_bytes(), keys.public(key).read_bytes()) == (private, public)
    assert sorted(path.name for path in tmp_path.glob("*adbkey*")) == ["adbkey", "adbkey.pub"]


def test_processes_at_the_same_time_agree(tmp_path: Path) -> None:
    path = tmp_path / "adbkey"
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: keys.ensure_key(path), range(4)))
    private = load_pem_private_key(path.read_bytes(), None)
    public = parse_public_key(keys.public(path).read_bytes())
    assert public.public_numbers() == private.public_key().public_numbers()


def test_damaged_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "adbkey"
    path.write_text("not a key")
    with pytest.raises(SparseRecError, match=str(path)):
        keys.ensure_key(path)


def _pem(private: Any, words: bytes | None) -> bytes:
    scheme = NoEncryption() if words is None else BestAvailableEncryption(words)
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, scheme)


@pytest.mark.parametrize("fault", ["damaged", "of another kind", "with a passphrase", "a folder"])
def test_key_that_cannot_be_used_is_one_line(
    virtual: VirtualDevice, tmp_path: Path, fault: str
) -> None:
    key = keys.ensure_key(tmp_path / "adbkey")
    match fault:
        case "damaged":
            key.write_bytes(key.read_bytes()[:200])
        case "of another kind":
            key.write_bytes(_pem(ec.generate_private_key(ec.SECP256R1()), None))
        case "with a passphrase":
            key.write_bytes(_pem(load_pem_private_key(key.read_bytes(), None), b"words"))
        case _:
            key.unlink()
            key.mkdir()
    device = Device("phone", Socket(virtual.host, virtual.port), [key])
    with pytest.raises(DeviceError, match="cannot be used as an adb key") as caught:
        device.connect()
    assert str(key) in caught.value.message
    assert "move it away" in caught.value.fix


def test_virtual_key_leaves_the_users_alone(tmp_path: Path) -> None:
    keys.virtual_key()
    assert not keys.user_key_path().exists()
    assert keys.state_dir() == tmp_path / "state" / "sparserec"


needs_adb = pytest.mark.skipif(shutil.which("adb") is None, reason="stock adb is not installed")


@needs_adb
def test_stock_adb_reads_our_key(tmp_path: Path) -> None:
    key = keys.ensure_key(tmp_path / "adbkey")
    told = subprocess.run(["adb", "pubkey", key], capture_output=True, text=True, check=True)
    assert told.stdout.split()[0] == keys.public(key).read_text().split()[0]


@needs_adb
def test_key_of_stock_adb_is_used_as_it_is(tmp_path: Path, app: Path) -> None:
    path = keys.user_key_path()
    path.parent.mkdir(parents=True)
    subprocess.run(["adb", "keygen", path], capture_output=True, check=True)
    before = path.read_bytes(), keys.public(path).read_bytes()
    assert keys.user_key() == path
    with (
        VirtualDevice(
            tmp_path / "phone", authorized_keys=[keys.public(path)], harness=app
        ) as phone,
        Device("phone", Socket(phone.host, phone.port), [keys.user_key()]) as device,
    ):
        assert device.shell("echo hi").output == "hi\n"
    assert (path.read_bytes(), keys.public(path).read_bytes()) == before
