"""What the summary says, against values worked out by hand and by another library."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

from pipeline.evaluate import ndcg_per_user
from pipeline.reproduce.cells import Cell
from pipeline.reproduce.commands import reproduce
from pipeline.reproduce.summary import holm, p_text, p_values, per_user, settings, summarise
from tests.pipeline.reproduce.made import hits, record

SPARSE = Cell("grid", "gowalla", "lightgcn", "neumf", "sparserec", 0.1, 1)
CHANCE = {"sparserec": 0.30, "set": 0.28, "rigl": 0.20, "dense": 0.31}


def fill(results: Path, base: Cell, chance: dict[str, float], seeds: tuple[int, ...]) -> None:
    for seed in seeds:
        for k, (method, probability) in enumerate(chance.items()):
            density = 1.0 if method == "dense" else base.density
            cell = replace(base, method=method, density=density, seed=seed)  # type: ignore[arg-type]
            record(results, cell, hits(3000, probability, 10 * seed + k))


def test_a_won_setting(tmp_path: Path) -> None:
    fill(tmp_path, SPARSE, CHANCE, (1, 2))
    fill(tmp_path, SPARSE, {"rigl": 0.9}, (3,))  # SparseRec has no run of this seed
    (one,) = [s for s in settings(tmp_path, "grid", "ndcg") if "sparserec" in s.values]
    assert one.key == ("gowalla", "lightgcn", "neumf", 0.1)
    # Compared, and the best chosen, on the seeds that both have.
    assert (one.best_rival, one.seeds, one.users, one.won) == ("set", [1, 2], 3000, True)
    refit = replace(SPARSE, method="dense", density=1.0, variant="refit")
    record(tmp_path, refit, hits(3000, 0.95, 99))  # beside the comparison, not in it
    (same,) = [s for s in settings(tmp_path, "grid", "ndcg") if "sparserec" in s.values]
    assert "dense (refit)" in same.values
    assert (same.best_rival, same.gain) == (one.best_rival, one.gain)
    assert same.dense_ratio == one.dense_ratio is not None
    # By hand: NDCG of each user, averaged over the seeds, from the hits that were drawn.
    by_user = {}
    for k, method in enumerate(("sparserec", "set")):
        drawn = [hits(3000, CHANCE[method], 10 * seed + k) for seed in (1, 2)]
        by_user[method] = np.mean([ndcg_per_user(h.found, h.relevant, 20) for h in drawn], axis=0)
    ours, theirs = by_user["sparserec"], by_user["set"]
    assert one.gain == pytest.approx(ours.mean() / theirs.mean() - 1)
    assert one.p_t == pytest.approx(stats.ttest_rel(ours, theirs).pvalue)
    assert one.p_wilcoxon == pytest.approx(stats.wilcoxon(ours, theirs, method="approx").pvalue)
    assert one.p_t is not None
    assert one.p_t < 0.02
    dense = np.mean(list(one.values["dense"].values()))
    assert one.dense_ratio == pytest.approx(ours.mean() / dense)


def test_the_best_rival_is_judged_on_the_seeds_that_it_shares(tmp_path: Path) -> None:
    fill(tmp_path, SPARSE, {"sparserec": 0.20, "rigl": 0.22}, (1,))  # lost, at the worse seed
    fill(tmp_path, SPARSE, {"set": 0.18}, (1,))
    fill(tmp_path, SPARSE, {"sparserec": 0.40, "set": 0.38}, (2,))  # whose mean is higher
    (one,) = [s for s in settings(tmp_path, "grid") if "sparserec" in s.values]
    assert (one.best_rival, one.seeds, one.won) == ("rigl", [1], False)


def test_runs_tested_on_other_users_are_not_paired(tmp_path: Path) -> None:
    fill(tmp_path, SPARSE, {"sparserec": 0.30}, (1, 2))
    record(tmp_path, replace(SPARSE, method="set"), hits(3000, 0.28, 5))
    (one,) = [s for s in settings(tmp_path, "grid") if "sparserec" in s.values]
    assert (one.users, one.won) == (3000, True)
    assert one.p_t is not None
    drawn = hits(3000, 0.28, 5)
    for others in (replace(drawn, users=drawn.users + 1), hits(2000, 0.28, 5)):
        record(tmp_path, replace(SPARSE, method="set", seed=2), others)
        (one,) = [s for s in settings(tmp_path, "grid") if "sparserec" in s.values]
        assert (one.seeds, one.users, one.p_t) == ([1, 2], 0, None)


def test_a_p_value_is_never_written_as_zero() -> None:
    assert [p_text(p) for p in (None, 0.0321, 1e-299, 0.0)] == [
        "-",
        "3.2e-02",
        "1.0e-299",
        "< 1e-300",
    ]


def test_totals_and_missing_cells(tmp_path: Path) -> None:
    empty = summarise(tmp_path, "grid")
    assert empty["paper"]["settings"] == 18
    assert (empty["paper"]["compared"], empty["recorded"]) == (0, 0)
    assert empty["paper"]["median_gain"] is None
    assert len(empty["missing"]) == empty["cells"]

    fill(tmp_path, SPARSE, CHANCE, (1,))
    fill(tmp_path, replace(SPARSE, density=0.05), CHANCE | {"rigl": 0.5}, (1,))  # lost
    fill(tmp_path, replace(SPARSE, model="mf"), CHANCE, (1,))  # not one of the paper's
    found = summarise(tmp_path, "grid")
    paper = found["paper"]
    assert (paper["compared"], paper["won"], paper["won_significantly"]) == (2, 1, 1)
    assert paper["not_won"] == ["gowalla/lightgcn/neumf/0.05"]
    assert paper["compared_with_every_rival"] == 0
    assert all("dsl" in s["missing_rivals"] for s in found["settings"])
    assert not any("rigl" in s["missing_rivals"] for s in found["settings"] if s["gain"])
    gains = [s["gain"] for s in found["settings"] if s["gain"] is not None and s["in_paper"]]
    assert paper["best_gain"] == max(gains)
    assert paper["median_gain"] == pytest.approx(sum(gains) / 2)
    recorded = [s for s in found["settings"] if s["gain"] is not None]
    assert len(recorded) == 3
    assert found["recorded"] == 11  # MF and NeuMF, with one dense run for NeuMF
    assert "gowalla/lightgcn/neumf/dense/1/seed1" not in found["missing"]
    assert "gowalla/lightgcn/neumf/sparserec/0.1/seed2" in found["missing"]


def test_records_without_hits_are_compared_but_not_tested(tmp_path: Path) -> None:
    fill(tmp_path, SPARSE, CHANCE, (1,))
    path = tmp_path / "grid.jsonl"
    path.write_text(path.read_text().replace('"hits"', '"no_hits"'))
    (one,) = [s for s in settings(tmp_path, "grid") if "sparserec" in s.values]
    assert one.won
    assert one.p_t is None


def test_holm_by_hand() -> None:
    # Sorted .005 .01 .03 .04 times 4 3 2 1: .02 .03 .06 .04, and no smaller than the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_p_values_are_uniform_where_nothing_differs() -> None:
    rng = np.random.default_rng(1)
    found = np.array([p_values(rng.normal(size=200)) for _ in range(400)], float)
    assert (np.abs((found < 0.1).mean(axis=0) - 0.1) < 0.05).all()
    assert p_values(np.zeros(5)) == (None, None)


def test_metrics_from_the_hits_are_those_of_the_record(tmp_path: Path) -> None:
    fill(tmp_path, SPARSE, {"sparserec": 0.3}, (1,))
    from pipeline.reproduce.records import load_hits, read

    (one,) = read(tmp_path, "grid").values()
    found = load_hits(tmp_path, one)
    assert found is not None
    for metric in ("recall", "ndcg"):
        values = per_user(found, metric)  # type: ignore[arg-type]
        assert values.mean() == pytest.approx(one.test(f"{metric}@20"), rel=1e-6)


def test_the_command_sums_up_in_words(tmp_path: Path) -> None:
    command = ["summary", "--results", str(tmp_path)]
    fill(tmp_path, SPARSE, {"set": 0.28}, (1,))
    empty = CliRunner().invoke(reproduce, command).stdout
    assert "no run of SparseRec is recorded" in empty
    assert "None" not in empty
    fill(tmp_path, SPARSE, CHANCE, (1, 2))
    (one,) = [s for s in settings(tmp_path, "grid") if "sparserec" in s.values]
    assert one.gain is not None
    assert one.dense_ratio is not None
    text = " ".join(CliRunner().invoke(reproduce, command).stdout.split())
    assert "* 1 of 18 settings compared, 0 with every rival; 1 won, 1 with p < 0.02" in text
    assert f"gain {one.gain:+.1%} in the median" in text
    assert f"of dense at 10%: {one.dense_ratio:.1%} at least" in text
    assert "of 1 settings with a dense table" in text
