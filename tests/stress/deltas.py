"""Deltas: faults at each call that changes a file, and damaged deltas. Nothing may be lost."""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from sparserec.progress import Progress
from tests.android_app.harness.bundles import Tiny
from tests.android_app.harness.deltas import (
    KILLED,
    Answer,
    Chain,
    Device,
    compiled_faults,
    contents,
    make_chain,
    reseal,
)
from tests.stress.small_disk import FULL
from tests.stress.tally import Problem, Tally
from tests.stress.workshop import Workshop

HOWS = ("kill", "tear", "full")


class Stage:
    """A device on which one delta was applied, again and again as it was then."""

    def __init__(self, workshop: Workshop) -> None:
        bundle = workshop.bundle("delta-base", Tiny(), data_seed=3)
        (workshop.folder / "chain-of-bundles").mkdir()
        self.chain: Chain = make_chain(bundle, workshop.folder / "chain-of-bundles")
        self.wholes = self.chain.wholes
        self.folder = workshop.folder / "delta-device"
        self.device = Device(workshop.launcher, self.folder, compiled_faults(workshop.folder))
        self.device.install(self.chain.bundles[0])
        answer = self.device.apply(self.chain.deltas[0])
        if answer.code != 0:
            raise RuntimeError(f"the undisturbed delta cannot be applied: {answer}")
        self._ready = Path(shutil.copytree(self.device.bundles, self.folder / "ready"))

    def reset(self) -> None:
        """Put the device back to where it was."""
        shutil.rmtree(self.device.bundles)
        shutil.copytree(self._ready, self.device.bundles)

    def act(self, what: str, at: int = 0, how: str = "kill") -> Answer:
        """Apply the second delta, or go back from the first."""
        if what == "apply":
            return self.device.apply(self.chain.deltas[1], at=at, how=how)
        return self.device.rollback(at=at, how=how)

    def is_as_it_was(self) -> bool:
        """Whether all bundles, and which is in use, are those of ``reset``."""
        device, ready = self.device.bundles, self._ready
        names = {path.name for path in ready.iterdir()}
        return self.device.names() == names and all(
            contents(device / name) == contents(ready / name)
            if (ready / name).is_dir()
            else (device / name).read_bytes() == (ready / name).read_bytes()
            for name in names
        )


@dataclass(frozen=True)
class Fault:
    """What is done, and what happens at which call."""

    what: str
    how: str
    at: int


def faults(stage: Stage) -> Iterator[Fault]:
    """Every fault there is."""
    for what in ("apply", "rollback"):
        stage.reset()
        calls = len(stage.act(what).calls)
        for how in HOWS:
            yield from (Fault(what, how, at) for at in range(1, calls + 1))


def fault_campaign(stage: Stage, cases: int, seed: int, progress: Progress) -> Tally:
    """Make ``cases`` of all faults, or all; after each, the same call must end as undisturbed."""
    start, tally = time.monotonic(), Tally()
    every = list(faults(stage))
    random.Random(f"{seed}/delta faults").shuffle(every)
    tally.notes["faults there are"] = len(every)
    for fault in every[:cases]:
        stage.reset()
        answer = stage.act(fault.what, fault.at, fault.how)
        problems = _lost(stage) + _after_fault(stage, fault, answer)
        current = stage.device.current
        tally.notes[f"{fault.what}, {fault.how}: then {_word(stage, current)} is in use"] += 1
        went_back = fault.what == "rollback" and current == stage.chain.ids[0]
        again = stage.act(fault.what)
        if again.code != (1 if went_back else 0):
            problems.append(Problem("crashed", f"cannot be repeated: {again}"))
        problems += _lost(stage)
        ids = stage.chain.ids
        kept = {ids[0]} if fault.what == "rollback" else {ids[1], ids[2]}
        if stage.device.names() != kept | {"generations.json"}:
            problems.append(Problem("wrong", f"there are {sorted(stage.device.names())} then"))
        tally.add(f"{fault}: {_line(answer)}", problems)
        progress("faults in deltas", tally.cases, min(cases, len(every)))
    tally.seconds = time.monotonic() - start
    return tally


def _lost(stage: Stage) -> list[Problem]:
    return [Problem("lost", text) for text in stage.device.problems(stage.wholes)]


def _after_fault(stage: Stage, fault: Fault, answer: Answer) -> list[Problem]:
    if fault.how != "full":
        if answer.code != KILLED:
            return [Problem("crashed", f"was to be killed, ended with {answer}")]
        return []
    if answer.code not in (0, 1) or "defect" in answer.results.get("error", ""):
        return [Problem("crashed", f"{answer}")]
    error = answer.results.get("error", "")
    is_clear = str(stage.folder) in error and any(text in error for text in FULL)
    if answer.code == 1 and not (is_clear and "free some space" in error):
        return [Problem("unclear", error)]
    return []


