"""The benchmark measures what it says: its arithmetic, its bundles, and the JVM's side."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from export.methods import Method, TensorSpec
from tests.bench import floor, models
from tests.bench.__main__ import Found
from tests.bench.bundles import (
    BATCH,
    DIM,
    L2,
    Log,
    popular_log,
    uniform_log,
    write_bundle,
    zipf_log,
)
from tests.bench.jvm import Jvm, Runtime
from tests.bench.measure import KEPT, Result, by_turns, compared, thinned
from tests.bench.peers import eager_step, joint_table, two_tables

USERS, ITEMS = 300, 500


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    log = uniform_log(USERS, ITEMS, 1)
    few = Log(log.users[:5000], log.items[:5000])
    return write_bundle(tmp_path_factory.mktemp("bundles") / "tiny", USERS, ITEMS, few)


def test_a_ratio_is_the_peers_over_ours_and_ours_alone_without_a_peer() -> None:
    assert Result("a", 2.0, 10.0, "us").ratio == 5
    assert Result("a", 0.4, None, "fraction").ratio == 0.4
    result = compared("a", [1000, 3000, 2000], [8000])
    assert (result.ours, result.peer, result.ratio) == (2, 8, 4)
    assert result.to_json()["samples"] == {"ours": [1, 3, 2], "peer": [8]}
    assert len(thinned([0.0] * 12_345)) <= KEPT


def test_sides_take_turns_and_the_first_round_does_not_count() -> None:
    calls: list[str] = []

    def side(name: str) -> tuple[object, int]:
        def repeat(count: int) -> list[int]:
            calls.append(name)
            return [len(calls)] * count

        return repeat, 2

    samples = by_turns({"a": side("a"), "b": side("b")}, rounds=2)  # type: ignore[dict-item]
    assert calls == ["a", "b"] * 3
    assert samples == {"a": [3, 3, 5, 5], "b": [4, 4, 6, 6]}


def test_a_bundle_has_random_rows_of_the_density(bundle: Path) -> None:
    table = load_file(bundle / "table.safetensors")
    counts = np.diff(table["row_ptr"])
    assert len(counts) == USERS + ITEMS
    assert abs(counts.mean() / DIM - 0.1) < 0.01
    for start, end in zip(table["row_ptr"][:-1], table["row_ptr"][1:], strict=True):
        columns = table["cols"][start:end].astype(int)
        assert (np.diff(columns) > 0).all()
        assert columns.max() < DIM
    assert len({tuple(table["cols"][a : a + 3]) for a in table["row_ptr"][:-1]}) > 300


def test_logs_have_no_pair_twice_and_keep_popularity() -> None:
    gowalla = zipf_log(1)
    for users, items in ((400, 600), (10_000, 90_000)):
        log = popular_log(users, items, gowalla)
        pairs = log.users.astype(np.int64) * items + log.items
        assert len(np.unique(pairs)) == len(pairs)
        assert (log.users.max() < users, log.items.max() < items) == (True, True)
    log = popular_log(1_000_000, 2_000_000, gowalla)
    assert len(log.users) == len(gowalla.users)
    of = [np.sort(np.bincount(one.items))[::-1][:1000] for one in (log, gowalla)]
    assert (of[0] == of[1]).all()


def test_the_peers_run(tmp_path: Path, runtime: Runtime) -> None:
    programs = {
        "joint": joint_table(1000, DIM, BATCH, L2),
        "two": two_tables(1000, 1500, DIM, BATCH, L2),
    }
    with Jvm(runtime) as jvm:
        for name, program in programs.items():
            (tmp_path / f"{name}.pte").write_bytes(program)
            jvm.ask("training", name, tmp_path / f"{name}.pte", 1000, BATCH)
            assert len(jvm.time(name, 3)) == 3
    torch.manual_seed(1)
    loss, gradient, updated = eager_step(BATCH, DIM, 100, L2)()
    assert torch.isfinite(loss)
    assert gradient.shape == (3 * BATCH, DIM)
    assert gradient.abs().sum() > 0
    assert updated.shape == (100,)


def test_the_loop_is_timed_and_allocates_what_the_calls_do(bundle: Path, runtime: Runtime) -> None:
    with Jvm(runtime) as jvm:
        jvm.ask("loop", "tiny", bundle, 9000)
        taken = jvm.time("tiny step", 600)
        metrics = jvm.ask("metrics", "tiny")
        assert metrics["train_step_ns"]["count"] == len(taken) == 600
        assert metrics["exchange_ns"]["count"] == 12
        # The timing is around the step's own, which is not far from it.
        inside = np.array(metrics["train_step_ns"]["runs"])
        assert (inside <= np.array(taken)).all()
        share = jvm.ask("share", "tiny", 3, 50)
        assert [len(share["loop"]), len(share["graph"])] == [3, 3]
        assert all(0 < of < all_ for of, all_ in zip(share["graph"], share["loop"], strict=True))
        # All that a step takes on the Java heap is what ExecuTorch's API takes for its results.
        jvm.time("tiny step", 6000)  # until all is compiled
        bytes_taken = jvm.ask("allocation", "tiny", 1000)
        assert 0 < bytes_taken["calls"] < 3_000_000
        assert abs(bytes_taken["steps"] - bytes_taken["calls"]) < 10_000
        assert jvm.ask("memory")["peak"] > 0


def test_a_model_is_one_entry(tmp_path: Path, runtime: Runtime) -> None:
    with Jvm(runtime) as jvm:
        for step in models.model_steps():
            models.load(jvm, tmp_path, step)
            result = models.against_eager(jvm, step, rounds=1)
            assert result.name == f"{step.name}_step_vs_eager"
            assert result.ours > 0
            assert result.peer is not None


def test_a_bare_step_is_called_as_the_step_is_and_writes_its_outputs(
    tmp_path: Path, runtime: Runtime
) -> None:
    step = models.mf_step()
    bare = models.bare(step)
    for name, method in bare.methods.items():
        made = method.function(*method.examples())
        assert [tuple(one.shape) for one in made] == [spec.shape for spec in method.outputs]
        assert method.inputs == step.methods[name].inputs
    with Jvm(runtime) as jvm:
        models.load(jvm, tmp_path, bare)
        assert min(jvm.time(bare.name, 5)) > 0


def test_a_floor_counts_products_sums_and_what_crosses_the_border() -> None:
    def function(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor]:
        return ((torch.cat([a[:2], a[2:]]) @ b * c).sum(0),)

    def spec(*shape: int) -> TensorSpec:
        return TensorSpec("x", "float32", shape, "x")

    method = Method(function, (spec(3, 5), spec(5, 7), spec(3, 7)), (spec(7),))
    needs = floor.step({"method": method})
    assert needs == {
        "bytes": 4 * (3 * 5 + 5 * 7 + 3 * 7 + 7),
        "flops": 2 * 3 * 5 * 7 + 3 * 7 + 3 * 7,  # the product, c, the sum; moving is free
    }
    machine = {"cache_gb_per_s": 0.001, "gflop_per_s": 1.0}
    assert floor.least_us(needs, machine) == needs["bytes"]


def test_what_was_found_is_written_at_once(tmp_path: Path) -> None:
    found = Found(tmp_path)
    found.about["system"] = "x"
    found.add(Result("a", 2.0, 10.0, "us"))
    found.add(Result("b", 0.4, None, "fraction"))
    written = json.loads((tmp_path / "bench.json").read_text())
    assert [(one["name"], one["ratio"]) for one in written] == [("a", 5), ("b", 0.4)]
    assert json.loads((tmp_path / "machine.json").read_text()) == {"system": "x"}


def test_a_process_that_ends_says_why(runtime: Runtime, bundle: Path) -> None:
    with Jvm(runtime) as jvm:
        jvm.ask("loop", "tiny", bundle, 1)  # the library's own thread runs on from here
        with pytest.raises(RuntimeError, match="absent"):
            jvm.ask("loop", "a", "/absent", 1)
