"""Cooling down, warming up, watching, and the table that shows it."""

from __future__ import annotations

import random
import statistics
import threading
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from device_bench import cooldown, stability
from device_bench.adb import Device, ShellResult
from device_bench.board import Board
from device_bench.cooldown import Heat
from device_bench.endings import State
from device_bench.plan import CoolDown
from device_bench.watchdog import CancelledError, Limits, TimedOutError, Watchdog

BATTERY = """\
Current Battery Service state:
  AC powered: false
  USB powered: true
  level: 61
  scale: 100
  voltage: 4012
  temperature: {tenths}
  technology: Li-ion
"""
THERMAL = """\
IsStatusOverride: false
ThermalEventListeners:
Thermal Status: {status}
Cached temperatures:
	Temperature{{mValue=41.5, mType=0, mName=cpu0, mStatus=2}}
HAL Ready: true
"""


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Warm:
    """As much of a device as is asked for its heat; it cools by one status a minute."""

    def __init__(self, clock: Clock, status: int, tenths: int) -> None:
        self.clock, self.status, self.tenths = clock, status, tenths
        self.started = clock.now

    def shell(self, command: str) -> ShellResult:
        minutes = int((self.clock.now - self.started) // 60)
        if command == "dumpsys battery":
            return ShellResult(0, BATTERY.format(tenths=self.tenths - 10 * minutes))
        assert command == "dumpsys thermalservice"
        return ShellResult(0, THERMAL.format(status=max(0, self.status - minutes)))


def wait(clock: Clock, device: Warm, wanted: CoolDown) -> tuple[Heat, float]:
    return cooldown.wait(
        device,  # type: ignore[arg-type]
        wanted,
        lambda now, left: None,
        clock.sleep,
        clock,
    )


def test_waits_until_cool() -> None:
    clock = Clock()
    wanted = CoolDown(thermal_status=0, battery_celsius=40.0, wait_seconds=600)
    assert wait(clock, Warm(clock, 0, 298), wanted) == (Heat(0, 29.8), 0)
    heat, waited = wait(clock, Warm(clock, 2, 298), wanted)
    assert heat.status == 0
    assert 120 <= waited <= 125
    heat, waited = wait(clock, Warm(clock, 0, 430), wanted)
    assert heat.battery_celsius == 40.0
    assert 180 <= waited <= 185


def test_waiting_is_bounded_and_what_it_came_to_is_known() -> None:
    clock = Clock()
    heat, waited = wait(clock, Warm(clock, 6, 298), CoolDown(wait_seconds=7))
    assert heat.status == 6
    assert waited == 7
    assert wait(clock, Warm(clock, 6, 298), CoolDown(wait_seconds=0)) == (Heat(6, 29.8), 0)


def test_a_device_without_sensors_is_not_waited_for(device: Device) -> None:
    def never(seconds: float) -> None:
        raise AssertionError

    wanted = CoolDown(wait_seconds=100)
    heat, _ = cooldown.wait(device, wanted, lambda now, left: None, never)
    assert heat == Heat(None, None)


def test_warm_up_is_left_out() -> None:
    draw = random.Random(5)
    slow = [draw.gauss(900 - 10 * step, 5) for step in range(60)]
    steady = [draw.gauss(300, 5) for _ in range(200)]
    found = stability.stable(slow + steady)
    assert found.from_sample == 60
    assert found.count == 200
    assert found.p50_ns == statistics.median(steady)
    assert found.mad_ns == statistics.median(abs(x - statistics.median(steady)) for x in steady)


def test_outliers_do_not_unsettle_and_steady_series_start_at_once() -> None:
    samples = [100.0] * 200
    samples[::9] = [5000.0] * len(samples[::9])
    assert stability.settled(samples) == 0


@pytest.mark.parametrize("samples", [[], [1.0] * 59, [1.1**step for step in range(400)]])
def test_what_never_settles(samples: list[float]) -> None:
    found = stability.stable(samples)
    assert (found.from_sample, found.count, found.p50_ns) == (None, 0, None)


@pytest.mark.parametrize(
    ("windows", "left_over", "start"),
    [
        ([100, 105, 102], 0, 0),
        ([100, 106, 102], 0, None),
        ([100, 105], 19, None),
        ([300, 200, 100, 104, 102], 5, 40),
        ([300, 100, 103, 105, 300], 5, 20),
    ],
)
def test_it_settles_at_the_first_three_whole_windows_within_five_percent(
    windows: list[int], left_over: int, start: int | None
) -> None:
    samples = [float(level) for level in windows for _ in range(20)] + [100.0] * left_over
    assert stability.settled(samples) == start


@given(st.lists(st.integers(1, 10**9), max_size=300))
def test_three_windows_agree_from_there_on(samples: list[int]) -> None:
    start = stability.settled(samples)
    if start is None:
        return
    medians = [statistics.median(samples[start + 20 * i : start + 20 * i + 20]) for i in range(3)]
    assert max(medians) <= 1.05 * min(medians)


def test_watchdog() -> None:
    clock, cancelled = Clock(), threading.Event()
    watchdog = Watchdog(Limits(10, 25), cancelled, clock)
    watchdog.check()
    clock.sleep(9)
    watchdog.heard()
    clock.sleep(9)
    watchdog.check()
    clock.sleep(1)
    with pytest.raises(TimedOutError, match="said nothing for 10 s"):
        watchdog.check()
    watchdog.heard()
    clock.sleep(6)
    with pytest.raises(TimedOutError, match="longer than 25 s"):
        watchdog.check()
    cancelled.set()
    with pytest.raises(CancelledError):
        watchdog.check()


def fleet_of(console: Console, clock: Clock) -> Board:
    board = Board(console, [("one", 2), ("[two]", 1)], clock)
    board.begin("one", "001-one-a-t1-r1")
    board.phase("one", "train: loss 0.61", 10, 400)
    clock.sleep(0.5)
    board.phase("one", "train: loss 0.52", 110, 400)
    board.end("one", State.SUCCEEDED, "")
    board.begin("one", "002-one-a-t1-r2")
    board.phase("one", "train: loss 0.6", 200, 400)
    clock.sleep(1)
    board.phase("one", "train: loss 0.5", 300, 400)
    board.begin("[two]", "003-two-a-t1-r1")
    board.end("[two]", State.LOW_MEMORY, "the run was killed [hard]")
    return board


def test_plain_lines() -> None:
    out = StringIO()
    fleet_of(Console(file=out, width=40), Clock())
    lines = out.getvalue().splitlines()
    assert lines == [
        "one 001-one-a-t1-r1: begins",
        "one train",
        "one 001-one-a-t1-r1: succeeded",
        "one 002-one-a-t1-r2: begins",
        "one train",
        "[two] 003-two-a-t1-r1: begins",
        "[two] 003-two-a-t1-r1: low memory: the run was killed [hard]",
    ]


def test_table() -> None:
    out = StringIO()
    console = Console(file=out, width=140, force_terminal=True, color_system=None)
    board = fleet_of(console, Clock())
    with board.shown():
        pass
    out.truncate(0)
    console.print(board.table())
    one, two = [line for line in out.getvalue().splitlines() if "one" in line or "two" in line]
    for text in ("1/2", "002-one-a-t1-r2", "train", "0.5", "10.0 ms", "1 succeeded"):
        assert text in one
    assert "[two]" in two
    assert "1 low memory" in two


def test_the_table_does_not_print_every_phase() -> None:
    out = StringIO()
    console = Console(file=out, width=140, force_terminal=True, color_system=None)
    board = fleet_of(console, Clock())
    board.say("one", "unlock the phone")
    assert "one unlock the phone" in out.getvalue()
    assert "begins" not in out.getvalue()
    assert "killed [hard]" in out.getvalue()
