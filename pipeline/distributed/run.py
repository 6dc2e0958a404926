"""One rank's part of a run, from joining its peers to leaving them."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import nullcontext
from pathlib import Path

import torch

from pipeline.data.split import Split
from pipeline.distributed.fit import fit
from pipeline.distributed.launch import error_was_left, leave
from pipeline.distributed.ranks import joined
from pipeline.files import alone
from pipeline.fit import Fitted
from pipeline.recipes import Recipe
from pipeline.table import PackedTable
from sparserec import progress as report
from sparserec.errors import SparseRecError

LOCK_PATIENCE = 60.0
"""Seconds that a run waits for the ranks of one that was killed to end."""


def together(
    recipe: Recipe,
    split: Split,
    out: Path,
    fresh: bool,
    device: torch.device,
    start: PackedTable | None = None,
    factors_sha256: str = "",
) -> Fitted | None:
    """Train with the ranks that torchrun started; see ``pipeline.distributed.fit.fit``.

    Args:
        recipe: of the run.
        split: of the data.
        out: folder of the run.
        fresh: start over where there is a checkpoint.
        device: where this rank computes gradients: on a GPU, ranks talk over nccl, else gloo.
        start: what ``initial_table`` gives, if the first rank has it already.
        factors_sha256: as for ``fit``.

    Raises:
        SparseRecError: as ``fit`` does, or another run writes to ``out``; where no launcher waits
            for it.
    """
    with joined(device) as ranks:
        first = ranks.rank == 0
        # Not when torchrun starts the ranks again: what they saved is of this very run.
        fresh = fresh and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
        try:
            # The ranks of a run whose launcher was killed take a moment to end.
            with alone(out, LOCK_PATIENCE) if first else nullcontext():
                if first and fresh:
                    shutil.rmtree(out / "checkpoint", ignore_errors=True)
                    (out / "checkpoint.safetensors").unlink(missing_ok=True)
                ranks.wait()
                with report.bars() if first else nullcontext(report.silent) as progress:
                    return fit(ranks, recipe, split, out, progress, device, start, factors_sha256)
        except KeyboardInterrupt:
            if ranks.rank:
                raise SystemExit(130) from None  # the first rank says it
            raise
        except SparseRecError as error:
            leave(error)  # before its peers see that it is gone
            raise
        except RuntimeError as error:
            if "gloo/transport" not in str(error):
                raise
            if error_was_left():
                os._exit(0)
            # Taking leave of peers that are gone can hang, and torchrun waits for it for 30 s.
            print(f"rank {ranks.rank}: a peer is gone", file=sys.stderr, flush=True)
            os._exit(1)
