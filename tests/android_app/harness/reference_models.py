"""NeuMF, NGCF and LightGCN once more: the papers' equations on a dense tile, by autograd.

Nothing here is of ``pipeline`` or ``export``: neighbours are drawn as docs/formats.md section 2.3
says, their sums are products with a dense matrix, and the optimizers are written from their papers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file
from torch import Tensor

from tests.android_app.harness.reference import Reference, draw

Dense = dict[str, Tensor]
LAYERS = 3


class ModelReference(Reference):
    """Trains a bundle of these models with BPR, by Adam or Adagrad; ``dense`` are parameters."""

    def __init__(self, bundle: Path) -> None:
        super().__init__(bundle)
        table = load_file(bundle / "table.safetensors")
        self.dense = torch.from_numpy(table.get("dense", np.zeros(0, np.float32)))
        self.graph: list[list[int]] = []
        self.slots, self.fanout = 0, 0
        if (bundle / "graph.safetensors").exists():
            graph = load_file(bundle / "graph.safetensors")
            ptr = graph["graph_ptr"].tolist()
            rows = graph["graph_rows"].tolist()
            self.graph = [rows[a:b] for a, b in pairwise(ptr)]
            inputs = self.manifest["programs"]["step"]["methods"]["gradients"]["inputs"]
            (self.slots, self.fanout) = next(
                spec["shape"] for spec in inputs if spec["role"] == "neighbours"
            )
        # First and second moments (Adagrad: sums of squares), of entries and dense parameters.
        self.moments = np.zeros((2, *self.table.shape), np.float32)
        self.dense_moments = np.zeros((2, len(self.dense)), np.float32)

    def _step(self, step: int) -> None:
        window = self.training["window"]
        if step % window == 0:
            self.sampled = self._sampled_rows(step // window)
            self.sums[:] = 0
        size = self.training["batch_size"]
        triples = np.array([self._triple(step, b) for b in range(size)])
        slots = [*triples[:, 0].tolist(), *triples[:, 1].tolist(), *triples[:, 2].tolist()]
        around = None
        if self.graph:
            slots, around = self._neighbourhood(step, slots)
        table = torch.from_numpy(self.table).requires_grad_()
        flat = self.dense.clone().requires_grad_()
        loss = self._loss(table[torch.tensor(slots)], around, self._named(flat), size)
        loss.backward()  # type: ignore[no-untyped-call]
        assert table.grad is not None
        gradients = table.grad.numpy()
        self.sums[self.sampled] += gradients[self.sampled]
        touched = np.zeros_like(self.mask)
        touched[sorted(set(slots))] = True
        self.table = self.table.copy()
        self._move(step, self.table, gradients, self.moments, touched & self.mask)
        if flat.grad is not None:
            dense = self.dense.numpy().copy()
            self._move(step, dense, flat.grad.numpy(), self.dense_moments, dense == dense)
            self.dense = torch.from_numpy(dense)
        self.losses.append(loss.item())
        done, end = step + 1, self.training["exchange_stop"] * self.training["steps"]
        if done % window == 0 and done < end:
            before = self.mask.copy()
            cosine = 1 + math.cos(math.pi * done / end)
            self._exchange(self.training["exchange_fraction"] / 2 * cosine)
            means = [float(v[row].mean()) if row.any() else 0.0 for v, row in self._second(before)]
            self.moments[:, before != self.mask] = 0
            grown = self.mask & ~before
            self.moments[1][grown] = np.float32(means)[np.nonzero(grown)[0]]

    def _second(self, active: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Give each row's second moments, float64, and which of its entries are active."""
        return zip(self.moments[1].astype(np.float64), active, strict=True)

    def _loss(self, tile: Tensor, around: Tensor | None, dense: Dense, size: int) -> Tensor:
        if self.manifest["model"] == "neumf":
            users = torch.cat([tile[:size], tile[:size]])
            scores = neumf(users, tile[size : 3 * size], dense)
            positive, negative = scores[:size], scores[size:]
        else:
            assert around is not None
            model = ngcf if self.manifest["model"] == "ngcf" else lightgcn
            vectors = model(tile, around, dense)
            user, item, other = (vectors[k * size : (k + 1) * size] for k in range(3))
            positive, negative = (user * item).sum(1), (user * other).sum(1)
        squares = (tile[: 3 * size] ** 2).sum(1).view(3, size).sum(0)
        losses = torch.log1p(torch.exp(negative - positive))
        return (losses + self.training["l2"] / 2 * squares).mean()

    def _named(self, flat: Tensor) -> Dense:
        found, start = {}, 0
        for spec in self.manifest["dense"]:
            count = math.prod(spec["shape"])
            found[spec["name"]] = flat[start : start + count].view(spec["shape"])
            start += count
        return found

    def _move(
        self,
        step: int,
        values: np.ndarray,
        gradients: np.ndarray,
        moments: np.ndarray,
        moved: np.ndarray,
    ) -> None:
        """Move values: Kingma and Ba, algorithm 1; Duchi, Hazan and Singer, figure 1 (diagonal)."""
        m, v = moments
        g = gradients[moved]
        if self.training["optimizer"] == "adagrad":
            v[moved] += g * g
            values[moved] -= self.training["learning_rate"] * g / (np.sqrt(v[moved]) + 1e-10)
            return
        assert self.training["optimizer"] == "adam"
        m[moved] = 0.9 * m[moved] + 0.1 * g
        v[moved] = 0.999 * v[moved] + 0.001 * g * g
        mean = m[moved] / (1 - 0.9 ** (step + 1))
        square = v[moved] / (1 - 0.999 ** (step + 1))
        values[moved] -= self.training["learning_rate"] * mean / (np.sqrt(square) + 1e-8)

    def _neighbourhood(self, step: int, given: list[int]) -> tuple[list[int], Tensor]:
        """Draw a tile: its rows, and the matrix that sums each slot's neighbours."""
        slots, newest = list(given), {}
        for slot, row in enumerate(given):
            newest.setdefault(row, slot)
        readers = dict.fromkeys(range(self.slots), 0)
        around = torch.zeros(self.slots, self.slots)
        edges: list[list[int]] = []
        while len(edges) < len(slots):
            hop = range(len(edges), len(slots))
            wanted = [self._chosen(step, slot, slots[slot]) for slot in hop]
            edges += [[] for _ in hop]
            by_turns = [
                (slot, chosen[turn])
                for turn in range(self.fanout)
                for slot, chosen in zip(hop, wanted, strict=True)
                if turn < len(chosen)
            ]
            for slot, other in by_turns:
                place = newest.get(other)
                if place is None or readers[place] == self.fanout:
                    if len(slots) == self.slots:
                        continue
                    place = len(slots)
                    slots.append(other)
                    newest[other] = place
                readers[place] += 1
                edges[slot].append(place)
        for slot, places in enumerate(edges):
            for place in places:
                ratio = len(self.graph[slots[slot]]) / len(self.graph[slots[place]])
                around[slot, place] += math.sqrt(ratio) / len(places)
        return slots, around[: len(slots), : len(slots)]

    def _chosen(self, step: int, slot: int, row: int) -> list[int]:
        """Draw the rows that a slot asks for."""
        all_of_them = self.graph[row]
        if len(all_of_them) <= self.fanout:
            return all_of_them
        chance = draw(self.training["seed"], 7, step, slot, 1 << 24) / (1 << 24)
        part = len(all_of_them) / self.fanout
        return [all_of_them[int((chance + k) * part)] for k in range(self.fanout)]


