"""Files: whole or not there, and safetensors as the library writes them."""

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load_file, save

from pipeline.files import SAFETENSORS, write_tensors

arrays = st.sampled_from(list(SAFETENSORS)).flatmap(
    lambda kind: hnp.arrays(kind, hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4))
)


@given(st.dictionaries(st.text("abcxyz_.", min_size=1), arrays, min_size=1))
def test_tensors_are_written_as_the_library_writes_them(
    tmp_path_factory, tensors: dict[str, np.ndarray]
) -> None:
    path = tmp_path_factory.mktemp("t") / "a.safetensors"
    write_tensors(path, tensors)
    assert path.read_bytes() == save(tensors)
    assert [file.name for file in path.parent.iterdir()] == ["a.safetensors"]


def test_mapped_and_strided_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(12, dtype=np.int32))
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    write_tensors(tmp_path / "a", {"mapped": mapped, "strided": mapped[::2]})
    found = load_file(tmp_path / "a")
    assert found["mapped"].tolist() == list(range(12))
    assert found["strided"].tolist() == list(range(0, 12, 2))
