"""From methods on tensors to the bytes of a .pte."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.fx import GraphModule

from export.methods import Method
from export.quiet import quiet
from export.rewrite import rewrite


def lower(methods: Mapping[str, Method]) -> bytes:
    """Lower ``methods`` into one ExecuTorch program.

    XNNPACK takes what it can of the methods that ask for it; all else runs on ExecuTorch's own
    kernels. docs/export.md has the figures behind the choice.
    """
    with quiet():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import (
            EdgeCompileConfig,
            ExecutorchBackendConfig,
            to_edge_transform_and_lower,
        )
        from executorch.exir.passes import MemoryPlanningPass

        exported = {
            name: torch.export.export(trace(method), method.examples())
            for name, method in methods.items()
        }
        edge = to_edge_transform_and_lower(
            exported,
            partitioner={
                name: [XnnpackPartitioner()] if method.xnnpack else []
                for name, method in methods.items()
            },
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

    traced = make_fx(method.function, tracing_mode="fake")(*method.examples())
    return rewrite(traced, batched=method.xnnpack)
