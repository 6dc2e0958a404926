"""Preparing a log on Spark: the split of ``read_log`` and ``temporal_split``, row for row.

A row's place in the log is (file, start of the file's piece, number within it), which orders rows
as they stand in the files, whichever worker reads them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Unpack

import numpy as np

from pipeline.data.columns import Columns
from pipeline.data.datasets import source_sha256
from pipeline.data.interactions import require_int32
from pipeline.data.logs import Duplicates, Log, LogOptions
from pipeline.data.prepared import PARTS, QUARTILES, Description, write_description
from pipeline.data.sources import CsvLog, LogFile
from pipeline.data.split import FRACTIONS, LATER, LOG, MIN_INTERACTIONS, TRAIN, VALID, no_times
from pipeline.files import whole_folder
from sparserec.errors import SparseRecError
from sparserec.progress import Progress, silent

PLACE = ("file", "start", "number")
BLANKS = r"(?U)^[\s\x1c-\x1f]+|[\s\x1c-\x1f]+$"
"""What Python's ``str.strip`` takes away."""
LOOK = "sparserec data check names the line; mend it and run again"


def prepare(
    spark: Any,
    source: Path,
    out: Path,
    fractions: tuple[float, float, float] = FRACTIONS,
    duplicates: Duplicates = "error",
    progress: Progress = silent,
    **options: Unpack[LogOptions],
) -> Description:
    """Write on Spark what ``pipeline.data.prepare.prepare`` writes, as folders of parts.

    Args:
        spark: a session; its workers see the same files as this process.
        source: a log, or a folder of its parts.
        out: a new folder; appears whole or not at all.
        fractions: train, valid, log.
        duplicates: of ``read_log``.
        progress: of the stages.
        options: of ``read_log``.

    Raises:
        SparseRecError: as there; what is wrong in a row is named with its file and value.
    """
    from pyspark.sql import functions as sql

    log = Log(source, **options)
    if not log.has_times:
        raise no_times()
    with whole_folder(out) as folder:
        stages = iter(range(1, 6))

        def stage(what: str) -> None:
            progress(f"Spark: {what}", next(stages), 5)

        stage("reading")
        rows = _checked(_read(spark, log), log, options.get("min_rating"))
        kept, repeats = _without_repeats(rows["kept"].persist(), log, duplicates)
        stage("splitting users")
        labelled = _labelled(kept, fractions).persist()
        stage("numbering users and items")
        found: dict[str, Any] = {}
        for kind in ("user", "item"):
            ids = _numbered(labelled, kind).persist()
            found[kind] = ids
            written = ids.select("index", "id", "degree").orderBy("index")
            written.write.parquet(f"{folder.absolute()}/{kind}s.parquet")
        stage("writing the parts")
        counts = _write_parts(labelled, found, folder)
        stage("degrees")
        of_later = labelled.filter(sql.col("part") == LATER).count()
        sizes = {kind: ids.count() for kind, ids in found.items()}
        known = {kind: ids.filter("past").count() for kind, ids in found.items()}
        degrees = {f"{kind}s": _quartiles(ids) for kind, ids in found.items()}
        description = Description(
            name=source.stem,
            source_sha256=source_sha256(source),
            interactions=counts,
            num_users=sizes["user"],
            num_items=sizes["item"],
            known_users=known["user"],
            known_items=known["item"],
            dropped_later=of_later - counts["later"],
            repeats=repeats,
            below_rating=rows["below"],
            degrees=degrees,
        )
        write_description(folder, description)
    return description


def _read(spark: Any, log: Log) -> Any:
    """Read the files as user, item (text without blanks), time, rating and a row's place."""
    alike: dict[tuple[Any, ...], list[LogFile]] = {}
    for file in log.files:
        layout = (file.header, file.separator) if isinstance(file, CsvLog) else ()
        alike.setdefault((repr(layout), file.columns), []).append(file)
    frames = [_frame(spark, files) for files in alike.values()]
    whole = frames[0]
    for frame in frames[1:]:
        whole = whole.unionByName(frame)
    return whole


