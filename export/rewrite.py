"""Rewriting a traced graph into operators that ExecuTorch's kernels are quick at.

Each rewrite computes the same numbers, to rounding; docs/export.md says what each one saves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node

_aten = torch.ops.aten
_BROADCAST = {_aten.mul.Tensor, _aten.add.Tensor, _aten.sub.Tensor, _aten.div.Tensor}


def rewrite(graph: GraphModule, batched: bool = False) -> GraphModule:
    """Apply all rewrites.

    Args:
        graph: traced, on fake tensors; it is changed.
        batched: make matrix products ``bmm``, whose operands XNNPACK takes both at run time.
    """
    drop_expands(graph)
    replace_operators(graph, batched)
    cancel_transposes(graph)
    graph = _without_copies(graph)
    join_slices(graph)
    double_the_smaller(graph)
    sum_by_products(graph)
    return graph


def _without_copies(graph: GraphModule) -> GraphModule:
    """Compute once what is computed twice: autograd of x * x makes the same product twice."""
    from torch._functorch.compile_utils import fx_graph_cse

    return GraphModule(graph, fx_graph_cse(graph.graph))


def replace_operators(graph: GraphModule, batched: bool) -> None:
    """Replace operators whose portable kernels are slow by ones that are optimized or delegated.

    - ``addmm`` by ``mm`` and ``add``.
    - ``threshold_backward`` of a ``relu`` by a product with the sign of what relu returned.
    - ``leaky_relu`` and its backward by ``relu``; at exactly 0 the slope is the smaller one, as in
      PyTorch.
    """
    for node in list(graph.graph.nodes):
        make = _OPERATORS.get(node.target)
        if make is None:
            continue
        with graph.graph.inserting_before(node):
            new = make(_Builder(graph.graph), *node.args)
        if new is not None:
            node.replace_all_uses_with(new)
            graph.graph.erase_node(node)
    if batched:
        for node in list(graph.graph.nodes):
            if node.target is _aten.mm.default:
                with graph.graph.inserting_before(node):
                    new = _batched_product(_Builder(graph.graph), *node.args)
                node.replace_all_uses_with(new)
                graph.graph.erase_node(node)
    graph.recompile()


class _Builder:
    """Adds calls to a graph, with the fake tensors that other rewrites look at."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def __call__(self, target: Callable[..., Tensor], *args: Any) -> Node:
        node = self._graph.call_function(target, args)
        values = [arg.meta["val"] if isinstance(arg, Node) else arg for arg in args]
        node.meta["val"] = target(*values)
        return node


def _addmm(call: _Builder, bias: Node, left: Node, right: Node) -> Node:
    return call(_aten.add.Tensor, call(_aten.mm.default, left, right), bias)


def _batched_product(call: _Builder, left: Node, right: Node) -> Node:
    one = (call(_aten.unsqueeze.default, side, 0) for side in (left, right))
    return call(_aten.squeeze.dim, call(_aten.bmm.default, *one), 0)


def _relu_backward(call: _Builder, grad: Node, output: Node, threshold: float) -> Node | None:
    if output.target is not _aten.relu.default or threshold != 0:
        return None
    return call(_aten.mul.Tensor, grad, call(_aten.sign.default, output))


def _leaky_relu(call: _Builder, rows: Node, slope: float) -> Node:
    above = call(_aten.mul.Scalar, call(_aten.relu.default, rows), 1 - slope)
    return call(_aten.add.Tensor, call(_aten.mul.Scalar, rows, slope), above)


def _leaky_relu_backward(
    call: _Builder, grad: Node, rows: Node, slope: float, of_result: bool
) -> Node | None:
    if of_result:
        return None
    above = call(_aten.sign.default, call(_aten.relu.default, rows))
    slopes = call(_aten.add.Scalar, call(_aten.mul.Scalar, above, 1 - slope), slope)
    return call(_aten.mul.Tensor, grad, slopes)


_OPERATORS: dict[Any, Callable[..., Node | None]] = {
    _aten.addmm.default: _addmm,
    _aten.threshold_backward.default: _relu_backward,
    _aten.leaky_relu.default: _leaky_relu,
    _aten.leaky_relu_backward.default: _leaky_relu_backward,
}


def cancel_transposes(graph: GraphModule) -> None:
    """Drop pairs of transposes, which autograd makes of ``linear``; each would copy a matrix."""
    for node in graph.graph.nodes:
        if node.target is _aten.t.default and node.args[0].target is _aten.t.default:
            node.replace_all_uses_with(node.args[0].args[0])
    graph.graph.eliminate_dead_code()
    graph.recompile()


def drop_expands(graph: GraphModule) -> None:
    """Replace ``expand(x) op y`` by ``x op y`` where ``y`` has the full shape already.

    The result is the same bit for bit. The backward of a sum over columns is an ``expand``, which
    ExecuTorch copies out, at several times the cost of the product that reads it.
    """
    for node in list(graph.graph.nodes):
        if node.target is not _aten.expand.default:
            continue
        for user in list(node.users):
            others = [arg for arg in user.args if isinstance(arg, Node) and arg is not node]
            full = [other.meta["val"].shape == node.meta["val"].shape for other in others]
            if user.target in _BROADCAST and any(full):
                user.replace_input_with(node, node.args[0])
    graph.graph.eliminate_dead_code()
    graph.recompile()


