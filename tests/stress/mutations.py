"""Damages to a bundle. A *resealed* one has its hashes brought up to date in the manifest, so that
the checks behind the hashes are reached."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

TENSOR_FILES = ("table.safetensors", "interactions.safetensors", "ids.safetensors")
PROGRAMS = ("step.pte", "score.pte")
OTHERS = (*TENSOR_FILES, *PROGRAMS, "golden.json")
FILES = ("manifest.json", *OTHERS)


@dataclass(frozen=True)
class Mutation:
    """What was done. An error about it must name one of ``files`` and, if there are any, one of
    ``words``: the field or tensor, or those that contradict it."""

    family: str
    what: str
    files: tuple[str, ...]
    words: tuple[str, ...] = ()
    hashed: bool = False
    """The manifest still has the hash of what was damaged: other bytes must be refused."""


@dataclass(frozen=True)
class Bundles:
    """An untouched bundle, and others whose files are valid too: ``twin`` of the same shapes, with
    other data; ``stranger`` of other shapes."""

    whole: Path
    twin: Path
    stranger: Path


def mutate(bundle: Path, bundles: Bundles, chance: random.Random) -> Mutation:
    """Damage ``bundle``, a copy of ``bundles.whole``, in one random way."""
    families: dict[Callable[[Path, Bundles, random.Random], Mutation], int] = {
        damaged_file: 6,
        damaged_manifest: 3,
        changed_field: 8,
        changed_header: 4,
        changed_tensor: 5,
        changed_golden: 2,
    }
    (family,) = chance.choices(list(families), list(families.values()))
    return family(bundle, bundles, chance)


def damaged_file(bundle: Path, bundles: Bundles, chance: random.Random) -> Mutation:
    """A file that the manifest has the hash of, damaged as storage or a copy may damage it."""
    name = chance.choice(OTHERS)
    what = damage(bundle, name, bundles, chance)
    return Mutation("file", what, (name, what.rpartition(" ")[2]), hashed=True)


def damaged_manifest(bundle: Path, bundles: Bundles, chance: random.Random) -> Mutation:
    """The manifest's own bytes; nothing holds its hash."""
    what = damage(bundle, "manifest.json", bundles, chance)
    return Mutation("manifest bytes", what, FILES)


BYTES = ("cut", "bits", "bits", "zeros", "noise", "longer", "stranger")
"""Kinds of damage that leave a file in its place."""


def damage(
    bundle: Path,
    name: str,
    bundles: Bundles,
    chance: random.Random,
    kinds: tuple[str, ...] = (*BYTES, "swap", "twin", "gone", "dir"),
) -> str:
    """Damage one file's bytes; says how. A swapped file's partner is the last word."""
    path = bundle / name
    data = bytearray(path.read_bytes())
    place = chance.randrange(len(data))
    kind = chance.choice(kinds)
    if kind == "cut":
        del data[place:]
    elif kind == "bits":
        for _ in range(chance.choice((1, 1, 1, 8))):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    elif kind == "zeros":
        length = min(chance.randint(1, 4096), len(data) - place)
        data[place : place + length] = bytes(length)
    elif kind == "noise":
        data[:] = chance.randbytes(chance.choice((len(data), chance.randrange(1, 20_000))))
    elif kind == "longer":
        data += chance.randbytes(chance.randint(1, 5000))
    elif kind == "swap":
        other = chance.choice([file for file in FILES if file != name])
        data[:] = (bundle / other).read_bytes()
        shutil.copy(path, bundle / other)
        path.write_bytes(data)
        return f"{name}: swapped with {other}"
    elif kind in {"twin", "stranger"}:
        data[:] = (getattr(bundles, kind) / name).read_bytes()
    else:
        path.unlink()
        if kind == "dir":
            path.mkdir()
        return f"{name}: {kind}"
    path.write_bytes(data)
    return f"{name}: {kind} at {place}"


