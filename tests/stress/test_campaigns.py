"""The campaigns at a small size: they find nothing, and they do what they say."""

from __future__ import annotations

import pytest

from sparserec.progress import silent
from tests.stress import small_disk
from tests.stress.chains import Prepared
from tests.stress.corruption import Range, corruption_campaign
from tests.stress.deltas import Stage, corrupt_campaign, fault_campaign
from tests.stress.driver import Driver
from tests.stress.kills import disk_campaign, kill_campaign
from tests.stress.tally import total
from tests.stress.workshop import Workshop


def test_kills_lose_nothing(workshop: Workshop, prepared: Prepared) -> None:
    tally = kill_campaign(workshop, [prepared], 5, 1, silent)
    assert tally.problems == []
    assert tally.cases == 5
    assert tally.notes["chains finished"] >= 1


@pytest.mark.parametrize("mount", ["mount", "false"])
def test_a_full_disk_loses_nothing(
    workshop: Workshop, prepared: Prepared, monkeypatch: pytest.MonkeyPatch, mount: str
) -> None:
    """Also where nothing can be mounted, and file sizes are limited instead."""
    monkeypatch.setattr(small_disk, "MOUNT", mount)
    tally = disk_campaign(workshop, [prepared], 4, 1, silent)
    assert tally.problems == []
    assert tally.cases == 4
    assert tally.notes["chains finished after space was freed"] >= 1


def test_corrupt_bundles_are_refused(range_: Range) -> None:
    tally = corruption_campaign(range_, 40, 1, silent)
    assert tally.problems == []
    assert sum(n for way, n in tally.notes.items() if way.endswith(": refused")) > 20
    assert total([tally]) == {"cases": 40, "lost": 0, "wrong": 0, "crashed": 0, "unclear": 0}


def test_a_jvm_that_died_is_noticed_and_replaced(range_: Range) -> None:
    with Driver(range_.workshop) as driver:
        for expected in ("succeeded", "died", "succeeded"):
            folder = range_.fresh_case()
            if expected == "died":
                assert driver.process is not None
                driver.process.kill()
            answer = driver.run(folder / "bundle", folder / "state", folder / "out")
            assert answer.status == expected, answer.error


def test_faults_in_deltas_lose_nothing(stage: Stage) -> None:
    tally = fault_campaign(stage, 6, 1, silent)
    assert tally.problems == []
    assert tally.cases == 6
    assert tally.notes["faults there are"] > 100


def test_damaged_deltas_change_nothing(stage: Stage) -> None:
    tally = corrupt_campaign(stage, 12, 1, silent)
    assert tally.problems == []
    assert sum(n for way, n in tally.notes.items() if way.endswith(": refused")) > 6
