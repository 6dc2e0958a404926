"""Tracing and lowering: what drop_expands may change, and that a program is reproducible."""

from __future__ import annotations

import os
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from device_bench.compat import runtime
from export.build import Built
from export.lower import lower, trace
from export.program import describe
from export.quiet import quiet
from export.rewrite import (
    double_the_smaller,
    drop_expands,
    join_slices,
    sum_by_products,
)
from export.step import step_methods

ANDROID = Path(__file__).parents[2] / "android_app/target/desktop/bin/java-with-executorch"
LIST_OPERATORS = """
import org.pytorch.executorch.ExecuTorchRuntime;
public class ListOperators {
  public static void main(String[] args) {
    for (String name : ExecuTorchRuntime.getRegisteredOps()) System.out.println(name);
    System.exit(0);
  }
}
"""


def _expands(graph: torch.fx.GraphModule) -> int:
    return sum(node.target is torch.ops.aten.expand.default for node in graph.graph.nodes)


def _make_fx(function: Callable[..., tuple[Tensor, ...]], *inputs: Tensor) -> torch.fx.GraphModule:
    from torch.fx.experimental.proxy_tensor import make_fx

    graph: torch.fx.GraphModule = make_fx(function, tracing_mode="fake")(*inputs)
    return graph


def test_dropping_expands_changes_no_bit() -> None:
    def loss_and_gradient(x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        grad, loss = torch.func.grad_and_value(lambda t: (w * (t * t).sum(1).exp()).mean())(x)
        return loss, grad

    inputs = (torch.randn(6, 5), torch.randn(6))
    plain = _make_fx(loss_and_gradient, *inputs)
    lean = _make_fx(loss_and_gradient, *inputs)
    drop_expands(lean)
    assert 0 <= _expands(lean) < _expands(plain)
    assert all(torch.equal(a, b) for a, b in zip(plain(*inputs), lean(*inputs), strict=True))


def _paddings(graph: torch.fx.GraphModule) -> int:
    return sum(node.target is torch.ops.aten.slice_backward.default for node in graph.graph.nodes)


def test_slices_that_cover_a_tile_are_joined() -> None:
    def gradient(x: Tensor) -> tuple[Tensor]:
        def loss(t: Tensor) -> Tensor:
            a, b, c = t[:2], t[2:5], t[5:]
            return (a.exp().sum() + b.sin().sum() + (c * a[0]).sum()) + (t * t).sum()

        return (torch.func.grad(loss)(x),)

    inputs = (torch.randn(9, 4, dtype=torch.float64),)  # sums in another order differ little
    plain, lean = _make_fx(gradient, *inputs), _make_fx(gradient, *inputs)
    join_slices(lean)
    assert _paddings(plain) == 3
    assert _paddings(lean) == 0
    assert torch.allclose(plain(*inputs)[0], lean(*inputs)[0], rtol=0, atol=1e-6)


def test_slices_with_a_gap_or_an_overlap_or_a_step_stay() -> None:
    def gradient(parts: Callable[[Tensor], list[Tensor]]) -> Callable[[Tensor], tuple[Tensor]]:
        return lambda x: (
            torch.func.grad(lambda t: sum(p.exp().sum() for p in parts(t)))(x),  # type: ignore[arg-type, return-value]
        )

    cuts: list[Callable[[Tensor], list[Tensor]]] = [
        lambda t: [t[:2], t[3:]],
        lambda t: [t[:5], t[4:]],
        lambda t: [t[:4], t[4:8]],
        lambda t: [t[::2], t[1::2]],
        lambda t: [t[:4], t[:, 1:]],
    ]
    inputs = (torch.randn(9, 4),)
    for cut in cuts:
        plain, lean = _make_fx(gradient(cut), *inputs), _make_fx(gradient(cut), *inputs)
        join_slices(lean)
        assert _paddings(lean) == _paddings(plain) > 0
        assert torch.equal(plain(*inputs)[0], lean(*inputs)[0])


def test_doubling_the_smaller_factor_changes_no_bit() -> None:
    def twice(c: Tensor, x: Tensor) -> tuple[Tensor]:
        product = c * x
        return (product + product,)

    inputs = (torch.randn(7, 1), torch.randn(7, 5))
    plain, lean = _make_fx(twice, *inputs), _make_fx(twice, *inputs)
    double_the_smaller(lean)
    adds = [node for node in lean.graph.nodes if node.target is torch.ops.aten.add.Tensor]
    assert [node.meta["val"].shape for node in adds] == [(7, 1)]
    assert torch.equal(plain(*inputs)[0], lean(*inputs)[0])


def test_a_product_twice_among_others_is_made_once() -> None:
    def among(x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor]:
        product = x * y
        return (product + (product + z),)

    inputs = (torch.randn(7, 1), torch.randn(7, 5), torch.randn(7, 5))
    plain, lean = _make_fx(among, *inputs), _make_fx(among, *inputs)
    double_the_smaller(lean)
    adds = [node for node in lean.graph.nodes if node.target is torch.ops.aten.add.Tensor]
    assert sorted(node.meta["val"].numel() for node in adds) == [7, 7 * 5]
    torch.testing.assert_close(plain(*inputs)[0], lean(*inputs)[0])


def test_sums_of_lines_become_products_and_other_sums_stay() -> None:
    def sums(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        counts = (x > 0).sum(1, keepdim=True)
        return x.sum(1), x.sum(-1, keepdim=True), x.sum(0), x.sum(), y.sum(1), counts

    inputs = (torch.randn(6, 5), torch.randn(3, 4, 2))
    plain, lean = _make_fx(sums, *inputs), _make_fx(sums, *inputs)
    sum_by_products(lean)
    targets = [node.target for node in lean.graph.nodes]
    assert targets.count(torch.ops.aten.mm.default) == 2
    assert targets.count(torch.ops.aten.sum.dim_IntList) == 3
    for expected, got in zip(plain(*inputs), lean(*inputs), strict=True):
        torch.testing.assert_close(expected, got)


def test_an_expand_that_gives_the_result_its_shape_stays() -> None:
    def outer(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        wide = a.expand(4, 3)
        return wide * b, wide

    inputs = (torch.randn(1, 3), torch.randn(1, 3))
    graph = _make_fx(outer, *inputs)
    drop_expands(graph)
    product, wide = graph(*inputs)
    assert product.shape == wide.shape == (4, 3)
    assert torch.equal(product, inputs[0].expand(4, 3) * inputs[1])


def test_traced_step_computes_what_the_function_does() -> None:
    method = step_methods(4, 6, 0.1, 256)["gradients"]
    inputs = (
        torch.randn(12, 6),
        (torch.rand(12, 6) < 0.5).float(),
        (torch.rand(12, 1) < 0.5).float(),
        torch.tensor([1.0, 1, 1, 0]),
    )
    graph = trace(method)
    assert _expands(graph) == 0
    for found, wanted in zip(graph(*inputs), method.function(*inputs), strict=True):
        torch.testing.assert_close(found, wanted)


def test_lowering_is_reproducible() -> None:
    methods = step_methods(2, 4, 0.1, 256)
    assert lower(methods) == lower(methods)


def test_android_runtime_has_every_operator(built: Built, tmp_path: Path) -> None:
    if not ANDROID.exists():
        pytest.skip("Android's runtime is not built here: make setup")
    source = tmp_path / "ListOperators.java"
    source.write_text(LIST_OPERATORS)
    run = subprocess.run(
        [ANDROID, source], capture_output=True, text=True, check=False, timeout=120
    )
    assert run.returncode == 0, run.stderr
    registered = set(run.stdout.split())
    assert len(registered) > 200
    assert registered == set(runtime()["operators"])
    for program in built.manifest.programs.values():
        for method in program.methods.values():
            assert set(method.operators) <= registered
            assert not method.backends


def test_manifest_lists_the_operators_of_the_file(built: Built) -> None:
    for program in built.manifest.programs.values():
        plans = describe((built.path / program.file).read_bytes(), built.path)
        assert set(plans) == set(program.methods)
        for name, method in program.methods.items():
            assert list(method.operators) == plans[name].operators
            assert method.planned_arena_bytes == plans[name].planned_arena_bytes > 0


def _make_noise_quietly() -> None:
    with quiet():
        os.write(2, b"[cpuinfo_utils.cpp:71] Reading file\n")
        os.write(2, b"something else\n")
        warnings.warn("`isinstance(treespec, LeafSpec)` is deprecated", FutureWarning, stacklevel=1)
        warnings.warn("look here", FutureWarning, stacklevel=1)


def test_quiet_hides_known_noise_only(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.warns(FutureWarning, match="look here") as seen:
        _make_noise_quietly()
    assert len(seen) == 1
    assert "cpuinfo" not in (stderr := capfd.readouterr().err)
    assert "something else" in stderr
