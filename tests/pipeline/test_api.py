"""The Python API: one conformance class, inherited by each base recommender's tests."""

import json
import re
from copy import copy
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import scipy.sparse as sp
from safetensors import safe_open
from safetensors.numpy import save

from pipeline import SparseRec
from pipeline.data.split import Pairs, temporal_split
from pipeline.data.synthetic import generate
from pipeline.fit import fit
from pipeline.matrices import pairs_of
from pipeline.models import ModelName
from pipeline.newcomers import widen
from pipeline.recipes import RECIPES
from pipeline.run import save_run
from pipeline.table import PackedTable
from sparserec.errors import SparseRecError

USERS, ITEMS = 60, 40


def checkerboard() -> sp.csr_matrix:
    """Even users take even items, odd users odd ones, all but item ``user % ITEMS``."""
    dense = (np.add.outer(np.arange(USERS), np.arange(ITEMS)) % 2 == 0).astype(np.float32)
    dense[np.arange(USERS), np.arange(USERS) % ITEMS] = 0
    return sp.csr_matrix(dense)


@pytest.fixture(scope="module")
def matrix() -> sp.csr_matrix:
    return checkerboard()


class Conformance:
    """What every model has to do; a subclass names the model."""

    MODEL: ClassVar[ModelName]

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls, matrix: sp.csr_matrix) -> SparseRec:
        recipe = RECIPES["sparserec"]()
        step = replace(recipe.step, learning_rate=0.01, l2=0.01, batch_size=256)
        model = SparseRec(cls.MODEL, recipe=replace(recipe, step=step), density=0.5, dim=8)
        return model.fit(matrix, show_progress=False)

    def test_the_item_left_out_comes_first(self, model, matrix) -> None:
        users = np.arange(USERS)
        ids, scores = model.recommend(users, matrix, N=3)
        assert ids.shape == scores.shape == (USERS, 3)
        assert ids.dtype == np.int64
        assert scores.dtype == np.float32
        assert (np.diff(scores) <= 0).all()
        assert np.mean(ids[:, 0] == users % ITEMS) > 0.9
        # With nothing left out, what is recommended is of the user's own kind.
        ids, _ = model.recommend(users, N=5, filter_already_liked_items=False)
        assert np.mean(ids % 2 == users[:, None] % 2) > 0.9

    def test_one_user_is_a_batch_of_one(self, model, matrix) -> None:
        batch = model.recommend([3, 50], matrix[[3, 50]], N=4)
        one = model.recommend(50, matrix[50], N=4)
        assert one[0].shape == (4,)
        np.testing.assert_array_equal(one[0], batch[0][1])
        np.testing.assert_allclose(one[1], batch[1][1], rtol=1e-5)

    def test_scores_are_the_recommenders(self, model) -> None:
        ids, scores = model.recommend(7, N=ITEMS, filter_already_liked_items=False)
        recommender = model._state.recommender
        expected = recommender.scores(np.array([7]), recommender.items(ITEMS))[0].numpy()
        np.testing.assert_array_equal(np.sort(ids), np.arange(ITEMS))
        np.testing.assert_array_equal(scores, expected[ids])

    def test_seen_and_chosen_items(self, model, matrix) -> None:
        seen_by_fit = model.recommend(3, N=ITEMS)
        given = model.recommend(3, matrix[3], N=ITEMS)
        np.testing.assert_array_equal(seen_by_fit[0], given[0])
        assert sorted(given[0]) == sorted(set(range(ITEMS)) - set(matrix[3].indices))
        ids, _ = model.recommend(3, matrix[3], N=ITEMS, filter_items=[3, 0])
        assert sorted(ids) == sorted(set(given[0]) - {3, 0})
        ids, _ = model.recommend(3, matrix[3], N=9, items=[0, 1, 2, 3, 2])
        assert sorted(ids) == [0, 2, 3]  # 1 was taken
        ids, scores = model.recommend([3, 4], matrix[[3, 4]], N=9, items=[0, 1, 2, 3])
        assert ids.shape == (2, 4)
        assert (ids[0] == -1).sum() == 1
        assert np.isneginf(scores[ids == -1]).all()
        assert ids[0, -1] == -1

    def test_similar_items_are_of_one_kind(self, model) -> None:
        ids, scores = model.similar_items(np.arange(ITEMS), N=4)
        np.testing.assert_allclose(scores[:, 0], 1, atol=1e-5)
        everything, cosines = model.similar_items(np.arange(ITEMS), N=ITEMS)
        # An item itself comes first, or with others whose vectors point the same way.
        of_itself = cosines[everything == np.arange(ITEMS)[:, None]]
        np.testing.assert_allclose(of_itself, scores[:, 0], atol=1e-5)
        assert np.mean(ids % 2 == np.arange(ITEMS)[:, None] % 2) > 0.9
        one = model.similar_items(5, N=4)
        np.testing.assert_array_equal(one[0], ids[5])
        assert 5 not in model.similar_items(5, N=4, filter_items=[5])[0]
        assert set(model.similar_items(5, N=9, items=[1, 2])[0]) == {1, 2}

    def test_a_saved_model_is_the_same(self, model, matrix, tmp_path: Path) -> None:
        path = tmp_path / "model.safetensors"
        model.save(path)
        again = SparseRec.load(path)
        assert again.recipe == model.recipe
        assert again.history == model.history
        users = np.arange(USERS)
        for one, other in zip(model.recommend(users), again.recommend(users), strict=True):
            np.testing.assert_array_equal(one, other)
        again.save(tmp_path / "twice")
        assert (tmp_path / "twice").read_bytes() == path.read_bytes()
        assert not list(tmp_path.glob("*.part"))
        # It learns on like the one that was not saved.
        more = grown(matrix)
        learned, loaded = copy(model).partial_fit(more), again.partial_fit(more)
        np.testing.assert_array_equal(learned.table.vals, loaded.table.vals)
        everyone = np.arange(USERS + 2)
        for one, other in zip(learned.recommend(everyone), loaded.recommend(everyone), strict=True):
            np.testing.assert_array_equal(one, other)

    def test_newcomers_are_recommended_their_own_kind(self, model, matrix, tmp_path: Path) -> None:
        model.save(tmp_path / "m")
        model = SparseRec.load(tmp_path / "m")
        more = grown(matrix)
        before = model.recommend(np.arange(USERS), N=1)[0]
        for epochs in (0, 3):  # from neighbours alone, then trained
            again = SparseRec.load(tmp_path / "m").partial_fit(more, epochs=epochs)
            table = again.table
            assert (table.num_users, table.num_items) == (USERS + 2, ITEMS + 2)
            assert table.nnz == round(0.5 * table.num_rows * 8)
            assert (np.diff(table.row_ptr) >= again.recipe.step.floor).all()
            ids, _ = again.recommend([USERS, USERS + 1], N=8)
            assert np.mean(ids[0] % 2 == 0) >= 0.75, epochs
            assert np.mean(ids[1] % 2 == 1) >= 0.75, epochs
            alike, _ = again.similar_items([ITEMS, ITEMS + 1], N=9)
            assert np.mean(alike[0] % 2 == 0) >= 0.75, epochs
            assert np.mean(alike[1] % 2 == 1) >= 0.75, epochs
            after = again.recommend(np.arange(USERS), N=1, items=np.arange(ITEMS))[0]
            assert np.mean(after == before) > 0.85, epochs  # the old are not forgotten
            assert again.user_ids[-2:] == [str(USERS), str(USERS + 1)]


