"""The files of a log: CSV, TSV, RecBole ``.inter`` or Parquet, read a piece at a time.

The fast path is vectorised (pyarrow). Where it meets anything odd, the CSV is read once more by the
standard library's reader, slowly, to name the first bad line.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from pipeline.data.columns import Columns, choose_columns
from pipeline.data.text import at, require_content, require_utf8
from sparserec.errors import SparseRecError

LOG_SUFFIXES = (".csv", ".tsv", ".inter", ".parquet")
PIECE_BYTES = 16 << 20
"""Of a CSV file, read in one go."""
PIECE_ROWS = 1 << 19
"""Of a Parquet file, read in one go."""


class LogFile(Protocol):
    """One file of a log."""

    @property
    def path(self) -> Path: ...

    @property
    def columns(self) -> Columns: ...

    def pieces(self) -> Iterator[Any]:
        """Yield the rows, in order, as pyarrow tables with columns user, item, time, rating."""

    def rows(self) -> int:
        """Count the rows, or guess how many there are without reading them."""

    def where(self, row: int) -> tuple[str, int]:
        """Name a row, which counts from 0: ("line" or "row", number from 1)."""


def log_files(source: Path) -> list[Path]:
    """Give a log's files: the file itself, or the parts in a folder in the order of their names.

    Names that begin with a dot or an underscore, as Spark's ``_SUCCESS``, are no parts.

    Raises:
        SparseRecError: nothing there, or parts of several formats.
    """
    if not source.is_dir():
        require_content(source)
        return [source]
    parts = _parts(source)
    suffixes = sorted({path.suffix for path in parts})
    if len(suffixes) != 1:
        raise SparseRecError(
            f"{source}: is a directory with {', '.join(suffixes) or 'no parts of a log'};"
            " a log's parts have one format",
            f"put parts of one of {', '.join(LOG_SUFFIXES)} into a folder of their own",
        )
    for path in parts:
        require_content(path)
    return parts


def has_parts(folder: Path) -> bool:
    """Tell whether there are parts of a log in a folder."""
    return bool(_parts(folder))


def _parts(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_file() and path.suffix in LOG_SUFFIXES and path.name[0] not in "._"
    )


def open_log_file(path: Path, names: dict[str, str | None], rating: bool) -> LogFile:
    """Find the columns of a file; its rows are read by ``pieces``.

    Args:
        path: a file with content.
        names: for each role the column that the user named, or None.
        rating: whether ratings are wanted.

    Raises:
        SparseRecError: a header surprise, a wrong encoding, a damaged file.
    """
    if path.suffix == ".parquet":
        return ParquetLog.open(path, names, rating)
    return CsvLog.open(path, names, rating)


SEPARATORS = "\t;|,"
"""What may stand between fields; the first that a header has does. Commas come last, for they turn
up in names of columns."""


@dataclass(frozen=True)
class CsvLog:
    """A text file with a header; the separator is the header's."""

    path: Path
    columns: Columns
    header: list[str]
    separator: str

    @classmethod
    def open(cls, path: Path, names: dict[str, str | None], rating: bool) -> CsvLog:
        require_utf8(path)
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
        separator = next((one for one in SEPARATORS if one in first), ",")
        header = next(csv.reader([first], delimiter=separator), [])
        return cls(path, choose_columns(path, header, names, rating), header, separator)

    def pieces(self) -> Iterator[Any]:
        wanted = {str(self.header.index(name)): r for r, name in self.columns.by_role().items()}
        positions = [str(k) for k in range(len(self.header))]
        try:
            reader = pyarrow.csv.open_csv(
                self.path,
                # Columns go by position, as two that are not read may have the same name.
                pyarrow.csv.ReadOptions(
                    column_names=positions, skip_rows=1, block_size=PIECE_BYTES
                ),
                pyarrow.csv.ParseOptions(
                    delimiter=self.separator, newlines_in_values=True, ignore_empty_lines=False
                ),
                pyarrow.csv.ConvertOptions(
                    column_types=dict.fromkeys(wanted, pa.string()), include_columns=list(wanted)
                ),
            )
            for batch in reader:
                if len(batch):
                    yield pa.table([pa.chunked_array([c]) for c in batch], list(wanted.values()))
        except pa.ArrowInvalid as error:
            if next(islice(self._records(), 1, None), None) is None:
                return  # a header alone, which pyarrow calls an empty file
            raise self._malformed(error) from error

    def rows(self) -> int:
        with self.path.open("rb") as file:
            start = file.read(1 << 20)
        return round(self.path.stat().st_size * start.count(b"\n") / len(start))

    def where(self, row: int) -> tuple[str, int]:
        return "line", next(islice(self._records(), row + 1, None))[0]

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        """Yield every record, the header too, with the line it starts on."""
        line = 1
        with self.path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=self.separator)
            try:
                for record in reader:
                    yield line, record
                    line = reader.line_num + 1
            except csv.Error as error:
                problem = f"malformed: {error}"
                raise at(self.path, line, problem, "mend the line's quotes") from error

    def _malformed(self, error: Exception) -> SparseRecError:
        """Find the first line that has not the header's width, after pyarrow refused."""
        for line, record in self._records():
            if len(record) != len(self.header):
                return at(
                    self.path,
                    line,
                    f"malformed: {len(record)} fields where the header has {len(self.header)}",
                    "give the line as many fields as the header; close every quote, and quote a"
                    " field that holds the separator",
                )
        return at(self.path, 1, f"not a table ({error})", "export the file again as plain CSV")