def corrupt_campaign(stage: Stage, cases: int, seed: int, progress: Progress) -> Tally:
    """Apply ``cases`` damaged deltas: each is refused and changes nothing, or makes the result."""
    start, tally = time.monotonic(), Tally()
    for case in range(cases):
        stage.reset()
        delta = stage.folder / "damaged"
        shutil.rmtree(delta, ignore_errors=True)
        shutil.copytree(stage.chain.deltas[1], delta)
        what = damage(delta, stage.chain.deltas[0], random.Random(f"{seed}/delta/{case}"))
        answer = stage.device.apply(delta)
        problems = _lost(stage)
        error = answer.results.get("error", "")
        if answer.code == 0:
            way = "applied, with the right result"
            if stage.device.current != stage.chain.ids[2]:
                problems.append(Problem("wrong", f"{stage.device.current} is in use"))
        elif answer.code == 1 and "defect" not in error:
            way = "refused"
            if not stage.is_as_it_was():
                problems.append(Problem("lost", "a refused delta has changed something"))
            if str(stage.folder) not in error or ";" not in error:
                problems.append(Problem("unclear", error))
        else:
            way = "died"
            problems.append(Problem("crashed", f"{answer}"))
        tally.notes[f"{what.split(':')[0]}: {way}"] += 1
        tally.add(f"case {case} ({what}): {_line(answer)}", problems)
        progress("corrupt deltas", case + 1, cases)
    tally.seconds = time.monotonic() - start
    return tally


def damage(delta: Path, other: Path, chance: random.Random) -> str:
    """Damage a delta in one random way; says how. ``other`` is one between other bundles."""
    family = chance.choice((_bytes, _bytes, _field, _tensor, _tensor, _swapped))
    return family(delta, other, chance)


def _bytes(delta: Path, other: Path, chance: random.Random) -> str:
    path = chance.choice(sorted(delta.iterdir()))
    data = bytearray(path.read_bytes())
    place, how = chance.randrange(len(data)), chance.choice(("flip", "cut", "noise", "remove"))
    if how == "flip":
        data[place] ^= 1 << chance.randrange(8)
    elif how == "cut":
        del data[place:]
    else:
        end = min(len(data), place + chance.randint(1, 64))
        data[place:end] = chance.randbytes(end - place)
    path.write_bytes(data)
    if how == "remove":
        path.unlink()
    return f"bytes: {how} {path.name} at {place}"


def _field(delta: Path, other: Path, chance: random.Random) -> str:
    value = json.loads((delta / "delta.json").read_text())
    place, key = chance.choice(
        [
            (part, key)
            for part in (value, value["base"], value["result"], value["files"])
            for key in part
        ]
    )
    texts = ("", "..", "a/b", "x.part", "0" * 64)
    new: Any = chance.choice((None, -1, 2**70, 1.5, [], {}, True, *texts))
    place[key] = new
    if chance.random() < 0.2:
        del place[key]
        new = "nothing"
    (delta / "delta.json").write_text(json.dumps(value))
    return f"field: {key} is {new}"


def _tensor(delta: Path, other: Path, chance: random.Random) -> str:
    path = chance.choice(sorted(delta.glob("delta-*")))
    tensors = load_file(path)
    name = chance.choice(sorted(tensors))
    array = tensors[name].copy()
    how = chance.choice(("value", "shorter", "longer", "missing", "type"))
    if how == "value" and len(array):
        extreme = (0, 1, 127) if array.dtype.itemsize == 1 else (-1, 0, 2**31 - 1)
        array[chance.randrange(len(array))] = chance.choice(extreme)
    elif how == "shorter":
        array = array[:-1]
    elif how == "longer":
        array = np.append(array, array[-1:])
    elif how == "type":
        array = array.astype(np.float16 if array.dtype != np.float16 else np.int8)
    tensors[name] = array
    if how == "missing":
        del tensors[name]
    save_file(tensors, path)
    reseal(delta)
    return f"tensor, resealed: {name} of {path.name}, {how}"


def _swapped(delta: Path, other: Path, chance: random.Random) -> str:
    name = chance.choice(
        sorted(path.name for path in delta.iterdir() if (other / path.name).exists())
    )
    shutil.copy(other / name, delta / name)
    if chance.random() < 0.5 and name != "delta.json":
        reseal(delta)
        return f"another delta's file, resealed: {name}"
    return f"another delta's file: {name}"


def _word(stage: Stage, current: str | None) -> str:
    words = dict(zip(stage.chain.ids, ("the first", "the second", "the third"), strict=True))
    return words.get(current or "", "none")


def _line(answer: Answer) -> str:
    return f"{answer.code} {answer.results.get('error', '')}"
