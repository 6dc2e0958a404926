"""The commands as users type them, with a virtual device that runs the test's app."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.device_bench.virtual.apks import build_apk, certificate


def test_devices_when_there_is_none(sparserec: Callable[..., Any]) -> None:
    ran = sparserec("devices")
    assert ran.code == 0
    assert "will start a virtual device" in ran.out
    assert "HOST:PORT" in sparserec("devices", "--connect", "phone").err


def test_deploy_says_that_a_virtual_device_is_used(
    sparserec: Callable[..., Any], bundle_dir: Path
) -> None:
    ran = sparserec("deploy", str(bundle_dir))
    assert ran.code == 0
    assert "no phone is connected: using a virtual device" in ran.out
    assert "7 files pushed" in ran.out
    assert (
        "0 files pushed (0.00 MB), 7 were there already" in sparserec("deploy", str(bundle_dir)).out
    )


def test_damaged_bundle_is_not_pushed(sparserec: Callable[..., Any], bundle_dir: Path) -> None:
    (bundle_dir / "step.pte").write_bytes(b"x" * (bundle_dir / "step.pte").stat().st_size)
    ran = sparserec("deploy", str(bundle_dir))
    assert ran.code == 2
    assert "step.pte: damaged" in ran.err
    assert "device:" not in ran.out


def test_devices_are_listed_with_what_they_say(
    sparserec: Callable[..., Any], phone_with: Callable[..., Any]
) -> None:
    _, phone = phone_with(
        battery={"level": 9, "charging": True}, properties={"ro.build.version.sdk": "23"}
    )
    ran = sparserec("devices", "--connect", f"{phone.host}:{phone.port}")
    assert ran.code == 0
    line = next(line for line in ran.out.splitlines() if f":{phone.port}" in line)
    for words in ("ready", "TCP", "SparseRec Virtual Device", "x86_64", "23", "9 % charging", "no"):
        assert words in line
    assert "Heat" not in ran.out
    assert "SDK 23) is too old" in ran.out
    assert "fix: use a device with SDK 26" in ran.out


def test_app_is_installed_by_name(
    sparserec: Callable[..., Any],
    phone_with: Callable[..., Any],
    bundle_dir: Path,
    tmp_path: Path,
) -> None:
    _, phone = phone_with()
    apk = tmp_path / "sparserec-x86_64.apk"
    apk.write_bytes(build_apk(certificate("ours"), abis=("x86_64",)))
    arguments = (str(bundle_dir), "--device", f"{phone.host}:{phone.port}", "--apk", str(apk))
    assert "installed sparserec-x86_64.apk (x86_64)" in sparserec("deploy", *arguments).out
    assert "sparserec-x86_64.apk is installed already" in sparserec("deploy", *arguments).out
