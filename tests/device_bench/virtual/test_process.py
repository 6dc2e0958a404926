"""Virtual devices as processes: several at once, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from device_bench import virtual_process


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def test_several_devices_have_all_of_their_own() -> None:
    with virtual_process.start_listed(2) as devices, virtual_process.start_listed(1) as more:
        found = [*devices, *more]
        assert [device.serial for device in found] == [
            "sparserec-virtual",
            "sparserec-virtual-2",
            "sparserec-virtual-3",
        ]
        assert len({device.port for device in found}) == 3
        assert len({device.root for device in found}) == 3
        assert sorted(device.pid for device in virtual_process.running()) == sorted(
            device.pid for device in found
        )
    assert list((virtual_process._records()).iterdir()) == []


def test_a_killed_parent_leaves_nothing(wait_until: Any) -> None:
    code = """
import time
from device_bench import virtual_process
with virtual_process.start_listed(1) as devices:
    print(devices[0].pid, flush=True)
    time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert Path(f"/proc/{pid}").exists()
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert wait_until(lambda: not list(virtual_process._records().iterdir()))
    assert wait_until(lambda: _ended(pid))
    parent.stdout.close()


def _ended(pid: int) -> bool:
    """Whether a process has gone, or waits only for whoever adopted it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return not os.path.exists(f"/proc/{pid}")  # noqa: PTH110
