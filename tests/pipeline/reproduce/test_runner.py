"""Real runs of real workers on a synthetic dataset: resumed, killed, interrupted, repeated."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from pipeline.data.datasets import load
from pipeline.reproduce import grids, worker
from pipeline.reproduce.cells import LEARNING_RATES, OTHERWISE, Cell, recipe_of
from pipeline.reproduce.commands import reproduce
from pipeline.reproduce.grids import tuning
from pipeline.reproduce.options import Options, parse_budget
from pipeline.reproduce.records import append, load_hits, read
from pipeline.reproduce.runner import pending, run, selected
from pipeline.reproduce.worker import Clock, Job, perform
from sparserec.errors import SparseRecError
from tests.pipeline.reproduce.made import publish, values

CELL = Cell("domains", "made", "lightgcn", "mf", "sparserec", 0.1, 1)
UNFACTORED = replace(CELL, method="static")  # needs no process that makes factors
COMMAND = "from pipeline.reproduce.commands import reproduce; reproduce()"


@pytest.fixture(autouse=True)
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Publish a split of synthetic interactions as the dataset ``made``."""
    monkeypatch.setenv("SPARSEREC_DATA", str(publish(tmp_path / "data")))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def options(tmp_path: Path, **more: object) -> Options:
    made = Options(tmp_path / "results", tmp_path / "work", epochs=2)
    return replace(made, **more)  # type: ignore[arg-type]


def settle(results: Path, cell: Cell) -> None:
    """Record the tuning of a cell as done: the last point wins."""
    for k, one in enumerate(tuning(cell.tuned_by)):
        recipe = recipe_of(one, [], epochs=2).as_dict()
        append(results, "tune", values(one, 0.1 + k / 100, recipe=recipe))


def test_a_cell_is_tuned_run_and_recorded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = replace(OTHERWISE, penalties=(0.01,))  # each point is a process
    monkeypatch.setattr(grids, "budget_of", lambda dataset, model: one)
    how = options(tmp_path, jobs=2)
    points = len(LEARNING_RATES)
    assert [cell.experiment for cell in pending([CELL], how)] == ["tune"] * points + ["domains"]
    settled = replace(CELL, overrides=(("step.learning_rate", 0.1), ("step.l2", 0.1)))
    assert pending([settled], how) == [settled]
    told: list[str] = []
    outcome = run([CELL], how, say=told.append)
    assert (outcome.done, outcome.left, outcome.failed) == (points + 1, 0, {}), told
    tuned = read(how.results, "tune")
    # Of equal points the grid's first, whichever of the two workers was first.
    tried = [tuned[one.id] for one in tuning(CELL.tuned_by)]
    best = max(tried, key=lambda record: record.trained_recall)
    (record,) = read(how.results, "domains").values()
    assert record.recipe == recipe_of(CELL, best.cell.overrides, epochs=2)
    # A run that selects settings says nothing of the test part.
    assert not any({"test", "hits"} & one.values.keys() for one in tuned.values())
    found = load_hits(how.results, record)
    assert found is not None
    recall = (found.found.sum(axis=1) / found.relevant).mean()
    assert record.test("recall@20") == pytest.approx(recall, rel=1e-6)
    start, *trained = record.values["history"]
    assert (start["epoch"], [entry["epoch"] for entry in trained]) == (0, [1, 2])
    assert all(entry["seconds"] > 0 for entry in trained)
    assert record.values["peak_rss_bytes"] > 2**26
    assert record.values["factors"]["seconds"] > 0
    assert pending([CELL], how) == []
    assert run([CELL], how).done == 0
    assert not [p for p in how.work.iterdir() if p.name not in ("locks", "factors")]


def test_runs_that_need_the_same_factors_at_once_make_them_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def factorise(command: object, input: str, **options: object) -> None:
        made.append(input)
        time.sleep(0.2)  # so that the other run looks meanwhile
        worker._factors(Job.from_json(input), data)

    monkeypatch.setattr(subprocess, "run", factorise)
    data = load("made")
    job = Job(CELL, recipe_of(CELL, []), tmp_path / "work", tmp_path / "results")
    with ThreadPoolExecutor(2) as both:
        one, other = [both.submit(worker._factors, job, data) for _ in range(2)]
    assert one.result() == other.result()
    assert len(made) == 1


