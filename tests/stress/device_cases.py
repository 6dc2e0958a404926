"""The cases of the fault campaign: a phase, one fault that hits it, and what was there before.

A case is a function of seed and number. What a fault hits may still differ from run to run by what
the threads of device and client do first; every end that docs/stress.md allows is right.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

PHASES = ("connect", "auth", "push", "install", "run", "pull")
REFUSALS = (
    "INSTALL_FAILED_NO_MATCHING_ABIS",
    "INSTALL_FAILED_VERSION_DOWNGRADE",
    "INSTALL_FAILED_UPDATE_INCOMPATIBLE",
    "INSTALL_FAILED_INSUFFICIENT_STORAGE",
    "INSTALL_FAILED_USER_RESTRICTED",
    "INSTALL_FAILED_VERIFICATION_FAILURE",
)


@dataclass
class Case:
    """What is tried.

    Attributes:
        number: of the case.
        phase: what the fault is to hit.
        kind: the fault, in a word, for the counts.
        faults: as docs/virtual-device.md has them.
        installs: whether the app is installed first.
        deployed: whether the bundle is on the device already, so that the run comes first.
        leftovers: whether an earlier, broken transfer left parts of files.
        fill: whether another app takes all space when the first bytes are pushed.
    """

    number: int
    phase: str
    kind: str
    faults: dict[str, Any]
    installs: bool = False
    deployed: bool = False
    leftovers: bool = False
    fill: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """How the case is called among the problems."""
        return f"case {self.number} ({self.phase}, {self.kind})"


def draw(seed: int, number: int) -> Case:
    """Case ``number``; the phases take turns."""
    chance = random.Random(f"{seed} {number}")
    phase = PHASES[number % len(PHASES)]
    kind, faults = _DRAWS[phase](chance)
    case = Case(number, phase, kind, {"seed": number, **faults})
    case.installs = phase == "install"
    case.deployed = phase in ("install", "run", "pull")
    case.leftovers = not case.deployed and chance.random() < 0.3
    case.fill = kind == "storage fills up"
    return case


def _wire(chance: random.Random, most: int, service: str | None, nth: int, way: str) -> Any:
    """A drop, a stall or a flipped bit somewhere in the first ``most`` bytes."""
    action = chance.choice(("drop", "drop", "drop", "stall", "flip"))
    wire: dict[str, Any] = {"action": action, "at_byte": [0, most], "direction": way, "nth": nth}
    if service is not None:
        wire["service"] = service
    if action == "stall":
        wire["seconds"] = chance.choice((0.05, 0.2, 6.0))
    return f"{action} {way}", {"wire": [wire]}


def _either(chance: random.Random) -> str:
    return chance.choice(("to_device", "from_device"))


def _connect(chance: random.Random) -> Any:
    kind = chance.randrange(4)
    if kind == 0:
        seconds = chance.choice((0.1, 0.5, 30.0))
        return "offline", {"offline": [{"after_seconds": 0.0, "seconds": seconds}]}
    if kind == 1:
        return "latency", {"latency_ms": [1, 30], "bytes_per_second": 2_000_000}
    return _wire(chance, 40, None, chance.randint(1, 2), _either(chance))


def _auth(chance: random.Random) -> Any:
    kind = chance.randrange(4)
    if kind == 0:
        return "unauthorised", {"unauthorised": True}
    if kind == 1:
        return "owner agrees", {"unauthorised": chance.uniform(0.01, 0.2)}
    way = _either(chance)
    return _wire(chance, 700 if way == "to_device" else 200, None, 1, way)


def _push(chance: random.Random) -> Any:
    kind = chance.randrange(8)
    if kind == 0:
        return "damaged storage", {"storage": {"damage_pushes": chance.randint(1, 9)}}
    if kind == 1:
        return "storage full", {"storage": {"bytes": chance.randint(0, 600_000)}}
    if kind == 2:
        return "storage fills up", {"storage": {"bytes": 50_000_000}}
    if kind == 3:
        gone = {
            "after_seconds": chance.uniform(0, 0.15),
            "seconds": chance.choice((0.1, 0.4, 30.0)),
        }
        return "offline", {"offline": [gone]}
    if kind == 4:
        service = chance.choice(("shell:sha256sum", "shell:cat", "shell:mv", "shell:mkdir"))
        return _wire(chance, 120, service, chance.randint(1, 3), "from_device")
    return _wire(chance, 70_000, "sync:", chance.randint(1, 6), _either(chance))


def _install(chance: random.Random) -> Any:
    kind = chance.randrange(5)
    if kind == 0:
        return "refused", {"install_answer": chance.choice(REFUSALS)}
    if kind == 1:
        return "storage full", {"storage": {"bytes": chance.randint(400_000, 1_000_000)}}
    if kind == 2:
        return _wire(chance, 60, "shell:pm", chance.randint(1, 3), "from_device")
    if kind == 3:
        old = {"ro.product.cpu.abilist": "armeabi-v7a", "ro.build.version.sdk": "23"}
        name = chance.choice(sorted(old))
        return "old device", {"properties": {name: old[name]}}
    return _wire(chance, 70_000, "sync:", chance.randint(1, 3), _either(chance))


def _run(chance: random.Random) -> Any:
    kind = chance.randrange(6)
    moment = {"at_status": [1, 8]}
    if kind < 2:
        reason = chance.choice(("low memory", "signal"))
        return f"killed, {reason}", {"kill": [moment | {"reason": reason}]}
    if kind == 2:
        gone = moment | {"seconds": chance.choice((0.1, 0.4, 30.0))}
        return "offline", {"offline": [gone], "runs_outlive_clients": chance.random() < 0.5}
    if kind == 3:
        hours = chance.choice((-1e6, -3600.0, 3600.0, 1e6))
        hot = {"after_seconds": chance.uniform(0, 0.2), "status": chance.randint(1, 6)}
        clock = {"after_seconds": chance.uniform(0, 0.2), "by_seconds": hours}
        return "clock and heat", {"clock": [clock], "thermal": [hot], "battery": {"level": 3}}
    name, faults = _wire(chance, 900, "shell:am instrument", 1, "from_device")
    return name, faults | {"runs_outlive_clients": chance.random() < 0.5}


def _pull(chance: random.Random) -> Any:
    if chance.randrange(5) == 0:
        return "latency", {"latency_ms": [1, 20]}
    return _wire(chance, 4_000, "sync:", chance.randint(1, 2), _either(chance))


_DRAWS = dict(zip(PHASES, (_connect, _auth, _push, _install, _run, _pull), strict=True))
