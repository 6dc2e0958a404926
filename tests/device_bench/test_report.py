"""Reports: what is refused, what counts as a failure, what contradicts itself."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from device_bench import checked, conditions, page, records, results, units
from device_bench import report as reports
from sparserec.errors import SparseRecError
from tests.device_bench.conftest import build_report
from tests.device_bench.folders import (
    build_record,
    build_sensors,
    nulls,
    report_of,
    series,
    write_bench,
    write_run,
)

Make = Callable[..., dict[str, Any]]
ONE = "ml-100k-mf-d64-10pct-00000001"


def test_schema_is_one_and_the_samples_fit(make_report: Make, tmp_path: Path) -> None:
    for name in ("report-1.schema.json", "run-1.schema.json", "sensors.schema.json"):
        Draft202012Validator.check_schema(checked.validator(name).schema)
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
        (["thermal_status"], 3.0, "thermal_status: 3.0 is not of type 'integer'"),
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
    metrics = report["metrics"]
    metrics["checkpoint_ns"] = None
    metrics["exchange_ns"] = dict.fromkeys(metrics["exchange_ns"]) | {"runs": [], "count": 0}
    metrics["update_ns"]["mad"] = None
    assert reports.inconsistencies(report) == []
    metrics["update_ns"]["count"] += 1
    metrics["score_ns"]["p95"] = metrics["score_ns"]["p50"] / 2
    metrics["gradients_ns"]["maximum"] += 1
    text = "\n".join(reports.inconsistencies(report))
    assert re.search(r"update_ns: count is 401, but there are 400 samples", text)
    assert "score_ns: p95 is" in text
    assert "gradients_ns: maximum is" in text
    assert len(text.splitlines()) == 3


@pytest.mark.parametrize("name", ["p50", "p90", "p95", "p99", "mad"])
def test_statistics_are_those_of_the_samples(make_report: Make, name: str) -> None:
    report = make_report()
    step = report["metrics"]["train_step_ns"]
    step["runs"] = [1000, 1001, 1003, 1010, 1500, 1502]
    # As Samples.summary of the harness has them: the median is 1006.5, the distances' 6.5.
    step.update(count=6, minimum=1000, p50=1007, p90=1501, p95=1502, p99=1502, maximum=1502, mad=7)
    assert reports.inconsistencies(report) == []
    step[name] += 1 if name == "mad" else -2
    (text,) = reports.inconsistencies(report)
    assert text.startswith(f"train_step_ns: {name} is")


def test_an_error_above_the_tolerance_is_a_failure_whatever_the_verdict(
    make_report: Make, tmp_path: Path
) -> None:
    report = make_report()
    report["correctness"]["max_abs_error"] = 0.5
    assert "differ from the host's by 0.5, more than 0.0001" in (reports.failure(report) or "")
    write_run(tmp_path / "run", build_record(1, correctness="passed"), report)
    (run,) = results.load(tmp_path / "run").runs
    assert (run.correctness, run.is_good) == ("failed", False)
    assert records.correctness(report) == "failed"
    page.render_run(run, tmp_path / "page.html")
    assert "Failed: over the first" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("correctness", "verdict"),
    [
        (None, "not checked"),
        ({"verdict": "not checked", "max_abs_error": None, "tolerance": 1e-4}, "not checked"),
        ({"verdict": "not checked", "max_abs_error": 0.1, "tolerance": None}, "not checked"),
        ({"verdict": "passed", "max_abs_error": 1e-4, "tolerance": 1e-4}, "passed"),
    ],
)
def test_losses_within_the_tolerance_or_not_compared_are_no_failure(
    make_report: Make, correctness: dict[str, Any] | None, verdict: str
) -> None:
    report = make_report() | {"correctness": correctness}
    assert (reports.verdict(report), reports.failure(report)) == (verdict, None)


@pytest.mark.parametrize(
    ("said", "bench", "kind"),
    [
        ("phone", {"virtual": True}, "virtual-device"),
        ("phone", {"virtual": False, "kind": "emulator"}, "emulator"),
        ("virtual-device", {"virtual": False, "kind": "phone"}, "virtual-device"),
        ("phone", {"virtual": None}, "phone"),
    ],
)
def test_of_two_kinds_of_device_the_one_that_claims_less_counts(
    said: str, bench: dict[str, Any], kind: str
) -> None:
    record = build_record(1)
    record["device"] |= bench
    assert results.Result(Path("report.json"), build_report(4, said), record=record).kind == kind


def test_a_run_that_left_no_report_is_of_the_configuration_of_its_kin(tmp_path: Path) -> None:
    folder = write_bench(tmp_path / "bench", {ONE: 400_000}, 3, (2,))
    next(folder.glob("results/*r2/report.json")).unlink()
    (found,) = results.load(folder).configurations().items()
    assert (found[0].threads, found[0].steps, len(found[1])) == (2, 120, 3)


def test_a_report_under_another_name_is_no_run_of_the_bench_beside_it(tmp_path: Path) -> None:
    report = build_report(4)
    folder = write_run(tmp_path / "run", build_record(1), report)
    (folder / "mine.json").write_text(json.dumps(report))
    (run,) = results.load(folder / "mine.json").runs
    assert run.record is None
    (run,) = results.load(folder / "report.json").runs
    assert run.record is not None


def test_a_report_of_a_harness_that_died_is_of_no_finished_run() -> None:
    report = build_report(4) | {"exit_status": "started"}
    run = results.Result(Path("report.json"), report)
    assert (run.state, run.is_good, run.fault) == ("unfinished", False, "did not finish")


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


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.sampled_from(["1e999", "\\ud800", "succeeded", "phone"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=4,
)


@st.composite
def mutated(draw: st.DrawFn, document: dict[str, Any], most: int = 3) -> dict[str, Any]:
    """The document with up to ``most`` of its values, however deep, replaced or removed."""
    changed = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, most))):
        inner: Any = changed
        while True:
            keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(inner[key], dict | list) and draw(st.integers(0, 3)):
                inner = inner[key]
                continue
            if isinstance(inner, dict) and draw(st.booleans()):
                del inner[key]
            else:
                inner[key] = draw(JSON)
            break
    return changed


def read_or_refused(read: Callable[[], Any], path: Path) -> Any:
    """What ``read`` gives; None if it refuses, in one line that names the file, with a fix."""
    refusal = None
    try:
        return read()
    except SparseRecError as error:
        refusal = error
    assert refusal.message.startswith(str(path))
    assert "\n" not in refusal.message
    assert refusal.fix
    return None


QUICK = settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@QUICK
@given(mutated(build_report(12)))
def test_mutated_reports_are_read_or_refused_in_one_line(
    tmp_path: Path, report: dict[str, Any]
) -> None:
    path = tmp_path / "report.json"
    path.write_text(json.dumps(report))
    found = read_or_refused(lambda: reports.read(path), path)
    if found is None:
        return
    # What is read can be used by everything that reads it.
    run = results.Result(path, found)
    conditions.of(run)
    conditions.unknown(run)
    reports.failure(found)
    reports.inconsistencies(found)
    reports.phase_maxima(found)
    assert run.state in results.STATES
    assert run.correctness in results.CORRECTNESS


@settings(QUICK, max_examples=20)
@given(mutated(build_report(12)))
def test_what_is_read_is_rendered(tmp_path: Path, report: dict[str, Any]) -> None:
    path = tmp_path / "report.json"
    path.write_text(json.dumps(report))
    found = read_or_refused(lambda: reports.read(path), path)
    if found is not None:
        page.render_run(results.Result(path, found), tmp_path / "page.html")


@QUICK
@given(st.binary(max_size=40) | st.builds(lambda at: at, st.integers(0, 4000)))
def test_damaged_bytes_are_refused(tmp_path: Path, damage: bytes | int) -> None:
    path = tmp_path / "report.json"
    data = json.dumps(build_report(3)).encode()
    path.write_bytes(damage if isinstance(damage, bytes) else data[:damage])
    with pytest.raises(SparseRecError, match=r"report\.json: "):
        reports.read(path)


@settings(QUICK, max_examples=150)
@given(mutated(build_record(1)), mutated(build_sensors("run-1-1", 3)))
def test_mutated_records_and_sensors_are_read_or_refused(
    tmp_path: Path, record: dict[str, Any], sensors: dict[str, Any]
) -> None:
    folder = tmp_path / "run"
    folder.mkdir(exist_ok=True)
    (folder / "report.json").write_text(json.dumps(report_of(build_record(1), steps=5)))
    for name, content in (("run.json", record), ("sensors.json", sensors)):
        (folder / name).write_text(json.dumps(content))
    found = read_or_refused(lambda: results.load(folder), folder)
    if found is None:
        return
    (run,) = found.runs
    conditions.of(run)
    assert run.settled("train_step_ns") == run.samples("train_step_ns")[-5:]


def test_deep_nesting_and_numbers_too_large_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    for text in (
        "[" * 100_000,
        '{"schema_version": 1, "phase": "\\ud800"}',
        '{"x": 1e999}',
        '{"x": 9223372036854775808}',
    ):
        path.write_text(text)
        with pytest.raises(SparseRecError, match=r"report\.json: cannot be read as a report"):
            reports.read(path)


def test_folders(tmp_path: Path) -> None:
    with pytest.raises(SparseRecError, match="neither a report nor the folder of a bench"):
        results.load(tmp_path)
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(SparseRecError, match="no run has ended yet") as caught:
        results.load(tmp_path)
    assert caught.value.fix.endswith(f"sparserec bench --resume {tmp_path}")
    bench = results.load(write_bench(tmp_path / "bench", {ONE: 1000}, 2))
    assert [run.record["index"] for run in bench.runs if run.record] == [1, 2]
    assert bench.kinds == ["virtual-device"]
    golden = tmp_path / "bench" / "results" / f"001-virtual-{ONE}-t1-r1" / "golden.json"
    golden.write_text('{"losses": "none"}')
    with pytest.raises(SparseRecError, match=r"golden\.json: losses"):
        results.load(tmp_path / "bench")


def test_only_settled_steps_count_where_the_bench_knows_them(tmp_path: Path) -> None:
    record = build_record(1, stable={"from_sample": 20, "p50_ns": 1.0})
    folder = write_run(tmp_path / "run", record, report_of(record, steps=50))
    (run,) = results.load(folder).runs
    assert run.settled("train_step_ns") == run.samples("train_step_ns")[20:]
    assert run.settled("checkpoint_ns") == run.samples("checkpoint_ns")


@pytest.mark.parametrize(
    ("device", "reported", "kind"),
    [
        ({"virtual": False, "kind": "emulator"}, None, "emulator"),
        ({"virtual": False, "kind": "emulator"}, "phone", "emulator"),
        ({"virtual": False, "kind": "phone"}, None, "phone"),
        ({"virtual": True, "kind": "virtual-device"}, "phone", "virtual-device"),
        # As earlier versions wrote it: an emulator was not virtual.
        ({"virtual": False}, None, "unknown"),
        ({"virtual": False}, "emulator", "emulator"),
        ({"virtual": True}, None, "virtual-device"),
        ({"virtual": None}, None, "unknown"),
    ],
)
def test_a_device_is_the_kind_that_claims_least(
    tmp_path: Path, device: dict[str, Any], reported: str | None, kind: str
) -> None:
    record = build_record(1, device=build_record(1)["device"] | device)
    report = build_report(5, kind=reported) if reported else None
    (run,) = results.load(write_run(tmp_path / "run", record, report)).runs
    assert run.kind == kind


def test_sensors_of_another_run_are_not_taken(tmp_path: Path) -> None:
    report = build_report(5, kind="phone")
    record = build_record(1, device=build_record(1)["device"] | {"virtual": False})
    mine = write_run(tmp_path / "a", record, report, sensors=build_sensors(report["run_id"]))
    other = write_run(tmp_path / "b", record, report, sensors=build_sensors("another"))
    assert results.load(mine).runs[0].sensors is not None
    assert results.load(other).runs[0].sensors is None


@pytest.mark.parametrize(
    ("change", "word", "is_jetpacks"),
    [
        ({"target": {"debuggable": True}}, "DEBUGGABLE", True),
        ({"target": {"os": "Android 12 (aosp_x86-eng 12 SP1A)"}}, "ENG-BUILD", True),
        ({"battery": {"level": 24}}, "LOW-BATTERY", True),
        ({"thermal_status": 3}, "THROTTLED", False),
    ],
)
def test_conditions(change: dict[str, Any], word: str, is_jetpacks: bool) -> None:
    report = build_report(5, kind="phone")
    assert conditions.of(results.Result(Path(), report)) == []
    for key, value in change.items():
        report[key] = report[key] | value if isinstance(value, dict) else value
    (found,) = conditions.of(results.Result(Path(), report))
    assert (found.word, found.is_jetpacks) == (word, is_jetpacks)


def sensed(name: str = "train", figure: str = "battery_level", value: Any = None) -> dict[str, Any]:
    """Sensors of a phone at 30 % whose clocks stand still in training, with one phase's changed."""
    sensors = build_sensors("x")
    for phase in sensors["phases"]:
        phase["battery_level"] = series(30, 31)
        if phase["name"] == "train":
            phase["cpu_frequencies_khz"] = [series(2e6, 2e6), None]
        if phase["name"] == name:
            phase[figure] = value
    return sensors


