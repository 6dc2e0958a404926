"""Records are run again: a true one agrees, a false one is found out."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline.reproduce import environment
from pipeline.reproduce import verify as verifying
from pipeline.reproduce.cells import Cell, recipe_of
from pipeline.reproduce.commands import reproduce
from pipeline.reproduce.options import Options
from pipeline.reproduce.records import Record, append
from pipeline.reproduce.runner import run_one
from tests.pipeline.reproduce.made import publish

CELL = Cell("domains", "made", "lightgcn", "mf", "static", 0.1, 1)


def test_a_true_record_agrees_and_a_false_one_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARSEREC_DATA", str(publish(tmp_path / "data")))
    how = Options(tmp_path / "results", tmp_path / "work")
    true = run_one(CELL, recipe_of(CELL, [], epochs=2), how)
    append(how.results, "domains", true)
    cell = replace(CELL, variant="false")
    better = {name: value + 1e-4 for name, value in true["test"].items()}
    append(how.results, "domains", true | {"cell": cell.as_dict(), "test": better})
    slow = replace(CELL, variant="slow")
    append(how.results, "domains", true | {"cell": slow.as_dict(), "seconds": 1e6})
    resumed = replace(CELL, variant="resumed")
    took = {"cell": resumed.as_dict(), "seconds_of_epochs": 1e6}
    append(how.results, "domains", true | took)
    command = ["verify", "domains", "--sample", "4", "--results", str(how.results)]
    done = CliRunner().invoke(reproduce, [*command, "--seed", "1"])
    verdicts = sorted(x.split(" then")[0] for x in done.stdout.splitlines() if "within" in x)
    recall = true["test"]["recall@20"]
    assert verdicts == [
        f"DIFFERENT: {cell.id}: recall@20 {recall + 1e-4:.6f}",
        f"same: {CELL.id}: recall@20 {recall:.6f}",
    ]
    assert done.stdout.count("(within 1e-6)") == 2
    assert done.exit_code == 1
    refused = CliRunner().invoke(reproduce, [*command, "--at-most", "0.0001s"])
    assert "took at most" in str(refused.exception)
    refused = CliRunner().invoke(reproduce, [*command, "--at-most", "10"])
    assert "--at-most '10' is no time" in str(refused.exception)


@pytest.mark.parametrize(
    ("there", "off", "same"),
    [
        ({}, 2e-6, False),
        ({}, 5e-7, True),
        ({"processor": "x"}, 0.02, True),
        ({"processor": None}, 0.02, True),  # not recorded
        ({"processor": "x"}, 0.04, False),
    ],
)
def test_another_machine_is_allowed_more(
    monkeypatch: pytest.MonkeyPatch, there: dict[str, str | None], off: float, same: bool
) -> None:
    values: dict[str, Any] = {"seconds": 1.0, "test": {"recall@20": 0.5, "ndcg@20": 0.25}}
    values |= {"machine": environment.machine() | there, "versions": environment.versions()}
    # `off` is absolute where the machine is the same, else relative.
    moved = 0.5 + (0.5 * off if there else off)
    found = {"test": {"recall@20": moved, "ndcg@20": 0.25}}
    monkeypatch.setattr(verifying, "run_one", lambda cell, recipe, options: found)
    record = Record(CELL, recipe_of(CELL, []), values)
    (check,) = verifying.verify([record], 5, None, lambda text: None)
    assert (check.exact, check.same) == (not there, same)