def join_slices(graph: GraphModule) -> None:
    """Replace a sum of zero-padded blocks by the blocks side by side.

    The backward of taking slices is one padded gradient for each, and a sum of all of them: for
    MF's tile, six passes over it. Where the slices cover a dimension once, ``cat`` says the same.
    """
    for node in list(graph.graph.nodes):
        if not _is_sum(node) or (len(node.users) == 1 and _is_sum(next(iter(node.users)))):
            continue  # not the last of a chain of sums
        terms = _terms(node)
        padded = [term for term in terms if term.target is _aten.slice_backward.default]
        if len(padded) < 2 or not _cover(padded):
            continue
        dim = padded[0].args[2]
        blocks = [term.args[0] for term in sorted(padded, key=lambda term: _range(term)[0])]
        with graph.graph.inserting_before(node):
            total = graph.graph.call_function(_aten.cat.default, (blocks, dim))
            total.meta["val"] = node.meta["val"]
            for term in terms:
                if term not in padded:
                    total = graph.graph.call_function(_aten.add.Tensor, (term, total))
                    total.meta["val"] = node.meta["val"]
        node.replace_all_uses_with(total)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def double_the_smaller(graph: GraphModule) -> None:
    """Replace a sum that has ``x * y`` twice by one with ``(x + x) * y``, ``x`` the smaller.

    Autograd of ``x * x`` makes such sums. To rounding: the terms are added in another order.
    """
    for node in list(graph.graph.nodes):
        if not _is_sum(node) or (len(node.users) == 1 and _is_sum(next(iter(node.users)))):
            continue  # not the last of a chain of sums
        terms = _terms(node)
        twice = [term for term in terms if terms.count(term) == 2 and _is_product(term)]
        if not twice or len(twice[0].users) > 2:
            continue
        call = _Builder(graph.graph)
        factors: Any = twice[0].args
        smaller, larger = sorted(factors, key=lambda arg: arg.meta["val"].numel())
        with graph.graph.inserting_before(node):
            total = call(_aten.mul.Tensor, call(_aten.add.Tensor, smaller, smaller), larger)
            for term in terms:
                if term is not twice[0]:
                    total = call(_aten.add.Tensor, total, term)
        node.replace_all_uses_with(total)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def sum_by_products(graph: GraphModule) -> None:
    """Replace the sum of each line of a matrix by its product with a column of ones.

    ExecuTorch's kernel for sums goes number by number; that for products is vectorised.
    """
    call = _Builder(graph.graph)
    for node in list(graph.graph.nodes):
        if node.target is not _aten.sum.dim_IntList or node.kwargs:
            continue
        lines, dims, *keep = node.args
        shape, dtype = lines.meta["val"].shape, lines.meta["val"].dtype
        if len(shape) != 2 or list(dims) not in ([1], [-1]) or dtype != torch.float32:
            continue
        with graph.graph.inserting_before(node):
            ones = graph.graph.call_function(
                _aten.full.default, ([shape[1], 1], 1.0), {"dtype": torch.float32}
            )
            ones.meta["val"] = lines.meta["val"].new_ones(shape[1], 1)
            total = call(_aten.mm.default, lines, ones)
            if not any(keep):
                total = call(_aten.squeeze.dim, total, 1)
        node.replace_all_uses_with(total)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _is_product(node: Node) -> bool:
    """Whether this multiplies two tensors."""
    return node.target is _aten.mul.Tensor and all(isinstance(arg, Node) for arg in node.args)


def _is_sum(node: Node) -> bool:
    """Whether this adds two tensors of the result's shape."""
    return (
        node.target is _aten.add.Tensor
        and not node.kwargs
        and all(
            isinstance(arg, Node) and arg.meta["val"].shape == node.meta["val"].shape
            for arg in node.args
        )
    )


def _terms(node: Node) -> list[Node]:
    """What a chain of sums adds, in its order; a sum that is used elsewhere is a term itself."""
    terms: list[Node] = []
    for arg in node.args:
        assert isinstance(arg, Node)
        terms += _terms(arg) if _is_sum(arg) and len(arg.users) == 1 else [arg]
    return terms


def _range(padded: Node) -> tuple[int, int]:
    """Where a ``slice_backward`` puts its block: from, to."""
    sizes, dim, start, end = padded.args[1:5]
    return start, min(end, sizes[dim])  # type: ignore[index, type-var, return-value]


def _cover(padded: list[Node]) -> bool:
    """Whether these blocks fill one dimension, each place once and without steps."""
    dim = padded[0].args[2]
    if any(term.args[2] != dim or term.args[5] != 1 for term in padded):
        return False
    ranges = sorted(_range(term) for term in padded)
    ends = [0, *(end for _, end in ranges)]
    size = padded[0].meta["val"].shape[dim]
    return [start for start, _ in ranges] == ends[:-1] and ends[-1] == size
