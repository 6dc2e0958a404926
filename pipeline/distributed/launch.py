"""``sparserec train --ranks``: start this command again as several ranks, by torchrun."""

from __future__ import annotations

import os
import subprocess
import sys

RESTARTS = 3
"""Times that torchrun starts all ranks again, from the last checkpoint, after one died."""


def launch(ranks: int, arguments: list[str]) -> int:
    """Run ``sparserec train`` with these arguments on so many ranks of this machine.

    Returns:
        The exit code, 0 where the run is finished.
    """
    torchrun = ["torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    torchrun += [f"--max-restarts={RESTARTS}", "-m", "pipeline.distributed"]
    with subprocess.Popen([sys.executable, "-m", *torchrun, *arguments]) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                continue  # the terminal tells torchrun too, which ends the ranks


def under_torchrun() -> bool:
    """Tell whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ
