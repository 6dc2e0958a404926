"""What doctor finds on computers where something is missing, old or wrong."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from device_bench import adb, adb_server, checks, doctor, keys
from device_bench import apk as builds
from device_bench.adb import Facts
from device_bench.checks import OK, PROBLEM, WARNING, Check
from device_bench.device_errors import unauthorised
from device_bench.devices import Listed
from device_bench.virtual import VirtualDevice
from sparserec.cli import main


def program(folder: Path, name: str, says: str) -> None:
    """A program of that name that prints a line."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\necho '{says}' >&2\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder in which programs are found."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    return folder


def expect(check: Check, state: str, found: str, fix: str = "") -> None:
    assert (check.state, found in check.found, fix in check.fix) == (state, True, True), check
    assert bool(check.fix) == (state != OK)


def test_java(tools: Path) -> None:
    expect(checks.java(), PROBLEM, "not installed", "openjdk-17")
    program(tools, "java", 'openjdk version "11.0.2" 2019')
    expect(checks.java(), PROBLEM, "11.0.2", "openjdk-17")
    program(tools, "java", "gibberish")
    expect(checks.java(), PROBLEM, "no version", "openjdk-17")
    program(tools, "java", 'openjdk version "21.0.1" 2023')
    expect(checks.java(), WARNING, "without javac", "openjdk-17")
    program(tools, "javac", "")
    expect(checks.java(), OK, "21.0.1")


def test_java_home_comes_first(
    tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tools, "java", 'openjdk version "11.0.2" 2019')
    for name in ("java", "javac"):
        (tmp_path / "jdk").mkdir(exist_ok=True)
        program(tmp_path / "jdk" / "bin", name, 'openjdk version "17.0.15" 2025')
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "jdk"))
    expect(checks.java(), OK, "17.0.15")


def test_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    expect(checks.packages("no-such-distribution"), PROBLEM, "not installed", "make setup")
    bounds = ["pytest>=1", 'absent-package; sys_platform == "never"', 'absent>=1; extra == "dev"']
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: bounds)
    expect(checks.packages(), OK, "1 within")
    bounds += ["numpy>=99", "no-such-package>=1"]
    expect(checks.packages(), PROBLEM, "tested with >=99; no-such-package is missing", "make setup")


def test_desktop_runtime(app: Path, monkeypatch: pytest.MonkeyPatch, tools: Path) -> None:
    monkeypatch.setenv("SPARSEREC_HARNESS", str(app))
    expect(checks.desktop_runtime(), OK, str(app))
    app.unlink()
    expect(checks.desktop_runtime(), PROBLEM, "not built", "apt install maven npm gcc")


def test_executorch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSEREC_HARNESS", str(tmp_path / "desktop" / "bin" / "harness"))
    monkeypatch.setattr(builds, "OUTPUT", tmp_path)
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "1.5.9")
    expect(checks.executorch(), OK, "Python 1.5.9")
    (tmp_path / "sparserec-x86_64.json").write_text('{"runtime": "react-native-executorch 0.9.3"}')
    expect(checks.executorch(), OK, "react-native-executorch 0.9.3")
    (tmp_path / "desktop").mkdir()
    (tmp_path / "desktop" / "runtime.json").write_text('{"runtime": "official 2.0"}')
    expect(
        checks.executorch(), WARNING, "runtime.json: official 2.0: not tested together", "losses"
    )
    (tmp_path / "desktop" / "runtime.json").write_text("[]")
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "1.6.0")
    expect(checks.executorch(), WARNING, "sparserec-x86_64.json", "executorch 1.5")


