"""The memory experiment: real and made measurements, recorded once, and their rendering."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline.memory import Memory
from pipeline.reproduce import memory
from pipeline.reproduce.commands import reproduce
from pipeline.reproduce.memory import METHODS, MODELS, ROWS, MemoryCell, memory_cells, read_memory
from pipeline.reproduce.report import render
from sparserec.errors import SparseRecError

SMALL = MemoryCell("mf", "sparserec", 2000)
HUGE = MemoryCell("mf", "dense", 10**7)
LIMIT = 1 << 30


def test_the_cells_are_all_models_methods_and_sizes_mf_first() -> None:
    cells = memory_cells()
    assert len({cell.id for cell in cells}) == len(MODELS) * len(METHODS) * len(ROWS) == 64
    assert [cell.rows for cell in cells[:5]] == [10**4] * 4 + [10**5]
    assert [cell.model for cell in cells[::16]] == ["mf", "neumf", "lightgcn", "ngcf"]


def test_a_cell_is_measured_once_and_what_does_not_fit_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    outcome = memory.run([SMALL, HUGE], tmp_path, LIMIT, say=told.append)
    assert (outcome.measured, outcome.skipped, outcome.failed, outcome.left) == (1, 1, {}, 0)
    assert [line.split()[:2] for line in told] == [
        ["measured", SMALL.id + ":"],
        ["skipped", HUGE.id + ":"],
    ]
    whole = (tmp_path / "memory.jsonl").read_bytes()
    assert whole.count(b"\n") == 2
    records = read_memory(tmp_path)
    assert records[SMALL.id].found.backward is not None
    assert records[SMALL.id].values["machine"]["threads"] == 1
    assert records[HUGE.id].found.backward is None
    assert "GiB" in records[HUGE.id].found.skipped

    asked: list[str] = []
    still = Memory("mf", "dense", 10**7, 64, 0.1, 1024, 0.25, 1, 0, skipped="too large")

    def measure(model: str, method: str, *rest: Any, limit: int) -> Memory:
        asked.append(f"{model} {method}")
        return still

    monkeypatch.setattr(memory, "measure", measure)
    memory.run([SMALL, HUGE], tmp_path, LIMIT)
    assert asked == ["mf dense"]
    assert (tmp_path / "memory.jsonl").read_bytes() == whole

    # A line cut short is a cell without a record, and the next append mends the file.
    (tmp_path / "memory.jsonl").write_bytes(whole[:-20])
    with pytest.warns(UserWarning, match="cut short"):
        memory.run([HUGE], tmp_path, LIMIT)
    assert [json.loads(line)["id"] for line in open_lines(tmp_path)] == [SMALL.id, HUGE.id]


def open_lines(results: Path) -> list[str]:
    return (results / "memory.jsonl").read_text().splitlines()


def test_a_failure_is_told_and_passed_over_and_a_budget_stops_between_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(model: str, method: str, *rest: Any, limit: int) -> Memory:
        raise SparseRecError(f"measuring {model} {method} failed")

    monkeypatch.setattr(memory, "measure", measure)
    outcome = memory.run([SMALL, HUGE], tmp_path, LIMIT)
    assert list(outcome.failed) == [SMALL.id, HUGE.id]
    assert memory.run([SMALL, HUGE], tmp_path, LIMIT, budget_s=0).left == 2
    assert read_memory(tmp_path) == {}


def test_a_line_that_is_no_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "memory.jsonl").write_text('{"schema_version": 1}\n{}\n')
    with pytest.raises(SparseRecError, match=r"memory\.jsonl, line 1: not a record"):
        read_memory(tmp_path)


def test_the_page_shows_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mib = 1 << 20

    def measure(
        model: str, method: str, rows: int, dim: int, density: float, *, limit: int
    ) -> Memory:
        sums = 20 * mib if method == "sparserec" else 0
        made = (model, method, rows, dim, density, 1024, 0.25, 100 * mib, sums)
        if rows == 10**7:
            return Memory(*made, skipped="it would take about 15.0 GiB")
        return Memory(*made, 120 * mib, 1 * mib, 130 * mib, 140 * mib, 150 * mib)

    monkeypatch.setattr(memory, "measure", measure)
    cells = [cell for cell in memory_cells() if cell.model in ("mf", "ngcf")]
    memory.run(cells, tmp_path, LIMIT)
    page, *plots = render(tmp_path)
    assert [plot.name for plot in plots] == ["memory-mf.png", "memory-ngcf.png"]
    assert all(plot.read_bytes()[:4] == b"\x89PNG" for plot in plots)
    text = page.read_text()
    assert all(f"({plot.name})" in text for plot in plots)
    # 120 of 1.3 x 100 + 20 MiB is 80%.
    row = "| 10,000 | 10% | {} | 100.0 | 120.0 | 130.0 | 140.0 | 150.0 | {} |"
    assert text.count(row.format("sparserec", "80%")) == 2
    assert text.count(row.format("dense", "-")) == 2
    assert text.count("| 10,000,000 | 10% | rigl | 100.0 | skipped: it would take about") == 2
    assert "`sparserec reproduce memory`; " in text
    assert "32 of 64 cells have no record yet" in text


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--only", "rows=7"], "choose from: 10000, 100000"),
        (["--only", "seed=1"], "write FIELD=VALUE with model, method, rows"),
        (["--limit", "0"], "give GiB"),
    ],
)
def test_the_command_names_what_is_wrong(tmp_path: Path, options: list[str], told: str) -> None:
    done = CliRunner().invoke(reproduce, ["memory", "--results", str(tmp_path), *options])
    assert isinstance(done.exception, SparseRecError)
    assert told in done.exception.fix
    assert list(tmp_path.iterdir()) == []


def test_the_command_lists_measures_stops_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def measure(
        model: str, method: str, rows: int, dim: int, density: float, *, limit: int
    ) -> Memory:
        calls.append(method)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return Memory(model, method, rows, dim, density, 1024, 0.25, 1, 0, 1, 1, 1, 1, 1)

    monkeypatch.setattr(memory, "measure", measure)
    command = ["memory", "--only", "model=mf,rows=10000", "--results", str(tmp_path)]
    assert CliRunner().invoke(reproduce, command).exit_code == 130
    listed = CliRunner().invoke(reproduce, [*command, "--list"]).stdout.splitlines()
    assert [line.split()[0] for line in listed] == ["recorded", "to", "to", "to"]
    assert CliRunner().invoke(reproduce, command).exit_code == 0
    assert calls == ["sparserec", "rigl-packed", "rigl-packed", "dense", "rigl"]
