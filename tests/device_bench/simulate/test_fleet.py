"""A fleet against what must hold, and the command."""

import inspect
import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from device_bench.simulate import inputs as files
from device_bench.simulate.commands import INPUTS, fleet, simulate
from device_bench.simulate.fleet import Fleet
from device_bench.simulate.fleet import simulate as run
from device_bench.simulate.inputs import Inputs
from sparserec.errors import SparseRecError

INPUT = Inputs(bundle_bytes=2e6, delta_bytes=5e4, report_bytes=2e4, train_s=10.0)
EVEN = Fleet(
    devices=5000, link_spread=0.0, slower_spread=0.0, breaks=0.0, connections=50, server_mbps=1e6
)


def test_with_room_for_all_each_takes_its_own_time() -> None:
    """No waits, equal links: arrival + size / speed, then training, then the report."""
    assumed = replace(EVEN, connections=5000, collectors=5000, link_mbps=16.0)
    found = run(INPUT, assumed, deltas=False)
    np.testing.assert_allclose(found.down.finished - found.checked_in, 2e6 / 2e6)
    delay = found.up.finished - found.down.finished
    np.testing.assert_allclose(delay, 10.0 * 3.0 + 2e4 / 2e5)
    assert found.sent_bytes == pytest.approx(5000 * 2e6)
    assert found.received_bytes == pytest.approx(5000 * 2e4)


def test_a_small_server_is_the_bound() -> None:
    """All at once: the fleet has it when the server has sent it, to a transfer's length."""
    assumed = replace(EVEN, window_s=0.0, server_mbps=80.0)
    found = run(INPUT, assumed, deltas=False)
    length = 2e6 / (80e6 / 50 / 8)
    assert found.updated_by(1.0) == pytest.approx(5000 * 2e6 / 1e7, abs=length)
    assert found.updated_by(0.5) == pytest.approx(2500 * 2e6 / 1e7, abs=length)


def test_deltas_send_what_they_should() -> None:
    every = run(INPUT, replace(EVEN, current=1.0), deltas=True)
    assert every.sent_bytes == pytest.approx(5000 * 5e4)
    most = run(INPUT, replace(EVEN, current=0.9), deltas=True)
    assert most.sent_bytes == pytest.approx(5000 * (0.9 * 5e4 + 0.1 * 2e6), rel=0.15)
    assert run(INPUT, EVEN, deltas=False).sent_bytes == pytest.approx(5000 * 2e6)
    assert (most.checked_in == run(INPUT, EVEN, deltas=False).checked_in).all()


def test_broken_transfers_cost_bytes() -> None:
    """1 + p / (1 - p) / 2 bundles a device, where tries are not cut short."""
    assumed = replace(EVEN, devices=20_000, connections=20_000, breaks=0.4, tries=1000)
    found = run(INPUT, assumed, deltas=False)
    assert found.sent_bytes == pytest.approx(20_000 * 2e6 * (1 + 0.4 / 0.6 / 2), rel=0.02)


def test_the_command_shows_and_writes_both(tmp_path: Path) -> None:
    path = tmp_path / "inputs.json"
    content = {k: {"value": v, "from": "a command"} for k, v in vars(INPUT).items()}
    path.write_text(json.dumps(content))
    plot, out = tmp_path / "fleet.png", tmp_path / "fleet.json"
    arguments = ["fleet", str(path), "--devices", "3000", "--plot", str(plot), "--json", str(out)]
    said = CliRunner().invoke(simulate, arguments)
    assert said.exit_code == 0, said.output
    assert "whole bundles" in said.output
    assert plot.read_bytes().startswith(b"\x89PNG")
    found = json.loads(out.read_text())["outcomes"]
    assert found["deltas"]["sent_bytes"] < found["whole bundles"]["sent_bytes"]


def test_the_flags_start_from_the_fleet_that_is_documented() -> None:
    flags = inspect.signature(fleet).parameters
    for field in fields(Fleet):
        if field.name in flags:
            assert flags[field.name].default == field.default, field.name
    assert flags["window_hours"].default * 3600 == Fleet().window_s


def test_the_stored_inputs_can_be_read() -> None:
    found = files.load(INPUTS)
    assert found.delta_bytes < found.bundle_bytes


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"train_s": None}, "field train_s is missing"),
        ({"train_s": {"value": 1.0}}, "field train_s is missing, or where"),
        ({"train_s": {"value": "1", "from": "x"}}, "not a number"),
        ({"train_s": {"value": True, "from": "x"}}, "not a number"),
        ({"train_s": {"value": -1, "from": "x"}}, "field train_s is -1"),
        ({"train_s": {"value": float("nan"), "from": "x"}}, "field train_s is nan"),
        ({"more": {"value": 1, "from": "x"}}, "field more is unknown"),
    ],
)
def test_bad_inputs_are_named(change: dict[str, object], said: str, tmp_path: Path) -> None:
    path = tmp_path / "inputs.json"
    content = {k: {"value": v, "from": "a command"} for k, v in vars(INPUT).items()}
    path.write_text(json.dumps(content | change))
    with pytest.raises(SparseRecError, match=said):
        files.load(path)
