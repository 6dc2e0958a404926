"""benchmarkData.json: the keys and types of Jetpack's own source, and figures by the library."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from device_bench import benchmark_data, checked, results
from sparserec.errors import SparseRecError
from tests.device_bench.conftest import build_report
from tests.device_bench.folders import build_record, report_of, write_bench, write_run

ONE, TWO = "ml-100k-mf-d64-10pct-00000001", "ml-100k-mf-d64-10pct-00000002"


def exported(path: Path, out: Path) -> list[dict[str, Any]]:
    files = benchmark_data.write(results.load(path), out)
    found = [json.loads(file.read_text()) for file in files]
    for data in found:
        checked.validator("benchmark-data.schema.json").validate(data)
    return found


def test_schema_is_one() -> None:
    Draft202012Validator.check_schema(checked.validator("benchmark-data.schema.json").schema)


def test_a_bench_has_a_benchmark_for_each_configuration(tmp_path: Path) -> None:
    folder = write_bench(tmp_path / "bench", {ONE: 400_000, TWO: 300_000}, 3, (1, 2))
    (data,) = exported(folder, tmp_path / "data.json")
    assert len(data["benchmarks"]) == 4
    first = data["benchmarks"][0]
    assert first["name"] == f"EMULATOR_trainStep[bundle={ONE},threads=1,steps=120]"
    assert first["params"] == {"bundle": ONE, "threads": "1", "steps": "120"}
    assert first["repeatIterations"] == 3
    samples = [
        run.samples("train_step_ns")
        for run in results.load(folder).runs
        if run.configuration.bundle == ONE and run.configuration.threads == 1
    ]
    time = first["metrics"]["timeNs"]
    medians = [statistics.median(run) for run in samples]
    assert time["runs"] == medians
    assert time["median"] == statistics.median(medians)
    assert time["coefficientOfVariation"] == pytest.approx(
        statistics.stdev(medians) / statistics.fmean(medians)
    )
    sampled = first["sampledMetrics"]["trainStepNs"]
    assert sampled["runs"] == samples
    cuts = statistics.quantiles([x for run in samples for x in run], n=100, method="inclusive")
    for percent in (50, 90, 95, 99):
        assert sampled[f"P{percent}"] == pytest.approx(cuts[percent - 1])


def test_what_is_not_known_is_marked_and_a_computer_is_no_phone(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(json.dumps(build_report()))
    (data,) = exported(path, tmp_path / "data.json")
    context = data["context"]
    assert context["build"]["brand"] == context["build"]["device"] == "virtual-device"
    assert context["payload"]["targetKind"] == "virtual-device"
    assert context["build"]["version"]["sdk"] == -1
    assert {"build.version.sdk", "cpuMaxFreqHz"} <= set(context["payload"]["unknown"].split())
    assert "memoryNativeHeapMaxKb" not in data["benchmarks"][0]["metrics"]
    assert data["benchmarks"][0]["metrics"]["timeNs"]["coefficientOfVariation"] == 0


def test_two_devices_are_two_files(tmp_path: Path) -> None:
    folder = write_bench(tmp_path / "bench", {ONE: 400_000}, 1)
    record = build_record(2, device=build_record(2)["device"] | {"serial": "10.0.0.7:5555"})
    write_run(folder / "results" / "002-other", record, report_of(record))
    files = benchmark_data.write(results.load(folder), tmp_path / "data.json")
    assert [file.name for file in files] == ["data-virtual-1.json", "data-10.0.0.7_5555.json"]


def test_runs_that_failed_give_no_figures(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(json.dumps(build_report() | {"exit_status": "failed", "error": "no table"}))
    with pytest.raises(SparseRecError, match="no run to take figures from"):
        benchmark_data.write(results.load(path), tmp_path / "data.json")
    assert not (tmp_path / "data.json").exists()
