"""Deltas: base and delta make the new bundle byte for byte, and what does not fit is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save
from typer.testing import CliRunner

from export import layout
from export.build import Built, assemble
from export.bundle import bundle_id, file_infos, verify_bundle
from export.delta import NAME, RESULT, apply_delta, verify_delta, write_delta
from export.manifest import Manifest
from pipeline.data.split import Pairs
from pipeline.files import encode_ids
from pipeline.run import TrainedRun
from sparserec.cli import app
from sparserec.errors import SparseRecError
from tests.export.conftest import DEVICE


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def changed(
    built: Built, run: TrainedRun, new_users: int, new_items: int, seed: int, share: float
) -> tuple[Manifest, dict[str, bytes]]:
    """The bundle again, with newcomers among users and items and a share of rows moved on."""
    draw = np.random.default_rng(seed)
    old = built.manifest
    split = replace(
        run.split,
        user_ids=run.split.user_ids + [f"new user {k}" for k in range(new_users)],
        item_ids=run.split.item_ids + [f"new item {k}" for k in range(new_items)],
        train=Pairs(
            np.append(run.split.train.users, np.arange(new_users, dtype=np.int32) + 40),
            np.append(run.split.train.items, np.zeros(new_users, np.int32)),
            None,
        ),
    )
    users = layout.capacity(split.num_users, layout.kept_spare(old.num_users, split.num_users))
    items = layout.capacity(split.num_items, layout.kept_spare(old.num_items, split.num_items))
    table = layout.with_spare_rows(run.table, users, items, old.floor)
    rows = np.flatnonzero(draw.random(table.num_rows) < share)
    found = table.entries(rows)
    table.vals[found.index] += draw.normal(size=len(found.index)).astype(np.float32)
    files = {name: data for name, data in contents(built.path).items() if name in old.files}
    tables = layout.table_tensors(table, {"vals": table.vals}, {})
    ids = encode_ids("users", split.user_ids) | encode_ids("items", split.item_ids)
    files["table.safetensors"] = save(tables)
    files["interactions.safetensors"] = save(
        {k: np.ascontiguousarray(v) for k, v in layout.interaction_tensors(split, users).items()}
    )
    files["ids.safetensors"] = save(ids)
    infos = file_infos(files)
    described = replace(
        old,
        bundle_id=bundle_id("tiny", "mf", 8, 0.4, infos, old.training),
        num_users=users,
        num_items=items,
        known_users=split.num_users,
        known_items=split.num_items,
        nnz=table.nnz,
        density=table.density,
        files=infos,
    )
    return described, files


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 99), st.sampled_from([0, 0.05, 1]))
def test_base_and_delta_make_the_bundle(
    built: Built,
    run: TrainedRun,
    tmp_path: Path,
    new_users: int,
    new_items: int,
    seed: int,
    share: float,
) -> None:
    described, files = changed(built, run, new_users, new_items, seed, share)
    if described.bundle_id == built.manifest.bundle_id:
        return
    delta = write_delta(built.path, described, files, tmp_path / "delta")
    assert verify_delta(tmp_path / "delta") == delta
    assert delta.way("step.pte") == delta.way("score.pte") == "kept"
    assert all(delta.shipped(name) <= len(content) for name, content in files.items())
    apply_delta(built.path, tmp_path / "delta", tmp_path / "made")
    assert contents(tmp_path / "made") == {**files, "manifest.json": described.to_json()}
    assert verify_bundle(tmp_path / "made") == described


@pytest.fixture
def delta(built: Built, run: TrainedRun, tmp_path: Path) -> Path:
    described, files = changed(built, run, 3, 2, 1, 0.1)
    write_delta(built.path, described, files, tmp_path / "delta")
    return tmp_path / "delta"


def test_only_what_changed_is_shipped(built: Built, delta: Path) -> None:
    found = verify_delta(delta)
    assert sorted(contents(delta)) == sorted([*found.files, NAME])
    assert {found.way(name) for name in ("step.pte", "score.pte", "golden.json")} == {"kept"}
    assert found.way("table.safetensors") == "rows"
    table = built.manifest.files["table.safetensors"].bytes
    assert 0 < found.shipped("table.safetensors") < table / 2


def test_newcomers_take_the_spare_rows_and_programs_stay(
    built: Built, run: TrainedRun, tmp_path: Path
) -> None:
    described, files = changed(built, run, 2, 0, 1, 0.0)
    assert described.num_users == built.manifest.num_users
    assert write_delta(built.path, described, files, tmp_path / "delta").way("step.pte") == "kept"


def test_another_precision_and_other_programs_are_shipped_whole(
    built: Built, run: TrainedRun, tmp_path: Path
) -> None:
    recipe = replace(DEVICE, precision="int8", optimizer="momentum")
    made = assemble(run, recipe)
    delta = write_delta(built.path, made.manifest, made.files, tmp_path / "delta")
    ways = {name: delta.way(name) for name in made.files}
    assert (ways["table.safetensors"], ways["step.pte"]) == ("whole", "whole")
    assert (ways["score.pte"], ways["ids.safetensors"]) == ("kept", "kept")
    apply_delta(built.path, tmp_path / "delta", tmp_path / "made")
    assert contents(tmp_path / "made") == {**made.files, "manifest.json": made.manifest.to_json()}

    # And back: what the base alone has is gone.
    back = write_delta(tmp_path / "made", built.manifest, _files(built), tmp_path / "back")
    assert back.base == delta.result
    apply_delta(tmp_path / "made", tmp_path / "back", tmp_path / "again")
    assert contents(tmp_path / "again") == contents(built.path)


def _files(built: Built) -> dict[str, bytes]:
    return {name: (built.path / name).read_bytes() for name in built.manifest.files}


def test_a_file_that_the_new_bundle_does_not_have_is_dropped(
    built: Built, run: TrainedRun, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(built.path, tmp_path / "base"))
    extra = {**_files(built), "forward.pte": (built.path / "step.pte").read_bytes()}
    infos = file_infos(extra)
    name = bundle_id("tiny", "mf", 8, 0.4, infos, built.manifest.training)
    described = replace(built.manifest, bundle_id=name, files=infos)
    added = write_delta(base, described, extra, tmp_path / "added")
    assert added.way("forward.pte") == "whole"
    apply_delta(base, tmp_path / "added", tmp_path / "more")
    write_delta(tmp_path / "more", built.manifest, _files(built), tmp_path / "removed")
    apply_delta(tmp_path / "more", tmp_path / "removed", tmp_path / "again")
    assert contents(tmp_path / "again") == contents(built.path)


def test_another_base_is_refused_by_its_hash(built: Built, delta: Path, tmp_path: Path) -> None:
    apply_delta(built.path, delta, tmp_path / "made")
    found = verify_delta(delta)
    with pytest.raises(SparseRecError) as caught:
        apply_delta(tmp_path / "made", delta, tmp_path / "twice")
    assert found.base.manifest_sha256[:12] in caught.value.message
    assert found.result.manifest_sha256[:12] in caught.value.message
    assert not (tmp_path / "twice").exists()


def test_a_base_of_the_same_name_made_at_another_time_is_refused(
    built: Built, delta: Path, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(built.path, tmp_path / "base"))
    later = replace(built.manifest, created_utc="2030-01-01T00:00:00Z")
    (base / "manifest.json").write_bytes(later.to_json())
    with pytest.raises(SparseRecError, match="base: the delta is for"):
        apply_delta(base, delta, tmp_path / "made")


def test_a_damaged_file_of_a_delta_is_named_before_it_is_used(delta: Path) -> None:
    path = delta / "delta-table.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(SparseRecError, match=r"delta-table\.safetensors: damaged; its SHA-256"):
        verify_delta(delta)


def test_a_damaged_base_is_refused(built: Built, delta: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(built.path, tmp_path / "base"))
    (base / "step.pte").write_bytes(b"")
    with pytest.raises(SparseRecError, match=r"step\.pte: has 0 bytes"):
        apply_delta(base, delta, tmp_path / "made")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "change",
    [{}, {"created_utc": "2030-01-01T00:00:00Z"}, {"producer": {}}, {"bundle_id": "as-once-named"}],
)
def test_nothing_new_is_no_delta(built: Built, tmp_path: Path, change: dict[str, Any]) -> None:
    described = replace(built.manifest, **change)
    with pytest.raises(SparseRecError, match="nothing has changed since"):
        write_delta(built.path, described, _files(built), tmp_path / "delta")
    assert not (tmp_path / "delta").exists()


def test_another_training_of_the_same_files_is_a_delta(
    built: Built, run: TrainedRun, tmp_path: Path
) -> None:
    """A device keeps bundles apart by their ids, and takes no delta to the base's own."""
    steps = built.manifest.training.steps
    made = assemble(run, DEVICE, steps + 1)
    assert made.manifest.files == built.manifest.files
    delta = write_delta(built.path, made.manifest, made.files, tmp_path / "delta")
    assert list(delta.files) == [RESULT]
    assert delta.base.bundle_id != delta.result.bundle_id
    apply_delta(built.path, tmp_path / "delta", tmp_path / "made")
    assert verify_bundle(tmp_path / "made").training.steps == steps + 1


