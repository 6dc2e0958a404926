"""manifest.json: read back as written; anything else is one error that names file and field."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from export import manifest
from export.build import Built
from export.bundle import verify_bundle
from sparserec.errors import SparseRecError

Json = dict[str, Any]


def edit(bundle: Path, change: Callable[[Json], None]) -> Path:
    path = bundle / "manifest.json"
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))
    return path


def test_round_trip(built: Built) -> None:
    assert manifest.read(built.path / "manifest.json") == built.manifest


def test_fields_are_those_of_the_formats_page(built: Built) -> None:
    page = (Path(__file__).parents[2] / "docs/formats.md").read_text()
    example = json.loads(page.split("### 1.5")[1].split("```json")[1].split("```")[0])
    value = json.loads((built.path / "manifest.json").read_text())
    assert list(value) == list(example)
    for part in ("training", "producer", "provenance"):
        assert list(value[part]) == list(example[part])
    method = example["programs"]["step"]["methods"]["gradients"]
    assert list(value["programs"]["step"]["methods"]["gradients"]) == list(method)
    assert list(value["programs"]["step"]["methods"]["gradients"]["inputs"][0]) == list(
        method["inputs"][0]
    )


@pytest.mark.parametrize(
    ("change", "stays"),
    [
        ({"created_utc": "2030-01-01T00:00:00Z"}, True),
        ({"provenance": {"git": "another"}}, True),
        ({"producer": {"sparserec": "9"}}, False),
        ({"nnz": 1}, False),
    ],
)
def test_a_manifest_stays_unless_the_bundle_is_another(
    built: Built, change: dict[str, Any], stays: bool
) -> None:
    path = built.path / "manifest.json"
    now = replace(built.manifest, **change)
    found = manifest.kept(path, now)
    assert found == ((built.manifest, path.read_bytes()) if stays else (now, now.to_json()))


def test_another_version_of_python_is_no_other_bundle(built: Built) -> None:
    producer = built.manifest.producer | {"python": "3.99"}
    found, _ = manifest.kept(
        built.path / "manifest.json", replace(built.manifest, producer=producer)
    )
    assert found == built.manifest


@pytest.mark.parametrize("there", [None, b"", b"{}"])
def test_what_is_no_manifest_does_not_stay(
    built: Built, tmp_path: Path, there: bytes | None
) -> None:
    if there is not None:
        (tmp_path / "manifest.json").write_bytes(there)
    found = manifest.kept(tmp_path / "manifest.json", built.manifest)
    assert found == (built.manifest, built.manifest.to_json())


@pytest.mark.parametrize("version", [0, 2])
def test_unknown_schema(bundle: Path, version: int) -> None:
    path = edit(bundle, lambda value: value.update(schema_version=version))
    message = rf"manifest\.json: schema_version: {version}, but"
    with pytest.raises(SparseRecError, match=message) as caught:
        manifest.read(path)
    assert "version of sparserec that wrote the bundle" in caught.value.fix


@pytest.mark.parametrize(
    "name",
    ["../x", "a/b", "a\\b", "/etc/passwd", "..", ".", "", "C:x", "manifest.json", "é", "a\n"],
)
def test_a_file_name_that_leads_elsewhere(bundle: Path, name: str) -> None:
    entry = {"sha256": "0" * 64, "bytes": 1}
    path = edit(bundle, lambda value: value["files"].update({name: entry}))
    with pytest.raises(SparseRecError, match=r"manifest\.json: files: .* is not a plain file name"):
        manifest.read(path)


@pytest.mark.parametrize("name", ["../../x", "a/b", "/x", "..", ".", "", "my log", "é", "a\n"])
def test_an_id_that_is_no_name_of_a_folder(bundle: Path, name: str) -> None:
    edit(bundle, lambda value: value.update(bundle_id=name))
    with pytest.raises(SparseRecError, match=r"manifest\.json: bundle_id: .* is not a plain name"):
        verify_bundle(bundle)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.pop("nnz"), "nnz: is missing"),
        (lambda v: v.update(dim="64"), 'dim: is "64", not a whole number'),
        (lambda v: v.update(dim=True), "dim: is true, not a whole number"),
        (lambda v: v.update(dim=257), r"dim: is 257, outside \[1, 256\]"),
        (lambda v: v.update(nnz=0), r"nnz: is 0, outside \[1, 2147483647\]"),
        (lambda v: v.update(known_users=10**6), "known_users: is 1000000, outside"),
        (lambda v: v["training"].update(window=0), r"training\.window: is 0, outside"),
        (
            lambda v: v["training"].update(learning_rate=-1),
            r"training\.learning_rate: is -1\.0",
        ),
        (lambda v: v["training"].update(learning_rate=1e39), r"training\.learning_rate: is 1e\+39"),
        (lambda v: v["training"].update(l2=-1e-9), r"training\.l2: is -1e-09, outside \[0, 3\.4"),
        (lambda v: v["training"].update(l2=None), r"training\.l2: is null, not a number"),
        (lambda v: v["training"].update(l2=10**400), r"training\.l2: is not a finite number"),
        (lambda v: v.update(files=[]), "files: is .*, not an object"),
        (lambda v: v["files"].pop("step.pte"), r"files\.step\.pte: is missing"),
        (
            lambda v: v["files"]["step.pte"].update(sha256="AB"),
            r"files\.step\.pte\.sha256: is not a SHA-256",
        ),
        (lambda v: v["programs"].pop("score"), r"programs\.score: is missing"),
        (
            lambda v: v["programs"]["step"]["methods"].pop("update"),
            r"programs\.step\.methods\.update: is missing",
        ),
        (
            lambda v: v["programs"]["step"].update(file="other.pte"),
            r"programs\.step\.file: other\.pte is not in files",
        ),
        (
            lambda v: v["programs"]["step"]["methods"]["update"]["inputs"][1].update(
                shape=[1, "x"]
            ),
            r"programs\.step\.methods\.update\.inputs\[1\]\.shape\[1\]: is \"x\"",
        ),
        (
            lambda v: v["programs"]["step"]["methods"]["update"]["outputs"][0].update(
                shape=[-1, 10]
            ),
            r"programs\.step\.methods\.update\.outputs\[0\]\.shape: \[-1, 10\] is negative",
        ),
        (
            lambda v: v["programs"]["score"]["methods"]["score"].update(planned_arena_bytes=-5),
            r"programs\.score\.methods\.score\.planned_arena_bytes: is -5, less than 0",
        ),
        (
            lambda v: v["programs"]["step"]["methods"]["update"].update(delegates=-1),
            r"programs\.step\.methods\.update\.delegates: is -1, less than 0",
        ),
    ],
)
def test_wrong_fields_are_named(bundle: Path, change: Callable[[Json], None], message: str) -> None:
    path = edit(bundle, change)
    with pytest.raises(SparseRecError, match=r"manifest\.json: " + message):
        manifest.read(path)


def put(value: Json, field: str, new: object) -> None:
    *path, last = field.split(".")
    for name in path:
        value = value[name]
    value[last] = new


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_users", 0),
        ("num_items", 2**31),
        ("known_items", 10**6),
        ("floor", 9),
        ("density", 1.1),
        ("training.steps", 2**31),
        ("training.seed", 2**63),
        ("training.negative_tries", 0),
        ("training.sampled_fraction", 1.1),
        ("training.exchange_fraction", -0.1),
        ("training.exchange_stop", 1.1),
        ("model", "gcn"),
        ("precision", "float64"),
        ("training.loss", "hinge"),
        ("training.optimizer", "lion"),
    ],
)
def test_what_no_field_may_be_is_named(bundle: Path, field: str, value: object) -> None:
    path = edit(bundle, lambda content: put(content, field, value))
    with pytest.raises(
        SparseRecError, match=rf"manifest\.json: {field}: is .*(outside|not one of)"
    ):
        manifest.read(path)


def test_the_ends_of_a_range_are_in_it(bundle: Path) -> None:
    ends = {"seed": 2**63 - 1, "sampled_fraction": 1, "learning_rate": 0, "negative_tries": 1}
    path = edit(bundle, lambda content: content["training"].update(ends))
    assert manifest.read(path).training.seed == 2**63 - 1


def test_a_model_with_a_graph_has_its_file_and_its_method(bundle: Path) -> None:
    path = edit(bundle, lambda content: content.update(model="lightgcn"))
    with pytest.raises(SparseRecError, match=r"files\.graph\.safetensors: is missing"):
        manifest.read(path)
    entry = {"sha256": "0" * 64, "bytes": 1}
    path = edit(bundle, lambda content: content["files"].update({manifest.GRAPH: entry}))
    with pytest.raises(SparseRecError, match=r"programs\.score\.methods\.vectors: is missing"):
        manifest.read(path)


@pytest.mark.parametrize("file", ["forward.pte", "../../step.pte"])
def test_every_program_is_among_the_files(bundle: Path, file: str) -> None:
    edit(bundle, lambda v: v["programs"].update(forward={"file": file, "methods": {}}))
    message = rf"manifest\.json: programs\.forward\.file: {file} is not in files"
    with pytest.raises(SparseRecError, match=message):
        verify_bundle(bundle)


def test_half_a_character(bundle: Path) -> None:
    path = edit(bundle, lambda value: value["provenance"].update(dataset="\ud800"))
    with pytest.raises(SparseRecError, match=r"manifest\.json: not JSON \(.*surrogates"):
        manifest.read(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\x00", '{"schema_version": NaN}'])
def test_not_a_manifest(bundle: Path, text: str) -> None:
    (bundle / "manifest.json").write_text(text)
    with pytest.raises(SparseRecError, match=r"manifest\.json: "):
        manifest.read(bundle / "manifest.json")


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) of a JSON value."""
    keys = (
        value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    )
    for key in list(keys):
        yield value, key
        yield from _places(value[key])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), wrong=json_values, remove=st.booleans())
def test_any_change_is_accepted_or_explained(
    bundle: Path, built: Built, data: st.DataObject, wrong: Any, remove: bool
) -> None:
    value = json.loads(built.manifest.to_json())
    container, key = data.draw(st.sampled_from(list(_places(value))))
    if remove:
        del container[key]
    else:
        container[key] = wrong
    path = bundle / "manifest.json"
    path.write_text(json.dumps(value))
    error = _complaint(path)
    assert error is None or (str(path) in error.message and error.fix)


def _complaint(path: Path) -> SparseRecError | None:
    """What is wrong with the manifest; any other exception is a failure."""
    try:
        manifest.read(path)
    except SparseRecError as error:
        return error
    return None
