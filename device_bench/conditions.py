"""What makes a run's figures say less, in the words of Jetpack's benchmarks where they have one.

Jetpack (androidx.benchmark) refuses to measure under these conditions unless told to, and puts the
words before the benchmark's name. Here a run is measured and its report says so.
"""

from __future__ import annotations

from dataclasses import dataclass

from device_bench.results import Result
from device_bench.units import THERMAL_STATES

LOW_BATTERY_PERCENT = 25
"""Jetpack's own limit."""


@dataclass(frozen=True)
class Condition:
    """One such condition.

    Attributes:
        word: Jetpack's, or ours.
        text: what it means for the figures.
        is_jetpacks: whose word it is.
    """

    word: str
    text: str
    is_jetpacks: bool = True


def of(run: Result) -> list[Condition]:
    """The conditions that the run's files show."""
    report = run.report or {}
    target = report.get("target") or {}
    found = []
    if run.kind == "virtual-device":
        found.append(
            Condition(
                "EMULATOR",
                "A virtual device: a process on this computer that runs the app's classes and "
                "Android's runtime library. Its times and memory are the computer's.",
            )
        )
    elif run.kind == "emulator":
        found.append(
            Condition("EMULATOR", "An emulator is not representative of phones that people use.")
        )
    if target.get("debuggable"):
        found.append(
            Condition("DEBUGGABLE", "The app is debuggable, which slows it down: build a release.")
        )
    if "-eng " in f"{target.get('os')} ":
        found.append(Condition("ENG-BUILD", "An engineering build of Android is much slower."))
    return [*found, *_battery(run), *_clocks(run), *_heat(run)]


def _battery(run: Result) -> list[Condition]:
    lowest = min(_levels(run), default=100)
    if lowest >= LOW_BATTERY_PERCENT:
        return []
    text = f"The battery was at {lowest} %: below {LOW_BATTERY_PERCENT} % a phone may slow down."
    return [Condition("LOW-BATTERY", text)]


def _levels(run: Result) -> list[int]:
    """The battery levels that were read, in percent."""
    levels = [((run.report or {}).get("battery") or {}).get("level")]
    levels += [
        phase["battery_level"]["minimum"]
        for phase in (run.sensors or {}).get("phases", [])
        if phase["battery_level"]
    ]
    return [level for level in levels if level is not None]


def _clocks(run: Result) -> list[Condition]:
    """Whether a core's clock moved in training: a locked one does not."""
    ranges = [
        (core["minimum"], core["maximum"])
        for phase in (run.sensors or {}).get("phases", [])
        if phase["name"] == "train"
        for core in phase["cpu_frequencies_khz"] or []
        if core and core["minimum"] != core["maximum"]
    ]
    if not ranges:
        return []
    low, high = min(low for low, _ in ranges) / 1e6, max(high for _, high in ranges) / 1e6
    return [
        Condition(
            "UNLOCKED",
            f"The processor's clocks moved between {low:.2f} and {high:.2f} GHz in training, as "
            "they do on a phone in use. Only a rooted phone can lock them; Jetpack warns of those "
            "alone.",
        )
    ]


def _heat(run: Result) -> list[Condition]:
    before = (run.record or {}).get("thermal_before")
    during = [(run.report or {}).get("thermal_status")]
    during += [
        phase["thermal_status"]["maximum"]
        for phase in (run.sensors or {}).get("phases", [])
        if phase["thermal_status"]
    ]
    found = []
    if before:
        text = f"The phone was warm before the run: thermal status {_heat_word(before)}."
        found.append(Condition("WARM-START", text, is_jetpacks=False))
    highest = max((status for status in during if status is not None), default=0)
    if highest:
        text = f"The phone throttled during the run: thermal status {_heat_word(highest)}."
        found.append(Condition("THROTTLED", text, is_jetpacks=False))
    return found


def _heat_word(status: int) -> str:
    known = 0 <= status < len(THERMAL_STATES)
    return f"{status} ({THERMAL_STATES[status]})" if known else str(status)


def unknown(run: Result) -> list[str]:
    """The words that nothing in the run's files decides, for a phone or an emulator."""
    if run.kind == "virtual-device" or run.report is None:
        return []
    sensors = run.sensors or {"phases": []}
    found = []
    if run.report["target"].get("debuggable") is None:
        found.append("DEBUGGABLE")
    if not _levels(run):
        found.append("LOW-BATTERY")
    train = [phase for phase in sensors["phases"] if phase["name"] == "train"]
    if not any(phase["cpu_frequencies_khz"] for phase in train):
        found.append("UNLOCKED")
    if not any(phase["thermal_status"] for phase in train):
        found.append("THROTTLED")
    # The status at the end decides alone where it is high.
    known = {condition.word for condition in of(run)}
    return [word for word in found if word not in known]
