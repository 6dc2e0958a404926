"""What the committed records say: who wins where, by how much, and how sure that is.

Nothing but records is read. A setting is one dataset, protocol, model and density. SparseRec is
compared with the best of its rivals at the same budget: the one whose mean test metric is highest
beside SparseRec's over the seeds that both have. Each user's metric is averaged over those seeds,
and the users' differences are tested: paired t (the mean, which is what is claimed) and Wilcoxon's
signed rank. p values are two-sided and corrected over the settings by Holm's method.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

from pipeline.evaluate import ndcg_per_user, recall_per_user
from pipeline.reproduce.cells import Cell, Experiment
from pipeline.reproduce.grids import DATASETS, GRIDS, PAPER_DENSITIES, PAPER_MODELS, RIVALS
from pipeline.reproduce.records import Hits, Record, load_hits, read

F64 = npt.NDArray[np.float64]
Metric = Literal["recall", "ndcg"]
SIGNIFICANT = 0.02
LEAST_P = 1e-300
K = 20
TESTED = ("users", "relevant")
"""Of ``Hits``: what runs must share for their users to be paired."""


@dataclass
class Setting:
    """One dataset, protocol, model and density, and what its records say.

    Attributes:
        key: dataset, protocol, model, density.
        values: test metric by method, one a seed: {method: {seed: value}}; what is special about a
            method's runs (``refit``) is in brackets after its name, and is no rival.
        missing_rivals: methods of the plan that have no run on a seed that SparseRec has.
        best_rival: the best method at the same budget but SparseRec; None if there is none to
            compare with.
        gain: SparseRec / best rival - 1, of means over the seeds that both have.
        dense_ratio: SparseRec / dense, likewise.
        seeds: those that SparseRec and the best rival both have.
        users: how many users were paired.
        p_t: of the paired t test, corrected; None where it cannot be made.
        p_wilcoxon: of Wilcoxon's, corrected.
    """

    key: tuple[str, str, str, float]
    values: dict[str, dict[int, float]] = field(default_factory=dict)
    missing_rivals: list[str] = field(default_factory=list)
    best_rival: str | None = None
    gain: float | None = None
    dense_ratio: float | None = None
    seeds: list[int] = field(default_factory=list)
    users: int = 0
    p_t: float | None = None
    p_wilcoxon: float | None = None

    @property
    def in_paper(self) -> bool:
        """Tell whether it is one of the paper's 18."""
        dataset, protocol, model, density = self.key
        known = dataset in DATASETS and model in PAPER_MODELS and density in PAPER_DENSITIES
        return known and protocol == "lightgcn"

    @property
    def won(self) -> bool:
        """Tell whether SparseRec's mean is above its best rival's."""
        return self.gain is not None and self.gain > 0

    def as_dict(self) -> dict[str, Any]:
        """Give what is printed as JSON."""
        dataset, protocol, model, density = self.key
        means = {method: mean(by_seed.values()) for method, by_seed in self.values.items()}
        return {
            "dataset": dataset,
            "protocol": protocol,
            "model": model,
            "density": density,
            "in_paper": self.in_paper,
            "means": means,
            "runs": {method: sorted(by_seed) for method, by_seed in self.values.items()},
            "missing_rivals": self.missing_rivals,
            "best_rival": self.best_rival,
            "won": self.won if self.gain is not None else None,
            "gain": self.gain,
            "sparse_over_dense": self.dense_ratio,
            "seeds_paired": self.seeds,
            "users_paired": self.users,
            "p_paired_t_holm": self.p_t,
            "p_wilcoxon_holm": self.p_wilcoxon,
        }


def settings(results: Path, experiment: Experiment, metric: Metric = "recall") -> list[Setting]:
    """Compare SparseRec in each setting of an experiment, planned or recorded."""
    records = read(results, experiment)
    planned = {cell.id: cell for cell in GRIDS[experiment]()}
    cells = list((planned | {name: record.cell for name, record in records.items()}).values())
    keys = dict.fromkeys(cell.setting for cell in cells if cell.method != "dense")
    found = [_setting(results, key, list(records.values()), metric) for key in keys]
    for one in found:
        ours = one.values.get("sparserec", {}).keys()
        rivals = {c.method for c in planned.values() if c.setting == one.key} - {"sparserec"}
        rivals -= {"dense"}
        one.missing_rivals = sorted(m for m in rivals if not ours & one.values.get(m, {}).keys())
    for name in ("p_t", "p_wilcoxon"):
        tested = [one for one in found if getattr(one, name) is not None]
        for one, p in zip(tested, holm([getattr(one, name) for one in tested]), strict=True):
            setattr(one, name, p)
    return found


def summarise(results: Path, experiment: Experiment, metric: Metric = "recall") -> dict[str, Any]:
    """Sum an experiment up, for JSON: see docs/experiments.md for the keys."""
    found = settings(results, experiment, metric)
    records = read(results, experiment)
    planned = GRIDS[experiment]()
    missing = [cell.id for cell in planned if cell.id not in records]
    main = [one for one in found if one.in_paper] if experiment == "grid" else found
    return {
        "experiment": experiment,
        "metric": f"{metric}@{K}",
        "test": "paired over users, seeds averaged; two-sided; Holm over the settings",
        "cells": len(planned),
        "recorded": len(planned) - len(missing),
        "paper" if experiment == "grid" else "all": _totals(main),
        "settings": [one.as_dict() for one in found],
        "missing": missing,
    }


