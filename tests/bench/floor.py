"""How fast this machine can be, and what that says of a step."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import torch
from torch.fx import Node

from export.lower import trace
from export.methods import Method
from tests.bench.bundles import BATCH, DIM
from tests.bench.measure import timed

FLOAT = 4
"""Bytes of a float32, and of an int32."""
SIDE = 512
_aten = torch.ops.aten
_PRODUCTS = {_aten.mm, _aten.bmm}
_SUMS = {_aten.sum}
_MOVES = {
    *(_aten.slice, _aten.cat, _aten.embedding, _aten.expand, _aten.repeat, _aten.full),
    *(_aten.ones_like, _aten.zeros_like, _aten.t, _aten.transpose, _aten.permute, _aten.clone),
    *(_aten.view, _aten._unsafe_view, _aten.squeeze, _aten.unsqueeze, _aten.select),
    *(_aten.slice_backward, _aten.split, _aten.detach, _aten.alias, _aten.new_zeros),
}


def machine() -> dict[str, float]:
    """Measure one thread: copies inside the second cache and in memory, and multiply-adds.

    The best of many short pieces, so that other work on the machine spares one of them.
    """
    square = torch.rand(SIDE, SIDE)
    return {
        "cache_gb_per_s": _copies(3 * BATCH * DIM, 3000),
        "memory_gb_per_s": _copies(16 << 20, 30),
        "gflop_per_s": 2 * SIDE**3 / min(timed(lambda: square @ square)(100)),
    }


def _copies(floats: int, repetitions: int) -> float:
    """Give bytes read and written a nanosecond, at best."""
    source = torch.rand(floats)
    target = source.clone()
    return 2 * FLOAT * floats / min(timed(lambda: target.copy_(source))(repetitions))


def step(methods: Mapping[str, Method]) -> dict[str, float]:
    """Count what a step must move and calculate, whatever the kernels are.

    Bytes: every input read once and every output written once; what is between them could stay in
    registers. Operations: 2 a multiply-add of a matrix product, 1 a number of any other operator's
    result, or of what is summed; none for what only moves numbers.
    """
    specs = [spec for method in methods.values() for spec in (*method.inputs, *method.outputs)]
    graphs = [trace(method).graph for method in methods.values()]
    return {
        "bytes": FLOAT * sum(prod(spec.shape) for spec in specs),
        "flops": sum(_operations(node) for graph in graphs for node in graph.nodes),
    }


def _operations(node: Node) -> int:
    packet = getattr(node.target, "overloadpacket", None)
    if packet is None or packet in _MOVES:
        return 0
    if packet in _PRODUCTS:
        left, right = (_size(arg) for arg in node.args[:2])
        return 2 * prod(left) * right[-1]
    return prod(_size(node.args[0] if packet in _SUMS else node))


def _size(node: Any) -> torch.Size:
    size: torch.Size = node.meta["val"].shape
    return size


def least_us(needs: Mapping[str, float], machine: Mapping[str, float]) -> float:
    """Give the microseconds that a step takes at the speed of the cache and the peak."""
    return (
        max(needs["bytes"] / machine["cache_gb_per_s"], needs["flops"] / machine["gflop_per_s"])
        / 1000
    )