def grown(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """Two more users and items, an even and an odd one each; the users take one another's too."""
    more = sp.lil_matrix((USERS + 2, ITEMS + 2), dtype=np.float32)
    more[USERS, 0:20:2] = 1
    more[USERS + 1, 1:21:2] = 1
    more[0:30:2, ITEMS] = 1
    more[1:31:2, ITEMS + 1] = 1
    return more.tocsr()


class TestMF(Conformance):
    MODEL = "mf"

    def test_what_was_seen_is_trained_beside_the_new(self, model, matrix) -> None:
        more, untouched = grown(matrix), slice(31, USERS)  # old users without new interactions
        before = model.table.dense(0, USERS)[untouched]
        changed = []
        for replay in (0.0, 1.0, 5.0):
            after = copy(model).partial_fit(more, replay=replay, epochs=2).table
            rows = after.dense(0, USERS)[untouched]
            changed.append(int((rows != before).any(axis=1).sum()))
        assert changed[0] == 0
        assert 0 < changed[1] < changed[2]

    def test_each_epoch_trains(self, model, matrix) -> None:
        more = grown(matrix)
        found = [copy(model).partial_fit(more, epochs=epochs).table.vals for epochs in range(4)]
        for one, next_ in pairwise(found):
            assert not np.array_equal(one, next_)

    def test_what_a_user_took_is_never_negative(self, matrix) -> None:
        few = matrix.tolil()
        few[0] = 0
        taken = [2, 4, 6, 8, 10]
        few[0, taken] = 1
        model = SparseRec(density=0.5, dim=8, epochs=1).fit(few.tocsr(), show_progress=False)
        before = model.table.dense(USERS, USERS + ITEMS)
        new = sp.lil_matrix((USERS, ITEMS))
        new[0, [20, 22, 24]] = 1
        # User 0 alone is trained: only what is new to it, or a negative, has its row changed.
        model.partial_fit(new.tocsr(), epochs=50, replay=0)
        changed = (model.table.dense(USERS, USERS + ITEMS) != before).any(axis=1)
        assert changed[[20, 22, 24]].all()
        assert not changed[taken].any()
        assert changed.sum() > ITEMS / 2


class TestNeuMF(Conformance):
    MODEL = "neumf"


class TestNGCF(Conformance):
    MODEL = "ngcf"


class TestLightGCN(Conformance):
    MODEL = "lightgcn"


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    matrix = checkerboard()
    with pytest.raises(SparseRecError, match="not fitted"):
        SparseRec().recommend(0)
    with pytest.raises(SparseRecError, match="method 'sparse' is unknown"):
        SparseRec(method="sparse")  # type: ignore[arg-type]
    with pytest.raises(SparseRecError, match="method 'sparse' is unknown"):
        SparseRec(recipe=replace(RECIPES["sparserec"](), method="sparse"))  # type: ignore[arg-type]
    with pytest.raises(SparseRecError, match="method is dense, and the recipe's is sparserec"):
        SparseRec(method="dense", recipe=RECIPES["sparserec"]())
    for name, value in (("dim", 300), ("dim", 0), ("epochs", 0), ("seed", -1), ("density", 1.5)):
        with pytest.raises(SparseRecError, match=f"{name} is {value}"):
            SparseRec(**{name: value})  # type: ignore[arg-type]
    with pytest.raises(SparseRecError, match="multiple of 8"):
        SparseRec("neumf", "small")
    with pytest.raises(SparseRecError, match="coo_matrix, not a SciPy CSR matrix of users x items"):
        SparseRec().fit(matrix.tocoo())
    with pytest.raises(SparseRecError, match="no interactions"):
        SparseRec().fit(sp.csr_matrix((3, 4)))
    with pytest.raises(SparseRecError, match="no user has the 5 interactions"):
        SparseRec().fit(sp.csr_matrix(np.eye(4)))
    with pytest.raises(SparseRecError, match="user_ids has 1 ids for 60 new users"):
        SparseRec().fit(matrix, user_ids=["a"])
    model = SparseRec(density=0.25, dim=16, epochs=1).fit(matrix, show_progress=False)
    with pytest.raises(SparseRecError, match="userid has 60, and the model knows 0 to 59"):
        model.recommend(60)
    with pytest.raises(SparseRecError, match="N is -1"):
        model.recommend(0, N=-1)
    with pytest.raises(SparseRecError, match="items has -1"):
        model.recommend(0, items=[-1])
    with pytest.raises(SparseRecError, match="60 rows for 2 users"):
        model.recommend([0, 1], matrix)
    with pytest.raises(SparseRecError, match=r"40 x 60, the model knows 40 items.*transposed"):
        model.recommend(np.arange(40), matrix.T.tocsr())
    with pytest.raises(SparseRecError, match=r"40 x 60, the model knows 60 users.*transposed"):
        model.partial_fit(matrix.T.tocsr())
    with pytest.raises(SparseRecError, match="item_ids has an id twice"):
        model.partial_fit(sp.csr_matrix((60, 41)), item_ids=["7"])
    path = tmp_path / "model"
    model.save(path)
    whole = path.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], whole.replace(b"sparserec-model-1", b"x" * 17)):
        path.write_bytes(damaged)
        with pytest.raises(SparseRecError, match=str(path)):
            SparseRec.load(path)
    with pytest.raises(SparseRecError, match="nowhere"):
        SparseRec.load(tmp_path / "nowhere")
    path.write_bytes(whole)
    with safe_open(path, framework="numpy") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for name, values in tensors.items():
        changed = tensors | {name: values.copy()}
        changed[name].view(np.uint8)[-1] ^= 1
        path.write_bytes(save(changed, metadata=metadata))
        with pytest.raises(SparseRecError, match=r"model: damaged.*SHA-256"):
            SparseRec.load(path)
    described = json.loads(metadata["model"])
    del described["sha256"]  # as before there was one
    path.write_bytes(save(tensors, metadata={"model": json.dumps(described)}))
    np.testing.assert_array_equal(SparseRec.load(path).table.vals, model.table.vals)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dim", "16"),
        ("dim", 16.0),
        ("epochs", 1.5),
        ("seed", 1.5),
        ("seed", 2**32),
        ("density", "0.1"),
        ("density", float("nan")),
    ],
)
def test_a_setting_that_is_no_number_is_named(name: str, value: object) -> None:
    with pytest.raises(SparseRecError, match=re.escape(f"{name} is {value!r}")):
        SparseRec(**{name: value})  # type: ignore[arg-type]


