"""What to run, in which order: a TOML file or flags, checked and resolved into ``plan.json``."""

from __future__ import annotations

import glob
import random
import re
import tomllib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from device_bench import bundle as bundles
from device_bench.bundle import Bundle
from export import manifest
from sparserec.errors import SparseRecError
from sparserec.progress import Progress, silent

NAME = "plan.json"
HELP = "docs/benchmarking.md lists the fields of a plan"

State = Literal["continue", "fresh", "scratch"]
Order = Literal["abba", "shuffled"]
MAX_THREADS = 64
"""The harness takes no more (docs/formats.md section 7)."""
MAX_SECONDS = 7 * 86400.0
"""No wait of a plan may be longer: a socket's time-out has an end, too."""
Seconds = Annotated[float, Field(ge=0, le=MAX_SECONDS)]
SomeSeconds = Annotated[float, Field(gt=0, le=MAX_SECONDS)]
Threads = Annotated[int, Field(ge=1, le=MAX_THREADS)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class CoolDown(_Table):
    """How cool a device must be before a run, and how long that is waited for."""

    thermal_status: Annotated[int, Field(ge=0, le=6)] = 0
    """Android's: 0 none, 1 light, 2 moderate, 3 severe, 4 critical, 5 emergency, 6 shutdown."""
    battery_celsius: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 40.0
    wait_seconds: Seconds = 300.0


class TimeOut(_Table):
    """When a run is given up."""

    silence_seconds: SomeSeconds = 600.0
    """The harness said nothing for so long."""
    total_seconds: SomeSeconds | None = None
    """The run took so long; without it, as long as it likes."""
    reconnect_seconds: Seconds = 30.0
    """A device that was lost is not reached again for so long."""


class Request(_Table):
    """What a plan file or the flags ask for.

    Attributes:
        bundles: folders, or patterns of them; relative ones count from the plan file.
        devices: as ``--device`` takes them; none for the one that is chosen by default.
        threads: each number of the runtime's threads to try.
        repetitions: of each bundle with each number of threads, each in a fresh process.
        order: ``abba`` turns the order round from one repetition to the next; ``shuffled`` draws
            one for each repetition.
        seed: of the shuffles.
        steps: to train; None for each bundle's own.
        checkpoint_every: steps between checkpoints; None for the harness's default.
        evaluate: whether quality is measured before and after training.
        attempts: how often a run is tried that fails by no fault of its own.
    """

    bundles: Annotated[tuple[str, ...], Field(min_length=1, strict=False)]
    devices: Annotated[tuple[str, ...], Field(strict=False)] = ()
    threads: Annotated[tuple[Threads, ...], Field(min_length=1, strict=False)] = (1,)
    repetitions: PositiveInt = 1
    order: Order = "abba"
    seed: int = 1
    steps: PositiveInt | None = None
    checkpoint_every: PositiveInt | None = None
    evaluate: bool = True
    attempts: PositiveInt = 2
    cool_down: CoolDown = CoolDown()
    time_out: TimeOut = TimeOut()


class BundleRef(_Table):
    """A bundle of the plan; ``sha256`` is its manifest's, which has those of all other files."""

    id: str
    path: str
    sha256: str
    model: str
    dim: int
    density: float
    batch_size: int
    """Static in a bundle: another batch size is another bundle."""


class Run(_Table):
    """One run of the plan.

    Attributes:
        index: its number in the folder, from 1.
        folder: its name under ``results/``.
        device: a name of ``Plan.devices``.
        bundle: an id of ``Plan.bundles``.
        threads: of the runtime.
        repetition: from 1.
        order: its place in its device's sequence, from 1.
    """

    index: int
    folder: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    device: str
    bundle: str
    threads: int
    repetition: int
    order: int


class Plan(_Table):
    """Everything that is to be run, with each bundle and run named: what ``plan.json`` holds."""

    schema_version: Literal[1] = 1
    created_utc: str
    source: str | None
    bundles: Annotated[tuple[BundleRef, ...], Field(strict=False)]
    devices: Annotated[tuple[str, ...], Field(strict=False)]
    threads: Annotated[tuple[int, ...], Field(strict=False)]
    repetitions: int
    order: Order
    seed: int
    steps: int | None
    checkpoint_every: int | None
    evaluate: bool
    attempts: int
    state: State
    """What a run starts from: the device's newest checkpoint (``continue``), the bundle, after
    deleting the device's checkpoints (``fresh``), or the bundle, leaving those alone
    (``scratch``)."""
    cool_down: CoolDown
    time_out: TimeOut
    runs: Annotated[tuple[Run, ...], Field(strict=False)]

    def of(self, device: str) -> list[Run]:
        """A device's runs, in order."""
        return [run for run in self.runs if run.device == device]

    def bundle(self, bundle_id: str) -> BundleRef:
        """The bundle with this id."""
        return next(bundle for bundle in self.bundles if bundle.id == bundle_id)


def read_file(path: Path) -> Request:
    """Read and check a plan's TOML file.

    Raises:
        SparseRecError: naming file, field and fix.
    """
    try:
        value = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SparseRecError(f"{path}: {error.strerror}", "name a plan, a TOML file") from None
    except ValueError as error:
        raise SparseRecError(f"{path}: not TOML: {error}", HELP) from None
    try:
        return Request.model_validate(value)
    except ValidationError as error:
        raise _fault(path, error, HELP) from None


def read(path: Path) -> Plan:
    """Read the ``plan.json`` of a bench folder.

    Raises:
        SparseRecError: naming file and field.
    """
    fix = "name a folder that `sparserec bench` wrote with this version"
    try:
        return Plan.model_validate_json(path.read_bytes())
    except OSError as error:
        raise SparseRecError(f"{path}: {error.strerror}", fix) from None
    except ValidationError as error:
        raise _fault(path, error, fix) from None


def _fault(path: Path, error: ValidationError, fix: str) -> SparseRecError:
    """The first thing that is wrong, in words for people."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"]) or "the whole"
    if first["type"] == "extra_forbidden":
        return SparseRecError(f"{path}: {field}: there is no such field", fix)
    if first["type"] == "missing":
        return SparseRecError(f"{path}: {field}: is missing", fix)
    return SparseRecError(f"{path}: {field}: {first['msg']}, not {first['input']!r}", fix)


def find(
    patterns: Sequence[str], source: Path | None = None, progress: Progress = silent
) -> list[Bundle]:
    """The bundles that the patterns name, each once, checked.

    Args:
        patterns: folders or glob patterns; of a pattern's matches those count that are bundles.
        source: the plan file, which relative ones count from; None for this folder.
        progress: told of the files as they are checked.

    Raises:
        SparseRecError: a pattern that names no bundle, a bundle that is damaged, or two of one id
            that are not the same.
    """
    base = Path() if source is None else source.parent
    found: dict[str, Bundle] = {}
    for number, pattern in enumerate(patterns):
        places = [base / pattern]
        if glob.has_magic(pattern):
            # Path.glob takes no absolute pattern.
            matches = sorted(glob.glob(pattern, root_dir=base, recursive=True))  # noqa: PTH207
            places = [place for match in matches if _is_bundle(place := base / match)]
            if not places:
                raise SparseRecError(
                    f"{source or 'BUNDLE'}: bundles.{number}: no bundle matches {pattern!r}",
                    "name folders that `sparserec export` wrote",
                )
        for place in places:
            bundle = bundles.load(place, progress)
            first = found.setdefault(bundle.bundle_id, bundle)
            if first.files[-1].sha256 != bundle.files[-1].sha256:
                raise SparseRecError(
                    f"{source or 'BUNDLE'}: bundles.{number}: {first.path} and {place} are both "
                    f"{bundle.bundle_id}, but their manifests differ",
                    "name one of them, or export the other one again",
                )
    return list(found.values())


def _is_bundle(place: Path) -> bool:
    return (place / manifest.NAME).is_file()


def lay_down(
    request: Request,
    bundles: Sequence[BundleRef],
    devices: Sequence[str],
    *,
    source: Path | None = None,
    fresh: bool = False,
) -> Plan:
    """Fix every run, its place in the order and its folder.

    Args:
        request: what is asked for.
        bundles: those that its patterns name.
        devices: names of the devices, each of which runs the whole plan.
        source: the plan file, None for flags.
        fresh: a single run deletes the device's checkpoints instead of going on from them.

    Raises:
        SparseRecError: ``fresh`` with several runs.
    """
    runs = _runs(request, [bundle.id for bundle in bundles], devices)
    taken = request.model_dump(exclude={"bundles", "devices", "cool_down", "time_out"})
    return Plan(
        created_utc=utc(),
        source=None if source is None else source.name,
        bundles=tuple(bundles),
        devices=tuple(devices),
        state=_state(source is None and len(runs) == len(devices), fresh),
        cool_down=request.cool_down,
        time_out=request.time_out,
        runs=tuple(runs),
        **taken,
    )


def _state(single: bool, fresh: bool) -> State:
    """A single run is for its outcome; of several, each must do the same work."""
    if single:
        return "fresh" if fresh else "continue"
    if fresh:
        raise SparseRecError(
            "--fresh: with several runs each starts from the bundle, and leaves the device's "
            "checkpoints alone",
            "leave it out",
        )
    return "scratch"


def describe(bundle: Bundle) -> BundleRef:
    """What a plan says of a bundle."""
    said = manifest.read(bundle.path / manifest.NAME)
    return BundleRef(
        id=bundle.bundle_id,
        path=str(bundle.path.resolve()),
        sha256=bundle.files[-1].sha256,
        model=said.model,
        dim=said.dim,
        density=said.density,
        batch_size=said.training.batch_size,
    )


def _runs(request: Request, ids: Sequence[str], devices: Sequence[str]) -> list[Run]:
    """Every run, device by device; all devices have the same sequence."""
    sequence = ordered([(one, count) for one in ids for count in request.threads], request)
    digits = max(3, len(str(len(sequence) * len(devices))))
    names = dict(zip(devices, folder_names(devices), strict=True))
    runs: list[Run] = []
    for device in devices:
        for order, (bundle, threads, repetition) in enumerate(sequence, start=1):
            index = len(runs) + 1
            name = f"{index:0{digits}}-{names[device]}-{bundle}-t{threads}-r{repetition}"
            runs.append(
                Run(
                    index=index,
                    folder=name,
                    device=device,
                    bundle=bundle,
                    threads=threads,
                    repetition=repetition,
                    order=order,
                )
            )
    return runs


def ordered(variants: list[tuple[str, int]], request: Request) -> list[tuple[str, int, int]]:
    """Interleave: every repetition has each variant once, so that drift hits all of them.

    With ``abba`` every second repetition goes backwards, so that what changes evenly over time
    (a phone that warms up) adds as much to one variant as to another over two repetitions.

    Returns:
        bundle, threads and repetition of each run.
    """
    found = []
    for repetition in range(1, request.repetitions + 1):
        block = list(variants)
        if request.order == "shuffled":
            random.Random(f"{request.seed}/{repetition}").shuffle(block)
        elif repetition % 2 == 0:
            block.reverse()
        found += [(bundle, threads, repetition) for bundle, threads in block]
    return found


def folder_names(devices: Sequence[str]) -> list[str]:
    """A distinct part of a folder's name for each device."""
    names: list[str] = []
    for device in devices:
        name = re.sub(r"[^A-Za-z0-9._]+", "-", device).strip("-.") or "device"
        names.append(name if name not in names else f"{name}-{len(names) + 1}")
    return names


def utc() -> str:
    """The time now, as reports have it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
