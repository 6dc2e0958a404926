"""Bundles are written whole, and damage of any kind is one error that names file and field."""

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
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from export.build import Built, build
from export.bundle import bundle_id, file_infos, read_manifest, verify_bundle, write_bundle
from export.contents import check
from export.manifest import FILES, PLAIN
from pipeline.run import TrainedRun
from sparserec.errors import SparseRecError
from tests.export.conftest import DEVICE, ITEMS, USERS

Arrays = dict[str, np.ndarray]


def rehash(bundle: Path, name: str) -> None:
    """Make the manifest agree with a file that was changed, so that its content is looked at."""
    path = bundle / "manifest.json"
    value = json.loads(path.read_text())
    data = (bundle / name).read_bytes()
    value["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    path.write_text(json.dumps(value))


def change_tensors(bundle: Path, name: str, change: Callable[[Arrays], Any]) -> None:
    arrays = load_file(bundle / name)
    change(arrays)
    save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, bundle / name)
    rehash(bundle, name)


def contents(bundle: Path) -> dict[str, bytes]:
    return {name: (bundle / name).read_bytes() for name in FILES}


def test_round_trip(built: Built, run: TrainedRun) -> None:
    assert verify_bundle(built.path) == read_manifest(built.path) == built.manifest
    assert sorted(path.name for path in built.path.iterdir()) == sorted((*FILES, "manifest.json"))
    table = load_file(built.path / "table.safetensors")
    manifest = built.manifest
    assert manifest.floor == run.recipe.step.floor != DEVICE.floor
    assert manifest.training.negatives == 0  # BPR has no shared ones
    assert {name: str(array.dtype) for name, array in table.items()} == {
        "row_ptr": "int32",
        "cols": "uint8",
        "vals": "float32",
    }
    assert len(table["row_ptr"]) == manifest.num_users + manifest.num_items + 1
    users_end = run.table.row_ptr[run.table.num_users]
    np.testing.assert_array_equal(table["vals"][:users_end], run.table.vals[:users_end])
    first_item = int(table["row_ptr"][manifest.num_users])
    items = run.table.vals[users_end:]
    np.testing.assert_array_equal(table["vals"][first_item : first_item + len(items)], items)


def test_newcomers_of_the_log_are_assigned(built: Built, run: TrainedRun) -> None:
    assert run.split.num_items > run.split.known_items
    assert built.manifest.known_items == run.split.num_items
    ids = load_file(built.path / "ids.safetensors")
    offsets = ids["items_offsets"]
    last = ids["items_utf8"].tobytes()[offsets[-2] : offsets[-1]].decode()
    assert last == run.split.item_ids[-1]
    assert len(offsets) == built.manifest.known_items + 1


def test_the_id_follows_the_content(built: Built) -> None:
    files = contents(built.path)
    assert built.manifest.bundle_id.startswith("tiny-mf-d8-40pct-")
    infos = file_infos(files)
    training = built.manifest.training
    same = bundle_id("tiny", "mf", 8, 0.4, infos, training)
    assert same == built.manifest.bundle_id
    longer = replace(training, steps=training.steps + 1)
    assert bundle_id("tiny", "mf", 8, 0.4, infos, longer) != same
    files["golden.json"] += b"\n"
    assert bundle_id("tiny", "mf", 8, 0.4, file_infos(files), training) != same
    assert bundle_id("tiny", "mf", 8, 1.0, infos, training).startswith("tiny-mf-d8-100pct-")


@pytest.mark.parametrize(
    ("dataset", "start"),
    [
        ("my log (2).v1", "my-log-2-.v1-mf-"),
        ("../../x", "x-mf-"),
        ("películas", "pel-culas-mf-"),
        ("日本", "data-mf-"),
        ("ml-100k_a.b", "ml-100k_a.b-mf-"),
    ],
)
def test_the_id_is_a_plain_name(dataset: str, start: str, built: Built) -> None:
    name = bundle_id(dataset, "mf", 8, 0.4, {}, built.manifest.training)
    assert name.startswith(start)
    assert PLAIN.fullmatch(name)


