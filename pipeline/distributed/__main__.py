"""One rank of ``sparserec train``: ``torchrun ... -m pipeline.distributed ml-100k ...``."""

from __future__ import annotations

import os
import sys

from pipeline.distributed.launch import (
    ERRORS,
    OWN_STORE,
    end_with_others,
    leave,
    restarts_may_hang,
    under_torchrun,
)
from sparserec.cli import app, main
from sparserec.errors import SparseRecError

if __name__ == "__main__":
    if not under_torchrun():
        sys.exit("start this by torchrun, or use: sparserec train --ranks N")
    if restarts_may_hang():
        sys.exit(
            f"restarted ranks could wait for those before them: set {OWN_STORE}=1 for torchrun,"
            " with --rdzv-backend c10d, or give it --max-restarts 0"
        )
    sys.argv.insert(1, "train")
    if ERRORS not in os.environ:  # torchrun is the user's own
        main()
    else:
        end_with_others()
        try:
            app(prog_name="sparserec")
        except SparseRecError as error:
            leave(error)
