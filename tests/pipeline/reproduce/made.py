"""Records as a run writes them, without the run."""

from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.synthetic import generate
from pipeline.evaluate import CUTOFFS, ndcg_per_user, recall_per_user
from pipeline.reproduce.cells import Cell, digest, recipe_of
from pipeline.reproduce.records import SCHEMA_VERSION, Hits, append, save_hits


def values(cell: Cell, valid: float = 0.1, **more: Any) -> dict[str, Any]:
    recipe = recipe_of(cell, [])
    return {
        "schema_version": SCHEMA_VERSION,
        "id": cell.id,
        "cell": cell.as_dict(),
        "recipe": recipe.as_dict(),
        "history": [{"epoch": 1, "recall@20": valid, "ndcg@20": valid, "loss": 0.5}],
        "best_epoch": 1,
        "seconds": 1.0,
        "peak_rss_bytes": 2**20,
        **more,
    }


def hits(users: int, chance: float, seed: int) -> Hits:
    """Every user finds each of 20 items with this chance; who is relevant to whom is fixed."""
    relevant = 20 + np.random.default_rng(0).integers(0, 30, users)
    found = np.random.default_rng(seed).random((users, 20)) < chance
    return Hits(np.arange(users) * 2, relevant, found)


def record(results: Path, cell: Cell, found: Hits, **more: Any) -> dict[str, Any]:
    """Append a record whose test metrics are those of ``found``."""
    test = {}
    for k in CUTOFFS:
        test[f"recall@{k}"] = float(recall_per_user(found.found, found.relevant, k).mean())
        test[f"ndcg@{k}"] = float(ndcg_per_user(found.found, found.relevant, k).mean())
    names = save_hits(results, digest(cell, recipe_of(cell, [])), found)
    line = values(cell, test=test, hits=names, **more)
    append(results, cell.experiment, line)
    return line


def publish(folder: Path) -> Path:
    """Write a split of synthetic interactions as the dataset ``made``."""
    log = generate(80, 120, 3000, seed=3)
    (folder / "made").mkdir(parents=True)
    for name, part in (("train", slice(0, None, 2)), ("test", slice(1, None, 2))):
        by_user: dict[int, list[int]] = {}
        for user, item in zip(log.users[part].tolist(), log.items[part].tolist(), strict=True):
            by_user.setdefault(user, []).append(item)
        lines = [f"{user} {' '.join(map(str, items))}\n" for user, items in by_user.items()]
        (folder / "made" / f"{name}.txt").write_text("".join(lines))
    return folder
