"""A Spark session, with one clear error where something is missing."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sparserec.errors import SparseRecError

SETTINGS = {
    "spark.app.name": "sparserec",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.log.level": "ERROR",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    # Else lines of another width than the header are not noticed.
    "spark.sql.csv.parser.columnPruning.enabled": "false",
}

LOCAL_PARTITIONS = "8"
"""Of a shuffle on one machine, unless ``spark-defaults.conf`` says: Spark's 200 are a cluster's."""
PARTITIONS = "spark.sql.shuffle.partitions"


@contextmanager
def session(master: str) -> Iterator[Any]:
    """Yield a SparkSession at ``master``, stopped when the block ends.

    What ``spark-defaults.conf`` says of memory and executors holds.

    Raises:
        SparseRecError: PySpark or a JDK is missing, a job failed, or the master did not answer.
    """
    try:
        from py4j.protocol import Py4JError
        from pyspark.errors import PySparkException
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise SparseRecError(
            f"PySpark is missing ({error})", "pip install 'sparserec-on-device[spark]'"
        ) from None
    home = os.environ.get("JAVA_HOME")
    if not ((home and (Path(home) / "bin" / "java").exists()) or shutil.which("java")):
        raise SparseRecError(
            "Spark needs a Java runtime, and there is none on the PATH",
            "install a JDK 17 or newer (Debian: apt install openjdk-17-jre-headless), or set"
            " JAVA_HOME",
        )
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.master(master)
    for name, value in SETTINGS.items():
        builder = builder.config(name, value)
    try:
        spark = builder.getOrCreate()
    except Exception as error:
        raise SparseRecError(
            f"Spark did not start at {master}: {_what(error)}",
            "check --spark-master: local[2], spark://host:7077, yarn",
        ) from error
    try:
        if master.startswith("local") and not spark.sparkContext.getConf().contains(PARTITIONS):
            spark.conf.set(PARTITIONS, LOCAL_PARTITIONS)
        yield spark
    except (PySparkException, Py4JError) as error:
        raise SparseRecError(
            f"a Spark job failed: {_what(error)}",
            "nothing was written; mend what it says and run again",
        ) from error
    finally:
        spark.stop()


def _what(error: BaseException) -> str:
    """Give the first lines of an error that belong to no stack trace."""
    lines = [line for line in str(error).splitlines() if line and not line[0].isspace()]
    return " ".join(lines[:2]) or type(error).__name__
