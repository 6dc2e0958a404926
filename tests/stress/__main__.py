"""The stress campaigns: ``python -m tests.stress --kills 500 --cases 2000 --seed 1``.

docs/stress.md says what they do and what counts as what. A campaign with 0 cases is left out.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

from sparserec.progress import Progress, bars
from tests.stress.corruption import Range, corruption_campaign, mutated, program_campaign
from tests.stress.deltas import Stage, corrupt_campaign, fault_campaign
from tests.stress.device import COUNTS as DEVICE_COUNTS
from tests.stress.device import device_campaign
from tests.stress.fuzz import COUNTS as FUZZ_COUNTS
from tests.stress.fuzz import fuzz_campaign
from tests.stress.kills import disk_campaign, kill_campaign, prepare_all
from tests.stress.tally import COUNTS, total
from tests.stress.workshop import Workshop


def main() -> int:
    """Run the campaigns and write their results. Returns 1 if anything but cases was counted."""
    options = _options()
    failed = _harness(options) if options.kills or options.cases or options.case is not None else 0
    if options.case is not None:
        return failed
    if options.deltas:
        failed |= _deltas(options)
    if options.faults:
        with bars() as progress:
            found = device_campaign(range(options.faults), options.seed, progress)
        failed |= _write(options.out / "device.json", found, DEVICE_COUNTS)
    if options.fuzz:
        with bars() as progress:
            found = fuzz_campaign(options.fuzz, options.seed, progress)
        failed |= _write(options.out / "fuzz.json", found, FUZZ_COUNTS)
    return failed


def _harness(options: argparse.Namespace) -> int:
    """The campaigns on the harness alone."""
    with tempfile.TemporaryDirectory(prefix="sparserec-stress-") as folder:
        workshop = Workshop(Path(folder))
        if options.case is not None:
            return _replay(workshop, options.seed, options.case, options.out)
        with bars() as progress:
            found = _run(workshop, options.kills, options.cases, options.seed, progress)
    for name, campaign in found["campaigns"].items():
        for problem in campaign["problems"]:
            print(f"{name}: {problem}", file=sys.stderr)
    return _write(options.out / "harness.json", found, COUNTS)


def _deltas(options: argparse.Namespace) -> int:
    """The campaigns on deltas."""
    with tempfile.TemporaryDirectory(prefix="sparserec-stress-") as folder, bars() as progress:
        stage = Stage(Workshop(Path(folder)))
        campaigns = {
            "faults": fault_campaign(stage, options.deltas, options.seed, progress),
            "corruption": corrupt_campaign(stage, options.deltas, options.seed, progress),
        }
    found = {
        "schema_version": 1,
        "seed": options.seed,
        **total(list(campaigns.values())),
        "problems": [text for tally in campaigns.values() for text in tally.problems],
        "campaigns": {name: tally.to_json() for name, tally in campaigns.items()},
    }
    return _write(options.out / "deltas.json", found, COUNTS)


def _write(path: Path, found: dict[str, Any], counts: tuple[str, ...]) -> int:
    """Write a result and sum it up; 1 where one of the counts is not 0."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=2) + "\n")
    for problem in found.get("problems", []):
        print(problem, file=sys.stderr)
    print(" ".join(f"{key} {found[key]}" for key in ("cases", *counts)), f"-> {path}")
    return int(any(found[count] for count in counts))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.stress", description=__doc__)
    parser.add_argument("--kills", type=int, default=500, help="runs to kill")
    parser.add_argument("--cases", type=int, default=2000, help="bundles to corrupt")
    parser.add_argument("--deltas", type=int, default=600, help="faults in deltas, and bad ones")
    parser.add_argument("--faults", type=int, default=1200, help="faults of devices")
    parser.add_argument("--fuzz", type=int, default=1_000_000, help="inputs to fuzz with")
    parser.add_argument("--seed", type=int, default=1, help="of everything that is random")
    parser.add_argument("--out", type=Path, default=Path("runs/stress"), help="for the results")
    parser.add_argument("--case", type=int, help="repeat only this corrupt bundle, and keep it")
    return parser.parse_args()


def _run(
    workshop: Workshop, kills: int, cases: int, seed: int, progress: Progress
) -> dict[str, Any]:
    prepared = prepare_all(workshop)
    range_ = Range(workshop)
    campaigns = {
        "kills": kill_campaign(workshop, prepared, kills, seed, progress),
        "full_disk": disk_campaign(workshop, prepared, kills // 4, seed, progress),
        "corruption": corruption_campaign(range_, cases, seed, progress),
    }
    programs = program_campaign(range_, cases // 20, seed, progress)
    jar = workshop.desktop / "jars" / "harness.jar"
    return {
        "schema_version": 1,
        "seed": seed,
        **total(list(campaigns.values())),
        "seconds": round(sum(tally.seconds for tally in campaigns.values()), 1),
        "harness_sha256": hashlib.sha256(jar.read_bytes()).hexdigest(),
        "machine": {"os": platform.platform(), "cores": os.cpu_count()},
        "time_shares": {made.setting.name: made.shares for made in prepared},
        "campaigns": {name: tally.to_json() for name, tally in campaigns.items()},
        "apart": {"resealed_programs": programs.to_json()},
    }


def _replay(workshop: Workshop, seed: int, case: int, out: Path) -> int:
    range_ = Range(workshop)
    folder, mutation = mutated(range_, seed, case)
    print(f"{mutation.family}: {mutation.what}")
    answer = range_.launch(folder)
    print(f"{answer.status}: {answer.error}")
    out.mkdir(parents=True, exist_ok=True)
    kept = folder.rename(out / f"case-{seed}-{case}")
    print(f"kept in {kept}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
