"""What the terminal shows of reports and benches, in 80 columns."""

from __future__ import annotations

import io
import json
from pathlib import Path

from rich.console import Console

from device_bench import results, summary
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
