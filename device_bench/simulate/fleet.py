"""A new generation goes out to a fleet: download, learn on, send the report.

Each device opens its connection once in the check-in window, at a moment that is uniform over it.
It gets a connection of the server or waits; the transfer goes at its own link's speed or at its
share of the server's, whichever is less. Then it learns on, and sends its report through the
collector's connections the same way.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from device_bench.simulate.inputs import Inputs
from device_bench.simulate.queue import F64, I64, Served, serve

BITS = 8.0
BINS = 120
"""Of the curves over time."""


@dataclass(frozen=True)
class Fleet:
    """What is assumed.

    Attributes:
        devices: how many.
        window_s: check-ins are uniform over this time.
        current: part of the devices that hold the generation before, so that a delta suits them.
        link_mbps: median of the devices' links, megabits a second; a report goes up at a tenth.
        link_spread: sigma of the links' log-normal distribution.
        connections: transfers that the server handles at once.
        server_mbps: of the server, shared evenly by its connections.
        breaks: chance that a try breaks.
        tries: after so many that broke, the next one holds.
        backoff_s: a device waits so long after a try that broke.
        slower: median factor by which a device learns slower than what ``train_s`` was measured on.
        slower_spread: sigma of that factor's log-normal distribution.
        collectors: connections for reports.
        seed: of all draws.
    """

    devices: int = 100_000
    window_s: float = 3600.0
    current: float = 0.9
    link_mbps: float = 20.0
    link_spread: float = 0.8
    connections: int = 500
    server_mbps: float = 1000.0
    breaks: float = 0.02
    tries: int = 5
    backoff_s: float = 60.0
    slower: float = 3.0
    slower_spread: float = 0.5
    collectors: int = 200
    seed: int = 1


@dataclass(frozen=True)
class Outcome:
    """What became of a fleet.

    Attributes:
        checked_in: float64 (n,), seconds from the start.
        down: of the bundle or delta.
        up: of the report.
        sent_bytes: by the server, tries that broke included.
        received_bytes: by the collector.
    """

    checked_in: F64
    down: Served
    up: Served
    sent_bytes: float
    received_bytes: float

    def updated_by(self, part: float) -> float:
        """Give when this part of the fleet had the new generation: seconds."""
        return float(np.quantile(self.down.finished, part, method="inverted_cdf"))

    def reported_by(self, part: float) -> float:
        """Give when this part of the reports had come in: seconds."""
        return float(np.quantile(self.up.finished, part, method="inverted_cdf"))


def simulate(inputs: Inputs, fleet: Fleet, deltas: bool) -> Outcome:
    """Run a fleet through one generation.

    Args:
        inputs: measured.
        fleet: assumed.
        deltas: devices that are current get a delta, the others a bundle; else all a bundle. The
            draws are the same either way, so that the two can be compared device by device.
    """
    rng = np.random.default_rng(fleet.seed)
    count = fleet.devices
    checked_in = rng.uniform(0.0, fleet.window_s, count)
    is_current = rng.random(count) < fleet.current
    link = fleet.link_mbps * np.exp(fleet.link_spread * rng.standard_normal(count))
    slower = fleet.slower * np.exp(fleet.slower_spread * rng.standard_normal(count))
    breaks_down, breaks_up = (_breaks(rng, fleet) for _ in range(2))

    size = np.where(is_current & deltas, inputs.delta_bytes, inputs.bundle_bytes)
    speed = np.minimum(link, fleet.server_mbps / fleet.connections) * 1e6 / BITS
    down = serve(
        checked_in, size / speed, fleet.connections, breaks_down, fleet.backoff_s, fleet.seed
    )
    learnt = down.finished + inputs.train_s * slower
    speed_up = link / 10 * 1e6 / BITS
    seconds = inputs.report_bytes / speed_up
    up = serve(learnt, seconds, fleet.collectors, breaks_up, fleet.backoff_s, fleet.seed + 1)
    sent, received = float(down.held @ speed), float(up.held @ speed_up)
    return Outcome(checked_in, down, up, sent, received)


def _breaks(rng: np.random.Generator, fleet: Fleet) -> I64:
    """Draw how many tries of each device break: geometric, cut at ``tries``."""
    if fleet.breaks == 0:
        return np.zeros(fleet.devices, np.int64)
    return np.minimum(rng.geometric(1 - fleet.breaks, fleet.devices) - 1, fleet.tries)
