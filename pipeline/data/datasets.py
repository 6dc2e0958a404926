"""Named public datasets, and ``load``, which takes a name or a user's own file.

No data is part of the project. Each dataset says where it comes from, its SHA-256 and its terms;
these are shown, and accepted, before anything is fetched.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Unpack

from pipeline.data.download import download, fetch_wheel_member, require_sha256, sha256_of
from pipeline.data.interactions import Interactions
from pipeline.data.lightgcn import read_lightgcn
from pipeline.data.logs import ReadOptions, given, read_log
from pipeline.data.sources import LOG_SUFFIXES, has_parts, log_files
from pipeline.data.split import Split, leave_out, pooled_split, published_split, temporal_split
from sparserec.errors import SparseRecError
from sparserec.progress import Progress, silent

DATA_VARIABLE = "SPARSEREC_DATA"
Protocol = Literal["lightgcn", "per-user"]
"""How interactions are split: see ``Dataset.split``."""


@dataclass(frozen=True)
class Url:
    """A file at a public address."""

    file: str
    sha256: str
    url: str

    @property
    def address(self) -> str:
        return self.url

    def fetch(self, folder: Path, progress: Progress) -> None:
        download(self.url, folder / self.file, self.sha256, progress)


@dataclass(frozen=True)
class WheelMember:
    """A file inside a wheel on PyPI. The wheel is not installed."""

    file: str
    sha256: str
    requirement: str
    wheel_sha256: str
    member: str

    @property
    def address(self) -> str:
        return (
            f"{self.member} in the {self.requirement.replace('==', ' ')} wheel on PyPI"
            f" (SHA-256 of the wheel {self.wheel_sha256})"
        )

    def fetch(self, folder: Path, progress: Progress) -> None:
        fetch_wheel_member(
            self.requirement,
            self.wheel_sha256,
            self.member,
            folder / self.file,
            self.sha256,
            progress,
        )


@dataclass(frozen=True)
class Named:
    """A public dataset: what it is, where its files come from, and on what terms.

    ``ordered``: the order of each user's lines in train goes on in test (docs/data.md).
    """

    name: str
    summary: str
    terms: str
    files: tuple[Url | WheelMember, ...]
    ordered: bool = False


Confirm = Callable[[Named], bool]
"""Asked before a dataset is fetched; False refuses."""


@dataclass(frozen=True)
class Dataset:
    """What ``load`` returns.

    Attributes:
        name: the dataset's name, or the stem of the file.
        source_sha256: of the file; of several, over their hexadecimal digests in order, each
            followed by a line end.
        interactions: the whole log, or the train file of a published split.
        test: of a published split, else None.
        valid: of a published split that has one, else None.
        ordered: each user's train interactions are in an order that the test part goes on with.
    """

    name: str
    source_sha256: str
    interactions: Interactions
    test: Interactions | None = None
    valid: Interactions | None = None
    ordered: bool = False

    def split(self, seed: int = 1, protocol: Protocol = "lightgcn") -> Split:
        """Split into the host's past, the device's log, and what is for evaluation only.

        Args:
            seed: decides only what is random under ``lightgcn``.
            protocol: ``lightgcn``: as published, with validation held out of train, its last
                tenth where it is ordered, else at random; where nothing is published by time, or
                at random where there are no times.
                ``per-user``: everything pooled, then 50/25/25 of each user at random (seed 42).
        """
        if protocol == "per-user":
            files = (self.interactions, self.valid, self.test)
            return pooled_split([file for file in files if file is not None])
        if self.test is not None:
            drawn = None if self.ordered else seed
            return published_split(self.interactions, self.test, seed=drawn, valid=self.valid)
        if self.interactions.timestamps is not None:
            return temporal_split(self.interactions)
        return leave_out(self.interactions, valid=0.1, log=0.2, later=0.1, seed=seed)


def _lightgcn_files(name: str, train_sha256: str, test_sha256: str) -> tuple[Url, Url]:
    # The commit is pinned, so what the address serves cannot change.
    base = (
        "https://raw.githubusercontent.com/gusye1234/LightGCN-PyTorch/"
        f"947ca2b3b1d2d3545b114145710cb06c4e57b3d2/data/{name}"
    )
    return (
        Url("train.txt", train_sha256, f"{base}/train.txt"),
        Url("test.txt", test_sha256, f"{base}/test.txt"),
    )


_NO_TERMS = (
    "The publishers of this split state no licence for the data; it is used for research, and"
    " redistribution is not known to be allowed."
)

DATASETS = {
    dataset.name: dataset
    for dataset in (
        Named(
            "ml-100k",
            "MovieLens 100K: 943 users, 1,682 films, 100,000 ratings with times",
            "GroupLens' research licence: no endorsement may be implied, publications must"
            " acknowledge the data (Harper and Konstan 2015), no redistribution, no commercial"
            " use without permission. The data comes as is.",
            (
                WheelMember(
                    "ml-100k.inter",
                    "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
                    "recbole==1.2.1",
                    "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
                    "recbole/dataset_example/ml-100k/ml-100k.inter",
                ),
            ),
        ),
        Named(
            "gowalla",
            "Gowalla check-ins, LightGCN's split: 29,858 users, 40,981 places, 810,128 + 217,242",
            _NO_TERMS,
            _lightgcn_files(
                "gowalla",
                "7244696fdeb23911319cf7b689f2e15a3c4c92549c873a5677b44e3f13cc3e62",
                "099a2a73924e4b754dc6efd730d764f492321b53c38eb93298850c83acf57be3",
            ),
            ordered=True,
        ),
        Named(
            "yelp2018",
            "Yelp reviews of 2018, LightGCN's split: 31,668 users, 38,048 places,"
            " 1,237,259 + 324,147",
            "Yelp's dataset terms: academic use only, no redistribution.",
            _lightgcn_files(
                "yelp2018",
                "1e9568725a9e833d0ac3bae01c94cd95367f73b3bb6104fd26b5f65ea5054093",
                "9cd9b37926cd1447a06625ffa7914527573fb097c10cb0bbdb1d1b8ded3742fe",
            ),
            ordered=True,
        ),
    )
}


def default_cache() -> Path:
    """Return ``$XDG_CACHE_HOME/sparserec``, or ``~/.cache/sparserec``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "sparserec"


