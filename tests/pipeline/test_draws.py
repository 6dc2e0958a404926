import json
from pathlib import Path

import numpy as np

from pipeline.draws import bounded, draws

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "draws.json").read_text())
MASK = (1 << 64) - 1


def splitmix64(state: int) -> int:
    """One output of the published generator, in Python integers: state, then its finaliser."""
    z = (state + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def test_the_finaliser_is_splitmix64s() -> None:
    # The first output of splitmix64 seeded with 0, as its authors' C code prints it.
    assert splitmix64(0) == 0xE220A8397B1DCDAF


def test_draws_are_three_chained_splitmix64_outputs() -> None:
    golden = 0x9E3779B97F4A7C15
    for seed, stream, step, i in [(0, 0, 0, 0), (7, 2, 31, 1000), (2**63 - 1, 1, 10**6, 5)]:
        first = splitmix64(seed + golden * stream)
        second = splitmix64(first + golden * step)
        expected = splitmix64(second + golden * i)
        assert int(draws(seed, stream, step, np.array([i]))[0]) == expected


def test_vectors_that_the_harness_is_tested_with() -> None:
    assert len(VECTORS) >= 100
    for row in VECTORS:
        value = draws(int(row["seed"]), row["stream"], row["step"], np.array([row["i"]]))
        assert int(value[0]) == int(row["draw"])
        assert bounded(value, row["n"])[0] == row["bounded"]


def test_bounded_draws_are_uniform() -> None:
    values = bounded(draws(1, 0, 0, np.arange(100_000)), 10)
    counts = np.bincount(values, minlength=10)
    chi_squared = ((counts - 10_000) ** 2 / 10_000).sum()
    assert chi_squared < 27.9  # 0.1% point at 9 degrees of freedom
    assert values.min() == 0
    assert values.max() == 9
