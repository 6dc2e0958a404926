"""Which factors make the better start: docs/scale.md, Factors.

``python -m tests.scale.factors`` factors a dataset's training interactions by scikit-learn, by this
project's blocks on Spark, by scikit-learn's multiplicative updates (whose blocks would do the same
arithmetic) and by MLlib's ALS; trains each one's table alike (MF, SparseRec's recipe), and prints
Recall@20 on validation after each epoch.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from pipeline.data.datasets import load
from pipeline.data.prepared import write_split
from pipeline.data.split import Split
from pipeline.factors import read_factors
from pipeline.fit import fit, initial_table
from pipeline.nmf import Factors, NmfOptions, balanced, factorise
from pipeline.recipes import PLAIN, Recipe, sparserec
from sparserec.progress import bars

ALPHA, REGULARISATION, ROUNDS = 1.0, 0.01, 10
"""Of ALS: an observed pair weighs 1 + alpha, any other 1."""


def scikit_learn(split: Split, recipe: Recipe, solver: Any = "cd") -> Factors:
    options = NmfOptions(solver=solver)
    return factorise(split.train, split.known_users, split.known_items, recipe.dim, 1, options)


def multiplicative(split: Split, recipe: Recipe) -> Factors:
    return scikit_learn(split, recipe, "mu")


def blocks(split: Split, recipe: Recipe) -> Factors:
    from pipeline.spark.factorise import factorise as on_spark
    from pipeline.spark.session import session

    with tempfile.TemporaryDirectory() as name, session("local[2]") as spark:
        folder = Path(name)
        write_split(split, folder / "data", "data", "")
        on_spark(spark, folder / "data", folder / "factors", recipe.dim, 30, 1)
        return read_factors(folder / "factors", recipe, split)[1]


def als(split: Split, recipe: Recipe) -> Factors:
    from pyspark.ml.recommendation import ALS

    from pipeline.spark.session import session

    with tempfile.TemporaryDirectory() as name, session("local[2]") as spark:
        write_split(split, Path(name) / "data", "data", "")
        pairs = spark.read.parquet(f"{name}/data/train.parquet")
        pairs = pairs.selectExpr("user", "item", "1.0 as value")
        model = ALS(
            rank=recipe.dim,
            maxIter=ROUNDS,
            regParam=REGULARISATION,
            alpha=ALPHA,
            implicitPrefs=True,
            nonnegative=True,
            userCol="user",
            itemCol="item",
            ratingCol="value",
            seed=1,
        ).fit(pairs)
        sides = []
        for frame, count in (
            (model.userFactors, split.known_users),
            (model.itemFactors, split.known_items),
        ):
            side = np.zeros((count, recipe.dim), np.float32)
            for index, vector in frame.toLocalIterator():
                side[index] = vector
            sides.append(side)
    scale = balanced(*(np.linalg.norm(side, axis=0) for side in sides))
    return Factors(np.concatenate([sides[0] * scale, sides[1] / scale]), split.known_users)


CONTENDERS: dict[str, Callable[[Split, Recipe], Factors]] = {
    "scikit-learn": scikit_learn,
    "blocks": blocks,
    "multiplicative": multiplicative,
    "als": als,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.scale.factors", description=__doc__)
    parser.add_argument("contenders", nargs="*", choices=[[], *CONTENDERS], default=[])
    parser.add_argument("--dataset", default="gowalla")
    parser.add_argument("--epochs", type=int, default=5)
    given = parser.parse_args()
    recipe = replace(sparserec(), als=PLAIN, epochs=given.epochs)
    split = load(given.dataset).split()
    table = Table(title=f"{given.dataset}: Recall@20 on validation by epoch")
    for heading in ("factors by", "seconds", *map(str, range(1, given.epochs + 1))):
        table.add_column(heading, justify="right")
    for name in given.contenders or CONTENDERS:
        start = time.monotonic()
        factors = CONTENDERS[name](split, recipe)
        seconds = time.monotonic() - start
        with bars() as progress:
            start_table = initial_table(recipe, split, factors=factors)
            fitted = fit(recipe, split, progress=progress, start=start_table)
        recalls = [f"{epoch['recall@20']:.4f}" for epoch in fitted.history]
        table.add_row(name, f"{seconds:.0f}", *recalls)
    Console(width=100).print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
