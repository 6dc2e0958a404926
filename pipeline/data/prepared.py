"""A split on disk, for data that memory does not hold: what ``prepare`` writes and training reads.

A folder. ``prepared.json`` describes it. ``users.parquet`` and ``items.parquet`` have index, id and
degree (train interactions), by index; ``train.parquet``, ``valid.parquet``, ``log.parquet`` and
``later.parquet`` have user, item and time, ordered as ``Pairs`` are. Each is one file or a folder
of parts that follow one another by name. ``arrays`` is made of them by ``unpack``: plain int32
arrays that training maps into memory (docs/scale.md, section Input).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.data.interactions import Int32, Int64, pair_keys
from pipeline.data.spill import Buckets
from pipeline.data.split import Pairs, Split
from pipeline.files import read_json, whole_folder, write_json
from sparserec.errors import SparseRecError
from sparserec.progress import Progress, silent

SCHEMA_VERSION = 1
PARTS = ("train", "valid", "log", "later")
PAIRS = pa.schema([("user", pa.int32()), ("item", pa.int32()), ("time", pa.int64())])
IDS = pa.schema([("index", pa.int32()), ("id", pa.string()), ("degree", pa.int64())])
DESCRIPTION = "prepared.json"
QUARTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Description:
    """What a prepared folder holds.

    Attributes:
        name: of the dataset.
        source_sha256: of the file, see ``Dataset``.
        interactions: of each part.
        num_users, num_items: of the past and the log.
        known_users, known_items, dropped_later: see ``Split``.
        repeats, below_rating: see ``Interactions``.
        degrees: ``users`` and ``items``: least, quartiles and most train interactions of the known.
    """

    name: str
    source_sha256: str
    interactions: dict[str, int]
    num_users: int
    num_items: int
    known_users: int
    known_items: int
    dropped_later: int
    repeats: int
    below_rating: int
    degrees: dict[str, list[float]]


def is_prepared(folder: Path) -> bool:
    """Tell whether a folder was written by ``prepare``."""
    return (folder / DESCRIPTION).is_file()


def describe(folder: Path) -> Description:
    """Read what a prepared folder holds.

    Raises:
        SparseRecError: it is none, or of another version.
    """
    found = read_json(folder / DESCRIPTION)
    try:
        if found.pop("schema_version") == SCHEMA_VERSION:
            return Description(**found)
    except (AttributeError, KeyError, TypeError):
        pass
    raise SparseRecError(
        f"{folder / DESCRIPTION}: damaged, or of another version than {SCHEMA_VERSION}",
        "prepare the log again: sparserec data prepare",
    )


def write_description(folder: Path, description: Description) -> None:
    """Write ``prepared.json``: the folder is whole."""
    write_json(folder / DESCRIPTION, {"schema_version": SCHEMA_VERSION} | asdict(description))


def degree_quartiles(degrees: Int64) -> list[float]:
    """Give least, quartiles and most of train interactions (n,), for ``Description.degrees``."""
    return [float(value) for value in np.quantile(degrees, QUARTILES)]


def pairs_table(users: Int32, items: Int32, times: Int64 | None) -> Any:
    """Give interactions (n,) as the pyarrow table that a part is written from."""
    when = pa.nulls(len(users), pa.int64()) if times is None else pa.array(times)
    return pa.table([pa.array(users), pa.array(items), when], schema=PAIRS)


def write_ids(path: Path, ids: list[str], degrees: Int64) -> None:
    """Write ``users.parquet`` or ``items.parquet``; degrees int64 (n,)."""
    index = pa.array(np.arange(len(ids), dtype=np.int32))
    pq.write_table(
        pa.table([index, pa.array(ids, pa.string()), pa.array(degrees)], schema=IDS), path
    )


def write_split(split: Split, out: Path, name: str, source_sha256: str) -> Description:
    """Write a split that memory holds as a prepared folder.

    Raises:
        SparseRecError: ``out`` is there already.
    """
    with whole_folder(out) as folder:
        counts = {}
        for part in PARTS:
            pairs: Pairs = getattr(split, part)
            counts[part] = len(pairs)
            table = pairs_table(pairs.users, pairs.items, pairs.timestamps)
            pq.write_table(table, folder / f"{part}.parquet")
        degrees = {}
        for kind, ids, known, values in (
            ("users", split.user_ids, split.known_users, split.train.users),
            ("items", split.item_ids, split.known_items, split.train.items),
        ):
            found = np.bincount(values, minlength=len(ids))
            write_ids(folder / f"{kind}.parquet", ids, found)
            degrees[kind] = degree_quartiles(found[:known])
        description = Description(
            name=name,
            source_sha256=source_sha256,
            interactions=counts,
            num_users=split.num_users,
            num_items=split.num_items,
            known_users=split.known_users,
            known_items=split.known_items,
            dropped_later=split.dropped_later,
            repeats=0,
            below_rating=0,
            degrees=degrees,
        )
        write_description(folder, description)
    return description


def unpack(folder: Path, progress: Progress = silent) -> Description:
    """Write ``arrays`` where they are missing.

    4 bytes an interaction for users, as many for items, and 8 for the sorted keys of train, which
    tell a negative from what its user likes.

    Raises:
        SparseRecError: the folder is damaged, cannot be written to, or another run is at it.
    """
    description = describe(folder)
    if not (folder / "arrays").is_dir():
        with whole_folder(folder / "arrays") as new:
            _unpack(folder, new, description, progress)
    return description


def load_prepared(folder: Path, progress: Progress = silent) -> tuple[Description, Split]:
    """Read a prepared folder; its interactions stay on disk and are mapped, without their times.

    Raises:
        SparseRecError: the folder is damaged or cannot be written to.
    """
    description = unpack(folder, progress)
    arrays = folder / "arrays"

    def part(name: str) -> Pairs:
        count = description.interactions[name]
        users, items = (_mapped(arrays / f"{name}-{of}.npy", count) for of in ("users", "items"))
        return Pairs(users, items, None)

    user_ids, item_ids = (
        [raw for batch in batches(folder, kind, ["id"]) for raw in batch["id"].to_pylist()]
        for kind in ("users", "items")
    )
    split = Split(
        train=part("train"),
        valid=part("valid"),
        log=part("log"),
        later=part("later"),
        user_ids=user_ids,
        item_ids=item_ids,
        known_users=description.known_users,
        known_items=description.known_items,
        dropped_later=description.dropped_later,
        train_keys=_mapped(arrays / "train-keys.npy", description.interactions["train"]),
    )
    return description, split


def _mapped(path: Path, count: int) -> Any:
    """Map an array (count,).

    Raises:
        SparseRecError: it is missing or damaged.
    """
    try:
        values = np.asarray(np.load(path, mmap_mode="r"))
        if values.shape != (count,):
            raise ValueError(f"its shape is {values.shape}, {DESCRIPTION} says {count}")
    except (OSError, ValueError, EOFError) as error:
        raise SparseRecError(
            f"{path}: missing or damaged ({error})",
            f"remove {path.parent}: the next run makes it anew",
        ) from None
    return values


def batches(folder: Path, name: str, columns: list[str]) -> Iterator[Any]:
    """Yield the named part's columns, in order, as pyarrow record batches of bounded size.

    Raises:
        SparseRecError: a file is missing or damaged.
    """
    path = folder / f"{name}.parquet"
    try:
        for file in sorted(path.glob("*.parquet")) if path.is_dir() else [path]:
            with pq.ParquetFile(file, pre_buffer=False, buffer_size=1) as opened:
                yield from opened.iter_batches(1 << 19, columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise SparseRecError(
            f"{path}: missing or damaged ({error})", "prepare the log again: sparserec data prepare"
        ) from error


def _unpack(folder: Path, new: Path, description: Description, progress: Progress) -> None:
    """Write the arrays that training maps."""
    parts = [batch["degree"].to_numpy() for batch in batches(folder, "users", ["degree"])]
    before = np.cumsum(np.concatenate(parts))  # train pairs up to each user's last, (num_users,)
    train = description.interactions["train"]
    keys = Buckets(new / "keys", train, np.int64)
    total, done = sum(description.interactions.values()), 0
    for part in PARTS:
        count, found = description.interactions[part], 0
        with (
            _array(new / f"{part}-users.npy", count, np.int32) as users,
            _array(new / f"{part}-items.npy", count, np.int32) as items,
        ):
            for batch in batches(folder, part, ["user", "item"]):
                user, item = batch["user"].to_numpy(), batch["item"].to_numpy()
                users.write(user)
                items.write(item)
                found += len(user)
                if part == "train":
                    bucket = (before[user] - 1) * keys.count // train
                    keys.scatter(pair_keys(user, item, description.known_items), bucket)
                progress("unpacking interactions", done + found, total)
        done += found
        if found != count:
            raise SparseRecError(
                f"{folder / part}.parquet: has {found} interactions, {DESCRIPTION} says {count}",
                "prepare the log again: sparserec data prepare",
            )
    with _array(new / "train-keys.npy", train, np.int64) as sorted_keys:
        for k, bucket in enumerate(keys.drain()):
            sorted_keys.write(np.sort(bucket))
            progress("sorting train pairs", k + 1, keys.count)


def _array(path: Path, count: int, dtype: Any) -> Any:
    """Begin a .npy file (count,), to which the values are then written."""
    file = path.open("wb")
    header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(file, header)
    return file
