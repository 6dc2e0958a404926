"""Two sides against each other: what may be compared, ratios of medians, verdicts, the gate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from device_bench import report as reports
from device_bench import units
from device_bench.bootstrap import Ratio, Samples, centre, ratio_of_medians
from device_bench.results import KINDS, Result, Results, with_article
from sparserec.errors import SparseRecError

NONE_SHOWN = "no difference shown"
NOT_JUDGED = "not judged"

_Key = tuple[str, ...]
_Pair = tuple[_Key, _Key]
_Configurations = dict[_Key, list[Result]]


@dataclass(frozen=True)
class Metric:
    """A figure that two sides are compared by.

    Attributes:
        name: what people call it.
        words: the verdicts for a smaller and for a larger figure of B.
        higher_is_better: as quality is.
        is_gated: whether ``--gate`` looks at it: the whole, not its parts.
        read: the samples of a run; empty if it has none.
        show: a value as people read it.
    """

    name: str
    words: tuple[str, str]
    read: Callable[[Result], list[float]]
    show: Callable[[float], str] = units.duration
    higher_is_better: bool = False
    is_gated: bool = False


@dataclass(frozen=True)
class Verdict:
    """One metric compared."""

    metric: Metric
    a: float
    b: float
    ratio: Ratio

    @property
    def words(self) -> str:
        """What is shown, in two words."""
        if self.ratio.low is None:
            return NOT_JUDGED
        if not self.ratio.is_different:
            return NONE_SHOWN
        word = self.metric.words[self.ratio.ratio > 1]
        return f"{word} in this run" if self.ratio.is_of_one_run else word

    def is_worse_than(self, gate: float) -> bool:
        """Whether B is worse by more than the factor ``gate``, the whole interval with it."""
        if self.ratio.low is None or self.ratio.high is None:
            return False
        if self.metric.higher_is_better:
            return self.ratio.high < 1 / gate
        return self.ratio.low > gate


@dataclass(frozen=True)
class Comparison:
    """A pair of configurations compared."""

    a: list[Result]
    b: list[Result]
    verdicts: list[Verdict]
    differences: list[str] = field(default_factory=list)
    """Why they are unlike; empty unless that was forced."""


def _times(name: str) -> Callable[[Result], list[float]]:
    return lambda run: run.settled(name)


def _peak_rss(run: Result) -> list[float]:
    peak = reports.peak_rss(run.report) if run.report is not None else None
    return [] if peak is None else [float(peak)]


def _quality(name: str) -> Callable[[Result], list[float]]:
    def read(run: Result) -> list[float]:
        after = ((run.report or {}).get("quality") or {}).get("after") or {}
        return [] if after.get(name) is None else [float(after[name])]

    return read


def charge_per_step(run: Result) -> list[float]:
    """Charge that a step took, in microampere hours as Android defines the current.

    Known where the phone ran on its battery and the sensors were read: the mean current of each
    phase of training times its length, over the steps that were measured.
    """
    battery = (run.report or {}).get("battery") or {}
    steps = len(run.samples("train_step_ns"))
    phases = [phase for phase in (run.sensors or {}).get("phases", []) if phase["name"] == "train"]
    if battery.get("charging") is not False or not steps or not phases:
        return []
    if any(phase["battery_current_now"] is None for phase in phases):
        return []
    charge = sum(p["battery_current_now"]["mean"] * p["duration_ns"] for p in phases) / 3.6e12
    return [abs(charge) / steps]


_TIME = ("faster", "slower")
METRICS = (
    Metric("step time", _TIME, _times("train_step_ns"), is_gated=True),
    *(Metric(f"  {reports.label(name)}", _TIME, _times(name)) for name in reports.PARTS),
    Metric("checkpoint", _TIME, _times("checkpoint_ns")),
    Metric("scoring a user", _TIME, _times("score_ns")),
    Metric("peak RSS", ("less", "more"), _peak_rss, units.kilobytes, is_gated=True),
    Metric("Recall@20 after", ("worse", "better"), _quality("recall@20"), units.number, True, True),
    Metric("NDCG@20 after", ("worse", "better"), _quality("ndcg@20"), units.number, True),
    Metric("charge per step", ("less", "more"), charge_per_step, "{:.3g} µAh".format),
)


def compare(
    a: Results, b: Results, force_unlike: bool = False, confidence: float = 0.95
) -> list[Comparison]:
    """Compare every configuration that both sides have.

    A side with one configuration is compared with the other's, whatever its bundle. Otherwise those
    are paired that agree in bundle, threads, steps, and device. A bundle that the other side lacks
    goes with the one whose id is the same but for the hash.

    Raises:
        SparseRecError: nothing to compare, several bundles that one could go with, or unlike
            targets and not ``force_unlike``.
    """
    first, second = _configurations(a), _configurations(b)
    if len(first) == len(second) == 1:
        pairs = [(*first.values(), *second.values())]
    else:
        pairs = [(first[one], second[other]) for one, other in _pairs(a, b, first, second)]
    if not pairs:
        raise SparseRecError(
            f"{a.path} and {b.path}: no configuration in common:\n  {_listed(first)}\n"
            f"  and\n  {_listed(second)}",
            "compare single reports, or benches of the same plan",
        )
    found = []
    for left, right in pairs:
        differences = unlike(left[0], right[0])
        if differences and not force_unlike:
            raise SparseRecError(
                f"{a.path} and {b.path} are not alike:\n  " + "\n  ".join(differences),
                "compare like with like, or pass --force-unlike if that is what you mean",
            )
        found.append(Comparison(left, right, _verdicts(left, right, confidence), differences))
    return found


def sides(bench: Results) -> tuple[Results, Results]:
    """The two bundles of one bench, or its two devices, in the order of its runs, as two sides.

    Raises:
        SparseRecError: it has neither two bundles nor, with one bundle, two devices.
    """
    bundles = list(dict.fromkeys(run.configuration.bundle for run in bench.runs))
    devices = list(dict.fromkeys(run.configuration.device for run in bench.runs))
    if len(bundles) == 2:
        halves = [[r for r in bench.runs if r.configuration.bundle == name] for name in bundles]
    elif len(bundles) == 1 and len(devices) == 2:
        halves = [[r for r in bench.runs if r.configuration.device == name] for name in devices]
    else:
        raise SparseRecError(
            f"{bench.path}: has {len(bundles)} bundle{'s' * (len(bundles) != 1)} on "
            f"{len(devices)} device{'s' * (len(devices) != 1)}, not two of either to compare",
            "name two reports or two folders: sparserec compare A B",
        )
    return Results(bench.path, halves[0], bench.plan), Results(bench.path, halves[1], bench.plan)


def _configurations(side: Results) -> _Configurations:
    """The usable runs of a side by bundle and by what must agree."""
    found: _Configurations = {}
    for run in side.runs:
        if run.is_good:
            key = (run.configuration.bundle, *_facts(run).values())
            found.setdefault(key, []).append(run)
    if not found:
        raise SparseRecError(
            f"{side.path}: no run succeeded with losses that agree with the host's",
            "see `sparserec report` for what went wrong",
        )
    return found


def _pairs(a: Results, b: Results, first: _Configurations, second: _Configurations) -> list[_Pair]:
    """Which configuration goes with which.

    Raises:
        SparseRecError: the hash aside, several bundles of a side have the name of one that the
            other side lacks.
    """
    ours, theirs = _by_name(first, second), _by_name(second, first)
    common = [name for name in ours if name in theirs]
    for name in common:
        if len(ours[name]) > 1 or len(theirs[name]) > 1:
            bundles = [", ".join(key[0] for key in side[name]) for side in (ours, theirs)]
            raise SparseRecError(
                f"{a.path} and {b.path}: no telling which bundle goes with which: "
                f"{bundles[0]} with {bundles[1]}",
                "compare single reports, or benches of the same bundles",
            )
    same = [(key, key) for key in first if key in second]
    return same + [(ours[name][0], theirs[name][0]) for name in common]


def _by_name(side: _Configurations, other: _Configurations) -> dict[_Key, list[_Key]]:
    """The configurations that the other side lacks, by what they are without the bundle's hash."""
    found: dict[_Key, list[_Key]] = {}
    for key in side:
        if key not in other:
            # A bundle's id says neither its precision nor its optimizer: only the hash does.
            found.setdefault((key[0].rpartition("-")[0], *key[1:]), []).append(key)
    return found


