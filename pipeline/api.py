"""``SparseRec``, the Python API: what users of ``implicit`` expect, over recipes and ``fit``.

Every matrix is CSR, a row a user and a column an item, as in ``implicit`` since 0.5. docs/api.md
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch

from pipeline.data.split import Pairs
from pipeline.fit import fit
from pipeline.graph import Graph
from pipeline.history import History
from pipeline.matrices import (
    ids_of,
    indices,
    matrix_of,
    number,
    pairs_of,
    past_of,
    rows_for,
    turned,
    whole,
)
from pipeline.models import MODELS, ModelName
from pipeline.newcomers import unseen, widen, with_replay
from pipeline.ranking import best, one
from pipeline.recipes import RECIPES, Method, Recipe, suited
from pipeline.recommender import Recommender
from pipeline.sampling import TripleSampler, join
from pipeline.saved import Saved, read, write
from pipeline.table import F32, I64, PackedTable
from pipeline.train import Trainer
from sparserec.errors import SparseRecError
from sparserec.progress import Progress, bars, silent

Ids = int | np.integer[Any] | Sequence[int] | npt.NDArray[Any]
"""One index or some; what is asked for one is answered without the batch's dimension."""


@dataclass(frozen=True)
class _State:
    """What a fitted model is made of; the first ``in_graph`` of ``seen`` are its graph's pairs."""

    recommender: Recommender
    seen: Pairs
    in_graph: int
    user_ids: list[str]
    item_ids: list[str]