def test_adb_and_its_server(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expect(checks.adb(), OK, "nor needed; no server runs")
    program(tools, "adb", "Android Debug Bridge version 1.0.41")
    expect(checks.adb(), OK, "1.0.41; no server runs")
    monkeypatch.setattr(adb_server, "version", lambda: 40)
    expect(checks.adb(), WARNING, "1.0.40 runs", "adb kill-server")


def test_tools_for_the_app(tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builds, "OUTPUT", tmp_path)
    expect(checks.apk_tools(), WARNING, "not built", "apt install maven npm aapt apksigner dexdump")
    (tmp_path / "sparserec-x86_64.apk").touch()
    expect(checks.apk_tools(), OK, "built: sparserec-x86_64.apk; to build it again: apt install")


def test_key(tmp_path: Path) -> None:
    expect(checks.key(), OK, "will be made")
    path = keys.user_key()
    expect(checks.key(), OK, str(path))
    path.chmod(0o644)
    expect(checks.key(), WARNING, "mode 0644", f"chmod 600 {path}")
    path.chmod(0o600)
    other = keys.ensure_key(tmp_path / "other")
    shutil.copy(keys.public(other), keys.public(path))
    expect(checks.key(), PROBLEM, "another key's", "rm ")
    path.write_text("-----BEGIN NONSENSE-----")
    expect(checks.key(), PROBLEM, str(path), "move it away")


@pytest.mark.parametrize(("free", "state"), [(1 << 20, PROBLEM), (1 << 30, WARNING), (1 << 40, OK)])
def test_disk(monkeypatch: pytest.MonkeyPatch, free: int, state: str) -> None:
    usage = shutil._ntuple_diskusage(1 << 41, 0, free)  # type: ignore[attr-defined]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    expect(checks.disk(), state, "free in")


def test_udev_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "UDEV", (tmp_path,))
    monkeypatch.setattr(sys, "platform", "linux")
    expect(checks.udev(), WARNING, "no udev rules", "android-sdk-platform-tools-common")
    (tmp_path / "51-android.rules").touch()
    expect(checks.udev(), OK, "51-android.rules")


FACTS = Facts("S", "phone", "Pixel", ("arm64-v8a",), 34, "14", 1 << 40)


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    expect(checks.device_check(Listed("S", FACTS, None, "USB")), OK, "Pixel, arm64-v8a, SDK 34")
    expect(checks.device_check(Listed("S", None, unauthorised("S"))), PROBLEM, "trust", "accept")
    full = Listed("S", Facts("S", "phone", "Pixel", (), None, "14", 1000), None)
    expect(checks.device_check(full), WARNING, "1000 B free", "free some space")
    monkeypatch.setattr(adb, "usb_phones", list)
    usb, nothing = checks.devices()
    expect(usb, OK, "phones on it: 0")
    expect(nothing, OK, "none connected")

    def fail() -> list[object]:
        raise adb.DeviceError("USB cannot be searched: no libusb", "install libusb 1.0")

    monkeypatch.setattr(adb, "usb_phones", fail)
    expect(checks.devices()[0], WARNING, "no libusb", "install libusb")


def test_table_and_json_tell_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    found = [Check("Python", OK, "3.11"), Check("JDK", PROBLEM, "[none]", "install it")]
    doctor.show(Console(width=80), found)
    shown = capsys.readouterr().out
    assert "[none]" in shown
    assert "fix: install it" in shown
    assert "1 to put right" in shown
    parsed = json.loads(doctor.report(found))
    assert parsed["counts"] == {"ok": 1, "warning": 0, "problem": 1}
    assert parsed["checks"][1] == {
        "name": "JDK",
        "state": "problem",
        "found": "[none]",
        "fix": "install it",
    }


@pytest.mark.parametrize(("state", "code"), [(OK, 0), (WARNING, 0), (PROBLEM, 1)])
def test_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], state: str, code: int
) -> None:
    monkeypatch.setattr(doctor, "everything", lambda: [Check("x", state, "y", "z")])
    monkeypatch.setattr(sys, "argv", ["sparserec", "doctor", "--json"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert (caught.value.code or 0) == code
    assert json.loads(capsys.readouterr().out)["checks"][0]["state"] == state


def test_everything_runs_here(
    virtual: VirtualDevice, monkeypatch: pytest.MonkeyPatch, phone_listed: Callable[[], None]
) -> None:
    phone_listed()
    found = checks.everything()
    assert [check.name for check in found][:3] == ["Python", "packages", "JDK"]
    assert found[-1].name.startswith("device 127.0.0.1:")
    assert found[-1].state == OK


@pytest.fixture
def phone_listed(virtual: VirtualDevice, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Let the virtual device be one that runs for everyone."""

    def listed() -> None:
        from device_bench import devices
        from device_bench.virtual_process import Running

        running = Running(virtual.host, virtual.port, "sparserec-virtual", 1, "/x")
        monkeypatch.setattr(devices.virtual_process, "running", lambda: [running])

    return listed


def test_a_folder_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    expect(checks.disk(), PROBLEM, "No such file or directory", "go to a folder that is there")


def test_state_that_cannot_be_kept_is_in_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    found = {check.name: check for check in checks.everything()}
    for name in ("disk", "devices"):
        expect(found[name], PROBLEM, "cannot be made", "XDG_STATE_HOME")
