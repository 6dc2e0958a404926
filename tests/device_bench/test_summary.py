"""What the terminal shows of reports and benches, in 80 columns."""

from __future__ import annotations

import io
import json
import statistics
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from device_bench import overview, results, summary, units
from device_bench.results import Configuration
from tests.device_bench.conftest import build_report
from tests.device_bench.folders import build_record, nulls, write_bench, write_run

ONE, TWO = "ml-100k-mf-d64-10pct-00000001", "ml-100k-mf-d64-10pct-00000002"


def console(width: int = 120) -> Console:
    return Console(width=width, record=True, file=io.StringIO())


def test_report() -> None:
    shown = console()
    summary.show_report(shown, build_report())
    text = shown.export_text()
    assert "0.1012 before, 0.1187 after (+17.3 %)" in text
    assert "not of a phone" in text
    assert "p95" in text


def test_report_of_a_run_that_died() -> None:
    shown = console()
    summary.show_report(shown, nulls(build_report()))
    assert "died in phase load" in shown.export_text()


def shown(path: Path) -> str:
    screen = console()
    summary.show_run(screen, results.load(path).runs[0])
    return screen.export_text()


def test_a_run_ended_as_its_bench_saw_it(tmp_path: Path) -> None:
    # The harness wrote its report and was killed then; and no report makes a phone of the device.
    record = build_record(1, state="low_memory", message="Android killed it")
    text = shown(write_run(tmp_path / "run", record, build_report(kind="phone")))
    assert "killed by low memory: Android killed it" in text
    assert "succeeded" not in text
    assert "on virtual device: Model <One>" in text
    assert "These figures are of a virtual device, not of a phone." in text


def test_a_run_without_a_report_says_how_it_ended(tmp_path: Path) -> None:
    record = build_record(1, state="crashed", message="the process died")
    text = shown(write_run(tmp_path / "run", record, None))
    assert text.startswith("crashed ml-100k-mf-d64-10pct-1a2b3c4d, virtual-1, t1: the process died")


def test_an_emulator_has_its_article(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(json.dumps(build_report(kind="emulator")))
    assert "These figures are of an emulator, not of a phone." in shown(path)


def test_bench(tmp_path: Path) -> None:
    bench = write_bench(tmp_path / "bench", {ONE: 400_000, TWO: 300_000}, 3, (1, 2))
    record = build_record(13, state="timed_out", correctness="not_checked", message="[no] answer")
    write_run(bench / "results" / "013-late", record, None)
    shown = console(80)
    summary.show_bench(shown, results.load(bench))
    text = shown.export_text()
    assert "…" not in text
    assert "00000001, 1 thread" in text
    assert "timed out 013-late: [no] answer" in text
    assert "Figures of a virtual device are not those of a phone." in text
    (line,) = (line for line in text.splitlines() if line.startswith("00000002, 2 threads"))
    assert line.split()[3] == "3/3"
    assert line.split()[4].startswith(("29", "30"))


def test_a_configuration_is_summed_up_over_its_good_runs(tmp_path: Path) -> None:
    bench = write_bench(tmp_path / "bench", {ONE: 400_000}, 5)
    medians, pooled = [], []
    for number, path in enumerate(sorted(bench.glob("results/*/report.json"))):
        report = json.loads(path.read_text())
        report["quality"]["after"]["recall@20"] = [0.1, 0.3, None, 1, 1][number]
        report["phases"][1]["memory"]["rss_peak_kb"] = 10**6 + number
        if number < 2:
            record = json.loads(path.with_name("run.json").read_text())
            record["stable"] = {"from_sample": 7 * number, "p50_ns": None}
            path.with_name("run.json").write_text(json.dumps(record))
            steps = report["metrics"]["train_step_ns"]["runs"][7 * number :]
            medians.append(statistics.median(steps))
            pooled += steps
        elif number < 4:  # nothing was left to train, or to read
            report["metrics"]["train_step_ns"] = None
            report["phases"] = []
            report["quality"] = report["quality"] if number == 2 else None
        else:
            report["correctness"]["verdict"] = "failed"
        path.write_text(json.dumps(report))
    (row,) = overview.summarise(results.load(bench))
    assert (len(row.runs), len(row.good), row.medians) == (5, 4, medians)
    assert row.median == statistics.median(medians)
    assert row.spread == units.change(min(medians), max(medians))
    p95 = statistics.quantiles(pooled, n=100, method="inclusive")[94]
    assert row.percentile(95) == pytest.approx(p95)
    assert row.peaks == [10**6, 10**6 + 1]
    assert row.quality("after") == pytest.approx(0.2)
    assert replace(row, good=row.good[:1]).spread == ""
    bare = replace(row, good=row.good[2:])
    found = (bare.median, bare.percentile(95), bare.quality("after"), bare.peaks)
    assert found == (None, None, None, [])


A, B = "ml-100k-mf-d64-10pct-00000001", "ml-100k-mf-d6-10pct-00000002"


@pytest.mark.parametrize(
    ("configurations", "names"),
    [
        ([(A, 120, 1, "one")], [A]),
        ([(A, 120, 1, "one"), (B, 120, 1, "one")], ["d64-10pct-00000001", "d6-10pct-00000002"]),
        ([(A, 120, 1, "one"), (A, 120, 2, "one")], ["1 thread", "2 threads"]),
        ([(A, 120, 1, "one"), (A, 240, 1, "one")], ["120 steps", "240 steps"]),
        ([(A, 120, 1, "one"), (A, 0, 1, "two")], ["one", "two"]),
        ([(A, 120, 1, "one"), (A, 240, 2, "one")], ["1 thread, 120 steps", "2 threads, 240 steps"]),
    ],
)
def test_a_configuration_is_named_by_what_differs(
    configurations: list[tuple[str, int, int, str]], names: list[str]
) -> None:
    found = [Configuration(*fields) for fields in configurations]
    assert overview._names(found) == names


@pytest.mark.parametrize(
    ("bundles", "shared"), [([A, A], A), ([A, B], "ml-100k-mf-"), ([A, "ml-100k"], "ml-100k-")]
)
def test_names_begin_alike_in_whole_words(bundles: list[str], shared: str) -> None:
    assert overview.common([Configuration(name, 1, 1, "one") for name in bundles]) == shared
