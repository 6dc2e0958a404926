"""``sparserec train --ranks``: this command again as several ranks, by torchrun."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

RESTARTS = 3
"""Times that torchrun starts all ranks again, from the last checkpoint, after one died."""


def launch(ranks: int, arguments: list[str]) -> NoReturn:
    """Become torchrun with so many ranks of ``sparserec train`` on this machine.

    Nothing is left between the user and torchrun, so that a signal, or a kill, means it.

    Args:
        ranks: processes.
        arguments: of ``sparserec train``.
    """
    torchrun = ["torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    torchrun += [f"--max-restarts={RESTARTS}", "-m", "pipeline.distributed"]
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # what torchrun would set, with a warning
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", *torchrun, *arguments])


def under_torchrun() -> bool:
    """Tell whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def is_first() -> bool:
    """Tell whether this process is the first rank, or the only one."""
    return os.environ.get("RANK", "0") == "0"