@dataclass(frozen=True)
class ParquetLog:
    """A Parquet file; of row groups of any size no more than a piece is decoded at a time."""

    path: Path
    columns: Columns

    @classmethod
    def open(cls, path: Path, names: dict[str, str | None], rating: bool) -> ParquetLog:
        try:
            with pyarrow.parquet.ParquetFile(path) as file:
                schema = file.schema_arrow
                columns = choose_columns(path, schema.names, names, rating)
        except (pa.ArrowException, OSError) as error:
            raise _bad_parquet(path, error) from error
        for role, column in columns.by_role().items():
            kind = schema.field(column).type
            kind = kind.value_type if pa.types.is_dictionary(kind) else kind
            if role in ("user", "item") and not (pa.types.is_integer(kind) or _is_text(kind)):
                raise at(
                    path,
                    1,
                    f"column {column!r} holds {kind}, which cannot be ids",
                    "store ids as integers or as UTF-8 text",
                    "row",
                )
        return cls(path, columns)

    def pieces(self) -> Iterator[Any]:
        chosen = self.columns.by_role()
        try:
            # Unbuffered: a whole row group's columns would be as large as their writer liked.
            with pyarrow.parquet.ParquetFile(self.path, pre_buffer=False, buffer_size=1) as file:
                for batch in file.iter_batches(PIECE_ROWS, columns=list(chosen.values())):
                    data = pa.Table.from_batches([batch]).select(list(chosen.values()))
                    data.validate(full=True)
                    if len(data):
                        yield _plain(data.rename_columns(list(chosen)))
        except (pa.ArrowException, OSError) as error:
            raise _bad_parquet(self.path, error) from error

    def rows(self) -> int:
        with pyarrow.parquet.ParquetFile(self.path) as file:
            return int(file.metadata.num_rows)

    def where(self, row: int) -> tuple[str, int]:
        return "row", row + 1


def _plain(data: Any) -> Any:
    """Spell out columns that Parquet read as dictionaries."""
    columns = []
    for column in data.columns:
        coded = pa.types.is_dictionary(column.type)
        columns.append(pc.cast(column, column.type.value_type) if coded else column)
    return pa.table(columns, data.column_names)


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _bad_parquet(path: Path, error: Exception) -> SparseRecError:
    if "UTF8" in str(error):
        return SparseRecError(
            f"{path}: a text column is not UTF-8 ({error})", "write the file again with UTF-8 text"
        )
    return SparseRecError(
        f"{path}, row 1: damaged, or not a Parquet file ({error})", "write the file again"
    )
