"""The project's side: ``python -m tests.bench.host_peers.ours MODEL``."""

from __future__ import annotations

import os
import sys

import torch

from pipeline.allocator import keep_freed_memory
from pipeline.data.datasets import load
from tests.bench.host_peers.serve import serve
from tests.bench.training import same_work, trainer_of

if __name__ == "__main__":
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    keep_freed_memory()
    serve(trainer_of(same_work(sys.argv[1]), load("gowalla").split()).run_step)
