"""Whatever a campaign is there to notice, it notices."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.android_app.harness.conftest import Harness
from tests.stress.chains import Prepared
from tests.stress.corruption import Range, mutated
from tests.stress.deltas import Stage
from tests.stress.disk_state import Watched
from tests.stress.driver import Answer
from tests.stress.mutations import Mutation, reseal
from tests.stress.oracle import Result, broken_rule, differs, judge, unclear
from tests.stress.workshop import Workshop


@pytest.fixture
def watched(workshop: Workshop, prepared: Prepared, tmp_path: Path) -> Watched:
    """A copy of an undisturbed run, with its bundle, looked at once."""
    bundle = shutil.copytree(prepared.bundle, tmp_path / "bundle")
    undisturbed = workshop.folder / f"undisturbed-{prepared.setting.name}"
    for name in ("state", "out"):
        shutil.copytree(undisturbed / name, tmp_path / name)
    expected = replace(prepared.expected, losses=prepared.expected.losses.copy())
    made = Watched(Path(bundle), tmp_path, expected)
    assert made.check_end() == []
    return made


def _newest(watched: Watched) -> Path:
    return max(watched.state.iterdir())


def _flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def _of_another_run(watched: Watched) -> None:
    """A whole generation, but another run's: its losses are others."""
    watched.expected.losses[0] += 1


@pytest.mark.parametrize(
    ("happens", "count"),
    [
        (lambda w: _flip(_newest(w), -1), "lost"),
        (lambda w: _flip(_newest(w), 20), "lost"),
        (lambda w: _newest(w).write_bytes(_newest(w).read_bytes()[:-1]), "lost"),
        (lambda w: _newest(w).unlink(), "lost"),
        (lambda w: min(w.state.glob("gen-*")).unlink(), "lost"),
        (lambda w: _newest(w).rename(f"{_newest(w)}.bad"), "lost"),
        (lambda w: (w.out / "report.json").unlink(), "lost"),
        (lambda w: (w.out / "report.json").write_text("{"), "wrong"),
        (lambda w: (w.out / "report.json").write_text('{"loss": NaN}'), "wrong"),
        (lambda w: _flip(w.bundle / "table.safetensors", -1), "wrong"),
        (_of_another_run, "wrong"),
    ],
)
def test_what_is_lost_or_wrong_on_disk_is_noticed(
    watched: Watched, happens: Callable[[Watched], None], count: str
) -> None:
    happens(watched)
    assert count in {problem.count for problem in watched.check()}


def test_another_end_is_noticed(watched: Watched) -> None:
    path = watched.out / "report.json"
    report = json.loads(path.read_text())
    report["state"]["table_sha256"] = "0" * 64
    path.write_text(json.dumps(report))
    assert [problem.count for problem in watched.check_end()] == ["wrong"]


NAMED = Mutation("", "", ("table.safetensors",), ("vals",))


@pytest.mark.parametrize(
    ("error", "lack"),
    [
        ("a/table.safetensors: vals: NaN in row 1; copy again", None),
        ("a/step.pte: vals: NaN in row 1; copy table.safetensors again", "none of"),
        ("a/table.safetensors: intervals; copy vals again", "none of"),
        ("a/table.safetensors: vals are no numbers", "no advice"),
    ],
)
def test_an_unclear_error_is_noticed(error: str, lack: str | None) -> None:
    found = unclear(NAMED, error)
    assert found is None if lack is None else found is not None and lack in found


def _tensor(file: str, name: str, edit: Callable[[np.ndarray], None]) -> Callable[[Path], None]:
    def change(bundle: Path) -> None:
        path = bundle / f"{file}.safetensors"
        tensors = {key: array.copy() for key, array in load_file(path).items()}
        edit(tensors[name])
        save_file(tensors, path)
        reseal(bundle)

    return change


def _assign(place: int, value: float) -> Callable[[np.ndarray], None]:
    def edit(array: np.ndarray) -> None:
        array[place] = value

    return edit


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (_tensor("table", "vals", _assign(3, np.nan)), "vals are not nnz finite numbers"),
        (_tensor("table", "cols", _assign(0, 15)), "cols are not ascending below dim"),
        (_tensor("table", "row_ptr", _assign(1, 5000)), "row_ptr does not rise"),
        (_tensor("interactions", "log_items", _assign(0, 80)), "an index is out of range"),
        (_tensor("interactions", "seen_ptr", _assign(0, 1)), "seen_ptr does not rise"),
        (lambda bundle: _flip(bundle / "step.pte", 9), "step.pte is not what the manifest says"),
        (lambda bundle: (bundle / "ids.safetensors").unlink(), "it cannot be read"),
    ],
)
def test_a_broken_rule_is_noticed(range_: Range, change: Callable[[Path], None], rule: str) -> None:
    bundle = range_.fresh_case() / "bundle"
    assert broken_rule(bundle) is None
    change(bundle)
    assert rule in (broken_rule(bundle) or "")


