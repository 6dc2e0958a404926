"""The harness applies a delta whole or not at all, and goes back."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from export.delta import apply_delta
from tests.android_app.harness.conftest import Harness
from tests.android_app.harness.deltas import (
    KILLED,
    Chain,
    Device,
    compiled_faults,
    contents,
    make_chain,
    reseal,
    version_of,
)

KILLS = 5
"""Calls of one apply at which it is killed here; ``make stress`` kills at each."""


@pytest.fixture(scope="session")
def chain(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return make_chain(tiny_bundle, tmp_path_factory.mktemp("chain"))


@pytest.fixture(scope="session")
def faults(launcher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled_faults(tmp_path_factory.mktemp("faults"))


@pytest.fixture
def device(launcher: Path, faults: Path, chain: Chain, tmp_path: Path) -> Device:
    """With the first bundle of the chain."""
    made = Device(launcher, tmp_path / "device", faults)
    made.install(chain.bundles[0])
    return made


def test_the_device_makes_what_the_host_makes(device: Device, chain: Chain, tmp_path: Path) -> None:
    """Twice, the second time with rows for new users; two bundles are kept, and back again."""
    for k, delta in enumerate(chain.deltas):
        answer = device.apply(delta)
        assert answer.code == 0, answer.stderr
        assert answer.results["bundle"] == chain.ids[k + 1] == device.current
        assert answer.results["previous"] == chain.ids[k]
        apply_delta(chain.bundles[k], delta, tmp_path / str(k))
        made = contents(device.bundles / chain.ids[k + 1])
        assert made == contents(tmp_path / str(k)) == contents(chain.bundles[k + 1])
    assert device.names() == {chain.ids[1], chain.ids[2], "generations.json"}
    again = device.apply(chain.deltas[1])
    assert (again.code, again.results["previous"]) == (0, chain.ids[1])

    answer = device.rollback()
    assert (answer.code, answer.results["bundle"]) == (0, chain.ids[1])
    assert "previous" not in answer.results
    assert device.state == {
        "schema_version": 1,
        "current": version_of(chain.bundles[1]),
        "previous": None,
        "leaving": None,
    }
    assert device.names() == {chain.ids[1], "generations.json"}
    assert contents(device.bundles / chain.ids[1]) == contents(chain.bundles[1])
    answer = device.rollback()
    assert answer.code == 1
    assert "there is nothing to go back to" in answer.results["error"]


def test_what_was_trained_stays_with_its_bundle(
    device: Device, chain: Chain, launcher: Path, tmp_path: Path
) -> None:
    keys = {"evaluate": "false", "steps": 30}
    old, new = (
        Harness(launcher, device.bundles / chain.ids[k], tmp_path / f"run-{k}") for k in (0, 1)
    )
    trained = old.run(**keys)
    assert trained.code == 0, trained.errors
    before = contents(old.state)
    assert device.apply(chain.deltas[0]).code == 0
    begun = new.run(**keys)
    assert (begun.code, begun.report["resumed_from_step"]) == (0, None)
    assert begun.report["state"]["table_sha256"] != trained.report["state"]["table_sha256"]
    assert device.rollback().code == 0
    assert contents(old.state) == before
    again = old.run(**keys)
    assert again.report["resumed_from_step"] == 30
    assert again.report["state"] == trained.report["state"]


@pytest.mark.parametrize("how", ["kill", "tear", "full"])
def test_a_fault_at_any_call_leaves_the_old_or_the_new(
    device: Device, chain: Chain, how: str
) -> None:
    """The second delta of a chain, so that there is an older bundle to remove as well."""
    assert device.apply(chain.deltas[0]).code == 0
    wholes, ready = chain.wholes, device.folder / "ready"
    shutil.copytree(device.bundles, ready)
    calls = device.apply(chain.deltas[1]).calls
    kinds = {"open", "write", "fsync", "mkdir", "rename", "unlink", "rmdir"}
    assert {call.split()[0] for call in calls} == kinds
    step = max(1, len(calls) // KILLS)
    offset = {"kill": 0, "tear": 1, "full": 2}[how] % step
    currents = set()
    for at in [*range(1 + offset, len(calls), step), len(calls)]:
        shutil.rmtree(device.bundles)
        shutil.copytree(ready, device.bundles)
        answer = device.apply(chain.deltas[1], at=at, how=how)
        if how == "full":
            assert answer.code in (0, 1), answer.stderr
            if answer.code:
                assert "free some space" in answer.results["error"]
        else:
            assert answer.code == KILLED
        assert device.problems(wholes) == [], calls[at - 1]
        currents.add(device.current)
        assert chain.ids[1] in device.names()  # what rollback needs, or what is in use
        done = device.apply(chain.deltas[1])
        assert (done.code, device.current) == (0, chain.ids[2]), calls[at - 1]
        assert device.problems(wholes) == []
        assert device.names() == {chain.ids[1], chain.ids[2], "generations.json"}
    assert currents == {chain.ids[1], chain.ids[2]}


def test_a_rollback_that_is_killed_can_be_repeated(device: Device, chain: Chain) -> None:
    assert device.apply(chain.deltas[0]).code == 0
    ready = device.folder / "ready"
    shutil.copytree(device.bundles, ready)
    calls = device.rollback().calls
    for at in range(1, len(calls) + 1, max(1, len(calls) // KILLS)):
        shutil.rmtree(device.bundles)
        shutil.copytree(ready, device.bundles)
        assert device.rollback(at=at).code == KILLED
        assert device.problems(chain.wholes) == []
        went_back = device.current == chain.ids[0]
        again = device.rollback()
        assert again.code == (1 if went_back else 0), calls[at - 1]
        assert device.current == chain.ids[0]
        assert device.names() == {chain.ids[0], "generations.json"}


def _change(name: str, value: object) -> Callable[[Path], None]:
    def change(delta: Path) -> None:
        tensors = load_file(delta / "delta-table.safetensors")
        tensors[name] = tensors[name] + value if value is not None else tensors[name][:-1]
        save_file(tensors, delta / "delta-table.safetensors")
        reseal(delta)

    return change


def _field(end: str, key: str, value: object) -> Callable[[Path], None]:
    return lambda delta: reseal(delta, lambda found: found[end].update({key: value}))


def _flip(name: str) -> Callable[[Path], None]:
    def flip(delta: Path) -> None:
        data = bytearray((delta / name).read_bytes())
        data[len(data) // 2] ^= 1
        (delta / name).write_bytes(data)

    return flip


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_flip("delta-table.safetensors"), "delta-table.safetensors: SHA-256 differs from delta.j"),
        (_flip("result.json"), "result.json: SHA-256 differs from delta.json's"),
        (lambda d: (d / "result.json").unlink(), "result.json: cannot be read"),
        (lambda d: (d / "delta.json").unlink(), "delta.json cannot be read"),
        (lambda d: (d / "delta.json").write_text("{"), "delta.json: not a JSON object"),
        (_change("row_ptr.rows", 1000), "row_ptr.rows: are not ascending rows with a size each"),
        (_change("row_ptr.sizes", 1), "delta-table.safetensors: tensor vals: "),
        (_change("vals", None), "delta-table.safetensors: tensor vals"),
        (_change("cols", 1), "table.safetensors: SHA-256 differs from the manifest's"),
        (_change("header", 1), "header"),
        (_field("base", "manifest_sha256", "0" * 64), "(manifest 000000000000...), but this is"),
        (_field("base", "bundle_id", "elsewhere"), "elsewhere (manifest"),
        (_field("result", "bundle_id", "../x"), "result.bundle_id: expected the name of a bundle"),
        (_field("result", "manifest_sha256", "0" * 64), "is not that of result.json"),
        (
            lambda d: reseal(d, lambda v: v["files"].pop("delta-table.safetensors")),
            "files.table.safetensors: is missing, and the base has another",
        ),
    ],
)
def test_what_does_not_fit_changes_nothing(
    device: Device, chain: Chain, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    delta = Path(shutil.copytree(chain.deltas[0], tmp_path / "delta"))
    damage(delta)
    answer = device.apply(delta)
    assert answer.code == 1, answer.stderr
    assert message in answer.results["error"]
    assert "at org.sparserec" not in answer.stderr
    assert device.names() == {chain.ids[0]}
    assert device.problems(chain.wholes) == []


def test_a_damaged_base_is_refused(device: Device, chain: Chain) -> None:
    (device.bundles / chain.ids[0] / "step.pte").write_bytes(b"")
    answer = device.apply(chain.deltas[0])
    assert answer.code == 1
    assert "step.pte: 0 bytes" in answer.results["error"]
    assert device.names() == {chain.ids[0]}


def test_half_a_bundle_in_the_way_is_replaced(device: Device, chain: Chain) -> None:
    """A push of the whole that broke off."""
    shutil.copytree(chain.bundles[1], device.bundles / chain.ids[1])
    (device.bundles / chain.ids[1] / "manifest.json").unlink()
    assert device.apply(chain.deltas[0]).code == 0
    assert device.problems(chain.wholes) == []


def test_a_damaged_state_of_bundles_is_one_clear_error(device: Device, chain: Chain) -> None:
    (device.bundles / "generations.json").write_text('{"schema_version": 1, "current": 3}')
    answer = device.apply(chain.deltas[0])
    assert answer.code == 1
    assert (
        "generations.json: current: expected an object, found 3; remove it"
        in (answer.results["error"])
    )


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["rollback", "true", "apply", "x"], "apply: and rollback: give one of them"),
        ([], "apply: and rollback: give one of them"),
        (["apply", "x", "steps", "3"], "steps: is no key here; use bundles with apply or rollb"),
    ],
)
def test_bad_keys(device: Device, keys: list[str], message: str) -> None:
    answer = device.run(keys)
    assert answer.code == 1
    assert message in answer.results["error"]