def decline(dataset: Named) -> bool:
    """Fetch nothing: what is not on this machine stays an error."""
    return False


def locate(dataset: Named, cache: Path | None = None) -> Path | None:
    """Return the folder with all of the dataset's files, checked, or None where one is missing.

    ``$SPARSEREC_DATA/<name>/`` comes before the cache.

    Raises:
        SparseRecError: a file is there and has another SHA-256.
    """
    own = os.environ.get(DATA_VARIABLE)
    folders = [Path(own)] if own else []
    for folder in [*folders, cache or default_cache()]:
        paths = [folder / dataset.name / source.file for source in dataset.files]
        if all(path.is_file() for path in paths):
            for path, source in zip(paths, dataset.files, strict=True):
                require_sha256(path, source.sha256, f"delete it: rm {path}, then fetch it again")
            return folder / dataset.name
    return None


def fetch(
    name: str,
    confirm: Confirm = decline,
    cache: Path | None = None,
    progress: Progress = silent,
) -> Path:
    """Return the folder of a named dataset; fetch it first where it is not on this machine.

    Args:
        name: a key of ``DATASETS``.
        confirm: asked once, before anything is fetched; shows address, SHA-256 and terms.
        cache: where fetched files are kept; ``default_cache()`` where None.
        progress: called per chunk of each download.

    Raises:
        SparseRecError: the name is unknown, ``confirm`` refused, or the fetching failed.
    """
    dataset = DATASETS.get(name)
    if dataset is None:
        raise _unknown(name)
    folder = locate(dataset, cache)
    if folder is not None:
        return folder
    if not confirm(dataset):
        raise SparseRecError(
            f"{name} is not on this machine, and its terms were not accepted",
            f"run: sparserec data fetch {name}",
        )
    folder = (cache or default_cache()) / name
    for source in dataset.files:
        source.fetch(folder, progress)
    return folder