JETPACKS = ("LOW-BATTERY", "UNLOCKED")
CLOCKS = [series(1e6, 1e6), None, series(1.2e6, 2.4e6), series(2e6, 3e6), series(4e6, 4e6)]
"""In kHz: of a core that stands still, one that cannot be read, and two that move."""


@pytest.mark.parametrize(
    ("sensors", "before", "word", "says"),
    [
        (sensed(), 0, None, ""),
        (sensed("load", "battery_level", series(25, 30)), 0, None, ""),
        (sensed("load", "battery_level", series(24, 30)), 0, "LOW-BATTERY", "24 %"),
        (sensed("load", "cpu_frequencies_khz", None), 0, None, ""),
        (sensed("train", "cpu_frequencies_khz", None), 0, None, ""),
        (sensed("train", "cpu_frequencies_khz", CLOCKS), 0, "UNLOCKED", "1.20 and 3.00 GHz"),
        (sensed("load", "thermal_status", None), 0, None, ""),
        (sensed("load", "thermal_status", series(0, 2)), 0, "THROTTLED", "2 (moderate)"),
        (sensed("load", "thermal_status", series(0, 7)), None, "THROTTLED", "status 7."),
        (sensed(), 1, "WARM-START", "1 (light)"),
    ],
)
def test_conditions_that_sensors_show(
    sensors: dict[str, Any], before: int | None, word: str | None, says: str
) -> None:
    record = build_record(1, thermal_before=before)
    record["device"] |= {"virtual": False, "kind": "phone"}
    run = results.Result(Path(), build_report(5, kind="phone"), sensors, record=record)
    found = conditions.of(run)
    assert [condition.word for condition in found] == [word] * (word is not None)
    assert all(says in condition.text for condition in found)
    assert all(condition.is_jetpacks == (word in JETPACKS) for condition in found)


