"""The cost model against draws, and against ranks that really train."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.scale.cases import Case, Measured
from pipeline.scale.model import TERMS, Fit, bytes_sent, fit, rows_touched, state_bytes
from pipeline.scale.process import measure
from pipeline.scale.report import report
from tests.pipeline.distributed.peers import on_ranks

CASE = Case(2, 6000, 32, 0.1, 512, 0.3)


def test_rows_touched_are_those_that_draws_touch() -> None:
    rng = np.random.default_rng(1)
    half, examples = CASE.num_rows // 2, CASE.batch_size // CASE.ranks
    drawn = [
        len(np.unique(rng.integers(0, half, examples)))
        + len(np.unique(rng.integers(0, half, 2 * examples)))
        for _ in range(300)
    ]
    assert rows_touched(CASE) == pytest.approx(np.mean(drawn), rel=0.005)


@pytest.mark.parametrize("sampled_fraction", [0.3, 1.0])
def test_what_is_counted_is_what_is_sent_and_kept(sampled_fraction: float) -> None:
    """S follows frequency, so that a row in S is touched a little more often than another."""
    case = replace(CASE, sampled_fraction=sampled_fraction)
    for found in on_ranks(2, measure, case):
        assert found.sent == pytest.approx(bytes_sent(case), rel=0.12)
        assert found.rows == pytest.approx(rows_touched(case), rel=0.02)
        assert found.state_bytes == pytest.approx(state_bytes(case), rel=0.12)
        # Two histograms of two lists, of 8 bytes a bin: half of each leaves a rank twice.
        assert found.update_sent == pytest.approx(2 * 2 * 65_536 * 8, rel=0.1)


def test_one_shard_alone_keeps_what_it_keeps_among_others() -> None:
    alone = replace(CASE, ranks=1, of_ranks=2)
    assert on_ranks(1, measure, alone)[0].state_bytes == pytest.approx(
        on_ranks(2, measure, CASE)[0].state_bytes, rel=0.05
    )


def made(case: Case, cpu_s: float) -> Measured:
    return Measured(case, 0, 2 * cpu_s, cpu_s, 0.0, 0.1, 1e3, 1e6, 1e3, 1, 1, 1)


def test_a_fit_finds_what_made_the_times() -> None:
    true = Fit((1e-3, 2e-7, 3e-9, 1e-9), 0.0)
    cases = [
        Case(ranks, rows, dim, density, batch, 0.25)
        for ranks in (1, 2, 4)
        for rows, dim, density, batch in (
            (10**5, 64, 0.05, 2048),
            (10**5, 32, 0.2, 8192),
            (10**6, 64, 0.1, 8192),
        )
    ]
    found = fit([made(case, true.step(case)) for case in cases])
    assert len(found.seconds) == len(TERMS)
    np.testing.assert_allclose(found.seconds, true.seconds, rtol=1e-4)
    assert found.error < 1e-6


def test_ratios_of_scaling_are_those_of_the_times() -> None:
    one, two = Case(1, 1000, 8, 0.5, 100, 0.5), Case(2, 1000, 8, 0.5, 100, 0.5)
    twice = Case(2, 2000, 8, 0.5, 200, 0.5)
    text = report([made(one, 0.3), made(two, 0.2), made(twice, 0.4)], [])
    assert "| strong | 1,000 | 100 | 2 | 1.50 | 1.50 | 2 |" in text
    assert "| weak | 2,000 | 200 | 2 | 0.75 | 0.75 | 1 |" in text
