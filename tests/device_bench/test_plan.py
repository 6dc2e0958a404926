"""Plans: read from TOML, resolved, put in order, written and read again."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_bench import checked, plan, records
from device_bench.plan import BundleRef, Plan, Request
from sparserec.errors import SparseRecError

WHOLE = """
bundles = ["a", "runs/*/bundle"]
devices = ["R58N", "127.0.0.1:5555"]
threads = [1, 4]
repetitions = 3
order = "shuffled"
seed = 9
steps = 200
checkpoint_every = 50
evaluate = false
attempts = 3
[cool_down]
thermal_status = 1
battery_celsius = 35
wait_seconds = 60
[time_out]
silence_seconds = 30
total_seconds = 900.5
reconnect_seconds = 0
"""


def ref(name: str) -> BundleRef:
    return BundleRef(
        id=name, path=f"/{name}", sha256="0" * 64, model="mf", dim=8, density=0.1, batch_size=16
    )


def request(**changes: Any) -> Request:
    return Request.model_validate({"bundles": ["a"]} | changes)


def test_every_field_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(WHOLE)
    found = plan.read_file(path)
    assert found.bundles == ("a", "runs/*/bundle")
    assert (found.threads, found.repetitions, found.order, found.seed) == ((1, 4), 3, "shuffled", 9)
    assert (found.steps, found.checkpoint_every, found.evaluate) == (200, 50, False)
    assert (found.cool_down.thermal_status, found.cool_down.battery_celsius) == (1, 35.0)
    assert found.time_out.total_seconds == 900.5
    path.write_text('bundles = ["a"]')
    assert plan.read_file(path) == request()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "bundles: is missing"),
        ("bundles = []", "bundles: .*at least 1"),
        ('bundles = "a"', "bundles: "),
        ('bundles = ["a"]\nrepeat = 3', "repeat: there is no such field"),
        ('bundles = ["a"]\nthreads = [1, 0]', "threads.1: .*greater than or equal to 1, not 0"),
        ('bundles = ["a"]\nthreads = [65]', "threads.0: .*less than or equal to 64, not 65"),
        ('bundles = ["a"]\nthreads = 2', "threads: .*not 2"),
        ('bundles = ["a"]\nrepetitions = "3"', "repetitions: .*integer, not '3'"),
        ('bundles = ["a"]\nrepetitions = 1.5', "repetitions: "),
        ('bundles = ["a"]\norder = "random"', "order: .*'abba' or 'shuffled', not 'random'"),
        ('bundles = ["a"]\n[cool_down]\nthermal_status = 7', "cool_down.thermal_status: "),
        ('bundles = ["a"]\n[cool_down]\ncelsius = 7', "cool_down.celsius: there is no such field"),
        ('bundles = ["a"]\n[cool_down]\nbattery_celsius = inf', "battery_celsius: .*finite"),
        ('bundles = ["a"]\n[time_out]\nsilence_seconds = 0', "time_out.silence_seconds: "),
        ('bundles = ["a"]\nsteps =\nseed = 1', "not TOML: .*line 2"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(text)
    with pytest.raises(SparseRecError, match=said) as caught:
        plan.read_file(path)
    assert str(path) in caught.value.message
    assert caught.value.fix


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SparseRecError, match="No such file"):
        plan.read_file(tmp_path / "plan.toml")


def test_abba_by_hand() -> None:
    found = plan.ordered([("a", 1), ("b", 1)], request(repetitions=4))
    assert "".join(bundle for bundle, _, _ in found) == "abbaabba"
    assert [repetition for _, _, repetition in found] == [1, 1, 2, 2, 3, 3, 4, 4]


names = st.lists(st.from_regex("[a-z]{1,6}", fullmatch=True), min_size=1, max_size=4, unique=True)


@given(
    names,
    names,
    st.lists(st.integers(1, 8), min_size=1, max_size=3, unique=True),
    st.integers(1, 5),
    st.sampled_from(["abba", "shuffled"]),
    st.integers(),
)
def test_every_run_is_there_once_and_each_repetition_has_all(
    bundles: list[str],
    devices: list[str],
    threads: list[int],
    repetitions: int,
    order: str,
    seed: int,
) -> None:
    asked = request(threads=threads, repetitions=repetitions, order=order, seed=seed)
    made = plan.lay_down(asked, [ref(name) for name in bundles], devices, source=Path("p.toml"))
    wanted = {
        (device, bundle, count, repetition)
        for device in devices
        for bundle in bundles
        for count in threads
        for repetition in range(1, repetitions + 1)
    }
    keys = [(run.device, run.bundle, run.threads, run.repetition) for run in made.runs]
    assert set(keys) == wanted
    assert len(keys) == len(wanted)
    assert [run.index for run in made.runs] == list(range(1, len(keys) + 1))
    assert len({run.folder for run in made.runs}) == len(keys)
    for device in devices:
        own = made.of(device)
        assert [run.order for run in own] == list(range(1, len(own) + 1))
        assert [run.repetition for run in own] == sorted(run.repetition for run in own)
        # The same sequence everywhere, so that places in it can be compared across devices.
        assert [(run.bundle, run.threads) for run in own] == [
            (run.bundle, run.threads) for run in made.of(devices[0])
        ]


@given(names, st.integers(1, 6).map(lambda half: 2 * half))
def test_abba_cancels_an_even_drift(bundles: list[str], repetitions: int) -> None:
    found = plan.ordered([(name, 1) for name in bundles], request(repetitions=repetitions))
    places: Counter[str] = Counter()
    for place, (bundle, _, _) in enumerate(found):
        places[bundle] += place
    assert len(set(places.values())) == 1


def test_shuffles_are_the_seeds() -> None:
    variants = [(name, 1) for name in "abcdefgh"]
    orders = [
        plan.ordered(variants, request(order="shuffled", seed=seed, repetitions=3))
        for seed in (1, 1, 2)
    ]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]
    repetitions = {tuple(orders[0][start : start + 8]) for start in (0, 8, 16)}
    assert len({tuple(name for name, _, _ in each) for each in repetitions}) == 3


def test_what_runs_start_from() -> None:
    one = [ref("a")]
    assert plan.lay_down(request(), one, ["x", "y"]).state == "continue"
    assert plan.lay_down(request(), one, ["x"], fresh=True).state == "fresh"
    assert plan.lay_down(request(repetitions=2), one, ["x"]).state == "scratch"
    assert plan.lay_down(request(), one, ["x"], source=Path("plan.toml")).state == "scratch"
    with pytest.raises(SparseRecError, match="--fresh"):
        plan.lay_down(request(threads=[1, 2]), one, ["x"], fresh=True)


@given(st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=6, unique=True))
def test_folders_are_plain_and_distinct_whatever_a_device_is_called(devices: list[str]) -> None:
    made = plan.lay_down(request(), [ref("a")], devices)
    folders = [run.folder for run in made.runs]
    assert len(set(folders)) == len(devices)
    for folder in folders:
        assert Path(folder).name == folder
        assert folder.isascii()
        assert folder.isprintable()
        assert " " not in folder


def test_folders_of_a_thousand_runs_sort_as_they_are_run() -> None:
    folders = [
        run.folder for run in plan.lay_down(request(repetitions=1001), [ref("a")], ["x"]).runs
    ]
    assert folders == sorted(folders)


def test_written_read_and_valid(tmp_path: Path) -> None:
    asked = request(threads=[1, 2], repetitions=2, steps=10)
    made = plan.lay_down(asked, [ref("a"), ref("b")], ["x:1", "y"], source=Path("p.toml"))
    records.create(tmp_path / "bench", made)
    path = tmp_path / "bench" / "plan.json"
    assert plan.read(path) == made
    value = json.loads(path.read_text())
    assert list(checked.validator("plan-1.schema.json").iter_errors(value)) == []
    schema = json.loads((Path(plan.__file__).parent / "schema/plan-1.schema.json").read_text())
    assert set(value) == set(schema["properties"]) == set(schema["required"])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("folder", "../../elsewhere"),
        ("folder", "/etc"),
        ("folder", ".."),
        ("folder", "a/b"),
        ("index", "1"),
    ],
)
def test_a_plan_that_was_tampered_with_is_refused(tmp_path: Path, field: str, value: Any) -> None:
    made = plan.lay_down(request(), [ref("a")], ["x"])
    content = json.loads(made.model_dump_json())
    content["runs"][0][field] = value
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(content))
    with pytest.raises(SparseRecError, match=f"runs.0.{field}"):
        plan.read(path)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
def test_any_json_is_a_plan_or_one_clear_error(tmp_path_factory: Any, value: Any) -> None:
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    made: dict[str, Any] = json.loads(plan.lay_down(request(), [ref("a")], ["x"]).model_dump_json())
    for field in made:
        path.write_text(json.dumps(made | {field: value}))
        with contextlib.suppress(SparseRecError):
            assert isinstance(plan.read(path), Plan)


def test_bundles_by_pattern(bundle_dir: Path, tmp_path: Path) -> None:
    source = tmp_path / "plan.toml"
    (tmp_path / "empty").mkdir()
    (found,) = plan.find(["*", "bundle"], source)  # the same bundle counts once
    said = plan.describe(found)
    assert (said.id, said.sha256) == (found.bundle_id, found.files[-1].sha256)
    assert (
        said.batch_size
        == json.loads((bundle_dir / "manifest.json").read_text())["training"]["batch_size"]
    )
    assert plan.find([str(tmp_path / "b*")])[0].bundle_id == found.bundle_id
    with pytest.raises(SparseRecError, match=r"plan.toml: bundles.1: no bundle matches 'x\*'"):
        plan.find(["bundle", "x*"], source)
    with pytest.raises(SparseRecError, match="empty"):
        plan.find(["empty"], source)


def test_no_bundle_is_dropped_for_another_of_its_id(bundle_dir: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(bundle_dir, tmp_path / "other"))
    assert len(plan.find(["bundle", "other"], tmp_path / "plan.toml")) == 1
    path = other / "manifest.json"
    content = json.loads(path.read_text())
    content["training"]["learning_rate"] *= 2
    path.write_text(json.dumps(content))
    with pytest.raises(SparseRecError, match="but their manifests differ") as caught:
        plan.find(["bundle", "other"], tmp_path / "plan.toml")
    assert "plan.toml: bundles.1: " in caught.value.message
    assert str(bundle_dir) in caught.value.message
    assert str(other) in caught.value.message


@pytest.mark.parametrize("value", ["inf", "nan", "1e30", "604801"])
@pytest.mark.parametrize(
    "field",
    [
        "cool_down.wait_seconds",
        "time_out.silence_seconds",
        "time_out.total_seconds",
        "time_out.reconnect_seconds",
    ],
)
def test_a_time_that_nobody_can_wait_is_refused(tmp_path: Path, field: str, value: str) -> None:
    path = tmp_path / "plan.toml"
    table, name = field.split(".")
    path.write_text(f'bundles = ["a"]\n[{table}]\n{name} = {value}')
    with pytest.raises(SparseRecError, match=f"{field}: "):
        plan.read_file(path)


def test_a_week_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text('bundles = ["a"]\n[time_out]\nsilence_seconds = 604800')
    assert plan.read_file(path).time_out.silence_seconds == plan.MAX_SECONDS
