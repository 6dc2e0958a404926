"""From methods on tensors to the bytes of a .pte."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.fx import GraphModule, Node

from export.methods import Method
from export.quiet import quiet

_aten = torch.ops.aten
_BROADCAST = {_aten.mul.Tensor, _aten.add.Tensor, _aten.sub.Tensor, _aten.div.Tensor}


def lower(methods: Mapping[str, Method]) -> bytes:
    """Lower ``methods`` into one ExecuTorch program that uses the portable kernels.

    No backend: the step is elementwise and bound by memory, and on the Android runtime XNNPACK's
    partitions were no faster (docs/export.md has the figures).
    """
    with quiet():
        from executorch.exir import (
            EdgeCompileConfig,
            ExecutorchBackendConfig,
            to_edge,
        )
        from executorch.exir.passes import MemoryPlanningPass

        exported = {
            name: torch.export.export(trace(method), method.examples())
            for name, method in methods.items()
        }
        edge = to_edge(
            exported,
            # The verifier knows core ATen only and refuses operators that portable kernels have.
            compile_config=EdgeCompileConfig(_check_ir_validity=False),
        )
        program = edge.to_executorch(
            # Inputs that are not planned are read where the caller has them: no copy.
            ExecutorchBackendConfig(
                memory_planning_pass=MemoryPlanningPass(alloc_graph_input=False)
            )
        )
        return bytes(program.buffer)


def trace(method: Method) -> GraphModule:
    """Trace a method, gradients included, to one flat graph of ATen operators.

    ``torch.export`` refuses ``torch.func`` transforms; ``make_fx`` follows them, and what it
    returns can be exported.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    return simplify(make_fx(method.function, tracing_mode="fake")(*method.examples()))


def simplify(graph: GraphModule) -> GraphModule:
    """Take out of a traced graph what costs time and changes no result."""
    from torch._functorch.compile_utils import fx_graph_cse

    drop_expands(graph)
    # Autograd of x * x makes the same product twice.
    graph = GraphModule(graph, fx_graph_cse(graph.graph))
    join_slices(graph)
    double_the_smaller(graph)
    return graph


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
    """Replace ``x * y + x * y`` by ``(x + x) * y``, with ``x`` the smaller: not a bit changes."""
    for node in list(graph.graph.nodes):
        product = node.args[0] if _is_sum(node) and node.args[0] is node.args[1] else None
        if product is None or product.target is not _aten.mul.Tensor or len(product.users) > 1:
            continue
        if not all(isinstance(arg, Node) for arg in product.args):
            continue
        smaller, larger = sorted(product.args, key=lambda arg: arg.meta["val"].numel())
        with graph.graph.inserting_before(node):
            doubled = graph.graph.call_function(_aten.add.Tensor, (smaller, smaller))
            doubled.meta["val"] = smaller.meta["val"]
            result = graph.graph.call_function(_aten.mul.Tensor, (doubled, larger))
            result.meta["val"] = node.meta["val"]
        node.replace_all_uses_with(result)
    graph.graph.eliminate_dead_code()
    graph.recompile()


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