Json = Any
VALUES: tuple[Json, ...] = (
    *(None, True, False, "", "x", "../step.pte", "/etc/passwd", "step.pte", "score.pte"),
    *(-1, 0, 1, 2, 3, 2**31 - 2, 2**31 - 1, 2**31, 2**63 - 1, 2**63, -(2**63)),
    *(0.5, -0.5, 1e-320, 1e39, 1e308, float("nan"), float("inf"), [], {}, [[]], [0], [1, 2**62]),
)


Place = tuple[str | int, ...]


def children(value: Json) -> list[tuple[str | int, Json]]:
    if isinstance(value, dict):
        return list(value.items())
    return list(enumerate(value)) if isinstance(value, list) else []


def paths(value: Json, above: Place = ()) -> list[Place]:
    """Places of all values inside ``value``."""
    below = [path for key, child in children(value) for path in paths(child, (*above, key))]
    return [*((*above, key) for key, _ in children(value)), *below]


def walk(value: Json, chance: random.Random) -> Place:
    """A random place inside ``value``. Unlike a choice among ``paths`` this favours what has few
    brothers, and so does not drown a manifest's sizes in its list of operators."""
    path: Place = ()
    while children(value) and (not path or chance.random() < 0.9):
        key, value = chance.choice(children(value))
        path = (*path, key)
    return path


def change_json(root: Json, chance: random.Random) -> Place:
    """Change one value of ``root`` in place; returns where, and what other name was involved."""
    path = chance.choice((chance.choice(paths(root)), walk(root, chance)))
    holder = root
    for key in path[:-1]:
        holder = holder[key]
    last, value = path[-1], holder[path[-1]]
    kinds = ["put", "remove", "again", "exchange"]
    if isinstance(value, int | float) and not isinstance(value, bool):
        kinds += ["nudge"] * 3
    if isinstance(holder, dict):
        kinds += ["rename"]
    kind = chance.choice(kinds)
    if kind == "put":
        holder[last] = chance.choice(VALUES)
    elif kind == "nudge":
        factor, shift = chance.choice(((1, 1), (1, -1), (2, 0), (-1, 0), (0, 0), (0.5, 0)))
        holder[last] = type(value)(value * factor + shift)
    elif kind == "remove":
        del holder[last]
    elif kind == "again" and isinstance(holder, list):
        holder.insert(int(last), value)
    elif kind == "rename":
        holder[f"{last}x"] = holder.pop(last)
        return (*path, f"{last}x")
    else:
        other, _ = chance.choice(children(holder))
        holder[last], holder[other] = holder[other], holder[last]
        return (*path, other)
    return path


SIZES = {
    "num_users": ("known_users", "seen_ptr", "row_ptr", "num_items"),
    "num_items": ("known_items", "row_ptr"),
    "known_users": ("log_users", "later_users"),
    "known_items": ("log_items", "later_items", "seen_items"),
    "dim": ("floor", "cols", "tile", "mask", "user", "items", "gradient"),
    "nnz": ("cols", "vals", "row_ptr"),
    "floor": ("row_ptr",),
    "steps": ("losses",),
}
"""Where a contradiction with a size of the manifest shows up."""


def changed_field(bundle: Path, bundles: Bundles, chance: random.Random) -> Mutation:
    """One to three fields of the manifest."""
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    changed = [change_json(manifest, chance) for _ in range(chance.choice((1, 1, 1, 1, 2, 3)))]
    path.write_text(json.dumps(manifest))
    words = {str(key).removesuffix(".pte") for where in changed for key in where}
    words |= {telling for word in words for telling in SIZES.get(word, ())}
    if "programs" in words:
        words |= {"role", "method", "program", "operators"}
    shown = ", ".join(".".join(map(str, where)) for where in changed)
    return Mutation("manifest field", shown, FILES, tuple(sorted(words)))


def changed_golden(bundle: Path, bundles: Bundles, chance: random.Random) -> Mutation:
    """A field of the golden losses, resealed."""
    path = bundle / "golden.json"
    golden = json.loads(path.read_text())
    where = change_json(golden, chance)
    path.write_text(json.dumps(golden))
    reseal(bundle)
    words = {str(key) for key in where} | {"losses", "steps"}
    shown = ".".join(map(str, where))
    return Mutation("golden, resealed", shown, ("golden.json",), tuple(sorted(words)))


