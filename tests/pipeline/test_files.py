"""Files: whole or not there, and safetensors as the library writes them."""

import resource
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors import safe_open
from safetensors.numpy import load_file, save, save_file

from pipeline.files import (
    SAFETENSORS,
    alone,
    checksum_of_file,
    read_json,
    read_tensors,
    write_atomic,
    write_json,
    write_tensors,
)
from sparserec.errors import SparseRecError, writing

arrays = st.sampled_from(list(SAFETENSORS)).flatmap(
    lambda kind: hnp.arrays(kind, hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4))
)


@given(st.dictionaries(st.text("abcxyz_.", min_size=1), arrays, min_size=1))
def test_tensors_are_written_as_the_library_writes_them(
    tmp_path_factory, tensors: dict[str, np.ndarray]
) -> None:
    path = tmp_path_factory.mktemp("t") / "a.safetensors"
    write_tensors(path, tensors)
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
        assert metadata == {"sha256": checksum_of_file(file)}
    assert path.read_bytes() == save(tensors, metadata=metadata)
    assert [file.name for file in path.parent.iterdir()] == ["a.safetensors"]


def test_mapped_and_strided_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(12, dtype=np.int32))
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    write_tensors(tmp_path / "a", {"mapped": mapped, "strided": mapped[::2]})
    found = load_file(tmp_path / "a")
    assert found["mapped"].tolist() == list(range(12))
    assert found["strided"].tolist() == list(range(0, 12, 2))


def test_a_tensor_that_has_changed_is_noticed(tmp_path: Path) -> None:
    tensors = {"a": np.arange(3, dtype=np.int32), "b": np.zeros((2, 2), np.float32)}
    path = tmp_path / "a"
    write_tensors(path, tensors)
    whole = path.read_bytes()
    np.testing.assert_equal(read_tensors(path), tensors)
    data = 8 + int.from_bytes(whole[:8], "little")
    for at in range(data, len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(ValueError, match="SHA-256"):
            read_tensors(path)
    for swapped in (whole.replace(b'"a":', b'"c":'), whole.replace(b"[2,2]", b"[4,1]")):
        path.write_bytes(swapped)
        with pytest.raises(ValueError, match="SHA-256"):
            read_tensors(path)
    save_file(tensors, path)  # as before there was a checksum
    np.testing.assert_equal(read_tensors(path), tensors)


@contextmanager
def full_disk(most: int) -> Iterator[None]:
    """Let no file grow past so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_said_and_leaves_things_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before")
    values = np.zeros(100_000, np.float32)
    for write in (
        lambda: write_atomic(path, values.tobytes()),
        lambda: write_tensors(path, {"values": values}),
    ):
        with (
            full_disk(50_000),
            pytest.raises(SparseRecError, match=r"file: cannot be written"),
            writing(path),
        ):
            write()
        assert path.read_bytes() == b"before"
        assert list(tmp_path.iterdir()) == [path]


def _write_often(path: Path, text: str) -> None:
    for _ in range(100):
        write_atomic(path, text.encode())


def test_processes_may_write_one_file_at_once(tmp_path: Path) -> None:
    path, texts = tmp_path / "file", ["a" * 50_000, "b" * 90_000]
    with ProcessPoolExecutor(2, get_context("spawn")) as both:
        for one in [both.submit(_write_often, path, text) for text in texts]:
            one.result()
    assert path.read_text() in texts
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_no_part_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(b"longer than what is written now")
    write_atomic(tmp_path / "file", b"whole")
    assert (tmp_path / "file").read_bytes() == b"whole"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_json_has_no_bare_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "a", [1.5])
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a", [float("nan")])
    assert read_json(tmp_path / "a") == [1.5]


def test_a_folder_has_one_run_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    with alone(folder):
        with pytest.raises(SparseRecError, match="run: another run writes there"), alone(folder):
            pass
        with alone(tmp_path / "other"):
            pass
    with alone(folder):
        pass
