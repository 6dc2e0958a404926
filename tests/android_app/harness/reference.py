"""The harness's whole loop once more, written from docs/formats.md on dense matrices.

Nothing is packed and no exported program runs: the table is a dense matrix with a mask, gradients
come from PyTorch's autograd on that matrix, and every choice is a plain sort.
"""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file

MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15


def mix(z: int) -> int:
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
    return z ^ (z >> 31)


def draw(seed: int, stream: int, step: int, i: int, n: int) -> int:
    """An integer in [0, n)."""
    z = seed
    for part in (stream, step, i):
        z = mix((z + GOLDEN * (part + 1)) & MASK)
    return ((z >> 33) * n) >> 31


class Reference:
    """Trains the bundle; ``table`` and ``mask`` are (N, d), ``losses`` of the steps done."""

    def __init__(self, bundle: Path) -> None:
        self.manifest: dict[str, Any] = json.loads((bundle / "manifest.json").read_text())
        self.training: dict[str, Any] = self.manifest["training"]
        self.table, self.mask = unpack(bundle / "table.safetensors", self.manifest["dim"])
        pairs = load_file(bundle / "interactions.safetensors")
        self.log = list(zip(pairs["log_users"].tolist(), pairs["log_items"].tolist(), strict=True))
        self.later: dict[int, set[int]] = {}
        later = zip(pairs["later_users"].tolist(), pairs["later_items"].tolist(), strict=True)
        for user, item in later:
            self.later.setdefault(user, set()).add(item)
        ends = pairwise(pairs["seen_ptr"].tolist())
        self.past = [set(pairs["seen_items"][a:b].tolist()) for a, b in ends]
        for user, item in self.log:
            self.past[user].add(item)
        self.losses: list[float] = []
        self.sampled: list[int] = []
        self.sums = np.zeros_like(self.table)

    def run(self, steps: int) -> None:
        for step in range(len(self.losses), steps):
            self._step(step)

    def _step(self, step: int) -> None:
        window = self.training["window"]
        if step % window == 0:
            self.sampled = self._sampled_rows(step // window)
            self.sums[:] = 0
        triples = [self._triple(step, b) for b in range(self.training["batch_size"])]
        users, positives, negatives = np.array(triples).T
        dense = torch.from_numpy(self.table).requires_grad_()
        u, p, n = (dense[torch.from_numpy(rows)] for rows in (users, positives, negatives))
        squares = (u * u + p * p + n * n).sum(dim=1)
        margins = (u * p).sum(dim=1) - (u * n).sum(dim=1)
        loss = (torch.log1p(torch.exp(-margins)) + self.training["l2"] / 2 * squares).mean()
        (grads,) = torch.autograd.grad(loss, dense)
        gradients = grads.numpy()
        self.sums[self.sampled] += gradients[self.sampled]
        self.table = self.table - np.float32(self.training["learning_rate"]) * gradients * self.mask
        self.losses.append(loss.item())
        done, end = step + 1, self.training["exchange_stop"] * self.training["steps"]
        if done % window == 0 and done < end:
            cosine = 1 + math.cos(math.pi * done / end)
            self._exchange(self.training["exchange_fraction"] / 2 * cosine)

    def _triple(self, step: int, b: int) -> tuple[int, int, int]:
        seed, tries = self.training["seed"], self.training["negative_tries"]
        user, item = self.log[draw(seed, 0, step, b, len(self.log))]
        drawn = [
            draw(seed, 1, step, b * tries + t, self.manifest["known_items"]) for t in range(tries)
        ]
        negative = next((i for i in drawn if i not in self.past[user]), drawn[-1])
        return user, self.manifest["num_users"] + item, self.manifest["num_users"] + negative

    def _sampled_rows(self, window: int) -> list[int]:
        size = max(1, math.floor(self.training["sampled_fraction"] * len(self.table) + 0.5))
        rows: dict[int, None] = {}
        for i in range(16 * size):
            user, item = self.log[draw(self.training["seed"], 2, window, i, len(self.log))]
            rows |= {user: None, self.manifest["num_users"] + item: None}
        return sorted(list(rows)[:size])

    def _exchange(self, fraction: float) -> None:
        places = [(row, col) for row in self.sampled for col in range(self.manifest["dim"])]
        active = [place for place in places if self.mask[place]]
        grow = [place for place in places if not self.mask[place] and self.sums[place] != 0]
        grow.sort(key=lambda place: -abs(self.sums[place]))  # stable: ties stay in (row, col) order
        left = {row: int(self.mask[row].sum()) for row in self.sampled}
        drop = []
        for row, col in sorted(active, key=lambda place: abs(self.table[place])):
            if left[row] > self.manifest["floor"]:
                left[row] -= 1
                drop.append((row, col))
        count = min(math.floor(fraction * len(active)), len(grow), len(drop))
        for place in drop[:count]:
            self.mask[place] = False
            self.table[place] = 0
        for place in grow[:count]:
            self.mask[place] = True

    def quality(self) -> dict[str, float]:
        """Recall@20 and NDCG@20 by sorting every user's candidates."""
        items = self.table[self.manifest["num_users"] :]
        recalls, ndcgs = [], []
        for user, wanted in self.later.items():
            candidates = sorted(set(range(self.manifest["known_items"])) - self.past[user])
            scores = {item: float(items[item] @ self.table[user]) for item in candidates}
            ranked = sorted(candidates, key=lambda item: -scores[item])[:20]
            gains = [1 / math.log2(k + 2) for k, item in enumerate(ranked) if item in wanted]
            ideal = sum(1 / math.log2(k + 2) for k in range(min(20, len(wanted))))
            recalls.append(len(gains) / len(wanted))
            ndcgs.append(sum(gains) / ideal)
        return {
            "recall@20": float(np.mean(recalls)),
            "ndcg@20": float(np.mean(ndcgs)),
            "users": len(recalls),
        }


def unpack(path: Path, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Read a table or a checkpoint: values and mask, (N, d)."""
    tensors = load_file(path)
    rows = np.repeat(np.arange(len(tensors["row_ptr"]) - 1), np.diff(tensors["row_ptr"]))
    values = np.zeros((len(tensors["row_ptr"]) - 1, dim), np.float32)
    mask = np.zeros(values.shape, np.bool_)
    values[rows, tensors["cols"]] = tensors["vals"]
    mask[rows, tensors["cols"]] = True
    return values, mask
