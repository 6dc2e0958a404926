"""``am instrument`` runs the launcher as a process of its own, and ends it when it must."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from device_bench.virtual import VirtualDevice
from device_bench.virtual.server import default_harness
from device_bench.virtual.shell import Shell, Streams
from device_bench.virtual.streams import Hangup

COMPONENT = "org.sparserec.app/.HarnessInstrumentation"
HOME = "/sdcard/Android/media/org.sparserec.app"


def instrument(run_id: str) -> str:
    keys = {"bundle": f"{HOME}/bundles/b", "out": f"{HOME}/runs/{run_id}", "run_id": run_id}
    values = " ".join(f"-e {key} '{value}'" for key, value in keys.items())
    return f"am instrument -w -r {values} {COMPONENT}"


def group_is_gone(pid: int) -> bool:
    """Whether every process of a group has ended (or is a zombie that nobody has waited for)."""
    found = subprocess.run(
        ["ps", "-o", "stat=", "-g", str(pid)], capture_output=True, text=True, check=False
    )
    return all(state.startswith("Z") for state in found.stdout.split())


def test_paths_are_the_devices_on_both_sides(client: Any, root: Path) -> None:
    lines = client.shell(instrument("one")).splitlines()
    assert lines[0] == (
        f"INSTRUMENTATION_STATUS: arguments=bundle {root}{HOME}/bundles/b "
        f"out {root}{HOME}/runs/one run_id one"
    ).replace(str(root), "")
    assert lines[1:] == [
        "INSTRUMENTATION_STATUS: phase=train",
        "INSTRUMENTATION_STATUS_CODE: 2",
        f"INSTRUMENTATION_RESULT: report={HOME}/runs/one/report.json",
        "INSTRUMENTATION_CODE: -1",
    ]
    assert (root / f"{HOME[1:]}/runs/one/report.json").read_text() == "{}\n"
    assert client.shell(f"cat {HOME}/runs/one/report.json") == "{}\n"


def test_failure_is_handed_on_and_a_crash_is_reported(client: Any) -> None:
    assert client.shell(instrument("fail")).splitlines()[-2:] == [
        "INSTRUMENTATION_RESULT: error=asked to fail",
        "INSTRUMENTATION_CODE: 0",
    ]
    assert client.shell(instrument("crash")).splitlines()[-2:] == [
        "INSTRUMENTATION_RESULT: shortMsg=Process crashed.",
        "INSTRUMENTATION_CODE: 0",
    ]
    assert "a message from the fake harness" in client.shell("logcat -d")


def test_output_arrives_while_the_process_runs_and_force_stop_ends_it(
    client: Any, wait_until: Any, virtual: VirtualDevice
) -> None:
    output = client.streaming_shell(instrument("long"))
    assert "arguments=" in next(output)
    pid = virtual.device.harness.pid
    assert pid is not None
    assert wait_until(lambda: not group_is_gone(pid))
    assert client.shell("pidof org.sparserec.app") == f"{pid}\n"
    assert "TOTAL PSS" in client.shell("dumpsys meminfo org.sparserec.app")
    client.shell("am force-stop org.sparserec.app")
    assert "".join(output).endswith("shortMsg=Process crashed.\nINSTRUMENTATION_CODE: 0\n")
    assert wait_until(lambda: group_is_gone(pid))
    assert client.shell("pidof org.sparserec.app; echo $?") == "1\n"


def test_only_the_apps_process_can_be_killed(client: Any, virtual: VirtualDevice) -> None:
    output = client.streaming_shell(instrument("long"))
    next(output)
    pid = virtual.device.harness.pid
    for wrong in (os.getpid(), 1, "", "-1", f"-- -{pid}"):
        assert "No such process" in client.shell(f"kill -9 {wrong}")
        assert virtual.device.harness.pid == pid
    client.shell(f"kill -9 {pid}")
    assert "Process crashed" in "".join(output)
    assert virtual.device.harness.pid is None


def test_a_client_that_goes_takes_its_run_along(
    raw: Any, wait_until: Any, key: Path, virtual: VirtualDevice
) -> None:
    raw.connect(key)
    raw.open(f"shell:{instrument('long')}".encode())
    assert wait_until(lambda: virtual.device.harness.pid)
    pid = virtual.device.harness.pid
    assert pid is not None
    raw.socket.close()
    assert wait_until(lambda: group_is_gone(pid))


def test_a_new_run_ends_the_one_before(client: Any, virtual: VirtualDevice) -> None:
    first = client.streaming_shell(instrument("long"))
    next(first)
    assert "INSTRUMENTATION_CODE: -1" in client.shell(instrument("two"))
    assert "Process crashed" in "".join(first)


def test_what_cannot_be_started_is_said_as_android_says_it(client: Any, launcher: Path) -> None:
    other = client.shell("am instrument -w -r com.example/.Other")
    assert "INSTRUMENTATION_FAILED: com.example/.Other" in other.splitlines()
    outside = client.shell(f"am instrument -w -r -e state 'a\nb' {COMPONENT}")
    assert f"INSTRUMENTATION_FAILED: {COMPONENT}" in outside.splitlines()
    assert "needs -w -r" in client.shell(f"am instrument {COMPONENT}")
    launcher.unlink()
    missing = client.shell(instrument("one"))
    assert missing.splitlines()[:4] == [
        "INSTRUMENTATION_STATUS: id=ActivityManagerService",
        "INSTRUMENTATION_STATUS: Error=Unable to find instrumentation info for: " + COMPONENT,
        "INSTRUMENTATION_STATUS_CODE: -1",
        f"INSTRUMENTATION_FAILED: {COMPONENT}",
    ]
    assert "make setup" in missing


def test_the_real_harness_runs(tmp_path: Path) -> None:
    """A bundle that is not there: the process starts, says so in one line, and fails cleanly."""
    launcher = default_harness()
    if not launcher.is_file():
        pytest.skip("the desktop harness is not built: make setup")
    virtual = VirtualDevice(tmp_path / "root", harness=launcher)  # its shell needs no server
    output = BytesIO()
    line = instrument("real").replace(COMPONENT, f"-e state {HOME}/state/b {COMPONENT}")
    Shell(virtual.device, Hangup()).run(line, Streams(BytesIO(), output, output))
    text = output.getvalue().decode()
    log = "\n".join(virtual.device.log.lines())
    if "Could not find or load main class" in log:
        pytest.skip("the desktop harness is built only in part: make setup")
    assert "INSTRUMENTATION_RESULT: error=" in text, text + log
    assert text.endswith("INSTRUMENTATION_CODE: 0\n")
    assert str(tmp_path) not in text


def test_the_command_says_where_it_listens_and_ends_on_sigterm(
    tmp_path: Path, key: Path, launcher: Path, raw_client: Any
) -> None:
    public = str(key.with_suffix(".pub"))
    command = [sys.executable, "-m", "device_bench.virtual", "--root", str(tmp_path / "root")]
    command += ["--harness", str(launcher), "--serial", "number-5", "--authorized-keys", public]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        assert ready == {
            "host": "127.0.0.1",
            "port": ready["port"],
            "serial": "number-5",
            "pid": process.pid,
            "root": str((tmp_path / "root").resolve()),
        }
        client = raw_client(ready["port"])
        assert client.connect(key)[0] == b"CNXN"
        assert client.collect(client.open(b"shell:getprop ro.serialno")) == b"number-5\n"
        client.open(f"shell:{instrument('long')}".encode())
        assert b"arguments=" in client.receive()[3]
        pid = int(client.collect(client.open(b"shell:pidof org.sparserec.app", 2), 2))
        assert not group_is_gone(pid)
        process.send_signal(signal.SIGTERM)
        assert client.closed()
        assert process.wait(5) == 0
        assert group_is_gone(pid)


def test_the_command_names_what_it_cannot_use(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "device_bench.virtual", "--root", str(tmp_path)]
    result = subprocess.run(
        [*command, "--authorized-keys", str(tmp_path / "none.pub")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert "none.pub" in result.stderr
    assert "fix:" in result.stderr
