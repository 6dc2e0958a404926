"""The pages: what they hold, and what a browser makes of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from device_bench import page as pages
from device_bench import report as reports
from device_bench import results
from device_bench.results import Result
from sparserec.errors import SparseRecError
from tests.device_bench import browser
from tests.device_bench.conftest import build_report
from tests.device_bench.folders import build_record, build_sensors, nulls, write_bench, write_run

Make = Callable[..., dict[str, Any]]
ONE, TWO = "ml-100k-mf-d64-10pct-00000001", "ml-100k-mf-d64-10pct-00000002"
HOST = {
    "dataset": "ml-100k",
    "density": 0.1,
    "recall@20": {"sparse": 0.2311, "dense": 0.2382, "random": 0.1723},
    "ndcg@20": {"sparse": 0.2014, "dense": 0.2075, "random": 0.1426},
    "curves": {"sparse": [[1, 0.1], [2, 0.2311]], "dense": [[1, 0.08], [2, 0.2382]], "random": []},
}
VOID = {"meta", "br", "hr", "img", "input", "link"}


class Page(HTMLParser):
    """Checks that elements nest, and collects what the tests look at."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.text = ""
        self.texts: dict[str, list[str]] = {}
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")
        self._attributes(attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._attributes(attrs)

    def _attributes(self, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "xlink:href", "src", "aria-labelledby"):
                self.references += (value or "").split()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        for tag in set(self.open):
            self.texts[tag][-1] += data


def render(report: dict[str, Any], path: Path, **extras: Any) -> tuple[str, Page]:
    path.write_text(json.dumps(report))
    host = extras.pop("host", None)
    pages.render_run(Result(path, reports.read(path), **extras), path.with_suffix(".html"), host)
    html = path.with_suffix(".html").read_text()
    return html, Page(html)


def test_page_has_every_section_and_names_no_address(make_report: Make, tmp_path: Path) -> None:
    report = make_report()
    golden = {"losses": report["losses"][:120]}
    html, page = render(report, tmp_path / "r.json", golden=golden, host=HOST)
    assert page.texts["h1"] == [report["bundle"]["bundle_id"]]
    assert page.texts["h2"] == [
        "Bear in mind",
        "Quality before and after",
        "On the host",
        "Correctness",
        "Time of a training step",
        "Memory by phase",
        "Heat, clocks and battery",
        "Time by operator",
        "The run",
    ]
    assert "script" not in page.tags
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", html)
    assert len(page.ids) == len(set(page.ids))
    assert {name.removeprefix("#") for name in page.references} <= set(page.ids)
    assert page.tags.count("svg") == page.tags.count("figcaption") == 8
    assert page.tags.count("title") == 1 + 8
    assert page.tags.count("desc") == 8
    assert page.tags.count("caption") == page.tags.count("table")
    assert "prefers-color-scheme: dark" in html
    for figure in ("0.1012", "0.1187", "+17.3 %", "1.2e-07", "0.2311", "0.1426", "1.34 MiB"):
        assert figure in page.text
    assert report["bundle"]["manifest_sha256"] in page.text
    assert "Model <One>" in page.text  # escaped in the source, plain to the reader


def test_target_is_said_loudly(make_report: Make, tmp_path: Path) -> None:
    for kind, words in (
        ("virtual-device", "They are not a phone’s."),
        ("emulator", "They are not a phone’s."),
        ("phone", "Measured on Model <One>."),
    ):
        _, page = render(make_report(kind=kind), tmp_path / "r.json")
        assert words in page.text
        assert ("not a phone" in page.text) == (kind != "phone")
        assert ("EMULATOR" in page.text) == (kind != "phone")


def test_a_bench_that_knows_its_device_as_virtual_overrules_a_report(tmp_path: Path) -> None:
    _, page = render(build_report(9, kind="phone"), tmp_path / "r.json", record=build_record(1))
    assert "Measured on" not in page.text
    assert "They are not a phone’s." in page.text


def test_page_of_a_run_that_died_early(make_report: Make, tmp_path: Path) -> None:
    _, page = render(nulls(make_report()), tmp_path / "r.json")
    assert "The run did not finish: the harness died in phase load" in page.text
    assert "✗ The run did not finish" in page.text
    assert page.text.count("not readable") > 10
    # quality, and times
    assert page.text.count("Not measured in this run.") == 2
    assert "svg" not in page.tags
    assert "None" not in page.text


def test_what_is_absent_says_why(tmp_path: Path) -> None:
    _, page = render(build_report(20), tmp_path / "r.json")
    assert "A virtual device has no sensors" in page.text
    assert "There is no profile.etdump beside the report." in page.text
    _, page = render(build_report(20, kind="phone"), tmp_path / "r.json")
    assert "There is no sensors.json of this run beside the report." in page.text
    assert "Not known from this run’s files: DEBUGGABLE, LOW-BATTERY" in page.text


def test_sensors_are_drawn_and_tabled(tmp_path: Path) -> None:
    report = build_report(20, kind="phone")
    sensors = build_sensors(report["run_id"], heat=2)
    html, page = render(report, tmp_path / "r.json", sensors=sensors)
    for name in ("thermal", "clocks", "level", "current", "rss"):
        assert f'id="{name}-title"' in html
    assert "cores 0–1" in html  # always at one clock, so they share a line
    assert "The phone throttled during the run: thermal status 2 (moderate)." in page.text
    assert "1.00 – 2.40" in page.text
    assert "Not known from this run’s files: DEBUGGABLE." in page.text


def test_operators_of_a_profile_are_tabled(tmp_path: Path) -> None:
    profile = etdump(tmp_path / "profile.etdump")
    _, page = render(build_report(20), tmp_path / "r.json", etdump=profile)
    assert "From ExecuTorch’s profile, the costliest first" in page.text
    assert "sin.out" in page.text
    damaged = tmp_path / "damaged.etdump"
    damaged.write_bytes(b"not a profile")
    with pytest.raises(SparseRecError, match=r"damaged\.etdump: cannot be read as an ETDump"):
        render(build_report(20), tmp_path / "r.json", etdump=damaged)


def etdump(path: Path) -> Path:
    """A profile that ExecuTorch itself writes, of a program of two operators."""
    torch = pytest.importorskip("torch")
    from executorch.exir import to_edge
    from executorch.extension.pybindings import portable_lib

    class Twice(torch.nn.Module):  # type: ignore[misc,name-defined]
        def forward(self, x: Any) -> Any:
            return torch.sin(x) + x

    x = torch.ones(64)
    program = to_edge(torch.export.export(Twice(), (x,))).to_executorch()
    module = portable_lib._load_for_executorch_from_buffer(program.buffer, enable_etdump=True)
    module.run_method("forward", [x])
    module.write_etdump_result_to_file(str(path))
    return path


@pytest.mark.parametrize("steps", [2, 5, 40, 5000])
def test_charts_of_short_and_long_runs(make_report: Make, tmp_path: Path, steps: int) -> None:
    html, page = render(make_report(steps), tmp_path / "r.json")
    assert page.tags.count("svg") == 6
    assert len(html) < 500_000


def test_a_run_with_one_step_and_lost_losses(make_report: Make, tmp_path: Path) -> None:
    report = make_report(3)
    for metric in report["metrics"].values():
        metric.update(runs=[5], count=1, **dict.fromkeys(reports.PERCENTILES, 5), mad=0)
    report["losses"] = [0.5, None, 0.4]
    _, page = render(report, tmp_path / "r.json")
    assert page.tags.count("svg") == 6


def test_same_report_same_page(make_report: Make, tmp_path: Path) -> None:
    first, _ = render(make_report(), tmp_path / "a.json")
    second, _ = render(make_report(), tmp_path / "b.json")
    assert first == second


def test_warnings_are_shown(make_report: Make, tmp_path: Path) -> None:
    report = make_report()
    report["warnings"] = ["gen-0000000100.safetensors was damaged <set aside>"]
    report["metrics"]["update_ns"]["count"] = 7
    _, page = render(report, tmp_path / "r.json")
    assert "damaged <set aside>" in page.text
    assert "update_ns: count is 7" in page.text


def test_overview_of_a_bench(tmp_path: Path) -> None:
    bench = write_bench(tmp_path / "bench", {ONE: 400_000, TWO: 300_000}, 3, (1, 2))
    record = build_record(13, state="low_memory", correctness="not_checked", message="<killed>")
    write_run(bench / "results" / "013-dead", record, None)
    pages.render_bench(results.load(bench), tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text()
    page = Page(html)
    assert page.texts["h1"] == ["bench"]
    assert "✓ 12 succeeded" in page.text
    assert "✗ 1 killed by low memory" in page.text
    assert "<killed>" in page.text
    assert "00000001, 1 thread" in page.text
    assert "They are not a phone’s." in page.text
    assert page.tags.count("svg") == page.tags.count("desc") == 3 + 4
    assert page.texts["th"].count("00000002, 2 threads") == 1
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", html)
    assert len(page.ids) == len(set(page.ids))
    assert "None" not in page.text


def test_overview_of_a_bench_where_nothing_went_well(tmp_path: Path) -> None:
    bench = tmp_path / "bench"
    (bench / "results").mkdir(parents=True)
    (bench / "plan.json").write_text("{}")
    device = build_record(1)["device"] | {"virtual": None, "model": None, "abi": None}
    record = build_record(
        1, state="infrastructure_error", correctness="not_checked", device=device, message="no USB"
    )
    write_run(bench / "results" / "001-lost", record, None)
    pages.render_bench(results.load(bench), tmp_path / "page.html")
    page = Page((tmp_path / "page.html").read_text())
    assert "no run to take figures from" in page.text
    assert "device not known" in page.text
    assert "Measured on" not in page.text


def test_recall_is_a_curve_where_runs_had_several_lengths(tmp_path: Path) -> None:
    bench = write_bench(tmp_path / "bench", {ONE: 400_000}, 2)
    for path in bench.glob("results/*-r2/report.json"):
        report = json.loads(path.read_text())
        report["parameters"]["steps"] = 240
        report["quality"]["after"]["recall@20"] = 0.2
        path.write_text(json.dumps(report))
    pages.render_bench(results.load(bench), tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text()
    assert "0.1012 at 0 to 0.2000 at 240" in html


def test_a_page_that_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text(json.dumps(build_report(5)))
    (tmp_path / "taken").mkdir()
    with pytest.raises(SparseRecError, match="taken: the page cannot be written"):
        pages.render_run(Result(path, reports.read(path)), tmp_path / "taken")


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Browser]:
    if browser.CHROMIUM is None:
        pytest.skip(browser.MISSING)
    with browser.Browser(tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run with all that a page can hold, a run that died, and a bench."""
    folder = tmp_path_factory.mktemp("pages")
    report = build_report(kind="phone")
    report["target"]["model"] = "A-model-with-a-name-that-nobody-would-think-of-breaking-" * 2
    full = Result(
        folder / "report.json",
        report,
        build_sensors(report["run_id"], heat=3),
        {"losses": report["losses"][:120]},
        build_record(1, device=build_record(1)["device"] | {"virtual": False}),
    )
    pages.render_run(full, folder / "full.html", HOST)
    pages.render_run(Result(folder, nulls(build_report())), folder / "dead.html")
    bench = write_bench(folder / "bench", {ONE: 400_000, TWO: 300_000}, 2, (1, 2))
    pages.render_bench(results.load(bench), folder / "bench.html")
    return {name: folder / f"{name}.html" for name in ("full", "dead", "bench")}


@pytest.mark.parametrize("is_dark", [False, True])
@pytest.mark.parametrize("width", browser.WIDTHS.values())
@pytest.mark.parametrize("name", ["full", "dead", "bench"])
def test_in_a_browser(
    chromium: browser.Browser, shown: dict[str, Path], name: str, width: int, is_dark: bool
) -> None:
    chromium.open(shown[name], width, is_dark)
    assert chromium.requests() == [shown[name].resolve().as_uri()]
    assert chromium.complaints() == []
    assert chromium.value("document.documentElement.scrollWidth") <= width
    assert chromium.value("document.compatMode") == "CSS1Compat"
    # The scheme reached the page, and its charts took the page's colours.
    background = chromium.value("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") != is_dark
    if name != "dead":
        assert chromium.value("document.querySelectorAll('svg[role=img] > title').length") > 6
        ink = chromium.value(INK)
        assert ink != background
        assert chromium.value(RIGHTMOST_CHART) <= width


INK = "getComputedStyle(document.querySelector('svg text')).fill"
RIGHTMOST_CHART = (
    "Math.max(...[...document.querySelectorAll('svg')].map(e => e.getBoundingClientRect().right))"
)


def test_the_browser_would_notice(chromium: browser.Browser, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<!DOCTYPE html><p style='width: 2000px'>wide</p><img src='missing.png'>"
        "<script>console.error('no')</script>"
    )
    chromium.open(bad, 390)
    assert len(chromium.requests()) == 2
    assert chromium.complaints()
    assert chromium.value("document.documentElement.scrollWidth") > 390