@pytest.mark.parametrize("name", FILES)
def test_missing_cut_and_grown_files(bundle: Path, name: str) -> None:
    path, data = bundle / name, (bundle / name).read_bytes()
    for wrong in (data[: len(data) // 2], b"", data + b"\0"):
        path.write_bytes(wrong)
        with pytest.raises(SparseRecError, match=f"{name}: has {len(wrong)} bytes, the manifest"):
            verify_bundle(bundle)
    path.unlink()
    with pytest.raises(SparseRecError, match=f"{name}: No such file"):
        verify_bundle(bundle)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), name=st.sampled_from(FILES))
def test_any_flipped_bit_is_found(
    bundle: Path, built: Built, data: st.DataObject, name: str
) -> None:
    content = bytearray((built.path / name).read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    (bundle / name).write_bytes(content)
    try:
        with pytest.raises(SparseRecError, match=f"{name}: damaged; its SHA-256"):
            verify_bundle(bundle)
    finally:
        shutil.copy(built.path / name, bundle / name)


def test_no_manifest_is_no_bundle(bundle: Path) -> None:
    (bundle / "manifest.json").unlink()
    with pytest.raises(SparseRecError, match=r"has no manifest\.json, so it is not a bundle"):
        verify_bundle(bundle)
    with pytest.raises(SparseRecError, match="there is no such folder"):
        verify_bundle(bundle / "elsewhere")
    with pytest.raises(SparseRecError, match="is a file"):
        verify_bundle(bundle / "step.pte")


def _set(name: str, index: int, value: float) -> Callable[[Arrays], None]:
    def change(arrays: Arrays) -> None:
        arrays[name][index] = value

    return change


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("table", lambda a: a.update(row_ptr=a["row_ptr"].astype(np.int64)), "row_ptr: is int64"),
        ("table", lambda a: a.update(vals=a["vals"].astype(np.float16)), "vals: is float16"),
        ("table", lambda a: a.update(cols=a["cols"][None]), "cols: is uint8 .*, not uint8"),
        ("table", lambda a: a.pop("cols"), "cols: is missing"),
        ("table", lambda a: a.update(vals=a["vals"][:-1]), "vals: has .* elements, not"),
        ("table", _set("row_ptr", 0, 1), "row_ptr: does not rise from 0"),
        ("table", _set("row_ptr", 2, -1), "row_ptr: does not rise from 0"),
        ("table", _set("cols", -1, 8), "cols: holds a column that is not below dim = 8"),
        ("table", _set("cols", 1, 0), "cols: does not increase strictly"),
        ("table", _set("vals", 3, np.nan), "vals: holds a value that is not finite"),
        ("interactions", _set("log_users", 0, USERS), "log_users: holds an index outside"),
        ("interactions", _set("seen_items", -1, ITEMS), "seen_items: holds an index outside"),
        (
            "interactions",
            lambda a: a.update(seen_items=a["seen_items"][[1, 0, *range(2, len(a["seen_items"]))]]),
            "seen_items: does not increase strictly",
        ),
        ("interactions", _set("later_items", 0, -1), "later_items: holds an index outside"),
        ("interactions", _set("seen_ptr", -1, 0), "seen_ptr: does not rise"),
        (
            "interactions",
            lambda a: a.update(log_users=a["log_users"][:0], log_items=a["log_items"][:0]),
            "log_users: is empty",
        ),
        (
            "interactions",
            lambda a: a.update(log_items=a["log_items"][:-1]),
            "log_items: has .* elements, not",
        ),
        (
            "interactions",
            lambda a: [
                a[f"later_{kind}"].__setitem__(0, a[f"log_{kind}"][0])
                for kind in ("users", "items")
            ],
            "log_items: a pair occurs twice",
        ),
        (
            "interactions",
            lambda a: a.update(
                log_users=np.append(a["log_users"], np.int32(0)),
                log_items=np.append(a["log_items"], a["seen_items"][0]),
            ),
            "log_items: a pair occurs twice",
        ),
        ("ids", _set("items_utf8", 0, 0xFF), "items_utf8: is not UTF-8"),
        ("ids", _set("users_offsets", 1, 10**9), "users_offsets: does not rise"),
    ],
)
def test_contents_that_do_not_fit(
    bundle: Path, file: str, change: Callable[[Arrays], Any], message: str
) -> None:
    change_tensors(bundle, f"{file}.safetensors", change)
    with pytest.raises(SparseRecError, match=rf"{file}\.safetensors: {message}"):
        verify_bundle(bundle)


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [(torch.bfloat16, "BF16"), (torch.float8_e4m3fn, "F8_E4M3"), (torch.float8_e5m2, "F8_E5M2")],
)
def test_types_that_numpy_does_not_have(bundle: Path, dtype: torch.dtype, kind: str) -> None:
    path = bundle / "table.safetensors"
    tensors = {name: torch.from_numpy(array) for name, array in load_file(path).items()}
    safetensors.torch.save_file(tensors | {"vals": tensors["vals"].to(dtype)}, path)
    rehash(bundle, path.name)
    expected = rf"table\.safetensors: vals: is {kind}, not float32 \[n\]"
    with pytest.raises(SparseRecError, match=expected):
        verify_bundle(bundle)