class SparseRec:
    """A sparse recommender: fit, recommend, find similar items, learn on, save.

    Args:
        model: the base recommender: ``mf``, ``neumf``, ``ngcf``, ``lightgcn`` or the path of a
            file of yours (docs/models.md).
        method: ``sparserec`` (the default) or a baseline (docs/baselines.md).
        recipe: every option there is, the method included; the other arguments change it. Default:
            the method's own. Where ``model`` is named and ``value_scale`` is the method's default,
            a start from factors gets the model's scale, as in ``sparserec train``; another scale,
            or that of a recipe which names the model itself, stays.
        density: active entries / (N d).
        dim: d, columns of the table, at most 256.
        epochs: passes over the interactions; the best one on held-out interactions is kept.
        seed: of the start and every draw; the same seed gives the same model.

    Attributes:
        recipe: how it is, or was, trained.
        history: of ``fit``: per epoch the loss and the quality on held-out interactions.

    Raises:
        SparseRecError: as ``Recipe.check`` raises, the model or the method is unknown, or what is a
            number is none.
    """

    def __init__(
        self,
        model: ModelName | None = None,
        method: Method | None = None,
        *,
        recipe: Recipe | None = None,
        density: float | None = None,
        dim: int | None = None,
        epochs: int | None = None,
        seed: int | None = None,
    ) -> None:
        name = method or (recipe.method if recipe else "sparserec")
        if name not in RECIPES:
            raise SparseRecError(f"method {name!r} is unknown", f"use one of {', '.join(RECIPES)}")
        if method is not None and recipe is not None and method != recipe.method:
            raise SparseRecError(
                f"method is {method}, and the recipe's is {recipe.method}", "give one of them"
            )
        chosen = recipe or RECIPES[name]()
        chosen = replace(chosen, step=replace(chosen.step, model=model or chosen.step.model))
        untouched = chosen.value_scale == RECIPES[name]().value_scale
        if recipe is None or (model is not None and untouched):
            chosen = suited(chosen)
        counts = {"dim": dim, "epochs": epochs, "seed": seed}
        given: dict[str, Any] = {k: whole(k, v) for k, v in counts.items() if v is not None}
        if density is not None:
            given["density"] = number("density", density)
        self.recipe = replace(chosen, **given)
        self.recipe.check()
        self.history: History = []
        self._fitted: _State | None = None

    def fit(
        self,
        user_items: sp.csr_matrix,
        show_progress: bool = True,
        *,
        user_ids: Sequence[str] | None = None,
        item_ids: Sequence[str] | None = None,
        validation: float = 0.1,
    ) -> SparseRec:
        """Train on a matrix of users x items; whatever is not 0 is an interaction.

        Args:
            user_items: CSR (num_users, num_items); stored zeros are left out.
            show_progress: draw a bar.
            user_ids: raw ids of the rows, kept with the model; default "0", "1", ...
            item_ids: likewise of the columns.
            validation: part of each user's interactions that is held out to choose the epoch;
                users with fewer than 5 keep theirs.

        Returns:
            The model itself.

        Raises:
            SparseRecError: the matrix is empty, or ids do not fit it, or nothing could be held
                out.
        """
        pairs, shape = pairs_of(user_items), user_items.shape
        users, items = (
            ids_of("user", user_ids, [], shape[0]),
            ids_of("item", item_ids, [], shape[1]),
        )
        split = past_of(pairs, users, items, validation, self.recipe.seed)
        with _bars(show_progress) as progress:
            found = fit(self.recipe, split, progress=progress)
        self.history = found.history
        seen = join(split.train, split.valid)
        in_graph = len(seen) if self.recipe.refit else len(split.train)
        self._fitted = _State(found.recommender, seen, in_graph, users, items)
        return self

    def partial_fit(
        self,
        user_items: sp.csr_matrix,
        show_progress: bool = False,
        *,
        user_ids: Sequence[str] | None = None,
        item_ids: Sequence[str] | None = None,
        epochs: int = 5,
        replay: float = 1.0,
    ) -> SparseRec:
        """Learn from new interactions; further rows and columns are new users and items.

        New rows start from their neighbours' (``pipeline.newcomers``), and the budget grows by the
        density. The mask of old rows stays. What was seen before is not lost: ``replay`` of it is
        trained beside the new.

        Args:
            user_items: CSR of the new interactions, (num_users or more, num_items or more): the
                first rows and columns are those the model knows. Repeats of old ones do nothing.
            show_progress: draw a bar.
            user_ids: raw ids of the new users only, in the order of their rows.
            item_ids: likewise of the new items.
            epochs: passes over the new interactions; 0 only adds rows.
            replay: old interactions trained for each new one, drawn anew in each call.

        Returns:
            The model itself.

        Raises:
            SparseRecError: not fitted, the matrix has fewer rows or columns than the model, or
                ``epochs`` or ``replay`` is no number, 0 or more.
        """
        known = self._state
        epochs, replay = whole("epochs", epochs, 0), number("replay", replay)
        table = known.recommender.table
        pairs, shape = pairs_of(user_items), user_items.shape
        if shape[0] < table.num_users or shape[1] < table.num_items:
            raise SparseRecError(
                f"user_items is {shape[0]} x {shape[1]}, the model knows {table.num_users} users"
                f" and {table.num_items} items{turned(shape, table.num_users, table.num_items)}",
                "keep the rows and columns of fit, in their order, and append new ones",
            )
        users = ids_of("user", user_ids, known.user_ids, shape[0])
        items = ids_of("item", item_ids, known.item_ids, shape[1])
        new = unseen(pairs, known.seen, shape[1])
        seen = join(known.seen, new)
        density = 1.0 if self.recipe.method == "small" else self.recipe.density
        wide = widen(table, seen, shape, density, self.recipe.step.floor)
        log = with_replay(new, known.seen, replay, self.recipe.seed + len(seen))
        with _bars(show_progress) as progress:
            trained = self._learn(wide, seen, log, epochs, progress)
        self._fitted = _State(trained, seen, len(seen), users, items)
        return self

    def _learn(
        self, table: PackedTable, seen: Pairs, log: Pairs, epochs: int, progress: Progress
    ) -> Recommender:
        """Train on ``log`` under the mask that is there; ``seen`` is never negative."""
        old, step = self._state.recommender, self.recipe.step
        users, items = table.num_users, table.num_items
        graph = Graph.of(seen, users, items) if old.graph else None
        dense = {name: values.copy() for name, values in old.dense.items()}
        if len(log) == 0 or epochs == 0:
            return Recommender(table, step.model, dense, graph)
        sampler = TripleSampler.of(log, seen, items, items, self.recipe.seed)
        size = min(step.batch_size, len(log))
        config = replace(step, batch_size=size)
        trainer = Trainer(table.copy(), sampler, config, None, graph, dense)
        steps = math.ceil(len(log) / size)
        for epoch in range(epochs):
            for _ in range(steps):
                trainer.run_step()
            progress("partial_fit", epoch + 1, epochs)
        return Recommender(trainer.table, step.model, trainer.dense, graph)

    def recommend(
        self,
        userid: Ids,
        user_items: sp.csr_matrix | None = None,
        N: int = 10,  # noqa: N803 - implicit's name
        filter_already_liked_items: bool = True,
        filter_items: Sequence[int] | None = None,
        items: Sequence[int] | None = None,
    ) -> tuple[I64, F32]:
        """Give the best items for a user or for some users.

        Args:
            userid: index of a row, or of U rows.
            user_items: what the users took, which is not recommended: CSR (U, num_items), a row
                for each of ``userid``, in its order: ``matrix[userid]``. Default: what fit and
                partial_fit saw.
            N: how many items.
            filter_already_liked_items: leave out what ``user_items`` has.
            filter_items: item indices that nobody is recommended.
            items: item indices to choose from; default all.

        Returns:
            Item indices, int64, and scores, float32, best first: (N,) for one user, (U, N) for
            some. Where fewer items are left, a batch's row ends in -1 with score -inf; one user's
            answer is shorter.

        Raises:
            SparseRecError: not fitted, an index is out of range, the matrix does not fit, or ``N``
                is no whole number, 0 or more.
        """
        state = self._state
        table = state.recommender.table
        users = indices("userid", userid, table.num_users)
        if not filter_already_liked_items:
            liked = sp.csr_matrix((len(users), table.num_items), dtype=np.float32)
        elif user_items is None:
            liked = matrix_of(state.seen, (table.num_users, table.num_items))[users]
        else:
            liked = rows_for(user_items, len(users), table.num_users, table.num_items)
        found = best(
            lambda at, columns: state.recommender.scores(users[at], columns),
            state.recommender.items(table.num_items),
            liked,
            state.recommender.users_at_a_time(table.num_items),
            whole("N", N, 0),
            *_candidates(filter_items, items, table.num_items),
        )
        return one(*found) if np.ndim(userid) == 0 else found

    def similar_items(
        self,
        itemid: Ids,
        N: int = 10,  # noqa: N803 - implicit's name
        filter_items: Sequence[int] | None = None,
        items: Sequence[int] | None = None,
    ) -> tuple[I64, F32]:
        """Give the items whose vectors point the same way; an item is most similar to itself.

        Args:
            itemid: index of a column, or of some.
            N: how many.
            filter_items: item indices to leave out.
            items: item indices to choose from; default all.

        Returns:
            Item indices and cosines, in the shapes of ``recommend``.

        Raises:
            SparseRecError: not fitted, an index is out of range, or ``N`` is no whole number, 0 or
                more.
        """
        recommender = self._state.recommender
        count = recommender.table.num_items
        asked = indices("itemid", itemid, count)
        vectors = torch.nn.functional.normalize(recommender.items(count), dim=1)
        found = best(
            lambda at, columns: vectors[torch.from_numpy(asked[at])] @ columns.T,
            vectors,
            sp.csr_matrix((len(asked), count), dtype=np.float32),
            recommender.users_at_a_time(count),
            whole("N", N, 0),
            *_candidates(filter_items, items, count),
        )
        return one(*found) if np.ndim(itemid) == 0 else found

    def save(self, path: str | Path) -> None:
        """Write the model to one safetensors file, atomically; nothing is pickled.

        It holds the table, the dense parameters, the recipe, the raw ids and the interactions seen,
        so that ``load`` needs nothing else to recommend or to learn on.
        """
        state = self._state
        table, dense = state.recommender.table, state.recommender.dense
        ids = state.user_ids, state.item_ids
        parts = self.recipe, table, dense, state.seen, state.in_graph, *ids, self.history
        write(Path(path), Saved(*parts))

    @classmethod
    def load(cls, path: str | Path) -> SparseRec:
        """Read what ``save`` wrote, or the folder of a ``sparserec train`` run.

        Raises:
            SparseRecError: the file or folder is missing, damaged, or of another version.
        """
        saved = read(Path(path))
        model, table, seen = cls(), saved.table, saved.seen
        model.recipe = saved.recipe  # unchecked: what it is to train is trained
        name = saved.recipe.step.model
        of_graph = Pairs(seen.users[: saved.in_graph], seen.items[: saved.in_graph], None)
        with_graph = MODELS[name].GRAPH != "none"
        graph = Graph.of(of_graph, table.num_users, table.num_items) if with_graph else None
        recommender = Recommender(table, name, saved.dense, graph)
        ids = saved.user_ids, saved.item_ids
        model.history = saved.history
        model._fitted = _State(recommender, seen, saved.in_graph, *ids)
        return model

    @property
    def table(self) -> PackedTable:
        """The packed table, users then items."""
        return self._state.recommender.table

    @property
    def user_ids(self) -> list[str]:
        """Raw ids, by row."""
        return self._state.user_ids

    @property
    def item_ids(self) -> list[str]:
        """Raw ids, by column."""
        return self._state.item_ids

    @property
    def _state(self) -> _State:
        if self._fitted is None:
            raise SparseRecError("this model is not fitted", "call fit, or SparseRec.load")
        return self._fitted


def _candidates(
    left_out: Sequence[int] | None, chosen: Sequence[int] | None, count: int
) -> tuple[I64, I64 | None]:
    """Check ``filter_items`` and ``items``."""
    filtered = indices("filter_items", [] if left_out is None else left_out, count)
    return filtered, None if chosen is None else np.unique(indices("items", chosen, count))


def _bars(shown: bool) -> AbstractContextManager[Progress]:
    return bars() if shown else nullcontext(silent)
