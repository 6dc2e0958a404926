"""Peers are given the project's own split, and are timed by turns as themselves."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.lightgcn import read_lightgcn
from pipeline.data.split import Pairs, temporal_split
from pipeline.data.synthetic import generate
from tests.bench.host_peers.__main__ import HERE, Side, take_turns, write_lightgcn, write_recbole

SIDE = """
import sys, time
sys.path.insert(0, {here!r})
from serve import serve
print("a line of the peer's own")
serve(lambda: time.sleep({seconds}))
"""


def pairs_of(part: Pairs) -> set[tuple[int, int]]:
    return set(zip(part.users.tolist(), part.items.tolist(), strict=True))


def test_peers_read_the_projects_own_parts(tmp_path: Path) -> None:
    split = temporal_split(generate(40, 60, 900, seed=2))
    lightgcn, recbole = tmp_path / "gowalla", tmp_path / "recbole"
    write_lightgcn(split, lightgcn)
    for name, part in (("train.txt", split.train), ("test.txt", split.valid)):
        read = read_lightgcn(lightgcn / name)
        raw = {
            (int(read.user_ids[u]), int(read.item_ids[i]))
            for u, i in zip(read.users, read.items, strict=True)
        }
        assert raw == pairs_of(part)
    write_recbole(split, recbole)
    for name, part in (("train", split.train), ("valid", split.valid), ("test", split.later)):
        with (recbole / f"gowalla.{name}.inter").open(newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        read_pairs = {(int(row["user_id:token"]), int(row["item_id:token"])) for row in rows}
        assert read_pairs == pairs_of(part)
        assert len(rows) == len(part)


def test_sides_take_turns_in_processes_of_their_own(tmp_path: Path) -> None:
    sides = {}
    for name, seconds, steps in (("quick", 0.0, 3), ("slow", 0.02, 2)):
        script = tmp_path / f"{name}.py"
        script.write_text(SIDE.format(here=str(HERE), seconds=seconds))
        sides[name] = Side.start([sys.executable, str(script)], tmp_path, 1, steps)
    taken = take_turns(sides, rounds=2)
    assert {name: len(steps) for name, steps in taken.items()} == {"quick": 6, "slow": 4}
    assert min(wall for wall, _ in taken["slow"]) >= 0.02
    assert np.median([wall for wall, _ in taken["quick"]]) < 0.02
    for side in sides.values():
        assert side.process.stdin is not None
        side.process.stdin.close()
        assert side.process.wait(30) == 0


def test_a_side_that_ends_is_named(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="before it said READY"):
        Side.start([sys.executable, "-c", "print('no')"], tmp_path, 1, 1)