def neumf(users: Tensor, items: Tensor, dense: Dense) -> Tensor:
    """He et al., WWW 2017, equations 8 to 12 without the sigmoid; halves of a row for each part."""
    half = users.shape[1] // 2
    hidden = torch.cat([users[:, half:], items[:, half:]], dim=1)
    for layer in range(LAYERS):
        weight, bias = dense[f"layer{layer}.weight"], dense[f"layer{layer}.bias"]
        hidden = hidden @ weight.T + bias
        hidden = hidden * (hidden > 0)  # at 0, where untouched rows meet, the gradient is 0
    products = users[:, :half] * items[:, :half]
    return products @ dense["output.gmf"] + hidden @ dense["output.mlp"]


def lightgcn(rows: Tensor, around: Tensor, _: Dense) -> Tensor:
    """He et al., SIGIR 2020, equations 3 and 4 with equal weights."""
    layers = [rows]
    for _layer in range(LAYERS):
        layers.append(around @ layers[-1])
    return torch.stack(layers).mean(dim=0)


def ngcf(rows: Tensor, around: Tensor, dense: Dense) -> Tensor:
    """Wang et al., SIGIR 2019, equations 7 and 9, each layer's output scaled to length 1."""
    vectors = [rows]
    for layer in range(LAYERS):
        near = around @ rows
        own, product = f"sum{layer}", f"product{layer}"
        message = (rows + near) @ dense[f"{own}.weight"].T + dense[f"{own}.bias"]
        message = message + (near * rows) @ dense[f"{product}.weight"].T
        message = message + dense[f"{product}.bias"]
        rows = torch.where(message > 0, message, 0.2 * message)
        vectors.append(rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-6))
    return torch.cat(vectors, dim=1)