def _totals(found: Sequence[Setting]) -> dict[str, Any]:
    compared = [one for one in found if one.gain is not None]
    gains = [one.gain for one in compared if one.gain is not None]
    tenth = [o.dense_ratio for o in found if o.key[3] == 0.1 and o.dense_ratio is not None]
    return {
        "settings": len(found),
        "compared": len(compared),
        "compared_with_every_rival": sum(not one.missing_rivals for one in compared),
        "won": sum(one.won for one in compared),
        "won_significantly": sum(
            one.won and one.p_t is not None and one.p_t < SIGNIFICANT for one in compared
        ),
        "significance_level": SIGNIFICANT,
        "best_gain": max(gains, default=None),
        "median_gain": median(gains) if gains else None,
        "worst_gain": min(gains, default=None),
        "sparse_over_dense_at_10%": {
            "least": min(tenth, default=None),
            "median": median(tenth) if tenth else None,
            "settings": len(tenth),
        },
        "not_won": ["/".join(map(str, one.key)) for one in compared if not one.won],
    }


def _setting(
    results: Path, key: tuple[str, str, str, float], records: list[Record], metric: Metric
) -> Setting:
    found = Setting(key)
    by_method: dict[str, dict[int, Record]] = {}
    for record in records:
        cell = record.cell
        if cell.setting == key or (cell.method == "dense" and cell.setting[:3] == key[:3]):
            label = f"{cell.method} ({cell.variant})" if cell.variant else cell.method
            by_method.setdefault(label, {})[cell.seed] = record
    name = f"{metric}@{K}"
    found.values = {
        method: {seed: record.test(name) for seed, record in by_seed.items()}
        for method, by_seed in by_method.items()
    }
    ours = by_method.get("sparserec", {})
    rivals = {m: r for m, r in by_method.items() if m in RIVALS}
    if not ours:
        return found
    found.dense_ratio = _ratio(found.values, "dense")
    # Not the highest mean: rivals may have other seeds than one another.
    ratios = {m: ratio for m in rivals if (ratio := _ratio(found.values, m)) is not None}
    if not ratios:
        return found
    best = min(ratios, key=lambda method: ratios[method])
    found.best_rival = best
    found.seeds = sorted(ours.keys() & rivals[best].keys())
    found.gain = ratios[best] - 1
    found.users, found.p_t, found.p_wilcoxon = _paired(
        results, [(ours[seed], rivals[best][seed]) for seed in found.seeds], metric
    )
    return found


def p_text(p: float | None) -> str:
    """Write a p value; what float64 has no room for is no zero."""
    if p is None:
        return "-"
    return f"{p:.1e}" if p > LEAST_P else f"< {LEAST_P:.0e}"


def _ratio(values: dict[str, dict[int, float]], other: str) -> float | None:
    """Divide means over the seeds that SparseRec and another method both have."""
    ours, theirs = values.get("sparserec", {}), values.get(other, {})
    seeds = ours.keys() & theirs.keys()
    below = mean(theirs[seed] for seed in seeds) if seeds else 0.0
    return mean(ours[seed] for seed in seeds) / below if below else None


def _paired(
    results: Path, pairs: list[tuple[Record, Record]], metric: Metric
) -> tuple[int, float | None, float | None]:
    """Test users' differences, averaged over the pairs of records (one a seed).

    Without hits, or where runs were tested on other users or items, there is nothing to pair.
    """
    differences: list[F64] = []
    first: Hits | None = None
    for ours, theirs in pairs:
        one, other = load_hits(results, ours), load_hits(results, theirs)
        if one is None or other is None:
            return 0, None, None
        first = first or one
        for hits in (one, other):
            if not all(np.array_equal(getattr(hits, k), getattr(first, k)) for k in TESTED):
                return 0, None, None
        differences.append(per_user(one, metric) - per_user(other, metric))
    difference = np.mean(differences, axis=0)
    return len(difference), *p_values(difference)


def per_user(hits: Hits, metric: Metric) -> F64:
    """Give a run's metric at 20 for each test user, float64 (U,)."""
    of = recall_per_user if metric == "recall" else ndcg_per_user
    values: F64 = of(hits.found, hits.relevant, K).astype(np.float64)
    return values


def p_values(difference: F64) -> tuple[float | None, float | None]:
    """Test that paired differences (U,) centre on 0: paired t, Wilcoxon; None where all are 0."""
    if len(difference) < 2 or not difference.any():
        return None, None
    t = stats.ttest_1samp(difference, 0.0).pvalue
    wilcoxon = stats.wilcoxon(difference, method="approx").pvalue
    return float(t), float(wilcoxon)


def holm(p: Sequence[float]) -> list[float]:
    """Correct p values for their number: Holm's step-down method, which keeps their order."""
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    highest = 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(p) - rank) * p[place]))
        adjusted[place] = highest
    return [float(value) for value in adjusted]


def missing(cells: Sequence[Cell], results: Path) -> list[Cell]:
    """Give the cells that have no record."""
    recorded = {name: read(results, name) for name in {cell.experiment for cell in cells}}
    return [cell for cell in cells if cell.id not in recorded[cell.experiment]]
