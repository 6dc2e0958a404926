"""The charts: every line that is said to be there is, and takes the page's colours."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from matplotlib.axes import Axes

from device_bench import figures, traces
from tests.device_bench.conftest import build_report
from tests.device_bench.folders import build_sensors


def test_charts_are_well_formed_and_have_words() -> None:
    report = build_report(300)
    golden = {"losses": report["losses"][:120]}
    drawn = figures.all_of(report, golden, None, build_sensors("x", heat=2))
    assert set(drawn) == {
        "loss", "error", "latency", "course", "parts", "spread", "memory",
        "thermal", "clocks", "level", "current", "rss",
    }  # fmt: skip
    for name, svg in drawn.items():
        root = ElementTree.fromstring(svg.replace("xlink:href", "href"))
        title, description = (root.findtext(tag) for tag in ("title", "desc"))
        assert title, name
        assert description, name
        assert root.get("role") == "img"
        ids = re.findall(r'\bid="([^"]+)"', svg)
        assert len(ids) == len(set(ids))
        assert all(one.startswith(f"{name}-") for one in ids)
        colours = set(re.findall(r"#[0-9a-f]{6}\b", svg))
        assert colours <= {"#000000", "#ffffff"}, name
        assert "var(--" in svg


def test_latency_names_the_percentiles_of_its_samples() -> None:
    with figures.charts.style():
        svg = figures.latency([1_000_000.0 * value for value in range(1, 102)])
    assert "101 steps: p50 51.0 ms, p90 91.0 ms, p95 96.0 ms, p99 100 ms." in svg
    for text in ("p50  51.0 ms", "p90  91.0 ms", "p95  96.0 ms", "p99  100 ms"):
        assert re.sub(" +", " ", text) in re.sub(" +", " ", svg)


def test_an_error_above_the_tolerance_is_above_the_line() -> None:
    report = build_report(20)
    with figures.charts.style():
        svg = figures.loss_errors(report, [loss + 0.5 for loss in report["losses"]])
    assert "at most 0.5" in svg
    assert "allowed: 0.0001" in svg


def test_traces_of_what_could_not_be_read_are_left_out() -> None:
    sensors = build_sensors("x")
    for point in sensors["trace"]:
        point.update(thermal_status=None, cpu_frequencies_khz=None, battery_current_now=None)
    with figures.charts.style():
        assert set(traces.all_of(sensors)) == {"level", "rss"}
        sensors["trace"] = []
        assert traces.all_of(sensors) == {}
        single = build_sensors("x", points=1)
        assert "thermal" in traces.all_of(single)


@pytest.mark.parametrize("values", [[1.0], [0.0, 0.0], [5.0, 1e12], [400_000.0, 400_001.0]])
def test_any_times_fit_the_axis(values: list[float]) -> None:
    with figures.charts.style():
        assert "<svg" in figures.latency(values)
        assert "<svg" in figures.course(values)


def test_names_are_no_formulas() -> None:
    report = build_report(30)
    report["metrics"]["a$\\frac$_ns"] = report["metrics"]["score_ns"]
    report["phases"][0]["name"] = "$x$ and $\\y"
    drawn = figures.all_of(report, {"losses": report["losses"]})
    assert "a$\\frac$" in drawn["spread"]
    assert "$x$ and $\\y" in drawn["memory"]
    texts = re.findall(r">([^<>]*\$[^<>]*)<", drawn["error"] + drawn["loss"])
    assert texts == []
    assert "1e-05" in drawn["error"]


def test_differences_from_the_host_stand_at_their_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    report = build_report(20)
    golden = [*report["losses"]]
    report["losses"][:5] = [None] * 5
    drawn: list[list[int]] = []
    plot = Axes.plot

    def noted(axes: Axes, steps: list[int], *rest: object, **more: object) -> object:
        drawn.append(steps)
        return plot(axes, steps, *rest, **more)

    monkeypatch.setattr(Axes, "plot", noted)
    with figures.charts.style():
        figures.loss_errors(report, golden)
    assert drawn == [[*range(5, 20)]]


def test_arenas_that_are_not_known_are_not_nothing() -> None:
    report = build_report(20)
    report["bundle"]["planned_arena_bytes"]["score"] = None
    drawn = figures.all_of(report)
    assert "not readable" in drawn["memory"]
