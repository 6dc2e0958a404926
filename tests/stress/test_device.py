"""The device campaigns at a small size, and that they notice what they are there to notice."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from device_bench.virtual.server import default_harness
from tests.stress.device import Verdict, _look, device_campaign
from tests.stress.device_cases import PHASES, draw
from tests.stress.device_world import Supplies, World, impatient
from tests.stress.fuzz_mutate import make

ROOT = Path(__file__).resolve().parents[2]


def test_faults_end_well() -> None:
    found = device_campaign(range(18), 7)
    assert found["problems"] == []
    assert found["cases"] == 18
    assert set(found["phases"]) == set(PHASES)


@pytest.mark.skipif(
    not os.access(default_harness(), os.X_OK),
    reason=f"{default_harness()} is not built: run `make setup`",
)
def test_faults_end_well_with_the_real_harness() -> None:
    found = device_campaign(range(len(PHASES)), 1, real=True)
    assert found["problems"] == []
    assert set(found["phases"]) == set(PHASES)


def test_half_files_are_noticed(tmp_path: Path) -> None:
    with impatient(tmp_path):
        supplies = Supplies(tmp_path)
        case = draw(1, PHASES.index("pull"))
        folder = tmp_path / "case"
        folder.mkdir()
        world = World(folder, supplies, case, supplies.stub, supplies.bundle)
        verdict = Verdict(case)
        _look(world, verdict)
        assert verdict.problems == []
        (world.placed / "table.safetensors").write_bytes(b"half")
        (world.placed / "step.pte").unlink()
        world.report.parent.mkdir()
        world.report.write_text("{")
        _look(world, verdict)
    counts = {count for count, _ in verdict.problems}
    texts = " ".join(text for _, text in verdict.problems)
    assert counts == {"lost", "inconsistent"}
    assert "not whole" in texts
    assert "cannot be read" in texts


def test_fuzzing_finds_nothing() -> None:
    """In a process of its own: its audit hook stays for good."""
    command = [sys.executable, "-m", "tests.stress.fuzz", "--inputs", "3000", "--seed", "5"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "cases 3000 uncaught 0 hung 0 outside 0" in done.stdout


def test_the_guard_notices_what_is_outside(tmp_path: Path) -> None:
    code = f"""
import threading
from pathlib import Path
from tests.stress.fuzz_guard import Guard
root = Path({str(tmp_path)!r}).resolve() / "root"
root.mkdir()
(root / "up").symlink_to("..")
guard = Guard()
with guard.watching(root):
    (root / "inside").write_text("x")
    (root / "up" / "escaped").write_text("x")
    (root / "inside").rename(root.parent / "moved")
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
print(len(guard.outside), len(guard.uncaught))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout == "2 1\n", done.stdout + done.stderr


def test_inputs_follow_from_the_seed() -> None:
    seeds = [b"one", b"another"]
    first = [make(seeds, 1, "t", number) for number in range(50)]
    assert first == [make(seeds, 1, "t", number) for number in range(50)]
    assert len(set(first)) > 30