def test_a_word_is_decided_or_not_known_never_both() -> None:
    report = build_report(5, kind="phone")
    run = results.Result(Path(), report)
    assert conditions.unknown(results.Result(Path(), build_report(5))) == []  # of no phone
    assert conditions.unknown(run) == ["DEBUGGABLE", "LOW-BATTERY", "UNLOCKED", "THROTTLED"]
    report["target"]["debuggable"] = False
    report["battery"]["level"] = 61
    report["thermal_status"] = 0  # it may have throttled before it was read
    assert conditions.unknown(run) == ["UNLOCKED", "THROTTLED"]
    report["thermal_status"] = 3
    assert [condition.word for condition in conditions.of(run)] == ["THROTTLED"]
    assert conditions.unknown(run) == ["UNLOCKED"]
    for figure, words in (
        ("memory_stats_kb", []),
        ("cpu_frequencies_khz", ["UNLOCKED"]),
        ("thermal_status", ["THROTTLED"]),
    ):
        whole = results.Result(Path(), build_report(5, kind="phone"), sensed("train", figure))
        assert conditions.unknown(whole) == ["DEBUGGABLE", *words]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "not readable"),
        (0, "0 ns"),
        (999, "999 ns"),
        (1000, "1.00 µs"),
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
    assert units.count(1_234_567) == "1\u202f234\u202f567"
    assert units.change(0, 1) == units.change(None, 1) == units.change(1, None) == ""
    for show in (units.number, units.small, units.count, units.size):
        assert show(None) == "not readable"


