"""The queue against closed forms."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_bench.simulate.queue import serve


def erlang_c(servers: int, load: float) -> float:
    """Give the chance to wait in M/M/c (Erlang 1917), offered load a = rate x time."""
    last = load**servers / math.factorial(servers) * servers / (servers - load)
    return last / (sum(load**k / math.factorial(k) for k in range(servers)) + last)


@pytest.mark.parametrize(("servers", "busy"), [(1, 0.5), (4, 0.8), (16, 0.8)])
def test_waits_are_those_of_m_m_c(servers: int, busy: float) -> None:
    rng = np.random.default_rng(servers)
    count = 120_000
    arrivals = np.cumsum(rng.exponential(1 / (servers * busy), count))
    served = serve(arrivals, rng.exponential(1.0, count), servers)
    waited = served.waited[count // 10 :]  # it starts empty
    chance = erlang_c(servers, servers * busy)
    assert np.mean(waited > 0) == pytest.approx(chance, rel=0.05)
    assert waited.mean() == pytest.approx(chance / (servers * (1 - busy)), rel=0.1)


def test_a_burst_is_served_in_rounds() -> None:
    """D/D/c, all at once: the k-th waits floor(k / c) service times."""
    served = serve(np.zeros(1000), np.full(1000, 2.5), 7)
    np.testing.assert_allclose(served.waited, 2.5 * (np.arange(1000) // 7))
    np.testing.assert_allclose(served.finished, 2.5 * (np.arange(1000) // 7 + 1))


def test_regular_arrivals_at_less_than_the_rate_do_not_wait() -> None:
    served = serve(np.arange(500.0), np.full(500, 3.0), 3)
    assert served.waited.max() == 0
    np.testing.assert_allclose(served.finished, np.arange(500.0) + 3)


def test_tries_that_break_are_paid_for_and_repeated() -> None:
    """With a chance p to break, 1 / (1 - p) tries each; one that broke took half on average."""
    rng = np.random.default_rng(1)
    count, chance = 50_000, 0.3
    breaks = rng.geometric(1 - chance, count) - 1
    served = serve(np.arange(count) * 10.0, np.ones(count), count, breaks, backoff=5.0, seed=2)
    mean = chance / (1 - chance)  # tries that break
    assert served.held.mean() == pytest.approx(1 + mean / 2, rel=0.01)
    delay = served.finished - np.arange(count) * 10.0
    assert delay.mean() == pytest.approx(1 + mean * (0.5 + 5.0), rel=0.02)
    assert served.waited.max() == 0


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20)), min_size=1, max_size=40),
    st.integers(1, 5),
)
def test_no_more_are_served_at_once_than_there_are_connections(
    transfers: list[tuple[float, float]], connections: int
) -> None:
    arrivals, seconds = (np.array(part, np.float64) for part in zip(*transfers, strict=True))
    served = serve(arrivals, seconds, connections)
    start = arrivals + served.waited
    np.testing.assert_array_equal(served.finished, start + seconds)
    for moment in start:
        busy = np.count_nonzero((start <= moment) & (served.finished > moment))
        assert busy <= connections
    order = np.argsort(arrivals, kind="stable")
    assert (np.diff(start[order]) >= 0).all()  # first come, first served