LONG = replace(CELL, overrides=(("patience", 0),), variant="long")


def test_a_refit_counts_its_epochs_and_not_what_its_start_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Spy(Clock):
        def epoch(self, done: int) -> None:
            before = list(self.seconds)
            super().epoch(done)
            if self.seconds != before:
                assert self.seconds[:-1] == before
                noted.append(done)

    noted: list[int] = []
    monkeypatch.setattr(worker, "Clock", Spy)
    own = (("step.learning_rate", 0.1), ("step.l2", 0.1), ("refit", True))
    cell = replace(CELL, overrides=own)
    job = Job(cell, recipe_of(cell, [], epochs=2), tmp_path / "work", tmp_path / "results")
    record = perform(job)
    best = record["best_epoch"]
    assert best > 0  # so that there is something to refit, from a start that is made anew
    assert noted == list(range(1, 2 + best + 1))
    seconds = json.loads((job.folder / "seconds.json").read_text())
    assert [entry["seconds"] for entry in record["history"][1:]] == seconds[:2]
    assert record["seconds_of_epochs"] == pytest.approx(sum(seconds), abs=1e-3)


def wait_for_checkpoint(work: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not list(work.glob("*/checkpoint.safetensors")):
        assert process.poll() is None, "it ended before it could be stopped"
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_run_that_was_killed_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    whole, cut = (options(tmp_path / name, epochs=80) for name in ("whole", "cut"))
    for how in (whole, cut):
        settle(how.results, LONG)
    run([LONG], whole)
    script = (
        "import sys; from pathlib import Path; from pipeline.reproduce.runner import run;"
        "from tests.pipeline.reproduce.test_runner import LONG, options;"
        "run([LONG], options(Path(sys.argv[1]), epochs=80))"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-c", script, str(tmp_path / "cut")]
    process = subprocess.Popen(command, env=environment, text=True)
    wait_for_checkpoint(cut.work, process)
    process.kill()  # the worker outlives it, holds its lock, and ends at its next word
    process.wait()
    assert read(cut.results, "domains") == {}
    outcome = run([LONG], cut)
    assert (outcome.done, outcome.failed) == (1, {})
    (one,) = read(whole.results, "domains").values()
    (other,) = read(cut.results, "domains").values()
    histories = [
        [{k: v for k, v in entry.items() if k != "seconds"} for entry in r.values["history"]]
        for r in (one, other)
    ]
    assert histories[0] == histories[1]
    assert histories[0][-1]["epoch"] == 80
    assert one.values["test"] == other.values["test"]
    assert other.values["resumed"]


def test_a_budget_stops_a_run_at_a_checkpoint(tmp_path: Path) -> None:
    how = options(tmp_path, epochs=100_000, budget_s=0.5)
    cell = replace(LONG, method="static")
    settle(how.results, cell)
    outcome = run([cell], how)
    assert (outcome.done, outcome.left, outcome.stopped, outcome.failed) == (0, 1, "budget", {})
    assert read(how.results, "domains") == {}


def test_ctrl_c_leaves_a_checkpoint_and_says_so(tmp_path: Path) -> None:
    how = options(tmp_path)
    command = [sys.executable, "-c", COMMAND, "domains", "--only", "dataset=lastfm,model=mf"]
    command += ["--results", str(how.results), "--work", str(how.work), "--epochs", "3000"]
    data = Path(os.environ["SPARSEREC_DATA"])
    (data / "made").rename(data / "lastfm")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for_checkpoint(how.work, process)
    os.kill(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "the same command goes on" in output
    assert "Traceback" not in output
    assert list(how.work.glob("*/checkpoint.safetensors"))


def test_ctrl_c_before_the_first_run_says_so_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.reproduce.runner.pending", interrupted)
    where = ["--results", str(tmp_path / "results"), "--work", str(tmp_path / "work")]
    done = CliRunner().invoke(reproduce, ["domains", *where])
    assert done.exit_code == 130
    assert done.stderr == "stopped (interrupted); the same command goes on\n"


def test_a_cell_that_fails_is_told_and_the_next_one_runs(tmp_path: Path) -> None:
    bad = replace(UNFACTORED, dataset="no-such", variant="bad")
    how = options(tmp_path)
    for cell in (bad, UNFACTORED):
        settle(how.results, cell)
    outcome = run([bad, UNFACTORED], how)
    assert (outcome.done, outcome.left) == (1, 1)
    assert "no-such: neither a file or folder nor a dataset" in outcome.failed[bad.id]


def test_a_cell_whose_recipe_changed_is_run_again_only_if_asked(tmp_path: Path) -> None:
    how = options(tmp_path)
    settle(how.results, UNFACTORED)
    append(how.results, "domains", values(UNFACTORED))  # with untuned settings
    assert pending([UNFACTORED], how) == []
    assert pending([UNFACTORED], replace(how, stale=True)) == [UNFACTORED]
    last = tuning(UNFACTORED.tuned_by)[-1]
    settled = recipe_of(last, [], epochs=2).as_dict()
    shorter = recipe_of(last, [], epochs=1).as_dict()
    append(how.results, "tune", values(last, 0.5, recipe=shorter))
    assert pending([UNFACTORED], how) == []
    assert pending([UNFACTORED], replace(how, stale=True)) == [last, UNFACTORED]
    append(how.results, "tune", values(last, 0.5, recipe=settled))
    outcome = run([UNFACTORED], replace(how, stale=True))
    assert (outcome.done, outcome.failed) == (1, {})
    (record,) = read(how.results, "domains").values()
    assert record.recipe == recipe_of(UNFACTORED, selected(how, UNFACTORED) or [], 2)
    assert pending([UNFACTORED], replace(how, stale=True)) == []


def test_a_cell_whose_own_settings_changed_is_run_again_only_if_asked(tmp_path: Path) -> None:
    how = options(tmp_path)
    before = replace(UNFACTORED, overrides=(("step.learning_rate", 0.1), ("step.l2", 0.1)))
    recipe = recipe_of(before, [], how.epochs).as_dict()
    append(how.results, "domains", values(before, recipe=recipe))
    after = replace(before, overrides=(*before.overrides, ("value_scale", 0.3)))
    assert before.id == after.id
    assert pending([before], how) == pending([after], how) == []
    assert pending([before], replace(how, stale=True)) == []
    assert pending([after], replace(how, stale=True)) == [after]


def test_the_ablation_follows_the_mask(tmp_path: Path) -> None:
    how = options(tmp_path)
    overrides = (("window", 1), ("step.batch_size", 256))
    cell = replace(CELL, experiment="ablation", overrides=overrides)
    settle(how.results, cell)
    outcome = run([cell], how)
    assert outcome.failed == {}
    (record,) = read(how.results, "ablation").values()
    last = record.values["history"][-1]
    kept = record.values["active"] - last["grown"]
    assert last["jaccard"] == pytest.approx(kept / (record.values["active"] + last["grown"]))
    assert 0 < last["grown"] <= last["exchanged"]
    assert 0 <= last["grown_on_items"] <= 1
    assert np.isfinite(last["grown_frequency"])


@pytest.mark.parametrize(
    ("text", "seconds"), [("90m", 5400), ("1h30m", 5400), ("1.5s", 1.5), (" .5h", 1800)]
)
def test_budgets(text: str, seconds: float) -> None:
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["", "90", "m", "-5m", "5x", "1..5s", "0m", ".h", "1..s", "1h.s"])
def test_bad_budgets(text: str) -> None:
    with pytest.raises(SparseRecError, match="--budget"):
        parse_budget(text)


@pytest.mark.parametrize(
    ("only", "told"),
    [
        ("colour=red", "no field of a cell"),
        ("seed", "no field of a cell"),
        ("dataset=lastfm,seed=7", "choose from: 1, 2, 3"),
    ],
)
def test_only_names_what_is_wrong(only: str, told: str) -> None:
    from pipeline.reproduce.choice import chosen
    from pipeline.reproduce.grids import domains

    with pytest.raises(SparseRecError) as error:
        chosen(domains(), [only])
    assert told in str(error.value)


def test_only_keeps_what_is_asked_for() -> None:
    from pipeline.reproduce.choice import chosen
    from pipeline.reproduce.grids import domains

    kept = chosen(domains(), ["dataset=lastfm,seed=1+2", "method=set"])
    assert {(cell.dataset, cell.method) for cell in kept} == {("lastfm", "set")}
    assert sorted((cell.model, cell.seed) for cell in kept) == [
        ("lightgcn", 1),
        ("lightgcn", 2),
        ("mf", 1),
        ("mf", 2),
    ]


def test_every_variant_that_is_named_can_be_chosen() -> None:
    from pipeline.reproduce.choice import chosen

    for cells in [grids.tuned_cells(), *(of() for of in grids.GRIDS.values())]:
        for variant in {cell.variant for cell in cells}:
            kept = chosen(cells, [f"variant={variant},seed=1"])
            assert {cell.variant for cell in kept} == {variant}


def test_datasets_that_are_not_here_are_named_before_any_run(tmp_path: Path) -> None:
    (Path(os.environ["SPARSEREC_DATA"]) / "ml-1m").mkdir()
    where = ["--results", str(tmp_path / "results"), "--work", str(tmp_path / "work")]
    done = CliRunner().invoke(reproduce, ["domains", *where])
    assert isinstance(done.exception, SparseRecError)
    assert done.exception.message == "not on this machine: lastfm, amazon-beauty"
    assert "$SPARSEREC_DATA/lastfm" in done.exception.fix
    done = CliRunner().invoke(reproduce, ["grid", "--only", "dataset=gowalla", *where])
    assert isinstance(done.exception, SparseRecError)
    assert "sparserec data fetch gowalla" in done.exception.fix
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("option", ["--results", "--work"])
def test_a_folder_that_cannot_be_made_is_said_before_any_run(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (Path(os.environ["SPARSEREC_DATA"]) / "lastfm").mkdir()
    monkeypatch.setattr("pipeline.reproduce.runner.run", lambda *_: pytest.fail("it began"))
    (tmp_path / "file").write_text("")
    where = ["--results", str(tmp_path / "results"), "--work", str(tmp_path / "work")]
    command = ["domains", "--only", "dataset=lastfm", *where]
    done = CliRunner().invoke(reproduce, [*command, option, str(tmp_path / "file")])
    assert done.exit_code == 2
    assert f"Invalid value for '{option}'" in done.output
    done = CliRunner().invoke(reproduce, [*command, option, str(tmp_path / "file" / "in")])
    assert isinstance(done.exception, SparseRecError)
    assert "cannot be written" in done.exception.message


@pytest.mark.parametrize("command", ["summary", "report", "verify"])
def test_records_are_not_looked_for_in_a_folder_that_is_not_there(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(reproduce, [command, "--results", "no"])
    assert done.exit_code == 2
    assert "'no' does not exist" in done.output
    assert not (tmp_path / "no").exists()


def test_a_worker_that_ends_before_it_is_asked_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = subprocess.Popen

    def dying(command: list[str], **options: Any) -> subprocess.Popen[str]:
        process = start(["false"], **options)
        process.wait()
        return process

    how = options(tmp_path)
    settle(how.results, UNFACTORED)
    monkeypatch.setattr(subprocess, "Popen", dying)
    outcome = run([UNFACTORED], how)
    assert (outcome.done, outcome.left) == (0, 1)
    assert "exit code 1: no message" in outcome.failed[UNFACTORED.id]


def test_a_worker_that_is_not_asked_properly_says_so() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.reproduce.worker"],
        input=json.dumps({}),
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
