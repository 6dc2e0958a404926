"""Android's library in a desktop JVM: loads unchanged, trains as torch does, fails politely."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import EdgeCompileConfig, to_edge, to_edge_transform_and_lower
from torch import nn
from torch.export import export
from torch.export.experimental import _export_forward_backward
from torch.fx.experimental.proxy_tensor import make_fx

from tests.android_app.conftest import DESKTOP

from .conftest import Run


def regression_loss(w: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return ((x @ w - y) ** 2).mean()


class Step(nn.Module):
    """One SGD step of linear regression, without state: loss and new weights."""

    def __init__(self) -> None:
        super().__init__()

        def step(w, x, y):
            gradient, loss = torch.func.grad_and_value(regression_loss)(w, x, y)
            return loss, w - 0.1 * gradient

        self.graph = make_fx(step)(torch.zeros(4), torch.zeros(16, 4), torch.zeros(16))

    def forward(self, w, x, y):
        return self.graph(w, x, y)


class Xor(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 10), nn.Sigmoid(), nn.Linear(10, 2))
        self.loss = nn.CrossEntropyLoss()

    def forward(self, x, y):
        scores = self.net(x)
        return self.loss(scores, y), scores.detach().argmax(dim=1)


def write(path: Path, program) -> Path:
    path.write_bytes(program.to_executorch().buffer)
    return path


@pytest.fixture(scope="module")
def step_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    example = (torch.zeros(4), torch.zeros(16, 4), torch.zeros(16))
    lowered = to_edge(
        {"step": export(Step(), example)},
        compile_config=EdgeCompileConfig(_check_ir_validity=False),
    )
    return write(tmp_path_factory.mktemp("step") / "step.pte", lowered)


def test_shipped_libraries_are_used_byte_for_byte(desktop: Path) -> None:
    cache = desktop.parent / "cache"
    with tarfile.open(cache / "react-native-executorch-0.9.3.tgz") as tar:
        name = "package/third-party/android/libs/executorch/x86_64/libexecutorch.so"
        shipped = {"libexecutorch.so": tar.extractfile(name).read()}
    with zipfile.ZipFile(cache / "fbjni-0.7.0.aar") as aar:
        for name in ("libfbjni.so", "libc++_shared.so"):
            shipped[name] = aar.read(f"jni/x86_64/{name}")
    for name, content in shipped.items():
        assert (desktop / "lib" / "android" / name).read_bytes() == content


def test_trains_as_torch_does(probe: Run, step_program: Path, tmp_path: Path) -> None:
    steps = 20
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(16, 4, generator=generator)
    y = x @ torch.tensor([1.0, -2.0, 0.5, 3.0]) + 0.1 * torch.randn(16, generator=generator)
    (tmp_path / "data").write_bytes(x.numpy().tobytes() + y.numpy().tobytes())

    expected, w = [], torch.zeros(4, requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = regression_loss(w, x, y)
        loss.backward()
        optimizer.step()
        expected.append(loss.item())

    result = probe("train", step_program, tmp_path / "data", steps)
    assert result.returncode == 0, result.stderr
    losses = [float(line) for line in result.stdout.split()]
    assert losses[-1] < 0.2 * losses[0]
    np.testing.assert_allclose(losses, expected, rtol=1e-6, atol=1e-6)


def test_training_module_and_sgd_agree_with_torch(probe: Run, tmp_path: Path) -> None:
    torch.manual_seed(3)
    model = Xor()
    x = torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]])
    y = torch.tensor([0, 1, 1, 0])
    joint = _export_forward_backward(export(model, (x, y), strict=True))
    program = write(tmp_path / "xor.pte", to_edge(joint))

    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    expected = []
    for _ in range(10):
        optimizer.zero_grad()
        loss, _ = model(x, y)
        loss.backward()
        optimizer.step()
        expected.append(loss.item())

    result = probe("xor", program, 10)
    assert result.returncode == 0, result.stderr
    losses = [float(line) for line in result.stdout.split()]
    np.testing.assert_allclose(losses, expected, rtol=1e-6, atol=1e-6)


def test_xnnpack_delegate_runs(probe: Run, tmp_path: Path) -> None:
    torch.manual_seed(5)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 3)).eval()
    x = torch.randn(5, 8)
    lowered = to_edge_transform_and_lower(export(model, (x,)), partitioner=[XnnpackPartitioner()])
    program = write(tmp_path / "mlp.pte", lowered)
    (tmp_path / "x").write_bytes(x.numpy().tobytes())

    result = probe("forward", program, tmp_path / "x")
    assert result.returncode == 0, result.stderr
    backends, *values = result.stdout.splitlines()
    assert backends == "[XnnpackBackend]"
    np.testing.assert_allclose(
        np.array(values, dtype=np.float32).reshape(5, 3), model(x).detach(), rtol=1e-5, atol=1e-6
    )


def test_operators_and_backends(probe: Run) -> None:
    result = probe("registered")
    backends, *operators = result.stdout.splitlines()
    assert backends.split() == ["XnnpackBackend", "VulkanBackend"]
    assert len(operators) == len(set(operators)) >= 250
    assert {
        "aten::topk.values", "aten::bmm.out", "aten::index_select.out", "aten::gather.out",
        "aten::where.self_out", "aten::maximum.out", "aten::cumsum.out", "aten::mul.out",
    } <= set(operators)  # fmt: skip
    # What the exporter must do without; if one appears, the export can be simplified.
    assert not {"aten::sort.values", "aten::softplus.out", "aten::scatter_reduce.two_out"} & set(
        operators
    )


def test_wrong_shape_is_an_exception_and_is_logged(probe: Run, step_program: Path) -> None:
    result = probe("fail", step_program, 7)
    assert result.returncode == 0, result.stderr
    assert "ExecutorchRuntimeException: [ExecuTorch Error 0x10]" in result.stdout
    # The library's own explanation goes the way of logcat.
    assert re.search(
        r"^E/ExecuTorch: .*Expected shape \(4\), but received \(7\)", result.stderr, re.M
    )


def test_missing_file_is_an_exception(probe: Run, tmp_path: Path) -> None:
    result = probe("fail", tmp_path / "none.pte", 4)
    assert result.returncode == 0, result.stderr
    assert "path does not exist" in result.stdout


@pytest.mark.parametrize("content", [b"", b"not a program", bytes(4096)])
def test_damaged_file_is_an_exception(probe: Run, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.pte").write_bytes(content)
    result = probe("fail", tmp_path / "bad.pte", 4)
    assert result.returncode == 0, result.stderr
    assert "ExecutorchRuntimeException" in result.stdout


def test_library_missing_beside_the_loader_is_named(
    desktop: Path, classes: Path, tmp_path: Path
) -> None:
    moved = shutil.copytree(desktop, tmp_path / "desktop", symlinks=True)
    (moved / "lib" / "android" / "libc++_shared.so").unlink()
    result = subprocess.run(
        [moved / "bin" / "java-with-executorch", "Probe", "registered"],
        env={**os.environ, "HARNESS_CLASSPATH": str(classes)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert "UnsatisfiedLinkError: libc++_shared.so: cannot open shared object" in result.stderr


def test_a_moved_directory_still_works(desktop: Path, classes: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(desktop, tmp_path / "else where", symlinks=True)
    result = subprocess.run(
        [moved / "bin" / "java-with-executorch", "Probe", "registered"],
        env={**os.environ, "HARNESS_CLASSPATH": str(classes)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def test_android_libraries_bind_to_the_stand_in_only(probe: Run) -> None:
    """The dynamic linker's own record: no symbol of theirs is answered by glibc or the JVM."""
    result = probe("registered", LD_DEBUG="bindings")
    pattern = re.compile(r"binding file \S+/lib/android/(\S+) \[0\] to (\S+) \[0\]")
    bindings = pattern.findall(result.stderr)
    libraries = {"libexecutorch_jni.so", "libfbjni.so", "libc++_shared.so"}
    shipped = [(user, provider) for user, provider in bindings if user in libraries]
    assert {user for user, _ in shipped} == libraries
    assert len(shipped) > 10_000
    assert {Path(provider).parent for _, provider in shipped} == {DESKTOP / "lib" / "android"}
