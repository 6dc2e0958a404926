"""A device in plain Python, written from docs/formats.md alone: sections 1, 2, 4 and 5.

It shares no code with the pipeline: integers, dictionaries and the exported programs. It is what
the golden losses are held against, and a reading aid for the harness in Kotlin.
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

from export import verify

MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15


def mix(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def draw(seed: int, stream: int, step: int, i: int) -> int:
    z = mix((seed + GOLDEN * (stream + 1)) & MASK)
    z = mix((z + GOLDEN * (step + 1)) & MASK)
    return mix((z + GOLDEN * (i + 1)) & MASK)


def bounded(r: int, n: int) -> int:
    return ((r >> 33) * n) >> 31


class Device:
    """Trains a bundle. ``rows[r]`` maps active columns to values; ``step`` counts steps done."""

    def __init__(self, bundle: Path) -> None:
        self.m: dict[str, Any] = json.loads((bundle / "manifest.json").read_text())
        self.t: dict[str, Any] = self.m["training"]
        table = load_file(bundle / "table.safetensors")
        ptr, cols = table["row_ptr"].tolist(), table["cols"].tolist()
        vals = table["vals"].astype(np.float32)
        if self.m["precision"] == "int8":
            for r, (start, stop) in enumerate(pairwise(ptr)):
                vals[start:stop] *= table["scales"][r]
        self.graph: list[list[int]] = []
        if (bundle / "graph.safetensors").exists():
            graph = load_file(bundle / "graph.safetensors")
            ends, rows = graph["graph_ptr"].tolist(), graph["graph_rows"].tolist()
            self.graph = [rows[start:stop] for start, stop in pairwise(ends)]
        self.rows = [
            {cols[k]: vals[k] for k in range(ptr[r], ptr[r + 1])} for r in range(len(ptr) - 1)
        ]
        pairs = load_file(bundle / "interactions.safetensors")
        self.log = list(zip(pairs["log_users"].tolist(), pairs["log_items"].tolist(), strict=True))
        seen_ptr, seen = pairs["seen_ptr"].tolist(), pairs["seen_items"].tolist()
        self.liked = [set(seen[a:b]) for a, b in pairwise(seen_ptr)]
        for user, item in self.log:
            self.liked[user].add(item)
        self.flat = [table["dense"]] if self.m["dense"] else []
        for spec in self.specs("gradients", "dense_state"):
            self.flat.append(np.zeros(spec["shape"], np.float32))
        names = [spec["name"] for spec in self.specs("update", "state")]
        self.state: list[dict[tuple[int, int], np.float32]] = [{} for _ in names]
        self.second = self.state[-1] if self.t["optimizer"] in ("adagrad", "adam") else None
        self.run = verify.load((bundle / "step.pte").read_bytes())
        self.step = 0
        self.sampled: list[int] = []
        self.sums: dict[int, np.ndarray] = {}
        self.exchanges: list[int] = []

    def specs(self, method: str, role: str) -> list[dict[str, Any]]:
        """The inputs of a method of step.pte that have a role."""
        inputs = self.m["programs"]["step"]["methods"][method]["inputs"]
        return [spec for spec in inputs if spec["role"] == role]

    def rates(self, method: str) -> list[np.ndarray]:
        """What changes with the step: section 2.2."""
        done, rate = self.step + 1, self.t["learning_rate"]
        if self.t["optimizer"] == "adam":
            rate /= 1 - 0.9**done
        values = {"learning_rate": rate, "correction": 1 - 0.999**done}
        return [
            np.array([value], np.float32)
            for role, value in values.items()
            if self.specs(method, role)
        ]

    def slots(self) -> list[int]:
        """Draw the batch: rows of users, of positives, of negatives."""
        seed, tries, known = self.t["seed"], self.t["negative_tries"], self.m["known_items"]
        users, positives, negatives = [], [], []
        for b in range(self.t["batch_size"]):
            user, item = self.log[bounded(draw(seed, 0, self.step, b), len(self.log))]
            users.append(user)
            positives.append(self.m["num_users"] + item)
            if self.t["loss"] in ("bpr-shared", "softmax"):
                continue
            for t in range(tries):
                negative = bounded(draw(seed, 1, self.step, b * tries + t), known)
                if negative not in self.liked[user]:
                    break
            negatives.append(self.m["num_users"] + negative)
        for k in range(self.t["negatives"]):
            negatives.append(self.m["num_users"] + bounded(draw(seed, 3, self.step, k), known))
        return users + positives + negatives

    def neighbours(self, row: list[int], shape: list[int]) -> tuple[list[int], list[np.ndarray]]:
        """Fill a tile and its lists: section 2.3."""
        size, width = shape
        lists = [np.zeros(shape, np.int32 if k % 2 == 0 else np.float32) for k in range(4)]
        row, m = list(row), [0] * size
        opened: dict[int, int] = {}
        for slot, r in enumerate(row):
            opened.setdefault(r, slot)
        n: dict[int, int] = {}
        while len(n) < len(row):
            asking = range(len(n), len(row))
            n |= dict.fromkeys(asking, 0)
            for k in range(width):
                for s in asking:
                    mine = self.graph[row[s]]
                    if k >= len(mine):
                        continue
                    u = (draw(self.t["seed"], 7, self.step, s) >> 40) / 2**24
                    q = mine[int((u + k) * max(1.0, len(mine) / width))]
                    t = opened.get(q, -1)
                    if t < 0 or m[t] == width:
                        if len(row) == size:
                            continue
                        t = opened[q] = len(row)
                        row.append(q)
                    lists[0][s, n[s]], lists[2][t, m[t]] = t, s
                    n[s], m[t] = n[s] + 1, m[t] + 1
        for s in n:
            for k in range(n[s]):
                t = lists[0][s, k]
                weight = math.sqrt(len(self.graph[row[s]]) / len(self.graph[row[t]])) / n[s]
                lists[1][s, k] = lists[3][t, lists[2][t, : m[t]].tolist().index(s)] = weight
        return row, lists

    def begin_window(self) -> None:
        size = max(1, math.floor(self.t["sampled_fraction"] * len(self.rows) + 0.5))
        chosen: list[int] = []
        for i in range(16 * size):
            r = draw(self.t["seed"], 2, self.step // self.t["window"], i)
            user, item = self.log[bounded(r, len(self.log))]
            for row in (user, self.m["num_users"] + item):
                if row not in chosen and len(chosen) < size:
                    chosen.append(row)
        self.sampled = sorted(chosen)
        self.sums = {row: np.zeros(self.m["dim"], np.float32) for row in self.sampled}

    def run_step(self) -> float:
        if self.step % self.t["window"] == 0:
            self.begin_window()
        slots, lists = self.slots(), []
        for spec in self.specs("gradients", "neighbours"):
            slots, lists = self.neighbours(slots, spec["shape"])
        (tile_spec,) = self.specs("gradients", "tile")
        size, dim = tile_spec["shape"]
        tile, mask = np.zeros((2, size, dim), np.float32)
        sampled = np.zeros((size, 1), np.float32)
        for slot, row in enumerate(slots):
            for col, value in self.rows[row].items():
                tile[slot, col], mask[slot, col] = value, 1
            sampled[slot] = row in self.sums
        weight = np.ones(self.t["batch_size"], np.float32)
        inputs = [tile, mask, sampled, weight, *lists, *self.flat, *self.rates("gradients")]
        loss, grads, *flat = self.run("gradients", *map(torch.from_numpy, inputs))
        self.flat = [values.numpy() for values in flat]
        summed: dict[int, np.ndarray] = {}
        for slot, row in enumerate(slots):
            summed.setdefault(row, np.zeros(dim, np.float32))
            summed[row] += grads[slot].numpy()
        self.update(summed)
        for row in summed:
            self.round(row)
        for row in summed.keys() & self.sums.keys():
            self.sums[row] += summed[row]
        self.end_window()
        self.step += 1
        return float(loss)

    def update(self, summed: dict[int, np.ndarray]) -> None:
        step_info = self.m["programs"]["step"]["methods"]["update"]
        (chunk,) = step_info["inputs"][0]["shape"]
        entries = [(row, col) for row in summed for col in sorted(self.rows[row])]
        for start in range(0, len(entries), chunk):
            part = entries[start : start + chunk]
            vals, grads = np.zeros((2, chunk), np.float32)
            vals[: len(part)] = [self.rows[row][col] for row, col in part]
            grads[: len(part)] = [summed[row][col] for row, col in part]
            state = np.zeros((len(self.state), chunk), np.float32)
            for values, known in zip(state, self.state, strict=True):
                values[: len(part)] = [known.get(entry, 0) for entry in part]
            inputs = [vals, grads, *state, *self.rates("update")]
            new, *moved = self.run("update", *map(torch.from_numpy, inputs))
            for (row, col), value in zip(part, new.numpy(), strict=False):
                self.rows[row][col] = value
            for known, values in zip(self.state, moved, strict=True):
                known.update(zip(part, values.numpy(), strict=False))

    def round(self, row: int) -> None:
        """Store a row and read it again: section 1.7."""
        values = self.rows[row]
        if self.m["precision"] == "float16":
            self.rows[row] = {col: np.float32(np.float16(v)) for col, v in values.items()}
        if self.m["precision"] == "int8":
            scale = np.float32(max(map(abs, values.values()), default=0)) / np.float32(127)
            for col, value in values.items():
                r = draw(self.t["seed"], 5, self.step, row * self.m["dim"] + col)
                u = (r >> 40) * 2.0**-24
                level = math.floor(float(value) / float(scale) + u) if scale else 0
                values[col] = np.float32(max(-127, min(127, level))) * scale

    def end_window(self) -> None:
        done, end = self.step + 1, self.t["exchange_stop"] * self.t["steps"]
        if done % self.t["window"] or done >= end:
            return
        f = self.t["exchange_fraction"] / 2 * (1 + math.cos(math.pi * done / end))
        active = sum(len(self.rows[row]) for row in self.sampled)
        grow = sorted(
            (-abs(self.sums[row][col]), row, col)
            for row in self.sampled
            for col in range(self.m["dim"])
            if col not in self.rows[row] and self.sums[row][col] != 0
        )
        left = {row: len(self.rows[row]) for row in self.sampled}
        drop = []
        weakest = sorted(
            (abs(value), r, col) for r in self.sampled for col, value in self.rows[r].items()
        )
        for _, row, col in weakest:
            if left[row] > self.m["floor"]:
                left[row] -= 1
                drop.append((row, col))
        n = min(math.floor(f * active), len(grow), len(drop))
        means = {row: self._second_moment(row) for _, row, _ in grow[:n]}
        for row, col in drop[:n]:
            del self.rows[row][col]
            for known in self.state:
                known.pop((row, col), None)
        for _, row, col in grow[:n]:
            self.rows[row][col] = np.float32(0)
            if self.second is not None:
                self.second[row, col] = means[row]
        self.exchanges.append(n)

    def _second_moment(self, row: int) -> np.float32:
        """Average what the row's entries have of it: docs/formats.md section 5."""
        entries = sorted(self.rows[row])
        if self.second is None or not entries:
            return np.float32(0)
        total = sum(float(self.second.get((row, col), 0)) for col in entries)
        return np.float32(total / len(entries))