def test_the_same_delta_again_is_the_same(built: Built, run: TrainedRun, delta: Path) -> None:
    """Also where the result is made later: a device that applied the first has that bundle."""
    before = contents(delta)
    described, files = changed(built, run, 1, 1, 1, 0.1)
    for name in (delta.name, "other"):
        write_delta(built.path, described, files, delta.parent / name)
    first = contents(delta)
    later = replace(described, created_utc="2030-01-01T00:00:00Z")
    write_delta(built.path, later, files, delta)
    assert contents(delta) == first == contents(delta.parent / "other") != before


def test_a_folder_that_is_no_delta_is_left_alone(
    built: Built, run: TrainedRun, tmp_path: Path
) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(SparseRecError, match="is there and is not a delta"):
        write_delta(built.path, *changed(built, run, 1, 1, 1, 0.1), tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_any_damage_is_one_clear_error(built: Built, delta: Path, data: st.DataObject) -> None:
    """A flipped bit or a cut anywhere: refused, or, in delta.json, the same delta still."""
    path = data.draw(st.sampled_from(sorted(delta.iterdir())))
    whole = path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    flipped = bytes([whole[place] ^ (1 << data.draw(st.integers(0, 7)))])
    path.write_bytes(
        whole[:place] + data.draw(st.sampled_from([flipped + whole[place + 1 :], b""]))
    )
    made = delta.parent / "made"
    try:
        error = _refused(built, delta, made)
        if error is None:
            assert path.name == NAME
            assert contents(made)["manifest.json"] == (delta / RESULT).read_bytes()
            shutil.rmtree(made)
            return
        assert str(delta) in error.message
        assert error.fix
        assert not made.exists()
    finally:
        path.write_bytes(whole)


def _refused(built: Built, delta: Path, made: Path) -> SparseRecError | None:
    try:
        apply_delta(built.path, delta, made)
    except SparseRecError as error:
        return error
    return None


def _resealed(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    value = json.loads((folder / NAME).read_text())
    for name in value["files"]:
        data = (folder / name).read_bytes()
        value["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    change(value)
    (folder / NAME).write_text(json.dumps(value))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(schema_version=2), "schema_version: 2, but this version reads 1"),
        (lambda d: d["base"].update(manifest_sha256="x"), "base.manifest_sha256: is not a SHA-256"),
        (
            lambda d: d["base"].update(bundle_id="../b"),
            'base.bundle_id: "../b" is not a plain',
        ),
        (
            lambda d: d["result"].update(bundle_id="other"),
            "result.bundle_id: is other, result.json",
        ),
        (lambda d: d["result"].update(manifest_sha256="0" * 64), "is not that of result.json"),
        (lambda d: d["files"].pop("result.json"), "files.result.json: is missing"),
        (
            lambda d: d["files"].update({"../x": d["files"]["result.json"]}),
            "is not a file of a del",
        ),
        (
            lambda d: d["files"].update({"manifest.json": d["files"]["result.json"]}),
            '"manifest.json" is not a file of a delta',
        ),
        (
            lambda d: d["files"].pop("delta-table.safetensors"),
            "files.table.safetensors: is missing, and the base has another",
        ),
        (lambda d: d["files"].update(x=1), "files.x: is 1, not an object"),
    ],
)
def test_a_wrong_field_is_named(
    built: Built, delta: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    _resealed(delta, change)
    with pytest.raises(SparseRecError) as caught:
        apply_delta(built.path, delta, delta.parent / "made")
    assert message in caught.value.message
    assert "--since" in caught.value.fix
    assert not (delta.parent / "made").exists()


def test_rows_behind_a_right_hash_are_checked_by_the_result(built: Built, delta: Path) -> None:
    path = delta / "delta-table.safetensors"
    tensors = load_file(path)
    tensors["vals"] = -tensors["vals"]
    path.write_bytes(save(tensors))
    _resealed(delta, lambda value: None)
    with pytest.raises(SparseRecError, match=r"files\.table\.safetensors: what it makes has not"):
        apply_delta(built.path, delta, delta.parent / "made")


def test_the_commands(built: Built, delta: Path, tmp_path: Path) -> None:
    ran = CliRunner().invoke(app, ["inspect", str(delta)], terminal_width=120)
    assert ran.exit_code == 0, ran.output
    assert "changed rows" in ran.output
    out = tmp_path / "made"
    ran = CliRunner().invoke(app, ["apply", str(built.path), str(delta), str(out)])
    assert ran.exit_code == 0, ran.output
    assert verify_bundle(out).bundle_id in ran.output
    ran = CliRunner().invoke(app, ["inspect", str(tmp_path)])
    assert isinstance(ran.exception, SparseRecError)
