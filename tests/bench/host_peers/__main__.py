"""Time a step of the project's training beside that of other code, by turns, on Gowalla.

``python -m tests.bench.host_peers --help``; docs/performance.md says how to get the peers.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from pipeline.data.datasets import load
from pipeline.data.split import Pairs, Split

HERE = Path(__file__).parent


@dataclass
class Side:
    """One process that trains when it is told to.

    Attributes:
        process: that ``serve.py`` runs in.
        steps: that it does in a turn.
    """

    process: subprocess.Popen[str]
    steps: int

    @classmethod
    def start(cls, command: Sequence[str], cwd: Path, threads: int, steps: int) -> Side:
        """Start a side and wait until it is ready."""
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            command, cwd=cwd, env=environment, stdin=pipe, stdout=pipe, text=True
        )
        side = cls(process, steps)
        side._answer("READY")
        return side

    def turn(self) -> list[tuple[float, float]]:
        """Do its steps; gives wall and CPU seconds of each."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{self.steps}\n")
        self.process.stdin.flush()
        return [(wall, cpu) for wall, cpu in json.loads(self._answer("STEPS"))]

    def _answer(self, word: str) -> str:
        """Read up to a line that begins with ``word``, past what the peer prints itself."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(word):
                return line.removeprefix(word)
        raise RuntimeError(f"{self.process.args}: ended before it said {word}")


def write_lightgcn(split: Split, folder: Path) -> None:
    """Write train and validation parts as ``train.txt`` and ``test.txt`` of LightGCN-PyTorch."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "s_pre_adj_mat.npz").unlink(missing_ok=True)  # of another train part
    for part, name in ((split.train, "train.txt"), (split.valid, "test.txt")):
        items = defaultdict(list)
        for user, item in zip(part.users.tolist(), part.items.tolist(), strict=True):
            items[user].append(str(item))
        lines = (f"{user} {' '.join(items[user])}\n" for user in sorted(items))
        (folder / name).write_text("".join(lines))


def write_recbole(split: Split, folder: Path) -> None:
    """Write the parts as RecBole's ``gowalla.<part>.inter``."""
    folder.mkdir(parents=True)
    parts: dict[str, Pairs] = {"train": split.train, "valid": split.valid, "test": split.later}
    for name, part in parts.items():
        pairs = zip(part.users.tolist(), part.items.tolist(), strict=True)
        lines = "".join(f"{user}\t{item}\n" for user, item in pairs)
        (folder / f"gowalla.{name}.inter").write_text(f"user_id:token\titem_id:token\n{lines}")


def main() -> int:
    """Start every side, let them take turns, print medians, and write ``host_peers.json``."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.host_peers", description=__doc__)
    help_ = "a clone of LightGCN-PyTorch; its data/gowalla is written over"
    parser.add_argument("--lightgcn", type=Path, help=help_)
    parser.add_argument("--lightgcn-python", help="Python with what LightGCN-PyTorch needs")
    parser.add_argument("--recbole-python", help="Python with RecBole")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    given = parser.parse_args()
    split = load("gowalla").split()
    sides: dict[str, Side] = {}
    with tempfile.TemporaryDirectory(prefix="sparserec-peers-") as temporary:
        for model, steps in (("mf", 20), ("lightgcn", 3)):
            command = [sys.executable, "-m", "tests.bench.host_peers.ours", model]
            sides[f"ours {model}"] = Side.start(command, Path.cwd(), given.threads, steps)
        if given.recbole_python:
            write_recbole(split, Path(temporary, "gowalla"))
            for model, steps in (("BPR", 20), ("LightGCN", 3)):
                command = [given.recbole_python, str(HERE / "recbole_model.py"), temporary, model]
                side = Side.start(command, Path(temporary), given.threads, steps)
                sides[f"RecBole {model}"] = side
        if given.lightgcn:
            write_lightgcn(split, given.lightgcn / "data" / "gowalla")
            command = [given.lightgcn_python, str(HERE / "lightgcn_pytorch.py")]
            side = Side.start(command, given.lightgcn / "code", given.threads, 3)
            sides["LightGCN-PyTorch"] = side
        taken = take_turns(sides, given.rounds)
    for side in sides.values():
        side.process.terminate()
        side.process.wait()
    found = {name: _summary(steps) for name, steps in taken.items()}
    for name, one in found.items():
        print(f"{name}: {one['wall']:.3f} s a step, CPU {one['cpu']:.3f} s")
    given.out.mkdir(parents=True, exist_ok=True)
    about = {"load": os.getloadavg(), "threads": given.threads, "steps": found}
    (given.out / "host_peers.json").write_text(json.dumps(about, indent=2) + "\n")
    return 0


def take_turns(sides: dict[str, Side], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Let every side take its turn in each round; the first round warms up."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name, side in sides.items():
            steps = side.turn()
            taken[name] += steps if turn > 0 else []
    return taken


def _summary(steps: list[tuple[float, float]]) -> dict[str, object]:
    walls, cpus = zip(*steps, strict=True)
    return {"wall": median(walls), "cpu": median(cpus), "samples": steps}


if __name__ == "__main__":
    raise SystemExit(main())
