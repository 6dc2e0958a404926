"""Reports: what is refused, what counts as a failure, and the page."""

from __future__ import annotations

import copy
import io
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from rich.console import Console

from device_bench import report as reports
from device_bench import summary, units
from sparserec.errors import SparseRecError

Make = Callable[..., dict[str, Any]]
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
    reports.render_html(reports.read(path), path.with_suffix(".html"), **extras)
    html = path.with_suffix(".html").read_text()
    return html, Page(html)


def nulls(report: dict[str, Any]) -> dict[str, Any]:
    """The report of a run that died early on a device where little can be read."""
    bare = copy.deepcopy(report)
    for name in ("finished_utc", "correctness", "quality", "battery", "state", "bundle"):
        bare[name] = None
    bare.update(exit_status="started", phase="load", losses=[], parameters=None)
    bare["metrics"] = {"train_step_ns": None}
    bare["phases"] = [{"name": "load", "start_ns": 0, "duration_ns": None, "memory": None}]
    bare["target"].update(model=None, abi=None, os=None, cores=None, memory_total_kb=None)
    return bare


def test_schema_is_one_and_the_samples_fit(make_report: Make, tmp_path: Path) -> None:
    schema = Path(reports.__file__).parent / "schema" / "report-1.schema.json"
    Draft202012Validator.check_schema(json.loads(schema.read_text()))
    for index, report in enumerate((make_report(), nulls(make_report()))):
        path = tmp_path / f"{index}.json"
        path.write_text(json.dumps(report))
        assert reports.read(path) == report


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (["schema_version"], 2, "schema_version is 2"),
        (["target", "kind"], "real phone", r"target\.kind: 'real phone' is not one of"),
        (["exit_status"], "ok", "exit_status"),
        (["target", "memory_total_kb"], -1, r"target\.memory_total_kb"),
        (["bundle", "manifest_sha256"], "abc", r"bundle\.manifest_sha256"),
        (["quality", "after", "recall@20"], 1.5, r"quality\.after\.recall@20"),
        (["metrics", "train_step_ns", "runs"], ["1"], r"metrics\.train_step_ns\.runs\.0"),
        (["losses"], None, "losses"),
        (["warnings"], "none", "warnings"),
    ],
)
def test_reports_that_break_the_contract(
    make_report: Make, tmp_path: Path, place: list[str], value: object, message: str
) -> None:
    report = make_report()
    inner = report
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    path = tmp_path / "report.json"
    path.write_text(json.dumps(report))
    with pytest.raises(SparseRecError, match=message) as caught:
        reports.read(path)
    assert str(path) in caught.value.message


