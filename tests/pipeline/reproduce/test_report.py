"""The page of results, against values put together by hand."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.reproduce import plots
from pipeline.reproduce.cells import Cell
from pipeline.reproduce.grids import ablation, long, sensitivity
from pipeline.reproduce.plots import sensitivity_curves
from pipeline.reproduce.records import append, read
from pipeline.reproduce.report import render
from tests.pipeline.reproduce.made import values

WHERE = {"cpu": "A processor", "cores": 2, "memory_gib": 23.5}
PNG = b"\x89PNG"


def put(results: Path, cell: Cell, recall: float, **more: Any) -> None:
    test = {"recall@20": recall, "ndcg@20": recall / 2}
    line = values(cell, machine=WHERE, finished_utc="2026-11-20T01:02:03Z", test=test)
    append(results, cell.experiment, line | more)


def test_ablation_and_sensitivity_are_means_over_seeds(tmp_path: Path) -> None:
    base = next(c for c in ablation() if c.variant == "as it is")
    history = [
        {"epoch": k, "recall@20": 0.1, "jaccard": 1 / k, "exchanged": k, "grown_frequency": 2.0}
        for k in (1, 2)
    ]
    peaks = {"rss_before_bytes": 2**20, "history": history}
    put(tmp_path, replace(base, seed=1), 0.1, peak_rss_bytes=11 * 2**20, **peaks)
    put(tmp_path, replace(base, seed=2), 0.2, peak_rss_bytes=31 * 2**20, **peaks)
    other = next(c for c in ablation() if c.model == base.model and c.variant != base.variant)
    put(tmp_path, other, 0.05, finished_utc="2026-11-21T00:00:00Z", rss_before_bytes=None)
    one = sensitivity()[0]
    put(tmp_path, one, 0.3)
    page, plot, curves = render(tmp_path)
    text = page.read_text().splitlines()
    model = f"{base.dataset} | {base.model}"
    assert f"| {model} | as it is | 0.1000 | 0.1500 | 0.0750 | 2 | 1, 1 | 20 MiB |" in text
    assert f"| {model} | {other.variant} | 0.1000 | 0.0500 | 0.0250 | 1 | 1 | - |" in text
    assert (
        f"| {one.dataset} | {one.model} | {one.variant} | 0.1000 | 0.3000 | 0.1500 | 1 | 1 | - |"
        in text
    )
    where = "A processor, 2 cores, 23.5 GiB"
    assert f"`sparserec reproduce ablation`; {where}; 2026-11-20 to 2026-11-21; 3 runs." in text
    assert f"`sparserec reproduce sensitivity`; {where}; 2026-11-20; 1 runs." in text
    assert (plot.name, plot.read_bytes()[:4]) == ("ablation-mask.png", PNG)
    assert f"({plot.name})" in page.read_text()
    assert (curves.name, curves.read_bytes()[:4]) == ("sensitivity.png", PNG)
    assert f"({curves.name})" in page.read_text()


def test_long_runs_come_in_the_order_of_the_plan_with_their_methods(tmp_path: Path) -> None:
    dense, sparse = long()[:2]
    put(tmp_path, sparse, 0.2)
    put(tmp_path, dense, 0.3)
    text = render(tmp_path)[0].read_text().splitlines()
    at = f"| {dense.dataset} | {dense.model} |"
    rows = [line.split(" | ")[:5] for line in text if line.startswith(at)]
    assert [row[2:] for row in rows] == [
        ["dense: dense", "0.1000", "0.3000"],
        ["sparserec: 10% of 64 columns", "0.1000", "0.2000"],
    ]


def test_each_hyperparameter_has_its_panel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gowalla = [cell for cell in sensitivity() if cell.dataset == "gowalla"]
    cells = {(cell.model, *cell.overrides[0]): cell for cell in gowalla}
    put(tmp_path, cells["mf", "window", 200], 0.3)
    put(tmp_path, cells["mf", "window", 60], 0.1)
    put(tmp_path, replace(cells["mf", "window", 60], seed=2), 0.2)
    put(tmp_path, cells["lightgcn", "window", 20], 0.4)
    put(tmp_path, cells["mf", "step.floor", 0], 0.5)
    curves = sensitivity_curves(list(read(tmp_path, "sensitivity").values()))
    assert {name: list(lines) for name, lines in curves.items()} == {
        "window": ["gowalla mf", "gowalla lightgcn"],
        "step.floor": ["gowalla mf"],
    }
    assert curves["window"]["gowalla mf"] == [(60, pytest.approx(0.15)), (200, 0.3)]
    figures = []
    monkeypatch.setattr(plots, "save", lambda plt, figure, path: figures.append(figure))
    plots.sensitivity_plot(curves, tmp_path / "plot.png")
    (figure,) = figures
    window, floor = [axis for axis in figure.axes if axis.get_visible()]
    assert (window.get_title(), floor.get_title()) == ("window", "step.floor")
    assert [text.get_text() for text in window.get_xticklabels()] == ["20", "60", "200"]
    drawn = {line.get_label(): line.get_xydata().tolist() for line in window.get_lines()}
    assert drawn["gowalla mf"] == [[1, pytest.approx(0.15)], [2, 0.3]]
    assert drawn["gowalla lightgcn"] == [[0, 0.4]]
    (dotted,) = [line for line in window.get_lines() if line.get_linestyle() == ":"]
    assert list(dotted.get_xdata()) == [1, 1]  # the default, 60


def test_without_records_there_is_a_page_that_says_so(tmp_path: Path) -> None:
    (page,) = render(tmp_path / "new")
    assert "summary --json" in page.read_text()
    assert "##" not in page.read_text()