@pytest.fixture
def of_twin(range_: Range, tmp_path: Path) -> Harness:
    """The harness after a run of the twin, whose result is not the untouched bundle's."""
    harness = Harness(range_.workshop.launcher, range_.bundles.twin, tmp_path)
    assert harness.run().code == 0
    assert Result.of(harness.report()) != range_.untouched
    return harness


def test_a_difference_from_the_reference_is_noticed(range_: Range, of_twin: Harness) -> None:
    report = of_twin.report()
    assert differs(range_.bundles.twin, report) is None
    assert "loss is off" in (differs(range_.bundles.whole, report) or "")
    report["quality"]["after"]["recall@20"] += 0.01
    assert "recall@20 after" in (differs(range_.bundles.twin, report) or "")


@pytest.mark.parametrize(
    ("status", "changed", "way", "counts"),
    [
        ("succeeded", {}, "accepted", ["wrong"]),
        ("succeeded", {"correctness": {"verdict": "failed"}}, "verdict failed", []),
        ("failed", {}, "contradiction", ["wrong"]),
        ("failed", {"exit_status": "failed", "error": "no; no"}, "refused", ["unclear"]),
        ("died", {}, "died", ["crashed"]),
        ("hung", {}, "hung", ["crashed"]),
        ("thrown", {}, "thrown", ["crashed"]),
        ("succeeded", {"exit_status": "none"}, "no report", ["wrong"]),
    ],
)
def test_each_way_is_judged(
    range_: Range,
    of_twin: Harness,
    status: str,
    changed: dict[str, Any],
    way: str,
    counts: list[str],
) -> None:
    """The report is the twin's, the bundle is not: whoever accepts that is wrong."""
    of_twin.report_path.write_text(json.dumps({**of_twin.report(), **changed}))
    answer = Answer(status, changed.get("error", ""))
    found, problems = judge(
        NAMED, answer, range_.bundles.whole, of_twin.report_path, range_.untouched
    )
    assert (found, [problem.count for problem in problems]) == (way, counts)


def test_other_bytes_behind_a_hash_must_be_refused(range_: Range, of_twin: Harness) -> None:
    """Even where the run does not read them, and its result is the right one."""
    bundle = range_.fresh_case() / "bundle"
    hashed, right = replace(NAMED, hashed=True), Result.of(of_twin.report())
    judged = (hashed, Answer("succeeded", ""), bundle, of_twin.report_path, right)
    assert judge(*judged) == ("accepted, same bytes", [])
    _flip(bundle / "ids.safetensors", -1)
    assert [problem.count for problem in judge(*judged)[1]] == ["wrong"]


def test_a_case_is_its_numbers(range_: Range) -> None:
    for case in random.Random(1).sample(range(10_000), 60):
        contents = []
        for _ in range(2):
            folder, mutation = mutated(range_, 1, case)
            files = sorted((folder / "bundle").iterdir())
            contents.append([mutation, *[p.read_bytes() if p.is_file() else p for p in files]])
        assert contents[0] == contents[1]


def _bundle(stage: Stage, k: int) -> Path:
    return stage.device.bundles / stage.chain.ids[k]


@pytest.mark.parametrize(
    ("happens", "said"),
    [
        (lambda s: _flip(_bundle(s, 0) / "table.safetensors", -1), "is not what it must be"),
        (lambda s: (_bundle(s, 1) / "step.pte").unlink(), "is not what it must be"),
        (lambda s: shutil.rmtree(_bundle(s, 0)), "previous "),
        (lambda s: shutil.rmtree(_bundle(s, 1)), "current "),
        (lambda s: (s.device.bundles / "stray").write_text(""), "stray is nothing of ours"),
    ],
)
def test_a_bundle_that_is_lost_is_noticed(
    stage: Stage, happens: Callable[[Stage], None], said: str
) -> None:
    stage.reset()
    assert stage.device.problems(stage.wholes) == []
    assert stage.is_as_it_was()
    happens(stage)
    assert any(said in problem for problem in stage.device.problems(stage.wholes))
    assert not stage.is_as_it_was()
