"""Faults on request: each does what docs/virtual-device.md says, seen from a client."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from adb_shell.adb_device import AdbDeviceTcp
from adb_shell.auth.sign_cryptography import CryptographySigner
from hypothesis import given
from hypothesis import strategies as st

from device_bench.virtual import VirtualDevice, fault_spec
from device_bench.virtual.faults import Faults
from sparserec.errors import SparseRecError

COMPONENT = "org.sparserec.app/.HarnessInstrumentation"
RUN = f"am instrument -w -r -e out /sdcard/o {COMPONENT}"
STEPS = """#!/bin/sh
for i in 1 2 3 4 5; do
  echo "INSTRUMENTATION_STATUS: step=$i"; echo "INSTRUMENTATION_STATUS_CODE: 2"; sleep 0.05
done
echo "INSTRUMENTATION_CODE: -1"
"""

Connect = Callable[[VirtualDevice], AdbDeviceTcp]


@pytest.fixture
def faulty(tmp_path: Path, key: Path) -> Any:
    """Runs a device with faults on the same root each time."""
    launcher = tmp_path / "steps"
    launcher.write_text(STEPS)
    launcher.chmod(0o755)

    @contextmanager
    def make(**faults: Any) -> Iterator[VirtualDevice]:
        keys = [key.with_suffix(".pub")]
        root = tmp_path / "root"
        with VirtualDevice(root, authorized_keys=keys, harness=launcher, faults=faults) as made:
            yield made

    return make


@pytest.fixture
def connect(key: Path) -> Connect:
    def make(virtual: VirtualDevice) -> AdbDeviceTcp:
        device = AdbDeviceTcp(virtual.host, virtual.port, default_transport_timeout_s=10)
        device.connect(rsa_keys=[CryptographySigner(str(key))], auth_timeout_s=10)
        return device

    return make


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(os.urandom(300_000))
    return path


def test_a_connection_ends_at_a_byte_once(faulty: Any, connect: Connect, source: Path) -> None:
    wire = {"action": "drop", "service": "sync:", "at_byte": 100_000}
    with faulty(wire=[wire]) as virtual:
        with pytest.raises(Exception, match=r"Timeout|reset|timed out|Broken"):
            connect(virtual).push(str(source), "/sdcard/f", read_timeout_s=1, transport_timeout_s=1)
        again = connect(virtual)
        again.push(str(source), "/sdcard/f")
        assert (virtual.device.files.root / "sdcard/f").read_bytes() == source.read_bytes()
        assert any("drop at byte" in line for line in virtual.device.log.lines())


def test_a_stall_ends_and_a_flipped_bit_ends_the_connection(
    faulty: Any, connect: Connect, source: Path
) -> None:
    wire = {"service": "sync:", "at_byte": 50_000, "seconds": 0.1}
    with faulty(wire=[wire | {"action": "stall"}]) as virtual:
        connect(virtual).push(str(source), "/sdcard/f")
        assert (virtual.device.files.root / "sdcard/f").stat().st_size == 300_000
    with faulty(wire=[wire | {"action": "flip"}]) as virtual:
        with pytest.raises(Exception, match=r"Timeout|reset|timed out|Broken"):
            connect(virtual).push(str(source), "/sdcard/f", read_timeout_s=1, transport_timeout_s=1)
        assert any("wrong checksum" in line for line in virtual.device.log.lines())


def test_storage_is_full_for_push_shell_and_run(
    faulty: Any, connect: Connect, source: Path
) -> None:
    with faulty(storage={"bytes": 400_000}) as virtual:
        device = connect(virtual)
        device.push(str(source), "/sdcard/one")
        assert device.shell("df -k /sdcard").splitlines()[1].split()[3] == str(100_000 // 1024)
        with pytest.raises(Exception, match="No space left on device"):
            device.push(str(source), "/sdcard/two")
        assert "No space left" in device.shell("cp /sdcard/one /sdcard/two")
        assert "No space left" in device.shell("cat /sdcard/one > /sdcard/three")
        assert not (virtual.device.files.root / "sdcard/two").exists()


def test_stored_bytes_are_damaged_so_often(faulty: Any, connect: Connect, source: Path) -> None:
    right = hashlib.sha256(source.read_bytes()).hexdigest()
    with faulty(storage={"damage_pushes": 1}) as virtual:
        device = connect(virtual)
        for name in ("bad", "good"):
            device.push(str(source), f"/sdcard/{name}")
        sums = [device.shell(f"sha256sum -b /sdcard/{name}").strip() for name in ("bad", "good")]
        assert sums[0] != right
        assert sums[1] == right


def test_a_kill_for_memory_is_told_as_android_tells_it(faulty: Any, connect: Connect) -> None:
    with faulty(kill=[{"at_status": 3}]) as virtual:
        device = connect(virtual)
        output = device.shell(RUN)
        assert "step=3" in output
        assert "step=5" not in output
        assert output.endswith("shortMsg=Process crashed.\nINSTRUMENTATION_CODE: 0\n")
        assert "lowmemorykiller: Kill 'org.sparserec.app'" in device.shell("logcat -d")
        info = device.shell("dumpsys activity exit-info org.sparserec.app")
        assert "reason=3 (LOW_MEMORY)" in info
        assert device.shell(RUN).endswith(
            "step=5\nINSTRUMENTATION_STATUS_CODE: 2\nINSTRUMENTATION_CODE: -1\n"
        )


def test_offline_in_a_run_and_back(faulty: Any, connect: Connect, wait_until: Any) -> None:
    with faulty(offline=[{"at_status": 2, "seconds": 0.2}]) as virtual:
        with pytest.raises(Exception, match=r"Timeout|reset|timed out"):
            connect(virtual).shell(RUN, read_timeout_s=1, transport_timeout_s=1)

        def back() -> bool:
            try:
                return bool(connect(virtual).shell("echo back") == "back\n")
            except OSError:
                return False

        assert wait_until(back)


def test_a_run_may_outlive_its_client(faulty: Any, connect: Connect, wait_until: Any) -> None:
    with faulty(runs_outlive_clients=True) as virtual:
        device = connect(virtual)
        next(device.streaming_shell(RUN))
        device.close()
        assert wait_until(lambda: virtual.device.harness.exits)
        assert (virtual.device.harness.exits[0].reason, virtual.device.harness.exits[0].status) == (
            1,
            0,
        )


def test_the_owner_agrees_to_authorised_keys_only(
    faulty: Any, connect: Connect, other_key: Path
) -> None:
    with faulty(unauthorised=0.05) as virtual:
        assert connect(virtual).shell("echo in") == "in\n"
        stranger = AdbDeviceTcp(virtual.host, virtual.port, default_transport_timeout_s=1)
        with pytest.raises(Exception, match=r"timed out|Reading"):
            stranger.connect(rsa_keys=[CryptographySigner(str(other_key))], auth_timeout_s=0.5)


def test_sensors_clock_and_properties(faulty: Any, connect: Connect) -> None:
    faults = {
        "battery": {"level": 9},
        "thermal": [{"status": 4}],
        "clock": [{"by_seconds": -1e9}],
        "properties": {"ro.build.version.sdk": "23"},
        "install_answer": "INSTALL_FAILED_USER_RESTRICTED",
        "latency_ms": 1,
    }
    with faulty(**faults) as virtual:
        device = connect(virtual)
        assert "level: 9" in device.shell("dumpsys battery")
        assert "Thermal Status: 4" in device.shell("dumpsys thermalservice")
        assert int(device.shell("date +%s")) < 1_000_000_000
        assert device.shell("getprop ro.build.version.sdk") == "23\n"
        assert "INSTALL_FAILED_USER_RESTRICTED" in device.shell("pm install /sdcard/x")


@pytest.mark.parametrize(
    ("lines", "field"),
    [
        (["latncy_ms = 3"], "latncy_ms"),
        (["kill = [{reason = 'signal'}]"], "kill.0"),
        (["wire = [{action = 'drop'}]"], "wire.0.at_byte"),
        (["thermal = [{status = 7}]"], "thermal.0.status"),
        (["= 3"], "not a line of TOML"),
    ],
)
def test_a_wrong_specification_names_the_field(lines: list[str], field: str) -> None:
    with pytest.raises(SparseRecError, match=field.replace(".", r"\.")):
        fault_spec.load(None, lines)


def test_files_and_lines_join(tmp_path: Path) -> None:
    (tmp_path / "f.json").write_text(json.dumps({"seed": 4, "latency_ms": 3}))
    (tmp_path / "f.toml").write_text("seed = 4\nlatency_ms = 3\n")
    for name in ("f.json", "f.toml"):
        found = fault_spec.load(tmp_path / name, ["latency_ms = [5, 6]"])
        assert (found.seed, found.latency_ms) == (4, (5.0, 6.0))
    with pytest.raises(SparseRecError, match=r"none\.toml"):
        fault_spec.load(tmp_path / "none.toml")


@given(seed=st.integers(0, 1000), low=st.integers(0, 50), more=st.integers(0, 50))
def test_draws_follow_from_the_seed(seed: int, low: int, more: int) -> None:
    wire = {"action": "drop", "at_byte": [low, low + more]}
    specs = [fault_spec.parse({"seed": seed, "wire": [wire, wire]}) for _ in range(2)]
    drawn = [[at for _, at in Faults(spec)._wires] for spec in specs]
    assert drawn[0] == drawn[1]
    assert all(low <= at <= low + more for at in drawn[0])
