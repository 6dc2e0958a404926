"""``manifest.json``, read and written: docs/formats.md section 1.5."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from export.dense import DenseSpec
from export.methods import TensorSpec
from sparserec.errors import SparseRecError

NAME = "manifest.json"
DELTA = "delta.json"
"""What a delta has instead."""
SCHEMA_VERSION = 1
AGAIN = "export the bundle again: sparserec export"
FILES = (
    "golden.json",
    "ids.safetensors",
    "interactions.safetensors",
    "score.pte",
    "step.pte",
    "table.safetensors",
)
GRAPH = "graph.safetensors"
"""Of models with a graph."""
MODELS_WITH_GRAPH = ("ngcf", "lightgcn")
WORDS = {
    "model": ("mf", "neumf", *MODELS_WITH_GRAPH),
    "precision": ("float32", "float16", "int8"),
    "training.loss": ("bpr", "bce", "bpr-shared", "softmax"),
    "training.optimizer": ("sgd", "momentum", "adagrad", "adam"),
}
"""What these fields may be. Written out, so that ``sparserec inspect`` does without torch."""

PLAIN = re.compile(r"\w[\w.-]*", re.ASCII)
"""What a bundle and each of its files may be called: one part of a path, without spaces."""

MAX_FLOAT = (2 - 2**-23) * 2.0**127
"""The largest float32: what a device computes in."""
MAX_INT = 2**31 - 1
MAX_SEED = 2**63 - 1
MAX_BATCH = 2**24
"""Also of what a batch or one of its rows has besides."""

T = TypeVar("T")


@dataclass(frozen=True)
class MethodInfo:
    """One method of a program.

    ``operators`` are names as kernels are registered; ``delegates`` counts the parts of the graph
    that ``backends`` compute, whose memory is not in the planned arena.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    operators: tuple[str, ...]
    backends: tuple[str, ...]
    planned_arena_bytes: int
    delegates: int = 0


@dataclass(frozen=True)
class ProgramInfo:
    """A .pte of the bundle."""

    file: str
    methods: dict[str, MethodInfo]


@dataclass(frozen=True)
class FileInfo:
    """What a file must be."""

    sha256: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Training:
    """What the device does; the words are those of docs/formats.md sections 2, 4 and 5."""

    loss: str = "bpr"
    negatives: int = 0
    optimizer: str
    learning_rate: float
    l2: float
    batch_size: int
    steps: int
    seed: int
    window: int
    sampled_fraction: float
    exchange_fraction: float
    exchange_stop: float
    negative_tries: int


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything that ``manifest.json`` says, in its order, but for ``schema_version``."""

    bundle_id: str
    created_utc: str
    model: str
    num_users: int
    num_items: int
    known_users: int
    known_items: int
    dim: int
    density: float
    nnz: int
    floor: int
    precision: str = "float32"
    dense: tuple[DenseSpec, ...] = ()
    training: Training
    programs: dict[str, ProgramInfo]
    producer: dict[str, str]
    provenance: dict[str, Any]
    files: dict[str, FileInfo]

    @property
    def has_graph(self) -> bool:
        """Whether the model looks at neighbours."""
        return self.model in MODELS_WITH_GRAPH

    @property
    def dense_size(self) -> int:
        """P, dense parameters."""
        return sum(spec.size for spec in self.dense)

    def to_json(self) -> bytes:
        """Encode as the content of ``manifest.json``."""
        value = {"schema_version": SCHEMA_VERSION} | asdict(self)
        return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()


def bad(path: Path, field: str, what: str) -> SparseRecError:
    """Make the error for a field of a bundle's file that is not as it must be."""
    return SparseRecError(f"{path}: {field}: {what}", AGAIN)