def test_too_few_entries_in_a_row(bundle: Path) -> None:
    def change(arrays: Arrays) -> None:
        arrays["row_ptr"][4] = arrays["row_ptr"][3]

    change_tensors(bundle, "table.safetensors", change)
    with pytest.raises(SparseRecError, match="row_ptr: row 3 has fewer than floor = 1 entries"):
        verify_bundle(bundle)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x10\0\0\0FT01", r"step\.pte: this is a \.ptd"),
        (b"PK\x03\x04abcdefgh", r"step\.pte: not an ExecuTorch program"),
    ],
)
def test_a_program_that_is_none(bundle: Path, content: bytes, message: str) -> None:
    (bundle / "step.pte").write_bytes(content)
    rehash(bundle, "step.pte")
    with pytest.raises(SparseRecError, match=message):
        verify_bundle(bundle)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"losses": [0.5]}, r"losses: has 1 values for \d+ steps"),
        ({"steps": 0, "losses": []}, r"steps: is 0, the run has \d+"),
        ({"steps": 9999, "losses": [0.5] * 9999}, r"steps: is 9999, the run has \d+"),
        ({"seed": 99}, "seed: is 99, the manifest says 1"),
        ({"batch_size": 99}, "batch_size: is 99, the manifest says 16"),
    ],
)
def test_golden_losses_of_another_run(bundle: Path, changes: dict[str, Any], message: str) -> None:
    golden = json.loads((bundle / "golden.json").read_text())
    (bundle / "golden.json").write_text(json.dumps(golden | changes))
    rehash(bundle, "golden.json")
    with pytest.raises(SparseRecError, match=rf"golden\.json: {message}"):
        verify_bundle(bundle)


@pytest.mark.parametrize(("later", "steps"), [(0, 1), (1, None)])
def test_the_least_and_the_most_that_a_bundle_holds(
    bundle: Path, built: Built, later: int, steps: int | None
) -> None:
    def change(arrays: Arrays) -> None:
        for name in ("later_users", "later_items"):
            arrays[name] = arrays[name][:later]

    change_tensors(bundle, "interactions.safetensors", change)
    steps = steps or built.manifest.training.steps
    golden = json.loads((bundle / "golden.json").read_text())
    golden |= {"steps": steps, "losses": [0.5] * steps}
    (bundle / "golden.json").write_text(json.dumps(golden))
    rehash(bundle, "golden.json")
    verify_bundle(bundle)


def test_a_graph_is_looked_for_where_the_model_has_one(built: Built) -> None:
    with pytest.raises(SparseRecError, match=r"graph\.safetensors: not safetensors"):
        check(built.path, replace(built.manifest, model="lightgcn"))


def test_a_density_that_is_not_the_tables(bundle: Path) -> None:
    path = bundle / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"density": 0.5}))
    with pytest.raises(SparseRecError, match=r"row_ptr: density 0\..*, the manifest says 0\.5"):
        verify_bundle(bundle)


def test_a_bundle_is_replaced_whole(built: Built, tmp_path: Path) -> None:
    out, files = tmp_path / "deep" / "bundle", contents(built.path)
    out.mkdir(parents=True)  # an empty folder is nobody's
    write_bundle(out, built.manifest, files)
    (out / "leftover").write_text("of an earlier bundle")
    write_bundle(out, built.manifest, files)
    assert not (out / "leftover").exists()
    assert verify_bundle(out) == built.manifest
    assert [path.name for path in out.parent.iterdir()] == ["bundle"]