def load(
    source: str,
    confirm: Confirm = decline,
    cache: Path | None = None,
    progress: Progress = silent,
    **log: Unpack[ReadOptions],
) -> Dataset:
    """Read a dataset by name, or a user's own file or folder.

    In this order: a name in ``DATASETS`` (a folder of that name here is ``./name``); a path (a log
    by its suffix, ``.txt`` in the LightGCN format, or a folder: with train.txt and test.txt, or
    with the parts of a log); such a folder under ``$SPARSEREC_DATA``.

    Args:
        source: the name or path.
        confirm: see ``fetch``.
        cache: see ``fetch``.
        progress: see ``fetch``.
        log: options of ``read_log``, for logs.

    Raises:
        SparseRecError: nothing of that name; options of logs for what is none; or as ``fetch`` and
            the readers raise.
    """
    if source in DATASETS:
        folder = fetch(source, confirm, cache, progress)
        files = [folder / file.file for file in DATASETS[source].files]
        if len(files) == 1:
            return _read_file(files[0], log, progress)
        _no_options(source, log)
        return replace(_read_folder(folder, source), ordered=DATASETS[source].ordered)
    path = Path(source)
    own = os.environ.get(DATA_VARIABLE)
    if not path.exists() and own and Path(own, source).is_dir():
        path = Path(own, source)
    if path.is_dir() and has_parts(path):
        return Dataset(path.name, source_sha256(path), read_log(path, progress=progress, **log))
    if path.is_dir():
        _no_options(source, log)
        return _read_folder(path, path.name)
    if path.exists():
        return _read_file(path, log, progress)
    raise _unknown(source)


def _no_options(source: str, log: ReadOptions) -> None:
    """Refuse options of logs for what is none."""
    if set_ := given(log):
        raise SparseRecError(
            f"{source}: is in the LightGCN format, which has no columns, ratings or repeats for"
            f" {', '.join(set_)}",
            "leave out the options of logs",
        )


def _read_folder(folder: Path, name: str) -> Dataset:
    paths = [folder / "train.txt", folder / "test.txt"]
    for path in paths:
        if not path.is_file():
            raise SparseRecError(
                f"{folder}: a published split needs train.txt and test.txt; {path.name} is missing",
                "add the file, or give the path of a single log",
            )
    if (folder / "valid.txt").is_file():
        paths.append(folder / "valid.txt")
    parts = [read_lightgcn(path) for path in paths]
    valid = parts[2] if len(parts) == 3 else None
    return Dataset(name, _sha256_of_all(paths), parts[0], parts[1], valid)


def source_sha256(path: Path) -> str:
    """Give ``Dataset.source_sha256`` of a file, or of a folder of parts."""
    return _sha256_of_all(log_files(path)) if path.is_dir() else sha256_of(path)


def _sha256_of_all(paths: list[Path]) -> str:
    digests = "".join(f"{sha256_of(path)}\n" for path in paths)
    return hashlib.sha256(digests.encode()).hexdigest()


def _read_file(path: Path, log: ReadOptions, progress: Progress) -> Dataset:
    if path.suffix == ".txt":
        _no_options(str(path), log)
        interactions = read_lightgcn(path)
    elif path.suffix in LOG_SUFFIXES:
        interactions = read_log(path, progress=progress, **log)
    else:
        raise SparseRecError(
            f"{path}: the suffix {path.suffix!r} says nothing about its format",
            f"name it .txt (LightGCN format) or one of {', '.join(LOG_SUFFIXES)}",
        )
    return Dataset(path.stem, sha256_of(path), interactions)


def _unknown(source: str) -> SparseRecError:
    return SparseRecError(
        f"{source}: neither a file or folder nor a dataset",
        f"give a path, or one of: {', '.join(DATASETS)}",
    )
