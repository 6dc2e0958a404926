"""LightGCN-PyTorch's side, run by its own Python in its folder ``code``; nothing of it is changed.

Its sampler draws a whole epoch at once, in C++ where it could compile it, which is not timed here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from serve import serve

sys.path.insert(0, str(Path.cwd()))
sys.argv = ["main.py", "--dataset", "gowalla", "--tensorboard", "0"]  # what its parser reads

import torch  # noqa: E402
import utils  # noqa: E402
import world  # noqa: E402


def batches() -> Iterator[tuple[torch.Tensor, ...]]:
    """Draw and shuffle triples epoch after epoch, as its ``Procedure.py`` does."""
    while True:
        drawn = utils.UniformSample_original(dataset)
        parts = utils.shuffle(*(torch.Tensor(drawn[:, k]).long() for k in range(3)))
        yield from utils.minibatch(*parts, batch_size=world.config["bpr_batch_size"])


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    utils.set_seed(world.seed)
    import register
    from register import dataset

    model = register.MODELS[world.model_name](world.config, dataset).train()
    loss = utils.BPRLoss(model, world.config)
    drawn = batches()
    batch = next(drawn)  # an epoch is drawn before the first step is timed
    serve(lambda: loss.stageOne(*next(drawn)))