def test_the_same_export_again_changes_nothing(
    bundle: Path, run: TrainedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device would take another manifest for another bundle, and not resume."""
    before = contents(bundle) | {"manifest.json": (bundle / "manifest.json").read_bytes()}
    monkeypatch.setattr("time.strftime", lambda *_: "2030-01-01T00:00:00Z")
    again = build(run, bundle, DEVICE)
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before
    assert again.manifest == read_manifest(bundle)
    assert build(run, bundle.parent / "other", DEVICE).manifest.created_utc.startswith("2030")


def test_a_failed_write_leaves_the_old_bundle(built: Built, bundle: Path) -> None:
    wrong = replace(built.manifest, nnz=built.manifest.nnz + 1)
    with pytest.raises(SparseRecError, match="does not rise"):
        write_bundle(bundle, wrong, contents(built.path))
    assert verify_bundle(bundle) == built.manifest
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]


def test_a_place_that_cannot_be_written_is_named(built: Built, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SparseRecError, match=r"file/.*: cannot be written") as caught:
        write_bundle(tmp_path / "file" / "bundle", built.manifest, contents(built.path))
    assert "another --out" in caught.value.fix


def test_folders_beside_a_bundle_are_left_alone(built: Built, bundle: Path) -> None:
    """A user's backup is not ours to remove, nor to bring back."""
    beside = [bundle.with_name(f"bundle.{end}") for end in ("old", "part")]
    for folder in beside:
        shutil.copytree(bundle, folder)
        (folder / "manifest.json").write_text("mine")
    for there in (True, False):
        if not there:
            shutil.rmtree(bundle)
        write_bundle(bundle, built.manifest, contents(built.path))
        assert verify_bundle(bundle) == built.manifest
        assert [(folder / "manifest.json").read_text() for folder in beside] == ["mine", "mine"]


@pytest.mark.parametrize("at", [0, 1])
def test_a_crash_between_the_renames_loses_no_bundle(
    built: Built, bundle: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """It is there, or it comes back as the next export begins; leftovers go."""
    before, rename, files = dict(contents(bundle)), Path.replace, contents(built.path)
    renames = iter(range(3))

    def crash(self: Path, target: Path) -> Path:
        if target.parent == bundle.parent and next(renames) == at:
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", crash)
        with pytest.raises(KeyboardInterrupt):
            write_bundle(bundle, built.manifest, files)
    assert bundle.exists() == (at == 0)
    with pytest.raises(SparseRecError, match="does not rise"):
        write_bundle(bundle, replace(built.manifest, nnz=built.manifest.nnz + 1), files)
    assert contents(bundle) == before
    write_bundle(bundle, built.manifest, files)
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]


def test_a_link_stays_and_what_it_leads_to_is_replaced(built: Built, tmp_path: Path) -> None:
    link, files = tmp_path / "link", contents(built.path)
    link.symlink_to("place", target_is_directory=True)
    for _ in range(2):  # the first time it leads nowhere
        write_bundle(link, built.manifest, files)
        assert link.readlink() == Path("place")
        assert verify_bundle(tmp_path / "place") == built.manifest
        assert {path.name for path in tmp_path.iterdir()} == {"link", "place"}


@pytest.mark.parametrize("end", ["part", "old"])
def test_a_link_that_a_crash_left_is_removed(built: Built, tmp_path: Path, end: str) -> None:
    bundle, kept, files = tmp_path / "bundle", tmp_path / "kept", contents(built.path)
    write_bundle(bundle, built.manifest, files)
    kept.mkdir()
    (tmp_path / f".bundle.sparserec-{end}").symlink_to("kept", target_is_directory=True)
    write_bundle(bundle, built.manifest, files)
    assert {path.name for path in tmp_path.iterdir()} == {"bundle", "kept"}


def test_other_folders_are_not_overwritten(built: Built, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    for out in (tmp_path, tmp_path / "thesis.txt"):
        with pytest.raises(SparseRecError, match="is there and is not a bundle"):
            write_bundle(out, built.manifest, contents(built.path))
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