def _frame(spark: Any, files: list[LogFile]) -> Any:
    from pyspark.sql import functions as sql

    first, paths = files[0], [str(file.path.absolute()) for file in files]
    if isinstance(first, CsvLog):
        # Columns go by position, as two that are not read may have the same name.
        schema = ", ".join(f"`{k}` string" for k in range(len(first.header)))
        frame = spark.read.csv(
            paths, schema=schema, sep=first.separator, header=True, escape='"', mode="FAILFAST"
        )
        names = {r: str(first.header.index(name)) for r, name in first.columns.by_role().items()}
    else:
        frame, names = spark.read.parquet(*paths), first.columns.by_role()
    columns = [
        sql.regexp_replace(sql.col(f"`{names[role]}`").cast("string"), BLANKS, "").alias(role)
        for role in ("user", "item")
    ]
    columns += [
        sql.col(f"`{names[role]}`").alias(role) for role in ("time", "rating") if role in names
    ]
    place = sql.struct(
        sql.col("_metadata.file_name").alias("file"),
        sql.col("_metadata.file_block_start").alias("start"),
        sql.monotonically_increasing_id().alias("number"),
    )
    return frame.select(*columns, place.alias("place"))


def _checked(frame: Any, log: Log, min_rating: float | None) -> dict[str, Any]:
    """Refuse bad rows, read times and ratings; give ``kept`` rows and how many are ``below``."""
    from pyspark.sql import functions as sql

    columns = log.files[0].columns
    frame = frame.persist()
    time, bad_time = _time(frame, columns)
    frame = frame.withColumn("when", time)
    checks = [(sql.col("when").isNull(), f"{columns.time} is not a time {bad_time}", "time")]
    if min_rating is not None:
        frame = frame.withColumn("rating", sql.col("rating").cast("string"))
        rating = sql.expr("try_cast(trim(rating) as double)")
        bad = rating.isNull() | sql.isnan(rating) | (sql.abs(rating) == float("inf"))
        checks.append((bad, f"{columns.rating} is not a number", "rating"))
        frame = frame.withColumn("liked", rating >= min_rating)
    else:
        frame = frame.withColumn("liked", sql.lit(True))
    for role in ("item", "user"):
        text = sql.coalesce(sql.col(role), sql.lit(""))
        checks += [
            (text == "", f"empty {role}", role),
            (sql.lower(text) == "nan", f"NaN where the {role}'s id should be", role),
            (text.rlike(r"^-\d+$"), f"a {role} id is negative", role),
        ]
    problem = sql.lit(None).cast("string")
    value = sql.lit(None).cast("string")
    for test, what, column in checks:
        problem = sql.when(test, what).otherwise(problem)
        value = sql.when(test, sql.col(column).cast("string")).otherwise(value)
    found = frame.agg(
        sql.min(sql.when(problem.isNotNull(), sql.struct("place", problem, value))).alias("bad"),
        sql.count("*").alias("rows"),
        sql.count(sql.when(~sql.col("liked"), 1)).alias("below"),
    ).first()
    if found["rows"] == 0:
        raise SparseRecError(
            f"{log.source}: there are no interactions below the header", "export the file again"
        )
    if found["bad"] is not None:
        place, text, wrong = found["bad"]
        raise SparseRecError(f"{log.source}, {place['file']}: {text}: {wrong!r}", LOOK)
    if found["below"] == found["rows"]:
        raise SparseRecError(
            f"{log.source}: no rating reaches {min_rating:g}", "choose a lower --min-rating"
        )
    require_int32(found["rows"] - found["below"], "interactions", log.source)
    kept = frame.filter("liked").select(
        "user", "item", sql.col("when").alias("time"), "place.file", "place.start", "place.number"
    )
    return {"kept": kept, "below": found["below"]}


def _time(frame: Any, columns: Columns) -> tuple[Any, str]:
    """Give times as whole numbers, null where there is none, by the form of the whole column."""
    from pyspark.sql import functions as sql

    kind = dict(frame.dtypes)["time"]
    if kind.startswith("timestamp"):
        return sql.unix_micros(sql.col("time").cast("timestamp")), ""
    if kind != "string":
        return sql.expr("try_cast(floor(time) as bigint)"), ""
    text = f"regexp_replace(time, r'{BLANKS}', '')"
    forms = {
        "number": f"if({text} rlike '^[+-]?[0-9]+$', try_cast({text} as bigint), null)",
        "decimal number": f"try_cast(floor(try_cast({text} as double)) as bigint)",
        "date": f"if({text} rlike '^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}',"
        f" unix_micros(try_cast({text} as timestamp)), null)",
    }
    rows = sql.count("*").alias("rows")
    found = frame.agg(rows, *(sql.count(sql.expr(f)).alias(n) for n, f in forms.items())).first()
    best = max(forms, key=lambda name: (found[name], name == "number"))
    return sql.expr(forms[best]), f"as the others are ({best}s)"


