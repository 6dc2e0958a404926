"""What least squares do to NMF's start: ``python -m pipeline.start_study DATASET...``.

No training: the start is evaluated as it is, on validation, for MF and propagated for LightGCN.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace

from pipeline.als import AlsOptions
from pipeline.data.datasets import load
from pipeline.data.split import Split
from pipeline.evaluate import evaluate
from pipeline.fit import validation_users
from pipeline.graph import Graph
from pipeline.nmf import Factors, NmfOptions, factorise
from pipeline.recipes import PLAIN, Recipe, sparserec
from pipeline.recommender import Recommender
from pipeline.start import initial_table

VALID_USERS = 4000
STARTS: dict[str, tuple[AlsOptions, NmfOptions]] = {
    "NMF": (PLAIN, NmfOptions()),
    "values refitted": (AlsOptions(exchange=0.0), NmfOptions()),
    "and entries exchanged": (AlsOptions(), NmfOptions()),
    "the same by PPMI": (AlsOptions(), NmfOptions(normalisation="ppmi")),
}


def recalls(
    recipe: Recipe, split: Split, factors: Factors, graph: Graph
) -> tuple[float, float, float]:
    """Give Recall@20 on validation by MF and by LightGCN, and the seconds of the start."""
    began = time.monotonic()
    table = initial_table(recipe, split, factors=factors)
    seconds = time.monotonic() - began
    users, items = validation_users(recipe, split), split.known_items
    found = [
        evaluate(current, split.valid, split.train, items, users).recall[20]
        for current in (Recommender(table), Recommender(table, "lightgcn", graph=graph))
    ]
    return found[0], found[1], seconds


def main() -> None:
    """Print a table."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    shown = Table("dataset", "start", "MF", "LightGCN", "seconds after NMF")
    for name in sys.argv[1:]:
        split = load(name).split()
        recipe = replace(sparserec(), valid_users=VALID_USERS)
        users, items = split.known_users, split.known_items
        graph = Graph.of(split.train, users, items)
        made: dict[NmfOptions, Factors] = {}
        for start, (als, nmf) in STARTS.items():
            if nmf not in made:
                made[nmf] = factorise(split.train, users, items, recipe.dim, recipe.seed, nmf)
            mf, lightgcn, seconds = recalls(replace(recipe, als=als), split, made[nmf], graph)
            shown.add_row(name, start, f"{mf:.4f}", f"{lightgcn:.4f}", f"{seconds:.0f}")
        console.print(f"{name} done", style="dim")
    console.print(shown)


if __name__ == "__main__":
    main()