def test_numpys_numbers_are_numbers(matrix: sp.csr_matrix, tmp_path: Path) -> None:
    model = SparseRec(dim=np.int64(16), density=np.float32(0.25), epochs=np.int32(1))  # type: ignore[arg-type]
    model.fit(matrix, show_progress=False).save(tmp_path / "model")
    assert SparseRec.load(tmp_path / "model").recipe == model.recipe
    model.partial_fit(matrix, epochs=np.int64(1), replay=np.float32(1))  # type: ignore[arg-type]
    assert model.recommend(0, N=np.int64(3))[0].shape == (3,)  # type: ignore[arg-type]


def test_an_argument_that_is_no_number_is_named(matrix: sp.csr_matrix) -> None:
    model = SparseRec(density=0.25, dim=16, epochs=1).fit(matrix, show_progress=False)
    for value in (2.5, None, "3", -1, True):
        for ask in (model.recommend, model.similar_items):
            with pytest.raises(SparseRecError, match=f"N is {value!r}"):
                ask(0, N=value)  # type: ignore[arg-type]
    for name, value in (
        ("replay", -1),
        ("replay", float("nan")),
        ("replay", float("inf")),
        ("replay", "1"),
        ("epochs", -1),
        ("epochs", 1.5),
    ):
        with pytest.raises(SparseRecError, match=f"{name} is {value!r}"):
            model.partial_fit(matrix, **{name: value})  # type: ignore[arg-type]
    for validation in ("0.1", None, float("nan"), 0, 1):
        with pytest.raises(SparseRecError, match=f"validation is {validation!r}"):
            model.fit(matrix, validation=validation)  # type: ignore[arg-type]
    with pytest.raises(SparseRecError, match="items is no index and no list of indices"):
        model.recommend(0, items=[[1], [2, 3]])  # type: ignore[list-item]


