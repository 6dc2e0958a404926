"""Where gradients are computed: on the host, or on a GPU that is asked for.

A table stays in the host's memory, packed, and is updated there. A step's tile, which is as large
as its batch, goes to the GPU and its gradients come back. Nothing of this was run on a GPU yet.
"""

from __future__ import annotations

import os

import torch

from pipeline.models import MODELS, ModelName
from sparserec.errors import SparseRecError


def device_for(wanted: str, model: ModelName) -> torch.device:
    """Give the device that ``--compute`` names; of several ranks of a machine, each its own.

    Args:
        wanted: ``cpu``, ``cuda``, or one of several GPUs, such as ``cuda:1``.
        model: the base recommender.

    Raises:
        SparseRecError: it is no such name, there is no such GPU, or the model stays on the host.
    """
    kind, _, number = wanted.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdigit()):
        raise SparseRecError(f"--compute is {wanted!r}", "use cpu, cuda, or cuda:1 and so on")
    if kind == "cpu":
        return torch.device("cpu")
    if MODELS[model].GRAPH != "none":
        raise SparseRecError(
            f"{model} propagates over a graph in the host's memory", "use --compute cpu"
        )
    index = int(number or os.environ.get("LOCAL_RANK", "0"))
    if index >= torch.cuda.device_count():
        raise SparseRecError(
            f"--compute {wanted}: PyTorch sees {torch.cuda.device_count()} GPUs",
            "use --compute cpu, no more ranks than GPUs, or a PyTorch build for your GPU",
        )
    return torch.device("cuda", index)