def read_object(path: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Raises:
        SparseRecError: if it is missing, unreadable or something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        # An escape may stand for half a character, which no terminal can show.
        json.dumps(value, ensure_ascii=False).encode()
    except OSError as error:
        raise SparseRecError(f"{path}: {error.strerror}", AGAIN) from None
    except (ValueError, RecursionError) as error:
        raise SparseRecError(f"{path}: not JSON ({error})", AGAIN) from None
    if not isinstance(value, dict):
        raise SparseRecError(f"{path}: holds no JSON object", AGAIN)
    return value


def read(path: Path) -> Manifest:
    """Read and check the file at ``path``.

    Raises:
        SparseRecError: naming the file and the field at fault.
    """
    value = read_object(path)
    version = decode(int, value.get("schema_version"), path, "schema_version")
    if version != SCHEMA_VERSION:
        raise SparseRecError(
            f"{path}: schema_version: {version}, but this version reads {SCHEMA_VERSION}",
            f"use the version of sparserec that wrote the bundle, or {AGAIN}",
        )
    manifest = decode(Manifest, value, path, "")
    _check(manifest, path)
    return manifest


def kept(path: Path, described: Manifest) -> tuple[Manifest, bytes]:
    """Return the manifest at ``path`` and its bytes, if only who made it when is another there.

    Devices know by a manifest's hash which bundle they have trained: an export that changes
    nothing must not give it another. Otherwise return ``described`` and its bytes. The version of
    ExecuTorch counts as a change, because what may run the programs is judged by it.
    """
    try:
        there = read(path)
        found = path.read_bytes()
    except (SparseRecError, OSError):
        return described, described.to_json()
    versions = [(each.bundle_id, each.producer.get("executorch")) for each in (there, described)]
    if versions[0] == versions[1] and same(there, described):
        return there, found
    return described, described.to_json()


def same(first: Manifest, second: Manifest) -> bool:
    """Whether two manifests differ at most in the bundle's name, and in when and by whom made."""
    made = ("bundle_id", "created_utc", "producer", "provenance")
    return replace(first, **{name: getattr(second, name) for name in made}) == second


def decode(kind: type[T], value: Any, path: Path, field: str) -> T:
    """Check a JSON value against a type, and make dataclasses and tuples of it.

    Args:
        kind: int, float, str, Any, a dataclass, or a dict or homogeneous tuple of these.
        value: as ``json`` returns it. Fields that a dataclass does not have are ignored, so that
            later versions may add some; those with a default may be absent.
        path: of the file, for the error.
        field: where in the file ``value`` is, for the error.

    Raises:
        SparseRecError: if it does not fit.
    """
    return _decode(kind, value, path, field)  # type: ignore[no-any-return]


def _decode(kind: Any, value: Any, path: Path, field: str) -> Any:
    if kind is Any:
        return value
    origin = dict if is_dataclass(kind) else get_origin(kind) or kind
    wanted: Any = {tuple: list, float: (int, float)}.get(origin, origin)
    if not isinstance(value, wanted) or isinstance(value, bool):
        raise bad(path, field, f"is {_name(value)}, not {_word(origin)}")
    if is_dataclass(kind) and isinstance(kind, type):
        inner = f"{field}." if field else ""
        hints = get_type_hints(kind)
        needed = [field.name for field in fields(kind) if field.default is MISSING]
        missing = [name for name in needed if name not in value]
        if missing:
            raise bad(path, inner + missing[0], "is missing")
        given = {name: hint for name, hint in hints.items() if name in value}
        return kind(**{n: _decode(h, value[n], path, inner + n) for n, h in given.items()})
    if origin is tuple:
        item = get_args(kind)[0]
        return tuple(_decode(item, v, path, f"{field}[{k}]") for k, v in enumerate(value))
    if origin is dict:
        item = get_args(kind)[1]
        return {k: _decode(item, v, path, f"{field}.{k}") for k, v in value.items()}
    if kind is float:
        if not abs(value) <= sys.float_info.max:  # NaN fails this too
            raise bad(path, field, "is not a finite number")
        return float(value)
    return value


def _name(value: Any) -> str:
    return "null" if value is None else f"{json.dumps(value)[:40]}"


def _word(kind: Any) -> str:
    words = {int: "a whole number", float: "a number", str: "a text", tuple: "a list"}
    return words.get(kind, "an object")


def check_id(name: str, path: Path, field: str = "bundle_id") -> None:
    """Check that a bundle's id can be the name of its folder, here and on a device.

    Raises:
        SparseRecError: naming file and field.
    """
    if not PLAIN.fullmatch(name):
        raise bad(path, field, f"{json.dumps(name)} is not a plain name")


def _check(manifest: Manifest, path: Path) -> None:
    check_id(manifest.bundle_id, path)
    for name in manifest.files:
        if not PLAIN.fullmatch(name) or name == NAME:
            raise bad(path, "files", f"{json.dumps(name)} is not a plain file name")
    for name in (*FILES, GRAPH) if manifest.has_graph else FILES:
        if name not in manifest.files:
            raise bad(path, f"files.{name}", "is missing")
    for name, info in manifest.files.items():
        if not re.fullmatch("[0-9a-f]{64}", info.sha256):
            raise bad(path, f"files.{name}.sha256", "is not a SHA-256 in lower case")
    for name, program in manifest.programs.items():
        if program.file not in manifest.files:
            raise bad(path, f"programs.{name}.file", f"{program.file} is not in files")
    score = ("score", "vectors") if manifest.has_graph else ("score",)
    for name, methods in (("step", ("gradients", "update")), ("score", score)):
        if name not in manifest.programs:
            raise bad(path, f"programs.{name}", "is missing")
        for method in methods:
            if method not in manifest.programs[name].methods:
                raise bad(path, f"programs.{name}.methods.{method}", "is missing")
    _check_words(manifest, path)
    _check_numbers(manifest, path)


def _check_words(manifest: Manifest, path: Path) -> None:
    values = {
        "model": manifest.model,
        "precision": manifest.precision,
        "training.loss": manifest.training.loss,
        "training.optimizer": manifest.training.optimizer,
    }
    for field, words in WORDS.items():
        if values[field] not in words:
            raise bad(path, field, f"is {json.dumps(values[field])}, not one of {', '.join(words)}")


def _check_numbers(manifest: Manifest, path: Path) -> None:
    training = manifest.training
    ranges: dict[str, tuple[float, float, float]] = {
        "num_users": (manifest.num_users, 1, MAX_INT),
        "num_items": (manifest.num_items, 1, MAX_INT),
        "known_users": (manifest.known_users, 1, manifest.num_users),
        "known_items": (manifest.known_items, 1, manifest.num_items),
        "dim": (manifest.dim, 1, 256),
        "nnz": (manifest.nnz, 1, MAX_INT),
        "floor": (manifest.floor, 0, manifest.dim),
        "density": (manifest.density, 0, 1),
        "training.batch_size": (training.batch_size, 1, MAX_BATCH),
        "training.steps": (training.steps, 1, MAX_INT),
        "training.seed": (training.seed, 0, MAX_SEED),
        "training.window": (training.window, 1, MAX_INT),
        "training.learning_rate": (training.learning_rate, 0, MAX_FLOAT),
        "training.l2": (training.l2, 0, MAX_FLOAT),
        "training.negatives": (training.negatives, 0, MAX_BATCH),
        "training.negative_tries": (training.negative_tries, 1, 2**16),
        "training.sampled_fraction": (training.sampled_fraction, 0, 1),
        "training.exchange_fraction": (training.exchange_fraction, 0, 1),
        "training.exchange_stop": (training.exchange_stop, 0, 1),
    }
    for field, (value, least, most) in ranges.items():
        if not least <= value <= most:
            raise bad(path, field, f"is {value}, outside [{least}, {most}]")
    for name, program in manifest.programs.items():
        for method, info in program.methods.items():
            _check_method(info, path, f"programs.{name}.methods.{method}")


def _check_method(info: MethodInfo, path: Path, field: str) -> None:
    for way, specs in (("inputs", info.inputs), ("outputs", info.outputs)):
        for k, spec in enumerate(specs):
            if any(side < 0 for side in spec.shape):
                raise bad(path, f"{field}.{way}[{k}].shape", f"{list(spec.shape)} is negative")
    for name in ("planned_arena_bytes", "delegates"):
        if getattr(info, name) < 0:
            raise bad(path, f"{field}.{name}", f"is {getattr(info, name)}, less than 0")