@pytest.mark.parametrize("name", ["target", "losses", "phases", "warnings", "error"])
def test_missing_keys_are_named(make_report: Make, tmp_path: Path, name: str) -> None:
    report = make_report()
    del report[name]
    path = tmp_path / "report.json"
    path.write_text(json.dumps(report))
    with pytest.raises(SparseRecError, match=f"'{name}' is a required property"):
        reports.read(path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema_version": NaN}', "\xff"])
def test_what_is_no_report(tmp_path: Path, text: str) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(SparseRecError, match=r"report\.json"):
        reports.read(path)


def test_failures(make_report: Make) -> None:
    report = make_report()
    assert reports.failure(report) is None
    report["correctness"]["verdict"] = "failed"
    report["correctness"]["max_abs_error"] = 0.02
    assert "differ from the host's by 0.02" in (reports.failure(report) or "")
    report.update(exit_status="failed", error="no table", phase="load")
    assert reports.failure(report) == "the run failed in phase load: no table"
    report["exit_status"] = "started"
    assert "died in phase load" in (reports.failure(report) or "")


def test_figures_that_contradict_the_samples_are_found(make_report: Make) -> None:
    report = make_report()
    assert reports.inconsistencies(report) == []
    metrics = report["metrics"]
    metrics["update_ns"]["count"] += 1
    metrics["score_ns"]["p95"] = metrics["score_ns"]["p50"] / 2
    metrics["gradients_ns"]["maximum"] += 1
    text = "\n".join(reports.inconsistencies(report))
    assert re.search(r"update_ns: count is 401, but there are 400 samples", text)
    assert "score_ns: the percentiles are not in order" in text
    assert "gradients_ns: maximum is" in text


def test_phases_that_occur_often_are_merged_to_their_largest(make_report: Make) -> None:
    report = make_report()
    again = copy.deepcopy(report["phases"][4])
    again["memory"].update(rss_kb=999_000, native_heap_kb=7)
    report["phases"].append(again)
    merged = {phase["name"]: phase for phase in reports.phase_maxima(report)}
    checkpoint = merged["checkpoint"]
    assert checkpoint["times"] == 2
    assert checkpoint["duration_ns"] == 2 * report["phases"][4]["duration_ns"]
    assert checkpoint["memory"]["rss_kb"] == 999_000
    assert checkpoint["memory"]["native_heap_kb"] == 7
    assert merged["load"]["memory"]["native_heap_kb"] is None


def test_page_has_every_section_and_names_no_address(make_report: Make, tmp_path: Path) -> None:
    report = make_report()
    golden = {"losses": report["losses"][:120]}
    html, page = render(report, tmp_path / "r.json", golden=golden, host_summary=HOST)
    assert page.texts["h1"] == ["Training on a device"]
    assert page.texts["h2"] == [
        "On the host",
        "Quality before and after",
        "Correctness",
        "Time of a training step",
        "Memory by phase",
        "The run",
    ]
    assert "script" not in page.tags
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", html)
    assert len(page.ids) == len(set(page.ids))
    assert {name.removeprefix("#") for name in page.references} <= set(page.ids)
    assert page.tags.count("svg") == page.tags.count("figcaption") == 5
    assert page.tags.count("title") == 1 + 5
    assert page.tags.count("desc") == 5
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
        ("phone", "Measured on a phone: Model <One>."),
    ):
        _, page = render(make_report(kind=kind), tmp_path / "r.json")
        assert words in page.text
        assert ("not a phone" in page.text) == (kind != "phone")


def test_page_of_a_run_that_died_early(make_report: Make, tmp_path: Path) -> None:
    _, page = render(nulls(make_report()), tmp_path / "r.json")
    assert "Failed. The run did not finish: the harness died in phase load" in page.text
    assert page.text.count("not readable") > 10
    # quality, and times
    assert page.text.count("Not measured in this run.") == 2
    assert "svg" not in page.tags
    assert "None" not in page.text


@pytest.mark.parametrize("steps", [2, 5, 40, 5000])
def test_charts_of_short_and_long_runs(make_report: Make, tmp_path: Path, steps: int) -> None:
    html, page = render(make_report(steps), tmp_path / "r.json")
    assert page.tags.count("svg") == 4
    assert len(html) < 400_000


def test_a_run_with_one_step_and_lost_losses(make_report: Make, tmp_path: Path) -> None:
    report = make_report(3)
    for metric in report["metrics"].values():
        metric.update(runs=[5], count=1, **dict.fromkeys(reports.PERCENTILES, 5), mad=0)
    report["losses"] = [0.5, None, 0.4]
    _, page = render(report, tmp_path / "r.json")
    assert page.tags.count("svg") == 4


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


def test_terminal_summary(make_report: Make) -> None:
    console = Console(width=120, record=True, file=io.StringIO())
    summary.show_report(console, make_report())
    text = console.export_text()
    assert "0.1012 before, 0.1187 after (+17.3 %)" in text
    assert "not of a phone" in text
    assert "p95" in text


def test_terminal_summary_of_a_run_that_died(make_report: Make) -> None:
    console = Console(width=120, record=True, file=io.StringIO())
    summary.show_report(console, nulls(make_report()))
    assert "died in phase load" in console.export_text()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "not readable"),
        (0, "0 ns"),
        (999, "999 ns"),
        (1500, "1.50 µs"),
        (420_123, "420 µs"),
        (9_100_000_000, "9.10 s"),
    ],
)
def test_durations(value: float | None, text: str) -> None:
    assert units.duration(value) == text


def test_sizes_and_changes() -> None:
    assert units.size(1_400_000) == "1.34 MiB"
    assert units.kilobytes(200 * 1024) == "200 MiB"
    assert units.size(10) == "10 B"
    assert units.change(0.1, 0.12) == "+20.0 %"
    assert units.change(0, 1) == units.change(None, 1) == ""