def test_empty_rows_and_columns_keep_their_places() -> None:
    matrix = checkerboard().tolil()
    matrix[5] = 0
    matrix[:, 9] = 0
    model = SparseRec(density=0.25, dim=16, epochs=2).fit(matrix.tocsr(), show_progress=False)
    assert (model.table.num_users, model.table.num_items) == (USERS, ITEMS)
    assert model.recommend(5, N=3)[0].shape == (3,)


def test_cells_stored_twice_are_one_interaction() -> None:
    matrix = checkerboard()
    places = np.concatenate([np.tile(row.indices, 2) for row in matrix])
    twice = sp.csr_matrix((np.ones(2 * matrix.nnz), places, 2 * matrix.indptr), matrix.shape)
    once = SparseRec(density=0.25, dim=16, epochs=1).fit(matrix, show_progress=False)
    model = SparseRec(density=0.25, dim=16, epochs=1).fit(twice, show_progress=False)
    assert model.history == once.history  # nothing held out is trained on, too
    np.testing.assert_array_equal(model.table.vals, once.table.vals)
    np.testing.assert_array_equal(twice.indices, places)  # the caller's matrix stays


def test_a_cell_whose_sum_is_0_is_none() -> None:
    values, places, ends = np.array([1, -1, 2]), np.array([3, 3, 1]), np.array([0, 3])
    pairs = pairs_of(sp.csr_matrix((values, places, ends), (1, 5)))
    assert (pairs.users.tolist(), pairs.items.tolist()) == ([0], [1])
    # 128 + 128 is 0 in 8 bits, and an interaction all the same.
    values, places, ends = np.array([128, 128], np.uint8), np.array([3, 3]), np.array([0, 2])
    assert pairs_of(sp.csr_matrix((values, places, ends), (1, 5))).items.tolist() == [3]


