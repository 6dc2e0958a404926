"""The commands as users type them, with a virtual device that runs the test's app."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from device_bench import adb
from sparserec.cli import main


class Ran:
    """What a command printed and its exit code."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def sparserec(
    app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Ran]:
    monkeypatch.setenv("SPARSEREC_HARNESS", str(app))
    monkeypatch.setattr(adb, "usb_phones", list)
    monkeypatch.setenv("COLUMNS", "140")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")

    def run(*arguments: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["sparserec", *arguments])
        code: object = 0
        try:
            main()
        except SystemExit as leave:
            code = leave.code
        captured = capsys.readouterr()
        assert code is None or isinstance(code, int)
        return Ran(code or 0, captured.out, captured.err)

    return run


def test_devices_when_there_is_none(sparserec: Callable[..., Ran]) -> None:
    ran = sparserec("devices")
    assert ran.code == 0
    assert "will start a virtual device" in ran.out
    assert "HOST:PORT" in sparserec("devices", "--connect", "phone").err


def test_deploy_says_that_a_virtual_device_is_used(
    sparserec: Callable[..., Ran], bundle_dir: Path
) -> None:
    ran = sparserec("deploy", str(bundle_dir))
    assert ran.code == 0
    assert "no phone is connected: using a virtual device" in ran.out
    assert "7 files pushed" in ran.out
    assert (
        "0 files pushed (0.00 MB), 7 were there already" in sparserec("deploy", str(bundle_dir)).out
    )


def test_bench_and_report(sparserec: Callable[..., Ran], bundle_dir: Path) -> None:
    ran = sparserec("bench", str(bundle_dir), "--steps", "30", "--out", "out")
    assert ran.code == 0, ran.err
    assert "0.1012 before, 0.1187 after" in ran.out
    found: dict[str, Any] = json.loads(Path("out/report.json").read_text())
    assert found["parameters"]["given"]["steps"] == "30"
    assert "host" in Path("out/report.html").read_text()
    ran = sparserec("report", "out/report.json", "--html", "page.html")
    assert ran.code == 0
    assert Path("page.html").exists()


def test_bench_that_fails_writes_what_it_has(
    sparserec: Callable[..., Ran], bundle_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APP_BEHAVIOUR", "crash")
    ran = sparserec("bench", str(bundle_dir))
    assert ran.code == 1
    assert "crashed in phase train" in ran.err
    (page,) = Path("runs").glob("tiny-mf-*/report.html")
    assert "died in phase train" in page.read_text()


def test_losses_that_differ_fail_the_command(
    sparserec: Callable[..., Ran], bundle_dir: Path, tmp_path: Path
) -> None:
    source = tmp_path / "sample.json"
    report = json.loads(source.read_text())
    report["correctness"].update(verdict="failed", max_abs_error=0.5)
    source.write_text(json.dumps(report))
    ran = sparserec("bench", str(bundle_dir), "--out", "out")
    assert ran.code == 1
    assert "differ from the host's by 0.5" in ran.out
    assert sparserec("report", "out/report.json").code == 1


def test_damaged_bundle_is_not_pushed(sparserec: Callable[..., Ran], bundle_dir: Path) -> None:
    (bundle_dir / "step.pte").write_bytes(b"x" * (bundle_dir / "step.pte").stat().st_size)
    ran = sparserec("deploy", str(bundle_dir))
    assert ran.code == 2
    assert "step.pte: damaged" in ran.err
    assert "device:" not in ran.out
