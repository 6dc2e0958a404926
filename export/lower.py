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
    from torch._functorch.compile_utils import fx_graph_cse
    from torch.fx.experimental.proxy_tensor import make_fx

    graph = make_fx(method.function, tracing_mode="fake")(*method.examples())
    drop_expands(graph)
    # Autograd of x * x makes the same product twice.
    return GraphModule(graph, fx_graph_cse(graph.graph))


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