def test_sparse_arrays_do_as_sparse_matrices(matrix: sp.csr_matrix) -> None:
    array = sp.csr_array(matrix)
    model = SparseRec(density=0.25, dim=16, epochs=1).fit(array, show_progress=False)
    expected = model.recommend(3, matrix[3], N=5)[0]
    for row in (array[3], array[3].tocsr(), array[[3]]):  # the first two have one dimension
        np.testing.assert_array_equal(model.recommend(3, row, N=5)[0], expected)
    with pytest.raises(SparseRecError, match="not a SciPy CSR matrix of users x items"):
        model.fit(array[3].tocsr())


def test_new_rows_hand_computed() -> None:
    # Users 0 and 1, items 0 and 1; d = 2. User 2 takes item 0, item 2 is taken by user 1.
    dense = np.array([[3, 0], [0, 4], [0, 2], [2, 0]], np.float32)
    table = PackedTable.from_dense(dense, dense != 0, num_users=2)
    users, items = np.array([2, 1], np.int32), np.array([0, 2], np.int32)
    wide = widen(table, Pairs(users, items, None), (3, 3), 0.5, 1)
    # Mean norms are 3.5 and 2; each newcomer gets one entry, its neighbour's.
    expected = np.array([[3, 0], [0, 4], [0, 3.5], [0, 2], [2, 0], [0, 2]], np.float32)
    np.testing.assert_allclose(wide.dense(0, 6), expected)
    assert np.diff(wide.row_ptr).tolist() == [1] * 6


@pytest.mark.parametrize("validation", [0.1, 0.25])
def test_as_much_as_asked_for_is_held_out(validation: float) -> None:
    matrix = sp.csr_matrix(np.tile([1.0] * 20 + [0.0] * 20, (USERS, 1)))
    model = SparseRec(density=0.25, dim=16, epochs=1)
    state = model.fit(matrix, show_progress=False, validation=validation)._state
    assert len(state.seen) == matrix.nnz
    assert state.in_graph == round((1 - validation) * matrix.nnz)


@pytest.mark.parametrize("refit", [False, True])
@pytest.mark.parametrize("name", ["lightgcn", "ngcf"])
def test_a_run_of_a_graph_model_scores_as_it_was_trained(
    tmp_path: Path, name: ModelName, refit: bool
) -> None:
    split = temporal_split(generate(80, 120, 3000, seed=3))
    static = RECIPES["static"]()
    step = replace(static.step, model=name)
    recipe = replace(static, step=step, dim=16, density=0.5, epochs=1, refit=refit)
    fitted = fit(recipe, split)
    save_run(tmp_path, "synthetic", "0" * 64, recipe, split, fitted)
    users, items = np.arange(split.known_users), split.known_items
    ids, scores = SparseRec.load(tmp_path).recommend(
        users, N=items, filter_already_liked_items=False
    )
    trained = fitted.recommender
    expected = trained.scores(users, trained.items(items)).numpy()
    np.testing.assert_allclose(scores, np.take_along_axis(expected, ids, 1), rtol=1e-5, atol=1e-7)


def test_a_run_recommends_without_its_dataset(tmp_path: Path) -> None:
    split = temporal_split(generate(80, 120, 3000, seed=3))
    recipe = RECIPES["static"]()
    recipe = replace(recipe, dim=32, epochs=2)
    fitted = fit(recipe, split)
    save_run(tmp_path, "synthetic", "0" * 64, recipe, split, fitted)
    model = SparseRec.load(tmp_path)
    assert model.user_ids == split.user_ids[: split.known_users]
    np.testing.assert_array_equal(model.table.vals, fitted.table.vals)
    past = set(split.train.items[split.train.users == 0])
    past |= set(split.valid.items[split.valid.users == 0])
    assert not past & set(model.recommend(0, N=20)[0])


def test_the_documented_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, re.S)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "docs/api.md", "exec"), {})
    assert (tmp_path / "model.safetensors").exists()
