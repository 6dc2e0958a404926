"""collect: many runs as tables, compared with the reports they came from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.csv
import pyarrow.parquet as parquet
import pytest

from device_bench import collect, results
from sparserec.errors import SparseRecError
from tests.device_bench.conftest import Ran, build_report
from tests.device_bench.folders import build_record, build_sensors, write_bench, write_run

ONE, TWO = "ml-100k-mf-d64-10pct-00000001", "ml-100k-mf-d64-10pct-00000002"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A bench with a run that crashed, and a report of a phone beside it."""
    tree = tmp_path / "tree"
    folder = write_bench(tree / "bench", {ONE: 400_000, TWO: 300_000}, 2)
    crashed = build_record(5, state="crashed", correctness="not_checked", message="it died")
    write_run(folder / "results" / "005-crashed", crashed, None)
    report = build_report(50, kind="phone")
    report["battery"] = {"level": 61, "charging": False, "current_now": -400_000}
    (tree / "phone").mkdir()
    (tree / "phone" / "report.json").write_text(json.dumps(report))
    sensors = build_sensors(report["run_id"], points=60, heat=2)
    (tree / "phone" / "sensors.json").write_text(json.dumps(sensors))
    # A trained run of the host has a run.json too, which is none of ours.
    (tree / "host").mkdir()
    (tree / "host" / "run.json").write_text('{"dataset": "toy"}')
    return tree


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_one_row_for_each_run(tree: Path, ending: str) -> None:
    runs, faults = results.find([tree, tree / "bench"])
    assert faults == []
    out = tree / "out" / f"runs.{ending}"
    collect.write(collect.of_runs(runs), out)
    table = parquet.read_table(out) if ending == "parquet" else pyarrow.csv.read_csv(out)
    rows = {row["path"]: row for row in table.to_pylist()}
    assert len(rows) == 6
    for run in runs:
        row = rows[str(run.path)]
        assert row["state"] == run.state
        assert row["target_kind"] == run.kind
        if run.report is None:
            assert row["train_step_ns_p50"] is None
            assert row["message"] == "it died"
            continue
        assert row["train_step_ns_p50"] == run.report["metrics"]["train_step_ns"]["p50"]
        assert row["recall@20_after"] == run.report["quality"]["after"]["recall@20"]
        assert row["native_heap_max_kb"] is None
        peak = max(phase["memory"]["rss_peak_kb"] for phase in run.report["phases"])
        assert row["rss_peak_max_kb"] == peak
    phone = rows[str(tree / "phone" / "report.json")]
    assert phone["thermal_maximum"] == 2
    assert phone["conditions"] == "UNLOCKED THROTTLED"
    # 400 mA for 60 s over 50 steps.
    assert phone["charge_per_step_uah"] == pytest.approx(400_000 * 60 / 3600 / 50)


def test_samples_are_those_of_the_reports(tree: Path) -> None:
    runs, _ = results.find([tree])
    table = collect.of_samples(runs)
    for run in runs:
        for name in (run.report or {"metrics": {}})["metrics"]:
            mask = [
                (path, metric) == (str(run.path), name)
                for path, metric in zip(
                    table["path"].to_pylist(), table["metric"].to_pylist(), strict=True
                )
            ]
            found = table.filter(mask)
            assert found["nanoseconds"].to_pylist() == run.samples(name)
            assert found["index"].to_pylist() == list(range(len(found)))
        break
    counts = [len(m["runs"]) for run in runs if run.report for m in run.report["metrics"].values()]
    assert table.num_rows == sum(counts)


def test_damaged_files_are_named_and_the_others_kept(tree: Path) -> None:
    damaged = tree / "phone" / "report.json"
    damaged.write_text(damaged.read_text().replace('"phase": "done"', '"phase": "dined"'))
    runs, faults = results.find([tree])
    assert len(runs) == 5
    (fault,) = faults
    assert fault.message.startswith(f"{damaged}: phase: 'dined' is not one of")


def test_what_holds_nothing_and_what_has_no_format(tmp_path: Path) -> None:
    with pytest.raises(SparseRecError, match=r"holds no report\.json"):
        results.find([tmp_path])
    with pytest.raises(SparseRecError, match=r"neither \.parquet nor \.csv"):
        collect.check_name(Path("table.xlsx"))


def test_a_table_that_cannot_be_written_leaves_nothing(tree: Path) -> None:
    runs, _ = results.find([tree])
    (tree / "taken.csv").mkdir()
    with pytest.raises(SparseRecError, match=r"taken\.csv: cannot be written"):
        collect.write(collect.of_runs(runs), tree / "taken.csv")
    assert not list(tree.glob(".*.part"))


@pytest.mark.parametrize("name", ["file/table.csv", "x" * 260 + ".csv"])
def test_a_table_whose_name_cannot_be_is_one_clear_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SparseRecError, match=r"\.csv: cannot be written"):
        collect.write(collect.of_runs([]), tmp_path / name)


def test_the_samples_do_not_take_the_runs_place(tree: Path, sparserec: Callable[..., Ran]) -> None:
    ran = sparserec("collect", str(tree), "--out", "t.csv", "--samples", "./t.csv")
    assert ran.code == 2
    assert "--samples t.csv: is the file of --out, too" in ran.err
    assert not Path("t.csv").exists()


def test_arenas_that_are_not_known_are_null(tmp_path: Path) -> None:
    report = build_report(5)
    report["bundle"]["planned_arena_bytes"] = {"score": None}
    run = results.Result(tmp_path / "report.json", report)
    assert collect.of_runs([run])["planned_arena_bytes"].to_pylist() == [None]
