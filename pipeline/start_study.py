"""What makes a good start: ``python -m pipeline.start_study DATASET...``.

No training: MF's and LightGCN's starts are evaluated as they are, on validation.
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
from sparserec.errors import SparseRecError

VALID_USERS = 4000
STARTS: dict[str, tuple[AlsOptions, NmfOptions]] = {
    "NMF": (PLAIN, NmfOptions()),
    "refined": (AlsOptions(), NmfOptions()),
    "refined, no exchange": (AlsOptions(exchange=0.0), NmfOptions()),
    "refined, roots of degrees": (AlsOptions(), NmfOptions(power=0.5)),
    "refined, PPMI": (AlsOptions(), NmfOptions(normalisation="ppmi")),
}


def found(
    recipe: Recipe, split: Split, factors: Factors, graph: Graph | None
) -> tuple[float, float]:
    """Give Recall@20 on validation of a start, and its seconds after NMF."""
    began = time.monotonic()
    table = initial_table(recipe, split, factors=factors)
    seconds = time.monotonic() - began
    current = Recommender(table, recipe.step.model, graph=graph)
    users, items = validation_users(recipe, split), split.known_items
    quality = evaluate(current, split.valid, split.train, items, users)
    return quality.recall[20], seconds


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
            cells = []
            for model, of in (("mf", None), ("lightgcn", graph)):
                arm = replace(recipe, als=als, step=replace(recipe.step, model=model))
                cells.append(found(arm, split, made[nmf], of))
            recalls, seconds = zip(*cells, strict=True)
            shown.add_row(
                name, start, *(f"{x:.4f}" for x in recalls), " ".join(f"{x:.0f}" for x in seconds)
            )
        console.print(f"{name} done", style="dim")
    console.print(shown)


if __name__ == "__main__":
    try:
        main()
    except SparseRecError as error:
        sys.exit(str(error))
