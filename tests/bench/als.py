"""implicit's ALS, tuned on our validation part: ``python -m tests.bench.als``.

What a practitioner would pick first (Hu, Koren and Volinsky, ICDM 2008), judged by the project's
own evaluation. implicit is no dependency of the project: ``pip install implicit``.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from implicit.als import AlternatingLeastSquares

from pipeline.data.datasets import load
from pipeline.data.split import Pairs, Split
from pipeline.evaluate import Quality, evaluate
from pipeline.fit import held_out
from pipeline.recommender import Recommender
from pipeline.sampling import join
from pipeline.table import PackedTable

PENALTIES = {
    1.0: (0.01, 1.0, 10.0),
    4.0: (1.0, 10.0),
    16.0: (1.0, 10.0),
    64.0: (10.0, 40.0, 100.0, 400.0),
    100.0: (100.0,),
    200.0: (150.0, 400.0),
}
GRID = tuple((alpha, penalty) for alpha, some in PENALTIES.items() for penalty in some)
"""Confidence of an interaction, and the regularisation strengths tried with each."""


@dataclass(frozen=True)
class Trial:
    """One setting, and its Recall@20 on validation over all users."""

    alpha: float
    penalty: float
    recall: float
    seconds: float


def matrix_of(pairs: Pairs, split: Split) -> sp.csr_matrix:
    """Give interactions as implicit takes them: float32 (users, items), ones."""
    shape = split.known_users, split.known_items
    return sp.csr_matrix((np.ones(len(pairs), np.float32), (pairs.users, pairs.items)), shape)


def factorise(
    pairs: Pairs, split: Split, alpha: float, penalty: float, given: argparse.Namespace
) -> tuple[AlternatingLeastSquares, float]:
    """Train on ``pairs``; returns implicit's model and wall seconds."""
    model = AlternatingLeastSquares(
        factors=given.dim,
        alpha=alpha,
        regularization=penalty,
        iterations=given.iterations,
        random_state=1,
        num_threads=given.threads,
    )
    matrix, start = matrix_of(pairs, split), time.perf_counter()
    model.fit(matrix, show_progress=False)
    return model, time.perf_counter() - start


def als(
    pairs: Pairs, split: Split, alpha: float, penalty: float, given: argparse.Namespace
) -> tuple[Recommender, float]:
    """Train on ``pairs``; returns what scores like any model of the project, and wall seconds."""
    model, seconds = factorise(pairs, split, alpha, penalty, given)
    rows = np.concatenate([model.user_factors, model.item_factors])
    table = PackedTable.from_dense(rows, np.ones(rows.shape, np.bool_), split.known_users)
    return Recommender(table), seconds


def trials(split: Split, given: argparse.Namespace) -> Iterable[Trial]:
    """Train on the train part at each point of the grid."""
    for alpha, penalty in GRID:
        model, seconds = als(split.train, split, alpha, penalty, given)
        quality = evaluate(model, split.valid, split.train, split.known_items)
        yield Trial(alpha, penalty, quality.recall[20], seconds)


def tested(split: Split, best: Trial, given: argparse.Namespace) -> tuple[Quality, float]:
    """Train again on train and validation, at the setting selected, and look at the test part."""
    past = join(split.train, split.valid)
    model, seconds = als(past, split, best.alpha, best.penalty, given)
    return evaluate(model, held_out(split), past, split.known_items), seconds


def main() -> int:
    """Tune on validation, then test once; write ``als.json``."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.als", description=__doc__)
    parser.add_argument("dataset", nargs="?", default="gowalla")
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--iterations", type=int, default=15)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--alpha", type=float, help="with --penalty: no tuning, this setting")
    parser.add_argument("--penalty", type=float)
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    split = load(given.dataset).split()
    found: list[Trial] = []
    if given.alpha is None:
        for trial in trials(split, given):
            found.append(trial)
            print(json.dumps(asdict(trial)), flush=True)
        best = max(found, key=lambda trial: trial.recall)
    else:
        best = Trial(given.alpha, given.penalty, float("nan"), float("nan"))
    test, seconds = tested(split, best, given)
    answer = {"alpha": best.alpha, "penalty": best.penalty, "seconds": seconds, **test.as_dict()}
    print(json.dumps(answer))
    given.out.mkdir(parents=True, exist_ok=True)
    written = {"trials": [asdict(trial) for trial in found], "test": answer}
    (given.out / "als.json").write_text(json.dumps(written, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