PAIRS = ("log_users", "log_items", "later_users", "later_items", "seen_items")
WORDS = {
    "row_ptr": ("row_ptr", "cols"),
    "seen_ptr": ("seen_ptr", *PAIRS),
    **{name: (name, "log_items", "later_items", "seen_items") for name in PAIRS},
}
"""What an error about a tensor may name, where that is not the tensor alone: a pair that occurs
twice is found where it occurs again."""
HEADER_WORDS = ("header", "tensor", "tensors", "row_ptr", "cols", "vals", "seen_ptr", *PAIRS)


def changed_header(bundle: Path, bundles: Bundles, chance: random.Random) -> Mutation:
    """The header of a safetensors file, resealed: its length, its text, or a field of it."""
    name = chance.choice(TENSOR_FILES)
    path = bundle / name
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header, rest = bytearray(data[8 : 8 + length]), data[8 + length :]
    kind = chance.choice(("length", "text", "field", "field", "field", "deep"))
    if kind == "length":
        length = chance.choice((0, 1, length - 1, length + 1, 2**31, 2**63, 2**64 - 1, len(data)))
    elif kind == "text":
        header[chance.randrange(length)] = chance.randrange(256)
    else:
        fields = json.loads(header)
        if kind == "deep":
            fields["__metadata__"] = "DEEP"
        else:
            change_json(fields, chance)
        text = json.dumps(fields).replace('"DEEP"', "[" * 20_000 + "]" * 20_000)
        header[:] = text.encode()
        header += b" " * (-len(header) % 8)
        length = len(header)
    path.write_bytes(length.to_bytes(8, "little") + header + rest)
    reseal(bundle)
    return Mutation("header, resealed", f"{name}: {kind}", (name,), HEADER_WORDS)


def changed_tensor(bundle: Path, bundles: Bundles, chance: random.Random) -> Mutation:
    """One value of a tensor, resealed."""
    file = chance.choice(TENSOR_FILES[:2])
    tensors = {key: value.copy() for key, value in load_file(bundle / file).items()}
    name = chance.choice(sorted(tensors))
    values = tensors[name]
    place = chance.randrange(len(values))
    kind = chance.choice(("extreme", "near", "swap", "bit", "copy"))
    if kind == "extreme":
        values[place] = chance.choice(_extremes(values.dtype))
    elif kind == "near":
        with np.errstate(over="ignore"):
            values[place] += chance.choice(np.array([1, -1]).astype(values.dtype))
    elif kind == "swap":
        other = chance.randrange(len(values))
        values[[place, other]] = values[[other, place]]
    elif kind == "bit":
        bits = values.view(np.uint8)
        bits[chance.randrange(len(bits))] ^= 1 << chance.randrange(8)
    else:
        values[place] = values[place - 1]
    save_file(tensors, bundle / file)
    reseal(bundle)
    return Mutation(
        "tensor, resealed", f"{file}: {name}[{place}]: {kind}", (file,), WORDS.get(name, (name,))
    )


def _extremes(dtype: np.dtype[Any]) -> np.ndarray:
    if dtype.kind == "f":
        return np.array([np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-45, -0.0], dtype)
    info = np.iinfo(dtype)
    return np.array([info.min, info.max, 0, info.max // 2], dtype)


def changed_program(bundle: Path, bundles: Bundles, chance: random.Random) -> Mutation:
    """A program's bytes, resealed: what the hash protects ExecuTorch from."""
    name = chance.choice(PROGRAMS)
    what = damage(bundle, name, bundles, chance, BYTES)
    reseal(bundle)
    return Mutation("program, resealed", what, (name,), ("method", name))


def reseal(bundle: Path) -> None:
    """Bring sizes and hashes in the manifest up to date."""
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    for name, entry in manifest["files"].items():
        data = (bundle / name).read_bytes()
        entry.update(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
    path.write_text(json.dumps(manifest))
