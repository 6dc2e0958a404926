"""compare: the statistics against closed forms and simulation, and what may be compared."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from device_bench import compare, results
from device_bench.bootstrap import Ratio, ratio_of_medians
from sparserec.cli import main
from sparserec.errors import SparseRecError
from tests.device_bench.conftest import build_report
from tests.device_bench.folders import build_record, build_sensors, write_bench, write_run

ONE, TWO = "ml-100k-mf-d64-10pct-00000001", "ml-100k-mf-d64-10pct-00000002"


def draw(
    rng: np.random.Generator, runs: int, steps: int, level: float, between: float, noise: float
) -> list[np.ndarray]:
    """Log-normal steps whose level differs from run to run."""
    return [
        np.exp(math.log(level) + rng.normal(0, between) + rng.normal(0, noise, steps))
        for _ in range(runs)
    ]


@pytest.mark.parametrize("runs", [(6, 9), (3, 2)])
def test_one_sample_a_run_gives_welchs_interval(runs: tuple[int, int]) -> None:
    rng = np.random.default_rng(7)
    a = [np.array([x]) for x in rng.lognormal(5, 0.2, runs[0])]
    b = [np.array([x]) for x in rng.lognormal(5.2, 0.4, runs[1])]
    found = ratio_of_medians(a, b, resamples=40_000)
    logs = [np.log(np.concatenate(side)) for side in (b, a)]
    expected = stats.ttest_ind(*logs, equal_var=False).confidence_interval(0.95)
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    assert math.log(found.ratio) == pytest.approx(logs[0].mean() - logs[1].mean())
    reach = (expected.high - expected.low) / 2
    assert math.log(found.high / found.ratio) == pytest.approx(reach, rel=0.01)
    assert math.log(found.ratio / found.low) == pytest.approx(reach, rel=0.01)


def test_one_run_gives_the_medians_known_variance() -> None:
    # The median of n normal draws has variance pi / 2n, so the logarithm's here is sd^2 times that.
    rng = np.random.default_rng(8)
    a, b = (draw(rng, 1, 4000, 100, 0, 0.2) for _ in range(2))
    found = ratio_of_medians(a, b)
    assert found is not None
    assert found.high is not None
    reach = 1.96 * 0.2 * math.sqrt(2 * math.pi / 2 / 4000)
    assert math.log(found.high / found.ratio) == pytest.approx(reach, rel=0.2)
    assert found.is_of_one_run
    for sides, is_of_one_run in (((a, b * 2), True), ((a * 2, b), True), ((a * 2, b * 2), False)):
        some = ratio_of_medians(*sides)
        assert some is not None
        assert some.is_of_one_run == is_of_one_run


@pytest.mark.parametrize(("runs", "least", "most"), [(1, 0.91, 0.99), (3, 0.93, 1), (6, 0.93, 1)])
def test_intervals_hold_the_truth_as_often_as_they_say(
    runs: int, least: float, most: float
) -> None:
    rng = np.random.default_rng(runs)
    between = 0.05 if runs > 1 else 0.0
    held = []
    for seed in range(250):
        a = draw(rng, runs, 80, 100, between, 0.2)
        b = draw(rng, runs, 80, 110, between, 0.2)
        found = ratio_of_medians(a, b, resamples=150, seed=seed)
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        held.append(found.low <= 1.1 <= found.high)
    assert least <= np.mean(held) <= most


def test_successive_steps_that_are_alike_widen_the_interval() -> None:
    rng = np.random.default_rng(3)
    noise = rng.normal(0, 0.2, 4000)
    series = np.exp(np.convolve(noise, np.ones(10) / math.sqrt(10), mode="valid"))
    shuffled = rng.permutation(series)
    reach = []
    for samples in (series, shuffled):
        found = ratio_of_medians([samples], [samples])
        assert found is not None
        assert found.high is not None
        reach.append(math.log(found.high))
    assert reach[0] > 1.6 * reach[1]


def test_no_ratio_of_what_is_not_positive_and_no_interval_of_one_reading() -> None:
    assert ratio_of_medians([np.zeros(3)], [np.ones(3)]) is None
    found = ratio_of_medians([np.array([2.0])], [np.array([3.0])] * 3)
    assert found is not None
    assert (found.ratio, found.low, found.high) == (pytest.approx(1.5), None, None)
    found = ratio_of_medians([np.full(4, 0.2)] * 2, [np.full(4, 0.3)] * 2)
    assert found is not None
    assert (found.ratio, found.low, found.high) == pytest.approx((1.5, 1.5, 1.5))


def test_an_interval_has_no_unit_and_its_repetitions_any_length() -> None:
    rng = np.random.default_rng(4)
    a, b = ([draw(rng, 1, steps, 100, 0.1, 0.2)[0] for steps in (3000, 90)] for _ in range(2))
    found = ratio_of_medians(a, b)
    tiny = ratio_of_medians([1e-9 * samples for samples in a], [1e-9 * samples for samples in b])
    assert found is not None
    assert tiny is not None
    assert found.low is not None
    assert (tiny.ratio, tiny.low) == pytest.approx((found.ratio, found.low))
    assert found.low < 0.99 * found.ratio


def test_draws_of_zeros_alone_leave_an_interval() -> None:
    found = ratio_of_medians([np.array([0.0, 0.0, 1.0, 1.0, 1.0])], [np.full(5, 2.0)])
    assert found == Ratio(pytest.approx(2), pytest.approx(2), pytest.approx(2), True)


def test_ten_percent_are_found_and_equal_sides_are_not_flagged(tmp_path: Path) -> None:
    a = results.load(write_bench(tmp_path / "a", {ONE: 400_000}, 5, seed=1))
    b = results.load(write_bench(tmp_path / "b", {ONE: 440_000}, 5, seed=2))
    same = results.load(write_bench(tmp_path / "c", {ONE: 400_000}, 5, seed=3))
    (slower,) = compare.compare(a, b)
    step = slower.verdicts[0]
    assert step.metric.name == "step time"
    assert step.words == "slower"
    assert step.ratio.ratio == pytest.approx(1.1, abs=0.03)
    assert (step.a, step.b) == pytest.approx((400_000, 440_000), rel=0.03)
    assert step.is_worse_than(1.05)
    assert not step.is_worse_than(1.15)
    (equal,) = compare.compare(a, same)
    assert {verdict.words for verdict in equal.verdicts} == {compare.NONE_SHOWN}
    (faster,) = compare.compare(b, a)
    assert faster.verdicts[0].words == "faster"


@pytest.mark.parametrize(
    ("higher_is_better", "ratio", "words", "is_worse"),
    [
        (False, Ratio(1.2, 1.06, 1.4), "slower", True),
        (False, Ratio(1.2, 1.04, 1.4), "slower", False),
        (False, Ratio(1.2, 0.99, 1.4), compare.NONE_SHOWN, False),
        (False, Ratio(1.2, 1.0, 1.4), compare.NONE_SHOWN, False),
        (False, Ratio(0.8, 0.7, 0.9, is_of_one_run=True), "faster in this run", False),
        (True, Ratio(0.8, 0.7, 0.94), "faster", True),
        (True, Ratio(0.8, 0.7, 0.96), "faster", False),
        (True, Ratio(1.2, 1.06, 1.4), "slower", False),
        (False, Ratio(9.0, None, None), compare.NOT_JUDGED, False),
    ],
)
def test_the_whole_interval_is_beyond_the_gate_or_the_side_passes(
    higher_is_better: bool, ratio: Ratio, words: str, is_worse: bool
) -> None:
    metric = compare.Metric("m", ("faster", "slower"), lambda run: [], str, higher_is_better)
    verdict = compare.Verdict(metric, 1.0, 1.0, ratio)
    assert (verdict.words, verdict.is_worse_than(1.05)) == (words, is_worse)


def test_steps_that_warmed_up_are_not_compared(tmp_path: Path) -> None:
    report = build_report(50)
    stable = {"from_sample": 30, "window": 10, "tolerance": 0.05, "count": 20}
    record = build_record(1, stable=stable | {"p50_ns": 4e5, "mad_ns": 1e4})
    write_run(tmp_path / "run", record, report)
    (run,) = results.load(tmp_path / "run").runs
    read = {metric.name.strip(): metric.read(run) for metric in compare.METRICS}
    times = {name: found["runs"] for name, found in report["metrics"].items()}
    assert read["step time"] == times["train_step_ns"][30:]
    assert read["gradients"] == times["gradients_ns"][30:]
    assert read["exchange"] == times["exchange_ns"]  # of windows, not of steps
    assert read["scoring a user"] == times["score_ns"]


def test_a_reader_is_told_what_a_comparison_leaves_open() -> None:
    old, new, resumed = build_report(5), build_report(5, kind="phone"), build_report(5, "phone")
    new["versions"]["runtime"] = resumed["versions"]["runtime"] = "executorch 2"
    resumed["resumed_from_step"] = 0
    a, *b = (results.Result(Path("report.json"), report) for report in (old, new, resumed))
    unjudged = compare.Verdict(compare.METRICS[0], 1.0, 1.0, Ratio(1.0, None, None))
    judged = replace(unjudged, ratio=Ratio(1.0, 0.9, 1.1))
    assert compare.notes(compare.Comparison([a], b, [judged, unjudged])) == [
        "A is one run: its interval holds for that run, not for how runs vary",
        "A ran on a virtual device: nothing here is about a phone",
        "B has resumed runs, which measure their own steps only",
        "what a side has one reading of is not judged: repeat its runs",
        "runtime differs: executorch and executorch 2",
    ]
    assert compare.notes(compare.Comparison(b[:1] * 2, b[:1] * 2, [judged])) == []


def test_worse_quality_trips_the_gate_and_better_does_not(tmp_path: Path) -> None:
    loaded = []
    for name, recall in (("a", 0.2), ("b", 0.15)):
        folder = write_bench(tmp_path / name, {ONE: 400_000}, 2)
        for path in folder.glob("results/*/report.json"):
            report = json.loads(path.read_text())
            report["quality"]["after"]["recall@20"] = recall
            path.write_text(json.dumps(report))
        loaded.append(results.load(folder))
    for sides, words, is_worse in ((loaded, "worse", True), (loaded[::-1], "better", False)):
        (found,) = compare.compare(*sides)
        (recall_verdict,) = [v for v in found.verdicts if v.metric.name == "Recall@20 after"]
        assert recall_verdict.words == words
        assert recall_verdict.is_worse_than(1.05) == is_worse


def test_charge_is_compared_where_both_ran_on_the_battery(tmp_path: Path) -> None:
    for name in ("a", "b"):
        report = build_report(50, kind="phone")
        report["battery"] = {"level": 61, "charging": name == "b", "current_now": -400_000}
        record = build_record(1, device=build_record(1)["device"] | {"virtual": False})
        sensors = build_sensors(report["run_id"])
        write_run(tmp_path / name, record, report, sensors=sensors)
    a, b = (results.load(tmp_path / name) for name in ("a", "b"))
    names = [[v.metric.name for v in compare.compare(*x)[0].verdicts] for x in ((a, a), (a, b))]
    assert ["charge per step" in found for found in names] == [True, False]


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("target", "kind"), "phone", "kind of device: virtual device and phone"),
        (("target", "model"), "Other", "device model: Model <One> and Other"),
        (("target", "abi"), "arm64-v8a", "ABI: x86_64 and arm64-v8a"),
        (("parameters", "threads"), 4, "threads: 1 and 4"),
        (("parameters", "steps"), 99, "steps: 400 and 99"),
        (("parameters", "batch_size"), 512, "batch_size: 256 and 512"),
        (("bundle", "planned_arena_bytes"), {"step": 1}, "methods of the programs"),
    ],
)
def test_unlike_targets_are_refused_and_say_why(
    tmp_path: Path, place: tuple[str, str], value: object, said: str
) -> None:
    paths = []
    for name in ("a", "b"):
        report = build_report()
        if name == "b":
            report[place[0]][place[1]] = value
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(report))
        paths.append(results.load(path))
    with pytest.raises(SparseRecError, match="are not alike") as caught:
        compare.compare(*paths)
    assert said in caught.value.message
    assert "--force-unlike" in caught.value.fix
    (forced,) = compare.compare(*paths, force_unlike=True)
    assert len(forced.differences) == 1
    assert said in forced.differences[0]


def test_configurations_are_paired_and_what_failed_is_left_out(tmp_path: Path) -> None:
    a = write_bench(tmp_path / "a", {ONE: 400_000}, 2, (1, 2))
    b = write_bench(tmp_path / "b", {TWO: 400_000}, 2, (2, 4))
    (only,) = compare.compare(results.load(a), results.load(b))
    assert {run.configuration.threads for run in (*only.a, *only.b)} == {2}
    for path in b.glob("results/*-t2-*/run.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"correctness": "failed"}))
    with pytest.raises(SparseRecError, match="no configuration in common"):
        compare.compare(results.load(a), results.load(b))
    for path in b.glob("results/*/run.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"state": "crashed"}))
    with pytest.raises(SparseRecError, match="no run succeeded"):
        compare.compare(results.load(a), results.load(b))


def test_bundles_of_one_name_are_no_repetitions_of_each_other(tmp_path: Path) -> None:
    # As float32 and int8 of one table, of which the second became three times as slow.
    a = results.load(write_bench(tmp_path / "a", {ONE: 400_000, TWO: 400_000}, 4))
    b = results.load(write_bench(tmp_path / "b", {ONE: 400_000, TWO: 1_200_000}, 4, seed=2))
    same, slower = compare.compare(a, b)
    for comparison, bundle in ((same, ONE), (slower, TWO)):
        for side in (comparison.a, comparison.b):
            assert [run.configuration.bundle for run in side] == [bundle] * 4
    assert same.verdicts[0].words == compare.NONE_SHOWN
    assert slower.verdicts[0].ratio.ratio == pytest.approx(3, rel=0.1)


def test_a_bundle_that_was_made_anew_goes_with_its_name(tmp_path: Path) -> None:
    new = ONE.replace("00000001", "00000003")
    a = results.load(write_bench(tmp_path / "a", {ONE: 400_000, TWO: 400_000}, 2))
    b = results.load(write_bench(tmp_path / "b", {TWO: 400_000, new: 400_000}, 2))
    found = compare.compare(a, b)
    sides = [[side[0].configuration.bundle for side in (one.a, one.b)] for one in found]
    assert sides == [[TWO, TWO], [ONE, new]]


def test_no_bundle_is_chosen_of_several_with_its_name(tmp_path: Path) -> None:
    new = [ONE.replace("00000001", end) for end in ("00000003", "00000004")]
    a = results.load(write_bench(tmp_path / "a", {ONE: 400_000}, 2))
    b = results.load(write_bench(tmp_path / "b", dict.fromkeys(new, 400_000), 2))
    for sides in ((a, b), (b, a)):
        with pytest.raises(SparseRecError, match="which bundle goes with which") as caught:
            compare.compare(*sides)
        assert all(bundle in caught.value.message for bundle in (ONE, *new))


def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["sparserec", "compare", *arguments])
    code: object = 0
    try:
        main()
    except SystemExit as leave:
        code = leave.code or 0
    captured = capsys.readouterr()
    assert isinstance(code, int)
    return code, captured.out + captured.err


def test_command_and_gate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    a = str(write_bench(tmp_path / "a", {ONE: 400_000}, 4, seed=1))
    b = str(write_bench(tmp_path / "b", {ONE: 480_000}, 4, seed=2))
    code, text = command(monkeypatch, capsys, a, b, "--gate", "1.05")
    assert code == 1
    assert "gate 1.05: B is worse" in text
    assert "nothing here is about a phone" in text
    assert all(len(line) <= 80 for line in text.splitlines() if " to " in line and "µs" in line)
    code, text = command(monkeypatch, capsys, b, a, "--gate", "1.05")
    assert code == 0
    assert "nothing is shown to be worse" in text
    code, text = command(monkeypatch, capsys, a, b)
    assert code == 0
    code, text = command(monkeypatch, capsys, a)
    assert code == 2
    assert "has 1 bundle on 1 device, not two of either to compare" in text


def test_the_two_bundles_of_a_bench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = str(write_bench(tmp_path / "a", {ONE: 400_000, TWO: 500_000}, 4))
    code, text = command(monkeypatch, capsys, bench)
    assert code == 0
    assert text.index(f"A {ONE}") < text.index(f"B {TWO}")
    assert "slower" in text


def test_the_two_devices_of_a_bench(tmp_path: Path) -> None:
    bench = results.load(write_bench(tmp_path / "a", {ONE: 400_000}, 4))
    half = len(bench.runs) // 2
    runs = [
        replace(run, record=run.record | {"device": run.record["device"] | {"serial": serial}})
        for serial, part in (("one", bench.runs[:half]), ("two", bench.runs[half:]))
        for run in part
        if run.record is not None
    ]
    left, right = compare.sides(replace(bench, runs=runs))
    assert {run.configuration.device for run in left.runs} == {"one"}
    assert {run.configuration.device for run in right.runs} == {"two"}
    (found,) = compare.compare(left, right)
    assert found.a[0].configuration.device == "one"


def change(
    bench: Path, name: str, edit: Callable[[dict[str, Any]], object], runs: str = "*"
) -> None:
    for path in bench.glob(f"results/{runs}/{name}"):
        content = json.loads(path.read_text())
        edit(content)
        path.write_text(json.dumps(content))


def crash(record: dict[str, Any]) -> None:
    record["state"] = "crashed"


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "no recall": (
        lambda bench: change(
            bench, "report.json", lambda report: report["quality"]["after"].update({"recall@20": 0})
        ),
        "Recall@20 after: 0.0000 or less in a run of B",
    ),
    "no quality": (
        lambda bench: change(bench, "report.json", lambda report: report.update(quality=None)),
        "Recall@20 after: not in 2 of 2 runs",
    ),
    "no quality in a run": (
        lambda bench: change(
            bench, "report.json", lambda report: report.update(quality=None), "*t1-r2"
        ),
        "Recall@20 after: not in 1 of 2 runs",
    ),
    "no run": (
        lambda bench: change(bench, "run.json", crash, "*t2*"),
        "t2, 120 steps: no usable run to compare A's with",
    ),
    "a run less": (
        lambda bench: change(bench, "run.json", crash, "*t1-r1"),
        f"001-virtual-{ONE}-t1-r1: crashed",
    ),
    "other losses": (
        lambda bench: change(
            bench, "run.json", lambda record: record.update(correctness="failed"), "*t1-r1"
        ),
        f"001-virtual-{ONE}-t1-r1: losses differ from the host's",
    ),
}


@pytest.mark.parametrize(("damage", "said"), BROKEN.values(), ids=BROKEN)
def test_gate_does_not_pass_what_it_cannot_judge(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], None],
    said: str,
) -> None:
    a, b = (write_bench(tmp_path / name, {ONE: 400_000}, 2, (1, 2)) for name in ("a", "b"))
    damage(b)
    code, text = command(monkeypatch, capsys, str(a), str(b), "--gate", "9")
    assert code == 1
    assert "gate 9: B cannot be judged" in text
    assert said in text
    assert "nothing is shown" not in text
    code, text = command(monkeypatch, capsys, str(a), str(b))
    assert code == 0
    assert said in text
    # What A lacks is nothing that B could be worse in.
    code, text = command(monkeypatch, capsys, str(b), str(a), "--gate", "9")
    assert code == 0


def test_a_run_of_a_without_recall_is_named_too(tmp_path: Path) -> None:
    a, b = (write_bench(tmp_path / name, {ONE: 400_000}, 2) for name in ("a", "b"))
    change(
        a, "report.json", lambda report: report["quality"]["after"].update({"recall@20": 0}), "*r1"
    )
    sides = results.load(a), results.load(b)
    (said,) = compare.unjudged(*sides, compare.compare(*sides))
    assert said.endswith("Recall@20 after: 0.0000 or less in a run of A")


def test_gate_that_nothing_can_fail_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = str(write_bench(tmp_path / "a", {ONE: 400_000}, 2))
    code, text = command(monkeypatch, capsys, bench, bench, "--gate", "inf")
    assert code == 2
    assert "--gate inf: not a finite factor" in text
