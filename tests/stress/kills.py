"""SIGKILL at random instants, and with a full disk: nothing that was committed may be lost."""

from __future__ import annotations

import random
import shutil
import time
from itertools import cycle
from pathlib import Path

from sparserec.progress import Progress
from tests.stress.chains import KILLED, SETTINGS, Chain, Prepared, describe, prepare
from tests.stress.small_disk import FULL, SmallDisk, small_disk
from tests.stress.tally import Problem, Tally
from tests.stress.workshop import Workshop

KILLS_PER_CHAIN = 20


def prepare_all(workshop: Workshop) -> list[Prepared]:
    """The bundles of all settings, with their undisturbed runs."""
    return [prepare(workshop, setting) for setting in SETTINGS]


def kill_campaign(
    workshop: Workshop, prepared: list[Prepared], kills: int, seed: int, progress: Progress
) -> Tally:
    """Kill ``kills`` runs of the harness, in chains that each end with a run to the end."""
    start, tally, chance = time.monotonic(), Tally(), random.Random(f"{seed}/kills")
    settings = cycle(prepared)
    while tally.cases < kills:
        setting = next(settings)
        folder = workshop.folder / "chain"
        chain = Chain(workshop, setting, folder)
        for _ in range(min(KILLS_PER_CHAIN, kills - tally.cases)):
            newest = chain.watched.newest
            ended = chain.run(chance)
            problems = chain.watched.check() + chain.resumed_rightly(newest)
            if ended.code == KILLED:
                tally.add(_name(tally, setting, ended.moment), problems)
                tally.notes[f"{setting.setting.name}: {ended.moment}"] += 1
                tally.notes["left a .part"] += any(chain.watched.state.glob("*.part"))
                tally.notes["got further"] += chain.watched.newest > newest
                progress("kills", tally.cases, kills)
                continue
            if ended.code != 0:
                problems.append(Problem("crashed", describe(ended)))
            tally.add_to_last(problems)
            tally.notes["ended before the kill"] += 1
            break
        tally.add_to_last(chain.finish(chance))
        tally.notes["chains finished"] += 1
        shutil.rmtree(folder)
    tally.seconds = time.monotonic() - start
    return tally


def disk_campaign(
    workshop: Workshop, prepared: list[Prepared], runs: int, seed: int, progress: Progress
) -> Tally:
    """Run ``runs`` times on a disk that is full or fills up; half of the runs are killed as well.

    Where nothing kills a run it must fail with a clear error, or succeed if there was room.
    """
    start, tally, chance = time.monotonic(), Tally(), random.Random(f"{seed}/disk")
    settings = cycle(prepared)
    with small_disk(workshop.folder / "disk") as disk:
        tally.notes[f"disk: {disk.kind}"] = 1
        while tally.cases < runs:
            setting = next(settings)
            chain = Chain(workshop, setting, disk.folder / "chain")
            for _ in range(min(KILLS_PER_CHAIN, runs - tally.cases)):
                name, problems, ended = _disk_run(tally, chain, disk, chance)
                tally.add(f"{_name(tally, setting, name)} on a full disk", problems)
                tally.notes[name] += 1
                progress("full disk", tally.cases, runs)
                if ended:
                    break
                if chance.random() < 0.5:
                    disk.leave_all()
            disk.leave_all()
            tally.add_to_last(chain.finish(chance))
            tally.notes["chains finished after space was freed"] += 1
            shutil.rmtree(disk.folder / "chain")
    tally.seconds = time.monotonic() - start
    return tally


def _disk_run(
    tally: Tally, chain: Chain, disk: SmallDisk, chance: random.Random
) -> tuple[str, list[Problem], bool]:
    """One run; returns how it ended, what was wrong, and whether it got to the last step."""
    newest = chain.watched.newest
    disk.fill(chance)
    ended = chain.run(
        chance,
        kill=chance.random() < 0.5,
        file_limit=disk.file_limit(chance),
        during=lambda: disk.fill_later(chance),
    )
    disk.join()
    problems = chain.watched.check() + chain.resumed_rightly(newest)
    tally.notes["got further"] += chain.watched.newest > newest
    if ended.code == KILLED:
        return f"killed at {ended.moment}", problems, False
    if ended.code == 0:
        return "had room and succeeded", problems, True
    if ended.code != 1 or not ended.error or "defect" in ended.error:
        problems.append(Problem("crashed", describe(ended)))
    elif not _is_clear(ended.error, disk.folder):
        problems.append(Problem("unclear", ended.error))
    return "failed with a clear error", problems, False


def _is_clear(error: str, folder: Path) -> bool:
    """Names a file on that disk, the cause, and what to do."""
    return str(folder) in error and any(text in error for text in FULL) and "free some" in error


def _name(tally: Tally, prepared: Prepared, moment: str) -> str:
    return f"case {tally.cases} ({prepared.setting.name}, {moment})"
