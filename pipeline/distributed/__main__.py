"""One rank of ``sparserec train``: ``torchrun ... -m pipeline.distributed ml-100k ...``."""

from __future__ import annotations

import sys

from pipeline.distributed.launch import under_torchrun
from sparserec.cli import main

if __name__ == "__main__":
    if not under_torchrun():
        sys.exit("start this by torchrun, or use: sparserec train --ranks N")
    sys.argv.insert(1, "train")
    main()
