"""The studies behind two defaults run on a user's own log and say what they found."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline import device_study, start_study
from pipeline.data.datasets import load
from pipeline.data.interactions import pair_keys
from pipeline.data.logs import write_csv
from pipeline.data.split import temporal_split
from pipeline.data.synthetic import generate
from pipeline.device_study import Device, changed, host_recipe, split_of
from pipeline.fit import fit
from pipeline.graph import Graph
from pipeline.incremental import Incremental
from pipeline.models import ModelName
from pipeline.nmf import factorise
from pipeline.recipes import PLAIN, sparserec
from pipeline.sampling import join
from pipeline.start_study import found


@pytest.fixture
def log(tmp_path: Path) -> str:
    path = tmp_path / "log.csv"
    write_csv(generate(60, 200, 2000, seed=1), path)
    return str(path)


def test_the_study_of_devices_has_a_row_for_each_change(
    log: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["device_study", log, "window=3", "window=1000,epochs=2"])
    device_study.main()
    rows = [line.split("│")[1:4] for line in capsys.readouterr().out.splitlines() if "│" in line]
    exchanged = {text.strip(): int(count.replace(",", "")) for text, _, count in rows}
    assert len(rows) == 4
    assert exchanged["window=3"] > 0
    assert exchanged["no mask updates"] == exchanged["window=1000,epochs=2"] == 0


def test_what_no_device_can_be_told_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = Incremental()
    assert changed(usual, "window=7,l2=0.5") == replace(usual, window=7, l2=0.5)
    monkeypatch.setattr("sys.argv", ["device_study", "log.csv", "rate=7"])
    with pytest.raises(SystemExit):
        device_study.main()
    assert "'rate' is none of" in capsys.readouterr().err
    with pytest.raises(ValueError, match="'batch_size=x': 'x' is no int"):
        changed(usual, "batch_size=x")
    for text in ("model=neumf", "seed=7"):  # another table's, and what the study varies
        with pytest.raises(ValueError, match="is none of loss, optimizer"):
            changed(usual, text)
    for text, first in (("loss=mse", "bpr"), ("optimizer=lion", "sgd"), ("precision=x", "float32")):
        with pytest.raises(ValueError, match=f"'{text}': .* is none of {first}, "):
            changed(usual, text)
    for text in ("window=0", "batch_size=0", "epochs=-1"):
        with pytest.raises(ValueError, match=f"'{text}': give 1 or more"):
            changed(usual, text)


@pytest.mark.parametrize("study", ["device_study", "start_study"])
def test_a_dataset_that_is_not_there_is_one_line_and_its_fix(study: str) -> None:
    command = [sys.executable, "-m", f"pipeline.{study}", "no-such"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("no-such: neither a file or folder nor a dataset")
    assert done.stderr.count("\n") == 2


@pytest.mark.parametrize("model", ["neumf", "lightgcn"])
def test_the_study_is_of_any_model(
    model: ModelName, log: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["device_study", log, "--model", model, "learning_rate=0.01"])
    device_study.main()
    out = capsys.readouterr().out
    assert f"{model}, " in out
    after = [line.split("│")[4] for line in out.splitlines() if "│" in line]
    assert after[0] != after[2]  # the rate made a difference


@pytest.mark.parametrize("timed", [True, False])
def test_the_study_looks_at_nothing_after_the_past(log: str, timed: bool) -> None:
    dataset = load(log)
    if not timed:
        dataset = replace(dataset, interactions=replace(dataset.interactions, timestamps=None))
    whole, inner = dataset.split(), split_of(dataset)
    past = join(whole.train, whole.valid)
    known = set(pair_keys(past.users, past.items, whole.num_items).tolist())
    parts = (inner.train, inner.valid, inner.log, inner.later)
    ids = [{name: k for k, name in enumerate(of)} for of in (whole.user_ids, whole.item_ids)]
    for part in parts:
        users = np.array([ids[0][inner.user_ids[user]] for user in part.users])
        items = np.array([ids[1][inner.item_ids[item]] for item in part.items])
        assert known.issuperset(pair_keys(users, items, whole.num_items).tolist())
    assert min(map(len, parts)) > 0


def test_a_device_of_the_study_judges_by_what_comes_after_the_log() -> None:
    split = temporal_split(generate(60, 200, 2000, seed=1))
    device = Device(fit(host_recipe(), split).recommender, split)
    assert np.isin(device.users, np.unique(split.later.users)).all()
    recipe = Incremental(window=3)
    assert device.learn(recipe) == device.learn(recipe)
    assert device.learn(recipe)[1] > 0


def test_the_study_of_starts_has_a_row_for_each(
    log: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("sys.argv", ["start_study", log])
    start_study.main()
    rows = [line for line in capsys.readouterr().out.splitlines() if "│" in line]
    assert len(rows) == len(start_study.STARTS)
    split = temporal_split(generate(200, 300, 20000, seed=3))
    recipe = sparserec()
    sizes = split.known_users, split.known_items
    factors = factorise(split.train, *sizes, recipe.dim, recipe.seed, recipe.nmf)
    graph = Graph.of(split.train, *sizes)
    for model, of in (("mf", None), ("lightgcn", graph)):
        arm = replace(recipe, step=replace(recipe.step, model=model))
        plain = found(replace(arm, als=PLAIN), split, factors, of)[0]
        assert found(arm, split, factors, of)[0] > plain
