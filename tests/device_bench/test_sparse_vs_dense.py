"""Sparse against dense: the whole way with the real harness, and the figures of given reports."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from device_bench import dense_bench, dense_figures
from device_bench.bundle import Bundle
from device_bench.dense_bench import Case, Point
from device_bench.virtual.server import default_harness
from sparserec.errors import SparseRecError
from tests.device_bench import browser
from tests.device_bench.conftest import Ran, build_report, metric
from tests.device_bench.test_page import Page

HARNESS = default_harness()
BUILT = os.access(HARNESS, os.X_OK)


def report(workload: str, times: list[int], idle: int, peak: int) -> dict[str, Any]:
    """A report of a workload; memory in kB."""
    found = build_report(4)
    memory = found["phases"][0]["memory"]
    found["parameters"]["workload"] = workload
    found["metrics"]["train_step_ns"] = metric(times)
    found["losses"] = [0.7, 0.6, 0.5, 0.4]
    found["phases"] = [
        {
            "name": name,
            "start_ns": 0,
            "duration_ns": 1,
            "memory": memory | {"rss_kb": idle, "rss_peak_kb": at},
        }
        for name, at in (("idle", idle), ("train", peak))
    ]
    arenas = ("forward", "dense_forward", "dense_step", "training")
    found["bundle"]["planned_arena_bytes"] |= dict.fromkeys(arenas, 1000)
    return found


@pytest.fixture
def points(bundle: Bundle) -> list[Point]:
    """Two sizes; SparseRec takes 1 ms and 10 MB at 10%, a dense step 8 ms and 30 MB."""
    found = []
    for rows in (1000, 2000):
        for workload, density, time, peak in (
            ("sparse_forward", 0.1, 100_000, 1_004_000),
            ("sparse_step", 0.1, 1_000_000, 1_010_000),
            ("sparse_forward", 1.0, 100_000, 1_004_000),
            ("sparse_step", 1.0, 2_000_000, 1_012_000),
            ("dense_forward", 1.0, 200_000, 1_008_000),
            ("dense_step", 1.0, 8_000_000, 1_030_000),
            ("training_module", 1.0, 9_000_000, 1_028_000),
        ):
            case = Case(bundle, rows, 8, density, round(rows * 8 * density), workload)
            times = [time, time, 10 * time]
            found.append(Point(case, [report(workload, times, 1_000_000, peak)] * 2))
    return found


def test_figures_and_ratios(points: list[Point], tmp_path: Path) -> None:
    figures = dense_bench.write(points, tmp_path / "figures.json")
    assert dense_bench.read(tmp_path / "figures.json") == figures
    assert figures["points"][0]["samples"]["step_ns"] == [[100_000, 100_000, 1_000_000]] * 2
    rows = {
        (row["rows"], row["workload"], row["density"]): row
        for row in dense_figures.rows_of(figures["points"])
    }
    dense = rows[2000, "dense_step", 1.0]
    assert dense["slower"] == pytest.approx(8.0)
    assert dense["larger"] == pytest.approx(3.0)
    assert dense["forward"]["peak_growth_kb"] == 8000
    assert dense["table_bytes"] == 4 * 2000 * 8
    assert dense["planned_bytes"] == 4 * 2000 * 8 + 1000
    assert rows[1000, "sparse_step", 0.1]["table_bytes"] == 4 * 1001 + 5 * 800


def test_table_and_charts_say_the_figures(points: list[Point], tmp_path: Path) -> None:
    figures = dense_bench.write(points, tmp_path / "figures.json")
    for point in figures["points"]:
        if point["rows"] == 1000:
            point["step_ns"] /= 2
    output = StringIO()
    dense_figures.show(Console(file=output, width=120), figures)
    lines = [line.split() for line in output.getvalue().splitlines()]
    assert ["2,000", "SparseRec", "10%", "1", "1x", "3.9", "9.8", "1x", "1.4"] in lines
    assert ["2,000", "PyTorch-style", "100%", "8", "8x", "7.8", "29.3", "3x", "0.1"] in lines
    said = dense_figures.charts_of(figures["points"][::-1])  # in whatever order they come
    assert (
        "SparseRec, 10%: 500 µs, 1.00 ms; PyTorch-style: 4.00 ms, 8.00 ms; "
        "TrainingModule: 4.50 ms, 9.00 ms."
    ) in said["latency"]
    assert "SparseRec, 10%: 10 MiB, 10 MiB; PyTorch-style: 29 MiB, 29 MiB;" in said["memory"]
    assert (
        "10%: 1.00 ms; 100%: 2.00 ms; PyTorch-style: 8.00 ms; TrainingModule: 9.00 ms."
    ) in said["density"]
    assert "TrainingModule: 8 + 20 MiB; PyTorch-style: 8 + 21 MiB;" in said["passes"]
    assert "SparseRec, 10%: 4 + 6 MiB" in said["passes"]


def test_ratios_are_of_the_density_nearest_to_a_tenth() -> None:
    points = [{"density": density} for density in (0.25, 0.04, 1.0)]
    assert dense_figures.reference_density(points) == 0.04


def test_losses_that_differ_are_found(points: list[Point]) -> None:
    assert dense_bench.loss_difference(points) == (0.0, 4)
    changed = points[5].reports[0] | {"losses": [0.7, 0.6, 0.51]}
    points[5].reports[0] = changed
    difference = dense_bench.loss_difference(points)
    assert difference is not None
    assert difference[0] == pytest.approx(0.01)
    sparse_only = [point for point in points if point.case.workload in dense_bench.SPARSE]
    assert dense_bench.loss_difference(sparse_only) is None


def test_page_says_what_it_is_of(points: list[Point], tmp_path: Path) -> None:
    figures = dense_bench.write(points, tmp_path / "figures.json")
    dense_figures.render(figures, tmp_path / "page.html")
    page = Page((tmp_path / "page.html").read_text())
    assert "They are not a phone’s." in page.text
    assert page.tags.count("svg") == 4
    assert len(set(page.ids)) == len(page.ids)
    assert "http" not in "".join(page.references)


def test_memory_that_cannot_be_read_is_left_out(points: list[Point], tmp_path: Path) -> None:
    for point in points:
        for found in point.reports:
            for phase in found["phases"]:
                phase["memory"] = None
    figures = dense_bench.write(points, tmp_path / "figures.json")
    assert figures["points"][0]["peak_growth_kb"] is None
    dense_figures.render(figures, tmp_path / "page.html")
    page = Page((tmp_path / "page.html").read_text())
    assert page.tags.count("svg") == 2
    assert "not readable" in page.text


def test_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "figures.json").write_text('{"schema_version": 2}')
    with pytest.raises(SparseRecError, match=r"figures\.json: cannot be read"):
        dense_bench.read(tmp_path / "figures.json")


@pytest.mark.skipif(not BUILT, reason="the harness is not built: run `make setup`")
def test_the_command(
    sparserec: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARSEREC_HARNESS", str(HARNESS))
    out = tmp_path / "out"
    small = ["--rows", "120", "--density", "0.5", "--dim", "8", "--batch-size", "16"]
    small += ["--steps", "40", "--dense-steps", "20", "--repeat", "1"]
    command = ["sparse-vs-dense", *small, "--device", "virtual", "--out", str(out)]
    ran = sparserec(*command)
    assert ran.code == 0, ran.err
    assert "not of a phone" in ran.out
    figures = json.loads((out / "sparse-vs-dense.json").read_text())
    assert figures["target"]["kind"] == "virtual-device"
    assert figures["max_abs_loss_difference"] < 1e-5
    assert figures["compared_steps"] == 20
    assert {point["workload"] for point in figures["points"]} == set(dense_bench.NAMES)
    assert all(point["step_ns"] > 0 for point in figures["points"])
    before = {path: path.stat().st_mtime_ns for path in out.rglob("report.json")}
    assert len(before) == 7
    if browser.CHROMIUM is not None:
        with browser.Browser(tmp_path / "profile") as opened:
            opened.open(out / "sparse-vs-dense.html", 390)
            assert opened.complaints() == []
    gone = next(iter(before))
    gone.unlink()
    assert sparserec(*command).code == 0  # goes on: only what is missing is measured
    after = {path: path.stat().st_mtime_ns for path in out.rglob("report.json")}
    assert [path for path in after if after[path] != before[path]] == [gone]


def test_losses_that_are_not_known_are_not_compared(points: list[Point]) -> None:
    for sparse in (points[1], points[3]):
        sparse.reports[0]["losses"] = [None, 0.6, 0.5, 0.4]
    points[5].reports[0]["losses"] = [0.9, None, 0.5, 0.41]
    points[6].reports[0]["losses"] = [None] * 4
    difference = dense_bench.loss_difference(points[:7])
    assert difference == (pytest.approx(0.01), 2)
    for point in points:
        point.reports[0]["losses"] = [None] * 4
    assert dense_bench.loss_difference(points) is None
