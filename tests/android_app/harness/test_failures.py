"""Whatever goes wrong: one clear line, a valid report, and nothing lost that was safe."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.android_app.harness.bundles import Tiny, change_manifest, write_golden
from tests.android_app.harness.conftest import Harness

QUICK = {"evaluate": "false", "steps": 40, "checkpoint_every": 10}


def test_damaged_newest_generation_is_set_aside(harness: Harness) -> None:
    whole = harness.run(**QUICK)
    newest = harness.state / "gen-0000000040.safetensors"
    data = bytearray(newest.read_bytes())
    data[-100] ^= 1
    newest.write_bytes(data)

    again = harness.run(**QUICK)
    assert again.code == 0, again.errors
    assert again.report["resumed_from_step"] == 30
    (warning,) = [text for text in again.report["warnings"] if "set aside" in text]
    assert "gen-0000000040.safetensors.bad" in warning
    assert "data_sha256" in warning
    assert newest.with_name(newest.name + ".bad").read_bytes() == data
    assert again.report["state"] == whole.report["state"]


def test_state_of_another_bundle_is_not_used(harness: Harness, own_bundle: Path) -> None:
    assert harness.run(**QUICK).code == 0
    manifest = own_bundle / "manifest.json"
    manifest.write_text(manifest.read_text().replace("2026-11-23", "2026-11-24"))
    other = Harness(harness.launcher, own_bundle, harness.folder).run(**QUICK)
    assert other.code == 0, other.errors
    assert other.report["resumed_from_step"] is None
    assert "manifest_sha256" in other.report["warnings"][0]


def test_fresh_ignores_the_state(harness: Harness) -> None:
    first = harness.run(**QUICK)
    fresh = harness.run(**QUICK, fresh="true")
    assert fresh.report["resumed_from_step"] is None
    assert fresh.report["metrics"]["train_step_ns"]["count"] == 40
    assert fresh.report["state"] == first.report["state"]


def test_finished_run_has_nothing_left_to_do(harness: Harness) -> None:
    first = harness.run(steps=70)
    again = harness.run(steps=70)
    assert again.report["resumed_from_step"] == 70
    assert again.report["metrics"]["train_step_ns"]["count"] == 0
    assert again.report["metrics"]["train_step_ns"]["p50"] is None
    for key in ("state", "losses", "quality", "correctness"):
        assert again.report[key] == first.report[key]
    assert again.report["correctness"]["verdict"] == "passed"

    less = harness.run(steps=60)
    assert less.code == 1
    assert "steps: 60 is less" in less.value("error")


def test_longer_run_goes_on_from_a_shorter_one(harness: Harness, tmp_path: Path) -> None:
    harness.run(evaluate="false", steps=45)
    longer = harness.run(evaluate="false", steps=90)
    assert longer.report["resumed_from_step"] == 45
    at_once = Harness(harness.launcher, harness.bundle, tmp_path / "b").run(
        evaluate="false", steps=90
    )
    assert longer.report["state"] == at_once.report["state"]


def test_too_few_steps_are_not_judged(harness: Harness) -> None:
    ended = harness.run(**QUICK)
    assert ended.report["correctness"]["verdict"] == "not checked"
    assert ended.report["correctness"]["max_abs_error"] is None
    assert "golden.json has 60 steps" in ended.report["warnings"][0]


def test_wrong_losses_are_judged_failed(harness: Harness, own_bundle: Path) -> None:
    golden = json.loads((own_bundle / "golden.json").read_text())
    golden["losses"][50] += 0.001
    write_golden(own_bundle, Tiny(), golden["losses"])
    change_manifest(own_bundle, lambda manifest: None)
    ended = Harness(harness.launcher, own_bundle, harness.folder).run(evaluate="false", steps=60)
    assert ended.code == 0
    assert ended.report["correctness"]["verdict"] == "failed"
    assert ended.report["correctness"]["max_abs_error"] == pytest.approx(0.001, rel=0.1)


def test_terminated_harness_saves_first(harness: Harness) -> None:
    keys = {"evaluate": "false", "steps": 10_000_000, "checkpoint_every": 10_000_000}
    with subprocess.Popen(harness.command(**keys), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any("step=" in line for line in process.stdout)
        process.send_signal(signal.SIGTERM)
        rest = process.stdout.read()
    report = harness.report()
    assert report["exit_status"] == "failed"
    assert "stopped at step" in report["error"]
    assert "INSTRUMENTATION_CODE: 0\n" in rest
    (saved,) = harness.state.glob("gen-*.safetensors")
    assert saved.name == f"gen-{report['state']['generation']:010d}.safetensors"
    assert report["state"]["generation"] == len(report["losses"]) > 0


def test_a_long_run_reports_in_a_small_heap(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The samples as numbers fit in it; as objects or as text they would not."""
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Xmx16m")
    ended = harness.run(evaluate="false", steps=30_000, checkpoint_every=10_000)
    assert ended.code == 0, ended.value("error")
    assert len(ended.report["metrics"]["train_step_ns"]["runs"]) == 30_000
    assert len(ended.report["losses"]) == 30_000


