"""``sparserec bench`` as users type it, with virtual devices that run the test's app."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from device_bench import checked, virtual_process

Sparserec = Callable[..., Any]
CLI = "from sparserec.cli import main; main()"


def records(folder: str) -> list[dict[str, Any]]:
    """Every run.json, by index; each is valid."""
    found = [json.loads(path.read_text()) for path in Path(folder).glob("results/*/run.json")]
    for record in found:
        assert list(checked.validator("run-1.schema.json").iter_errors(record)) == []
    return sorted(found, key=lambda record: int(record["index"]))


def test_one_run_goes_on_where_the_device_is(sparserec: Sparserec, bundle_dir: Path) -> None:
    ran = sparserec("bench", str(bundle_dir), "--steps", "30", "--out", "out")
    assert ran.code == 0, ran.err
    assert "using a virtual device" in ran.out
    assert "0.1012 before, 0.1187 after" in ran.out
    assert "1 run: 1 succeeded" in ran.out
    (record,) = records("out")
    assert (record["state"], record["correctness"]) == ("succeeded", "passed")
    assert record["device"]["virtual"] is True
    assert record["files"] == {
        "report": "report.json",
        "sensors": None,
        "logcat": None,
        "golden": "golden.json",
    }
    (place,) = Path("out/results").iterdir()
    assert place.name.startswith("001-default-tiny-mf-d8-")
    assert json.loads((place / "golden.json").read_text())["losses"]
    given = json.loads((place / "report.json").read_text())["parameters"]["given"]
    assert given["steps"] == "30"
    assert "/state/tiny-mf" in given["state"]
    assert "host" in (place / "report.html").read_text()
    assert sparserec("report", "out", "--no-html").code == 0
    assert "--resume out" in sparserec("bench", str(bundle_dir), "--out", "out").err


def test_a_plan_on_several_devices(sparserec: Sparserec, bundle_dir: Path, tmp_path: Path) -> None:
    Path("plan.toml").write_text(
        f'bundles = ["{bundle_dir.parent}/b*"]\nthreads = [1, 2]\nrepetitions = 2\nsteps = 30\n'
    )
    with virtual_process.start_listed(2, tmp_path / "phones" / "v") as devices:
        arguments = ("bench", "--plan", "plan.toml", "--all", "--out", "out")
        ran = sparserec(*arguments)
        assert ran.code == 0, ran.err
        found = records("out")
        assert {record["device"]["serial"] for record in found} == {one.serial for one in devices}
        order = [(record["threads"], record["repetition"]) for record in found]
        assert order == [(1, 1), (2, 1), (2, 2), (1, 2)] * 2
        assert "8 runs: 8 succeeded" in ran.out
        assert Path("out/report.html").exists()
        plan = json.loads(Path("out/plan.json").read_text())
        assert plan["source"] == "plan.toml"
        assert set(plan["devices"]) == {one.serial for one in devices}

        for path in list(Path("out/results").glob("*-r2/run.json"))[:2]:
            path.unlink()
        ran = sparserec("bench", "--resume", "out")
        assert ran.code == 0, ran.err
        assert "6 of 8 runs are there already" in ran.out
        assert len(records("out")) == 8


def test_a_run_that_crashes(
    sparserec: Sparserec, bundle_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APP_BEHAVIOUR", "crash")
    ran = sparserec("bench", str(bundle_dir))
    assert ran.code == 1
    assert "crashed in phase train" in ran.out
    (folder,) = Path("runs").glob("bench-*")
    (record,) = records(str(folder))
    assert record["state"] == "crashed"
    assert "a library is missing" in next(folder.glob("results/*/logcat.txt")).read_text()
    assert "died in phase train" in next(folder.glob("results/*/report.html")).read_text()


def test_losses_that_differ_fail_the_command(
    sparserec: Sparserec, bundle_dir: Path, tmp_path: Path
) -> None:
    source = tmp_path / "sample.json"
    report = json.loads(source.read_text())
    report["correctness"].update(verdict="failed", max_abs_error=0.5)
    source.write_text(json.dumps(report))
    ran = sparserec("bench", str(bundle_dir), "--out", "out")
    assert ran.code == 1
    assert "differ from the host's by 0.5" in ran.out
    (record,) = records("out")
    assert (record["state"], record["correctness"]) == ("succeeded", "failed")


def test_what_cannot_be_asked_for(sparserec: Sparserec, bundle_dir: Path) -> None:
    bundle = str(bundle_dir)
    Path("plan.toml").write_text(f'bundles = ["{bundle}"]\n')
    wrong = {
        ("bench",): "no bundle is named",
        ("bench", bundle, "--plan", "plan.toml"): "a plan says all of this itself",
        ("bench", "--plan", "plan.toml", "--repeat", "2"): "given besides: repetitions",
        ("bench", "--plan", "plan.toml", "--no-evaluate"): "given besides: evaluate",
        ("bench", "--plan", "none.toml"): "none.toml: No such file",
        ("bench", bundle, "--all", "--device", "virtual"): "exclude each other",
        ("bench", bundle, "--all"): "no device is ready",
        ("bench", "--resume", "nowhere"): "nowhere/plan.json: No such file",
        ("bench", bundle, "--resume", "nowhere"): "--resume takes",
        ("bench", bundle, "--threads", "65"): "64",
        ("bench", bundle, "--repeat", "2", "--fresh"): "--fresh: with several runs",
        ("bench", "no*thing"): "no bundle matches 'no*thing'",
    }
    for arguments, said in wrong.items():
        ran = sparserec(*arguments)
        assert ran.code == 2, (arguments, ran.out)
        assert said in ran.err, arguments
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    "option",
    ["--steps=9", "--threads=2", "--repeat=2", "--checkpoint-every=3", "--no-evaluate", "--fresh"],
)
def test_resume_ignores_no_option(sparserec: Sparserec, option: str) -> None:
    ran = sparserec("bench", "--resume", "out", option)
    assert ran.code == 2
    assert "--resume takes bundles, devices and everything else from its folder" in ran.err


def test_a_bundle_that_changed_is_not_resumed(sparserec: Sparserec, bundle_dir: Path) -> None:
    assert sparserec("bench", str(bundle_dir), "--repeat", "2", "--out", "out").code == 0
    next(Path("out").glob("results/*/run.json")).unlink()
    path = bundle_dir / "manifest.json"
    path.write_text(path.read_text().replace('"created_utc": "', '"created_utc": "x'))
    ran = sparserec("bench", "--resume", "out")
    assert ran.code == 2
    assert "is another bundle than when the bench began" in ran.err


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_device_and_resume_goes_on(
    sparserec: Sparserec,
    bundle_dir: Path,
    how: signal.Signals,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    command = [
        sys.executable,
        "-c",
        CLI,
        "bench",
        str(bundle_dir),
        "--out",
        "out",
    ]
    command += ["--repeat", "2", "--device", "virtual"]
    monkeypatch.setenv("APP_BEHAVIOUR", "hang")
    with virtual_process.start_listed(1, tmp_path / "phone") as (device,):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            if line.endswith(" train\n"):
                break
        time.sleep(0.5)
        process.send_signal(how)
        rest = process.stdout.read()
        assert process.wait(60) == 130
        assert "1 cancelled, 1 not made" in rest
        assert "--resume out" in rest
        apps = subprocess.run(["pgrep", "-P", str(device.pid)], capture_output=True, check=False)
        assert apps.stdout == b""
        assert [record["state"] for record in records("out")] == ["cancelled"]
