"""What a step takes, measured in processes of its own."""

import json
import subprocess
import sys

import pytest

from pipeline.memory import Memory, measure
from sparserec.errors import SparseRecError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="measured by Linux' /proc")
ROWS, DIM = 150_000, 64
TABLE = 4 * ROWS * DIM
CHUNKS = 16 << 20
"""What one batch, one block of draws and one chunk of rows may take, whatever N is."""


@pytest.fixture(scope="module")
def sparse() -> dict[str, Memory]:
    return {model: measure(model, "sparserec", ROWS, DIM, 0.05) for model in ("mf", "neumf")}


@pytest.mark.parametrize("model", ["mf", "neumf"])
def test_the_state_is_the_packed_table_and_the_sums(sparse: dict[str, Memory], model: str) -> None:
    found = sparse[model]
    bound = 1.3 * found.packed_bytes + found.sums_bytes
    assert found.state_bytes is not None
    assert found.packed_bytes < found.state_bytes < bound
    # The arrays were counted; what is resident while a step runs agrees.
    assert found.forward is not None
    assert found.backward is not None
    assert 0.95 * found.state_bytes < found.backward < bound + CHUNKS
    assert found.forward < bound + CHUNKS
    # No float array of the table's size fits beside the state, not even for a moment.
    assert found.backward - found.state_bytes < TABLE
    assert found.forward - found.state_bytes < TABLE
    assert found.update is not None
    assert found.update - found.state_bytes < TABLE
    assert found.start is not None
    assert found.start < found.packed_bytes + TABLE


def test_a_dense_table_takes_what_its_arrays_take(sparse: dict[str, Memory]) -> None:
    dense = measure("mf", "dense", ROWS, DIM, 0.05)
    assert dense.state_bytes == pytest.approx(4 * TABLE, rel=0.01)  # values, gradient, moments
    assert dense.backward is not None
    assert dense.backward > 4 * TABLE
    assert dense.backward > 3 * (sparse["mf"].backward or 0)


def test_what_does_not_fit_is_skipped_with_the_reason() -> None:
    found = measure("mf", "dense", 10**7, 64, 0.1, limit=1 << 30)
    assert found.backward is None
    assert "GiB" in found.skipped
    with pytest.raises(SparseRecError, match=r"measuring neumf dense failed.*not a multiple of 8"):
        measure("neumf", "dense", 1000, 12, 0.4)


METERED = """
import json
import numpy as np
from pipeline.memory import Meter
meter = Meter()
held = np.ones(40 << 20, np.uint8)
meter.end("held")
del held
meter.end("freed")
meter.end("after")
print(json.dumps(meter.peaks))
"""


def test_the_meter_sees_what_is_touched_and_freed() -> None:
    # A fresh process: one that has trained keeps what it freed (pipeline.allocator).
    found = subprocess.run([sys.executable, "-c", METERED], capture_output=True, check=True)
    peaks = json.loads(found.stdout)
    assert 39 << 20 < peaks["held"] < 60 << 20
    assert peaks["after"] < 20 << 20