def test_stop_after_the_last_step_loses_no_result(harness: Harness) -> None:
    with subprocess.Popen(harness.command(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any("phase=evaluate_after" in line for line in process.stdout)
        process.send_signal(signal.SIGTERM)
        rest = process.stdout.read()
    assert "INSTRUMENTATION_CODE: -1\n" in rest
    report = harness.report()
    assert report["exit_status"] == "succeeded"
    assert report["quality"]["after"]["users"] > 0


def test_a_state_has_one_run_at_a_time(harness: Harness, tmp_path: Path) -> None:
    keys = {"evaluate": "false", "steps": 10_000_000, "checkpoint_every": 10}
    other = Harness(harness.launcher, harness.bundle, tmp_path / "other")
    other.state = harness.state
    with subprocess.Popen(
        harness.command(**keys, run_id="first"), stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert any("step=" in line for line in process.stdout)
            refused = other.run(**keys, fresh="true")
            assert process.poll() is None
        finally:
            process.kill()  # not even so is the lock left behind
    assert refused.code == 1
    assert refused.value("error") == (
        f"state: run first of process {process.pid} is at work in {harness.state}; "
        "wait for it to end, or give another directory"
    )
    assert refused.report["error"] == refused.value("error")
    done = max(int(name[4:14]) for name in _generations(harness))  # the other removed none
    again = other.run(evaluate="false", steps=done + 1)
    assert again.code == 0, again.errors
    assert again.report["resumed_from_step"] == done


def test_full_disk_keeps_the_generation_before(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert harness.run(**QUICK).code == 0
    before = _generations(harness)
    size = len(before["gen-0000000040.safetensors"])
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-XX:-UsePerfData")  # whose file would be too large

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, size - 1))

    ended = harness.run_limited(limit, **{**QUICK, "steps": 60})
    assert ended.code == 1
    assert "gen-0000000050.safetensors: cannot be written" in ended.value("error")
    assert ended.report["exit_status"] == "failed"
    assert ended.report["error"] == ended.value("error")
    assert _generations(harness) == before


def _generations(harness: Harness) -> dict[str, bytes]:
    found = harness.state.glob("gen-*.safetensors")
    return {path.name: path.read_bytes() for path in found}


def _set(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(manifest: dict[str, Any]) -> None:
        *outer, last = path.split(".")
        inner: Any = manifest
        for key in outer:
            inner = inner[int(key) if key.isdigit() else key]
        inner[last] = value

    return change


def _outputs(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = manifest["programs"]["step"]["methods"]["gradients"]["outputs"]
    return found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("schema_version", 2), "manifest.json: schema_version: expected an integer in [1, 1]"),
        (_set("dim", 257), "manifest.json: dim: expected an integer in [1, 256], found 257"),
        (
            _set("training.window", "x"),
            'training.window: expected an integer in [1, 2147483647], found "x"',
        ),
        (_set("training.batch_size", 33), "training.batch_size: 33 is over 32"),
        (_set("files", {"../table.safetensors": {}}), "files: expected plain file names"),
        *(
            (_set("bundle_id", wrong), "manifest.json: bundle_id: expected a plain name")
            for wrong in ("", "..", "../../x", "a/b", "my log", "é")
        ),
        *(
            (
                lambda manifest, name=name: manifest["programs"].update(
                    forward={"file": name, "methods": {}}
                ),
                f"manifest.json: files: no {name}",
            )
            for name in ("forward.pte", "../../step.pte")
        ),
        (_set("nnz", 7), "tensor cols: expected U8 [7]"),
        (_set("nnz", 0), "manifest.json: nnz: expected an integer in [1, 2147483647], found 0"),
        (
            _set("programs.step.methods.update.operators", ["aten::sort.values"]),
            "step.pte: method update needs aten::sort.values",
        ),
        (
            _set("programs.score.methods.score.backends", ["NoBackend"]),
            "score.pte: method score needs NoBackend",
        ),
        (
            _set("programs.step.methods.gradients.inputs.3.shape", [31]),
            "manifest.json: programs: step.pte has 96 slots, a batch 93",
        ),
        (
            _set("programs.step.methods.update.inputs.2.role", "rate"),
            "update: input of role learning_rate: expected float32 [1], found none",
        ),
        (
            _set("programs.score.methods.score.inputs.2.shape", [1, -7]),
            "programs: role penalty: has size -7",
        ),
        (_set("training.learning_rate", 1e30), "the loss of step"),
        (
            _set("programs.score.methods.score.outputs.1.dtype", "float32"),
            "method score: output of role indices: expected int64 [1, 20], found float32",
        ),
        (
            lambda manifest: _outputs(manifest).insert(0, _outputs(manifest)[0]),
            "step.pte: method gradients has outputs [float32 [], float32 [96, 16]], manifest.json",
        ),
        (
            lambda manifest: _outputs(manifest).reverse(),
            "step.pte: method gradients has outputs [float32 [], float32 [96, 16]], manifest.json",
        ),
    ],
)
def test_bad_manifest(
    harness: Harness, own_bundle: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    change_manifest(own_bundle, change)
    ended = Harness(harness.launcher, own_bundle, harness.folder).run(evaluate="false")
    assert ended.code == 1
    assert message in ended.value("error")
    assert ended.report["error"] == ended.value("error")
    assert ended.report["exit_status"] == "failed"
    assert "at org.sparserec" not in ended.errors  # no stack trace


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda bundle: (bundle / "step.pte").unlink(), "step.pte: cannot be read"),
        (
            lambda bundle: (bundle / "score.pte").write_bytes(b""),
            "score.pte: 0 bytes, the manifest",
        ),
        (lambda bundle: _flip(bundle / "table.safetensors"), "table.safetensors: SHA-256 differs"),
        (lambda bundle: (bundle / "manifest.json").unlink(), "manifest.json cannot be read"),
        (lambda bundle: (bundle / "manifest.json").write_text("{"), "manifest.json: not a JSON"),
    ],
)
def test_damaged_bundle(
    harness: Harness, own_bundle: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(own_bundle)
    ended = Harness(harness.launcher, own_bundle, harness.folder).run()
    assert ended.code == 1
    assert message in ended.value("error")
    assert ended.report["phase"] == "load"


def test_program_that_is_none(harness: Harness, own_bundle: Path) -> None:
    (own_bundle / "step.pte").write_bytes(b"not a program" * 100)
    change_manifest(own_bundle, lambda manifest: None)
    ended = Harness(harness.launcher, own_bundle, harness.folder).run()
    assert ended.code == 1
    assert "step.pte" in ended.value("error")
    assert "cannot be loaded: InvalidArgument (0x12)" in ended.value("error")


def test_bundle_that_is_cut_in_training(harness: Harness, own_bundle: Path) -> None:
    damaged = Harness(harness.launcher, own_bundle, harness.folder)
    keys = {"evaluate": "false", "steps": 10_000_000, "checkpoint_every": 10_000_000}
    with subprocess.Popen(damaged.command(**keys), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert any("step=" in line for line in process.stdout)
            os.truncate(own_bundle / "table.safetensors", 0)
            rest, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 1
    assert "INSTRUMENTATION_RESULT: error=a mapped file was cut or cannot be read" in rest
    assert damaged.report()["exit_status"] == "failed"


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "bundle: is missing; add: bundle DIRECTORY"),
        (["bundle"], "bundle: has no value; give pairs: KEY VALUE"),
        (["bundle", "a", "bundle", "b"], "bundle: is given twice"),
        (["speed", "1"], "speed: is no key; use bundle, state, out"),
        (["bundle", "a", "state", "b", "out", "c", "threads", "0"], "threads: '0' is no integer"),
        (["bundle", "a", "state", "b", "out", "c", "fresh", "yes"], "fresh: 'yes' is neither"),
    ],
)
def test_bad_arguments(launcher: Path, arguments: list[str], message: str) -> None:
    ended = subprocess.run([str(launcher), *arguments], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert f"INSTRUMENTATION_RESULT: error={message}" in ended.stdout
    assert ended.stdout.endswith("INSTRUMENTATION_CODE: 0\n")