def _without_repeats(rows: Any, log: Log, duplicates: Duplicates) -> tuple[Any, int]:
    """Keep each pair's earliest row; or refuse repeats."""
    from pyspark.sql import Window
    from pyspark.sql import functions as sql

    window = Window.partitionBy("user", "item").orderBy("time", *PLACE)
    ranked = rows.withColumn("turn", sql.row_number().over(window)).persist()
    repeats = ranked.filter("turn > 1")
    count = repeats.count()
    if count and duplicates == "error":
        row = repeats.orderBy(*PLACE).first()
        raise SparseRecError(
            f"{log.source}, {row['file']}: duplicate: user {row['user']!r} took item"
            f" {row['item']!r} {row['turn']} times",
            "remove it, or pass --duplicates keep-first if repeats are meant",
        )
    return ranked.filter("turn = 1").drop("turn"), count


def _labelled(rows: Any, fractions: tuple[float, float, float]) -> Any:
    """Add each row's part, by the rule of ``split.cut``."""
    from pyspark.sql import Window
    from pyspark.sql import functions as sql

    whole = Window.partitionBy("user")
    rank = sql.row_number().over(whole.orderBy("time", *PLACE)) - 1
    rows = rows.withColumn("rank", rank).withColumn("total", sql.count("*").over(whole))
    part = sql.lit(TRAIN)
    for end in np.cumsum(fractions):
        begun = sql.col("rank") >= sql.floor(sql.col("total") * sql.lit(float(end)) + 1e-9)
        part = part + begun.cast("int")
    few = sql.col("total") < MIN_INTERACTIONS
    return rows.withColumn("part", sql.when(few, TRAIN).otherwise(part)).drop("rank", "total")


def _numbered(labelled: Any, kind: str) -> Any:
    """Give index, id, past and degree: the past's by first appearance, then by arrival."""
    from pyspark.sql import Window
    from pyspark.sql import functions as sql

    part, place = sql.col("part"), [sql.col(name) for name in PLACE]
    ids = labelled.groupBy(sql.col(kind).alias("id")).agg(
        sql.max((part == TRAIN) | (part == VALID)).alias("past"),
        sql.min(sql.struct(*place)).alias("first"),
        sql.min(sql.when(part == LOG, sql.struct("time", *place))).alias("arrival"),
        sql.count(sql.when(part == TRAIN, 1)).alias("degree"),
    )
    ids = ids.filter(sql.col("past") | sql.col("arrival").isNotNull())
    # One task numbers all ids: the trainer holds them all anyway.
    order = Window.orderBy(
        sql.col("past").desc(),
        sql.when(sql.col("past"), sql.col("first")),
        sql.when(~sql.col("past"), sql.col("arrival")),
    )
    index = (sql.row_number().over(order) - 1).cast("int")
    return ids.select(index.alias("index"), "id", "past", "degree")


def _write_parts(labelled: Any, ids: dict[str, Any], folder: Path) -> dict[str, int]:
    """Write the parts in order of time; what has no index is what nothing could predict."""
    from pyspark.sql import functions as sql

    indexed = labelled
    for kind in ("user", "item"):
        names = ids[kind].select(sql.col("id").alias(kind), sql.col("index").alias(f"{kind}_index"))
        indexed = indexed.join(names, kind)
    indexed = indexed.persist()
    counts = {}
    for part, name in enumerate(PARTS):
        rows = indexed.filter(sql.col("part") == part)
        counts[name] = rows.count()
        ordered = rows.orderBy("time", *PLACE).select(
            sql.col("user_index").alias("user"), sql.col("item_index").alias("item"), "time"
        )
        ordered.write.parquet(f"{folder.absolute()}/{name}.parquet")
    return counts


def _quartiles(ids: Any) -> list[float]:
    from pyspark.sql import functions as sql

    quartiles = sql.array(*(sql.lit(q) for q in QUARTILES))
    found = ids.filter("past").agg(sql.percentile("degree", quartiles).alias("found")).first()
    return [float(value) for value in found["found"]]