def _facts(run: Result) -> dict[str, str]:
    """What two runs must agree in to be compared."""
    assert run.report is not None
    target, bundle = run.report["target"], run.report["bundle"] or {"planned_arena_bytes": {}}
    parameters = run.report["parameters"] or {}
    return {
        "kind of device": KINDS[run.kind],
        "device model": str(target["model"]),
        "ABI": str(target["abi"]),
        "methods of the programs": ", ".join(sorted(bundle["planned_arena_bytes"])),
        **{key: str(parameters.get(key)) for key in ("threads", "steps", "batch_size")},
    }


def unlike(a: Result, b: Result) -> list[str]:
    """What keeps two runs from being compared, a line each; empty if nothing does."""
    first, second = _facts(a), _facts(b)
    return [
        f"{name}: {first[name]} and {second[name]}" for name in first if first[name] != second[name]
    ]


def _listed(configurations: _Configurations) -> str:
    return "\n  ".join(runs[0].configuration.label for runs in configurations.values())


def _verdicts(a: Sequence[Result], b: Sequence[Result], confidence: float) -> list[Verdict]:
    found = []
    for metric in METRICS:
        left, right = _samples(metric, a), _samples(metric, b)
        ratio = ratio_of_medians(left, right, confidence) if left and right else None
        if ratio is not None:
            found.append(Verdict(metric, centre(left), centre(right), ratio))
    return found


