"""``sparserec train --ranks``: this command again as several ranks, by torchrun.

torchrun starts all ranks again when one fails, which is right for one that was killed. An error
that users can put right would only be said again by each rank: whoever has one leaves it in a
folder, all ranks end as if they had succeeded, and the launcher says it once.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

from sparserec.errors import SparseRecError

RESTARTS = 3
"""Times that torchrun starts all ranks again, from the last checkpoint, after one died."""

OWN_STORE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"
"""Set to 1: ranks that are started again meet at a store of their own.

In torchrun's, which outlives them, they may find the addresses of the ranks before them, and then
wait for these, or fail (PyTorch issue 135712; so still in 2.13).
"""


ERRORS = "SPARSEREC_ERRORS_OF_RANKS"
"""Names the folder for errors; ranks that a user's own torchrun started have none."""


def launch(ranks: int, arguments: list[str]) -> NoReturn:
    """Be torchrun with so many ranks of ``sparserec train`` on this machine, to their end.

    No process is between the user and torchrun, so that a signal, or a kill, means it.

    Args:
        ranks: processes.
        arguments: of ``sparserec train``.

    Raises:
        SparseRecError: as a rank did.
        SystemExit: 0; 1 if a rank failed more than ``RESTARTS`` times; 128 and the signal's number
            if it was stopped.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    options = ["--standalone", f"--nproc-per-node={ranks}", f"--max-restarts={RESTARTS}"]
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # what torchrun would set, with a warning
    os.environ[OWN_STORE] = "1"
    sys.stdout.flush()
    with TemporaryDirectory(prefix="sparserec-ranks-") as folder:
        os.environ[ERRORS] = folder
        try:
            torchrun([*options, "-m", "pipeline.distributed", *arguments])
        except SignalException as stopped:
            sys.exit(128 + stopped.sigval)
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            print(
                f"rank {rank} ended with {failure.exitcode}, after {RESTARTS} restarts; what it"
                " said is above, and the same command goes on from the last checkpoint",
                file=sys.stderr,
            )
            sys.exit(1)
        if left := _left():
            raise SparseRecError(*left[0].read_text().split("\0"))
    sys.exit(0)


def leave(error: SparseRecError) -> None:
    """Leave an error for the launcher and end this rank; returns where there is no launcher."""
    if ERRORS not in os.environ:
        return
    path = Path(os.environ[ERRORS]) / os.environ["RANK"]
    path.write_text(f"{error.message}\0{error.fix}")
    path.rename(path.with_suffix(".error"))  # whole, or not there
    sys.stdout.flush()
    # At once: peers that wait for this rank may keep it from leaving them.
    os._exit(0)


def end_with_others() -> None:
    """End this rank when another has left an error: it could wait for that one for hours."""

    def look() -> None:
        while not _left():
            time.sleep(0.2)
        os._exit(0)

    threading.Thread(target=look, daemon=True).start()


def error_was_left() -> bool:
    """Tell whether a rank that is gone left an error."""
    return ERRORS in os.environ and bool(_left())


def _left() -> list[Path]:
    return sorted(Path(os.environ[ERRORS]).glob("*.error"))


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
