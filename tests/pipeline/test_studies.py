"""The studies behind two defaults run on a user's own log and say what they found."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline import start_study, window_study
from pipeline.data.logs import write_csv
from pipeline.data.split import temporal_split
from pipeline.data.synthetic import generate
from pipeline.fit import fit
from pipeline.graph import Graph
from pipeline.nmf import factorise
from pipeline.recipes import PLAIN, sparserec
from pipeline.start_study import found
from pipeline.window_study import Device, host_recipe


@pytest.fixture
def log(tmp_path: Path) -> str:
    path = tmp_path / "log.csv"
    write_csv(generate(60, 200, 2000, seed=1), path)
    return str(path)


def test_the_study_of_windows_has_a_row_for_each(
    log: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["window_study", log, "3", "1000"])
    window_study.main()
    rows = [line.split("│")[1:4] for line in capsys.readouterr().out.splitlines() if "│" in line]
    exchanged = {window.strip(): int(count.replace(",", "")) for window, _, count in rows}
    assert exchanged["3"] > 0
    assert exchanged["none"] == exchanged["1000"] == 0  # no run is that long


def test_a_device_of_the_study_judges_by_what_comes_after_the_log() -> None:
    split = temporal_split(generate(60, 200, 2000, seed=1))
    device = Device(fit(host_recipe(), split).table, split)
    assert np.isin(device.users, np.unique(split.later.users)).all()
    assert device.learn(None, 1) == device.learn(None, 1)
    assert device.learn(3, 1)[1] > 0


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