@given(st.floats(1, 1e13))
def test_times_and_sizes_read_back_to_half_a_percent(value: float) -> None:
    scales = (
        (units.duration, {"ns": 1, "µs": 1e3, "ms": 1e6, "s": 1e9}),
        (units.size, {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}),
    )
    for show, scale in scales:
        figure, unit = show(value).split()
        assert float(figure) * scale[unit] == pytest.approx(value, rel=0.0051, abs=0.51)


@pytest.mark.parametrize(
    "losses",
    ["NaN", "1e999", '"123"', '["0.5"]', "[true]", "[NaN]", "[1e999]", f"[1{'0' * 400}]", "[null]"],
)
def test_losses_of_the_host_are_finite_numbers(tmp_path: Path, losses: str) -> None:
    path = tmp_path / "golden.json"
    path.write_text(f'{{"losses": {losses}}}')
    with pytest.raises(SparseRecError, match=r"golden\.json: losses"):
        results.golden(path)
    path.write_text('{"losses": [1, 0.5]}')
    assert results.golden(path)["losses"] == [1.0, 0.5]


def test_what_is_not_known_is_not_shown_as_nothing(make_report: Make, tmp_path: Path) -> None:
    report = make_report(20)
    report["bundle"]["planned_arena_bytes"] = {"score": None, "update": None}
    report["phases"][2]["duration_ns"] = None
    report["battery"] = {"level": 61, "charging": False, "current_now": -412_000}
    assert reports.planned_arenas(report) is None
    (load, _, warm_up, *_) = reports.phase_maxima(report)
    assert (load["duration_ns"], warm_up["duration_ns"]) == (10**8, None)
    page.render_run(results.Result(tmp_path / "report.json", report), tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "planned arenas not readable" in text
    assert not re.search(r">0 (B|ns)\b", text)
    assert re.search(r"Battery level \(%\)</th><td>61<", text)
    assert re.search(r"Battery current \(µA\)</th><td>-412000<", text)
