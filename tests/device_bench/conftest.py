"""A report, a bundle and a virtual device whose app is a small script, for tests of the client."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import random
import shutil
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_bench import adb, keys, retry
from device_bench.adb import Device, ShellResult, Socket
from device_bench.bundle import Bundle, BundleFile
from device_bench.virtual import VirtualDevice
from export.manifest import NAME as MANIFEST
from sparserec.cli import main

DIGEST = "0123456789abcdef" * 4
PHASES = ("load", "evaluate_before", "warm_up", "train", "checkpoint", "evaluate_after", "done")


def metric(runs: list[int]) -> dict[str, Any]:
    """Statistics by the standard library, named as in docs/formats.md section 8."""
    cuts = statistics.quantiles(runs, n=100, method="inclusive")
    median = statistics.median(runs)
    return {
        "runs": runs,
        "count": len(runs),
        "minimum": min(runs),
        **{f"p{q}": cuts[q - 1] for q in (50, 90, 95, 99)},
        "maximum": max(runs),
        "mad": statistics.median(abs(value - median) for value in runs),
    }


def memory(base: int) -> dict[str, int | None]:
    return {
        "rss_kb": base,
        "rss_peak_kb": base + 9000,
        "pss_kb": base - 2000,
        "pss_anon_kb": base * 6 // 10,
        "pss_file_kb": base * 3 // 10,
        "private_dirty_kb": base * 6 // 10,
        "java_heap_kb": 21000,
        "native_heap_kb": None,
    }


def build_report(steps: int = 400, kind: str = "virtual-device") -> dict[str, Any]:
    """A report as docs/formats.md section 8 describes it, of a run that went well."""
    draw = random.Random(11)

    def times(mean: int, count: int = steps) -> dict[str, Any]:
        return metric([int(mean * draw.lognormvariate(0, 0.25)) for _ in range(count)])

    return {
        "schema_version": 1,
        "run_id": "11111111-2222-3333-4444-555555555555",
        "started_utc": "2026-11-23T20:00:00Z",
        "finished_utc": "2026-11-23T20:00:09Z",
        "exit_status": "succeeded",
        "phase": "done",
        "error": None,
        "target": {
            "kind": kind,
            "model": "Model <One>",
            "abi": "x86_64",
            "sdk": None,
            "os": "Linux 6.1",
            "cores": 2,
            "memory_total_kb": 8_000_000,
        },
        "bundle": {
            "bundle_id": "ml-100k-mf-d64-10pct-1a2b3c4d",
            "manifest_sha256": DIGEST,
            "files": {"step.pte": DIGEST, "score.pte": DIGEST},
            "planned_arena_bytes": {"gradients": 1_400_000, "update": 90_000, "score": 500_000},
        },
        "parameters": {"steps": steps, "batch_size": 256, "threads": 1, "learning_rate": 0.5},
        "resumed_from_step": None,
        "correctness": {
            "verdict": "passed",
            "steps": 120,
            "max_abs_error": 1.25e-7,
            "tolerance": 1e-4,
        },
        "quality": {
            "before": {"recall@20": 0.1012, "ndcg@20": 0.0871, "users": 911},
            "after": {"recall@20": 0.1187, "ndcg@20": 0.0995, "users": 911},
        },
        "losses": [
            0.35 + 0.34 * math.exp(-step / 90) + draw.gauss(0, 0.012) for step in range(steps)
        ],
        "metrics": {
            "train_step_ns": times(420_000),
            "gradients_ns": times(180_000),
            "update_ns": times(40_000),
            "assemble_ns": times(110_000),
            "write_back_ns": times(60_000),
            "exchange_ns": times(900_000, 6),
            "checkpoint_ns": times(4_000_000, 4),
            "score_ns": times(300_000, 911),
        },
        "phases": [
            {
                "name": name,
                "start_ns": index * 10**9,
                "duration_ns": (index + 1) * 10**8,
                "memory": memory(150_000 + 7_000 * index),
            }
            for index, name in enumerate(PHASES)
        ],
        "thermal_status": None,
        "battery": {"level": None, "charging": None, "current_now": None},
        "cpu_frequencies_khz": None,
        "versions": {"harness": "0.1.0", "runtime": "executorch", "vm": "OpenJDK 17"},
        "state": {"generation": steps, "table_sha256": DIGEST},
        "warnings": [],
    }


@pytest.fixture
def make_report() -> Callable[..., dict[str, Any]]:
    return build_report


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """Files to push; one is empty, one is larger than adb's largest message."""
    folder = tmp_path / "toy"
    folder.mkdir()
    draw = random.Random(3)
    files = []
    for name, size in (("score.pte", 0), ("step.pte", 3000), ("table.safetensors", 2_500_000)):
        data = draw.randbytes(size)
        (folder / name).write_bytes(data)
        files.append(BundleFile(name, hashlib.sha256(data).hexdigest(), size))
    data = b'{"schema_version": 1}'
    (folder / MANIFEST).write_bytes(data)
    files.append(BundleFile(MANIFEST, hashlib.sha256(data).hexdigest(), len(data)))
    return Bundle(folder, "toy-mf-d8-10pct-00112233", tuple(files))


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small bundle as ``sparserec export`` writes it."""
    # These bring torch, which most tests of this folder do without.
    from export.build import build
    from pipeline.data.interactions import Interactions
    from pipeline.data.split import temporal_split
    from pipeline.incremental import Incremental
    from pipeline.nmf import random_table
    from pipeline.recipes import sparserec
    from pipeline.run import TrainedRun

    rng = np.random.default_rng(0)
    pairs = [(user, item) for user in range(40) for item in rng.choice(60, 12, replace=False)]
    users, items = np.array(pairs, dtype=np.int32).T
    times = np.arange(len(pairs), dtype=np.int64)
    names = ([f"user {user}" for user in range(40)], [f"item {item}" for item in range(60)])
    split = temporal_split(Interactions(users, items, times, *names))
    recipe = replace(sparserec(), dim=8, density=0.4)
    table = random_table(split.known_users, split.known_items, 8, 0.4, 2, 0.3, seed=3)
    run = TrainedRun("tiny", "0" * 64, recipe, table, {}, split, {"recall@20": 0.5}, [])
    device = Incremental(learning_rate=2.0, batch_size=16, epochs=10, window=8)
    return build(run, tmp_path_factory.mktemp("exported") / "bundle", device).path


@pytest.fixture
def bundle_dir(exported: Path, tmp_path: Path) -> Path:
    """A copy of that bundle, which a test may damage."""
    return Path(shutil.copytree(exported, tmp_path / "bundle"))


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the tests from the user's keys, state and adb server."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", "1")


APP = '''#!{python}
"""Behaves as the harness does on the outside: statuses, a report, a result."""
import json, os, signal, sys, time
values = dict(zip(sys.argv[1::2], sys.argv[2::2]))
behaviour = os.environ.get("APP_BEHAVIOUR", "succeed")

def say(text):
    print("INSTRUMENTATION_" + text, flush=True)

if "bundles" in values:
    say("STATUS: phase=check base")
    say("STATUS_CODE: 2")
    if behaviour == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    if behaviour == "fail":
        say("RESULT: exit_status=failed")
        say("RESULT: error=step.pte: SHA-256 differs; push that bundle first")
        say("CODE: 0")
        sys.exit(1)
    say("RESULT: exit_status=succeeded")
    say("RESULT: bundle=" + os.path.basename(values.get("apply", "before")))
    say("CODE: -1")
    sys.exit(0)
report = json.load(open({report!r}))
report.update(run_id=values["run_id"], exit_status="started", phase="train", finished_utc=None)
path = values["out"] + "/report.json"

def write():
    json.dump(report, open(path, "w"))

write()
say("STATUS: phase=load")
say("STATUS_CODE: 2")
for step in range(10, 31, 10):
    for text in ("phase=train", f"step={{step}}", "steps=30", "loss=0.5"):
        say("STATUS: " + text)
    say("STATUS_CODE: 2")
    if behaviour == "crash" and step == 20:
        print("a library is missing", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    if behaviour == "hang":
        time.sleep(60)
if behaviour == "fail":
    report.update(exit_status="failed", error="table.safetensors: row_ptr is not ascending")
    write()
    say("RESULT: exit_status=failed")
    say("RESULT: error=" + report["error"])
    say("CODE: 0")
    sys.exit(1)
report.update(exit_status="succeeded", phase="done", finished_utc="2026-11-23T20:00:09Z")
report["parameters"]["given"] = {{key: values[key] for key in sorted(values)}}
write()
say("RESULT: exit_status=succeeded")
say("RESULT: report=" + path)
say("CODE: -1")
'''


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """A launcher for the virtual device; the variable APP_BEHAVIOUR makes it misbehave."""
    source = tmp_path / "sample.json"
    source.write_text(json.dumps(build_report(30)))
    launcher = tmp_path / "app"
    launcher.write_text(APP.format(python=sys.executable, report=str(source)))
    launcher.chmod(0o755)
    return launcher


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


@pytest.fixture
def virtual(tmp_path: Path, app: Path) -> Iterator[VirtualDevice]:
    key = keys.public(keys.virtual_key())
    with VirtualDevice(tmp_path / "phone", authorized_keys=[key], harness=app) as running:
        yield running


@pytest.fixture
def device(virtual: VirtualDevice) -> Iterator[Device]:
    transport = Socket(virtual.host, virtual.port)
    with Device(f"127.0.0.1:{virtual.port}", transport, [keys.virtual_key()]) as connected:
        yield connected


@pytest.fixture
def trains_by_hand(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """The app trains on the device as its user started it; the words are AOSP's ServiceRecord's."""
    shell = device.shell
    services = (
        "ACTIVITY MANAGER SERVICES (dumpsys activity services)\n  User 0 active services:\n"
        "  * ServiceRecord{5d1c u0 org.sparserec.app/.RunService}\n"
        "    isForeground=true foregroundId=1 foregroundNoti=Notification(channel=progress)\n"
    )

    def answer(command: str, timeout: float = 30.0) -> ShellResult:
        if command == "dumpsys activity services org.sparserec.app":
            return ShellResult(0, services)
        assert "force-stop" not in command
        assert "am instrument" not in command
        return shell(command, timeout)

    monkeypatch.setattr(device, "shell", answer)


@pytest.fixture
def phone_with(tmp_path: Path, app: Path) -> Iterator[Callable[..., tuple[Device, VirtualDevice]]]:
    """Start and connect a virtual device on which things go wrong (docs/virtual-device.md)."""
    with contextlib.ExitStack() as stack:

        def start(**faults: Any) -> tuple[Device, VirtualDevice]:
            key = keys.virtual_key()
            running = stack.enter_context(
                VirtualDevice(
                    tmp_path / "phone",
                    authorized_keys=[keys.public(key)],
                    harness=app,
                    faults=faults,
                )
            )
            transport = Socket(running.host, running.port)
            device = Device(f"127.0.0.1:{running.port}", transport, [key])
            return stack.enter_context(device), running

        yield start


@pytest.fixture
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "PAUSE_SECONDS", 0.01)