def _samples(metric: Metric, runs: Sequence[Result]) -> list[Samples]:
    series = [metric.read(run) for run in runs]
    return [np.asarray(values, dtype=float) for values in series if values]


def unjudged(a: Results, b: Results, found: Sequence[Comparison]) -> list[str]:
    """What of B cannot be judged, a line each; empty if all can.

    No ratio tells of these: a run of B that crashed, a configuration of A that B has no usable run
    of, a gated metric that A has and that B did not measure, or that came out as 0.
    """
    lines = [f"{run.name}: {run.fault}" for run in b.runs if not run.is_good]
    compared = [id(runs) for comparison in found for runs in comparison.a]
    for runs in _configurations(a).values():
        if id(runs[0]) not in compared:
            lines.append(f"{runs[0].configuration.label}: no usable run to compare A's with")
    for comparison in found:
        label = comparison.b[0].configuration.label
        lines += [f"{label}: {fault}" for fault in _metrics_without_ratio(comparison)]
    return lines


def _metrics_without_ratio(comparison: Comparison) -> list[str]:
    """The gated metrics that A has and that B cannot be judged by."""
    found = []
    for metric in METRICS:
        a, b = (
            [float(np.median(samples)) for samples in _samples(metric, runs)]
            for runs in (comparison.a, comparison.b)
        )
        if not metric.is_gated or max(a, default=0) <= 0:
            continue
        name = metric.name.strip()
        if len(b) < len(comparison.b):
            found.append(f"{name}: not in {len(comparison.b) - len(b)} of {len(comparison.b)} runs")
        elif min(*a, *b) <= 0:
            side = "A" if min(b) > 0 else "B"
            found.append(f"{name}: {metric.show(0.0)} or less in a run of {side}")
    return found


def notes(comparison: Comparison) -> list[str]:
    """What a reader of the comparison has to know, a line each."""
    found = []
    for name, runs in (("A", comparison.a), ("B", comparison.b)):
        if len(runs) == 1:
            found.append(
                f"{name} is one run: its interval holds for that run, not for how runs vary"
            )
        kind = runs[0].kind
        if kind != "phone":
            found.append(f"{name} ran on {with_article(kind)}: nothing here is about a phone")
        if any(run.report and run.report["resumed_from_step"] is not None for run in runs):
            found.append(f"{name} has resumed runs, which measure their own steps only")
    if any(verdict.ratio.low is None for verdict in comparison.verdicts):
        found.append("what a side has one reading of is not judged: repeat its runs")
    versions = [
        {**(runs[0].report or {"versions": {}})["versions"]}
        for runs in (comparison.a, comparison.b)
    ]
    for key in sorted(set(versions[0]) | set(versions[1])):
        old, new = versions[0].get(key), versions[1].get(key)
        if old != new:
            found.append(f"{key} differs: {old} and {new}")
    return found
