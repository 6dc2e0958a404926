"""``sparserec train --ranks``: this command again as several ranks, by torchrun."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

RESTARTS = 3
"""Times that torchrun starts all ranks again, from the last checkpoint, after one died."""

OWN_STORE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"
"""Set to 1: ranks that are started again meet at a store of their own.

In torchrun's, which outlives them, they may find the addresses of the ranks before them, and then
wait for these, or fail (PyTorch issue 135712; so still in 2.13).
"""


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
    os.environ[OWN_STORE] = "1"
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", *torchrun, *arguments])


def under_torchrun() -> bool:
    """Tell whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def restarts_may_hang() -> bool:
    """Tell whether torchrun restarts ranks that meet at its own store: see ``OWN_STORE``."""
    shared = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return shared and os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") != "0"


def is_first() -> bool:
    """Tell whether this process is the first rank, or the only one."""
    return os.environ.get("RANK", "0") == "0"
