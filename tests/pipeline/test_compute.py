"""Gradients away from the host: on PyTorch's fake CUDA device, which has shapes and no GPU."""

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from pipeline.backward import Objective
from pipeline.compute import device_for
from pipeline.losses import LossName
from pipeline.models import MODELS
from sparserec.errors import SparseRecError


@pytest.mark.parametrize("model", ["mf", "neumf"])
@pytest.mark.parametrize("loss", ["bpr", "bpr-shared", "bce", "softmax"])
def test_a_loss_stays_on_the_device_of_its_tile(model: str, loss: LossName) -> None:
    """An operation that mixes devices raises; a scalar of the host's is none."""
    initial = MODELS[model].initial(16, 1)
    with FakeTensorMode(allow_non_fake_inputs=True):
        tile = torch.empty(30, 16, device="cuda", requires_grad=True)
        dense = {name: torch.empty(v.shape, device="cuda") for name, v in initial.items()}
        found = Objective(model, loss, 0.1, 100).value(tile, tile, np.arange(30), dense, 10)
    assert found.device.type == "cuda"
    assert found.shape == ()


def test_a_loss_that_mixes_devices_is_found_out() -> None:
    with FakeTensorMode(allow_non_fake_inputs=True):
        tile = torch.empty(30, 16, device="cuda")
        rows = torch.empty(30, 16)
        with pytest.raises(RuntimeError, match="device"):
            Objective("mf", "bpr", 0.1, 100).value(tile, rows, np.arange(30), {}, 10)


@pytest.mark.parametrize(
    ("wanted", "model", "said"),
    [
        ("gpu", "mf", "--compute is 'gpu'"),
        ("cuda:one", "mf", "--compute is"),
        ("cuda", "lightgcn", "graph in the host's memory"),
        ("cuda:99", "mf", "GPUs"),
    ],
)
def test_what_cannot_compute_is_named(wanted: str, model: str, said: str) -> None:
    with pytest.raises(SparseRecError, match=said):
        device_for(wanted, model)
    assert device_for("cpu", model).type == "cpu"
