"""Whole host runs on a synthetic log: stopped at any step, they end as if never stopped."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save

from pipeline.api import SparseRec
from pipeline.checkpoint import Progress, load_checkpoint, save_checkpoint
from pipeline.data.interactions import pair_keys
from pipeline.data.logs import write_csv
from pipeline.data.split import Pairs, Split, temporal_split
from pipeline.data.synthetic import generate
from pipeline.evaluate import evaluate
from pipeline.files import write_tensors
from pipeline.fit import (
    Fitted,
    end_epoch,
    fingerprint_of,
    fit,
    held_out,
    known_only,
    trainer_of,
    validation_users,
)
from pipeline.models import MODELS
from pipeline.nmf import Factors
from pipeline.pep import PepOptions, PepTrainer
from pipeline.prune import magnitude_prune
from pipeline.recipes import RECIPES, Recipe
from pipeline.recommender import Recommender
from pipeline.run import load_run, save_run
from pipeline.sampling import join
from pipeline.start import initial_table
from pipeline.table import PackedTable
from pipeline.train import Trainer
from sparserec.errors import SparseRecError


def small(method: str = "sparserec") -> Recipe:
    recipe = RECIPES[method]()
    step = replace(recipe.step, batch_size=128, learning_rate=0.01)
    window = recipe.window and 7
    return replace(recipe, dim=32, epochs=4, window=window, step=step)


def layered(rate: float) -> Recipe:
    recipe = replace(small("static"), epochs=3, valid_users=20)
    return replace(recipe, step=replace(recipe.step, model="neumf", learning_rate=rate))


@pytest.fixture(scope="module")
def split() -> Split:
    return temporal_split(generate(80, 120, 3000, seed=3))


@pytest.fixture(scope="module")
def uninterrupted(split: Split) -> Fitted:
    return fit(small(), split)


def assert_same(one: Fitted, other: Fitted) -> None:
    assert one.history == other.history
    assert one.best_epoch == other.best_epoch
    np.testing.assert_array_equal(one.table.row_ptr, other.table.row_ptr)
    np.testing.assert_array_equal(one.table.cols, other.table.cols)
    np.testing.assert_array_equal(one.table.vals.view(np.int32), other.table.vals.view(np.int32))
    assert one.test.recall == other.test.recall
    for name, values in one.recommender.dense.items():
        np.testing.assert_array_equal(values, other.recommender.dense[name])


@pytest.mark.parametrize("method", list(RECIPES))
def test_every_recipe_learns(method: str, split: Split) -> None:
    # Random sparse rows often share no column: it takes larger steps to leave their zeros behind.
    recipe = replace(small(method), epochs=6)
    recipe = replace(recipe, step=replace(recipe.step, learning_rate=0.05, l2=0.01))
    fitted = fit(recipe, split)
    chance = 20 / split.known_items
    assert fitted.test.recall[20] > 1.2 * chance
    budget = round(recipe.density * fitted.table.num_rows * 32)
    assert fitted.table.nnz <= budget if method == "small" else fitted.table.nnz == budget
    losses = [epoch["loss"] for epoch in fitted.history if epoch["epoch"]]
    assert losses[-1] < losses[0]
    keeps = ("dense", "static", "magnitude", "pep", "small")
    assert (fitted.history[-1]["exchanged"] > 0) == (method not in keeps)


@pytest.mark.parametrize("refit", [False, True])
def test_a_start_that_training_does_not_better_is_kept(refit: bool, split: Split) -> None:
    recipe = small()
    step = replace(recipe.step, learning_rate=10.0)
    recipe = replace(recipe, step=step, epochs=20, patience=2, refit=refit)
    found = fit(recipe, split)
    assert found.best_epoch == 0
    assert [entry["epoch"] for entry in found.history] == [0, 1, 2]
    train = join(split.train, split.valid) if refit else split.train
    start = initial_table(recipe, replace(split, train=train))
    np.testing.assert_array_equal(found.table.cols, start.cols)
    np.testing.assert_array_equal(found.table.vals, start.vals)
    past = (split.train, split.valid)
    expected = evaluate(found.recommender, held_out(split), past, split.known_items)
    assert found.test.recall == expected.recall


def test_a_random_start_is_no_epoch(split: Split) -> None:
    fitted = fit(replace(small("static"), epochs=1), split)
    assert [entry["epoch"] for entry in fitted.history] == [1]


@pytest.mark.parametrize("stop_at", [1, 6, 13, 30, 47])
def test_a_resumed_run_is_the_uninterrupted_one(
    stop_at: int,
    split: Split,
    uninterrupted: Fitted,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stop_and_resume(small(), split, stop_at, tmp_path, monkeypatch, uninterrupted)


@pytest.mark.parametrize("stop_at", [20, 35])  # its best epoch is not over, and over
def test_layers_are_resumed(
    stop_at: int, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = layered(0.03)
    whole = fit(recipe, split)
    assert whole.best_epoch == 2  # of 14 steps each
    stop_and_resume(recipe, split, stop_at, tmp_path, monkeypatch, whole)


@pytest.mark.parametrize("stop_at", [10, 17])  # inside a window and between two
def test_gradient_importance_is_resumed(
    stop_at: int, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small()
    recipe = replace(
        recipe, step=replace(recipe.step, importance="gradient", sampled_fraction=0.2), epochs=2
    )
    stop_and_resume(recipe, split, stop_at, tmp_path, monkeypatch, fit(recipe, split))


@pytest.mark.parametrize("refit", [False, True])
def test_averages_are_judged_kept_and_resumed(
    refit: bool, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of a decay so near 1 the average of a few steps is the start, wherever the weights went.
    recipe = replace(small("dense"), ema=1 - 1e-9, epochs=2, refit=refit)
    whole = fit(recipe, split)
    train = join(split.train, split.valid) if refit else split.train
    start = initial_table(recipe, replace(split, train=train))
    np.testing.assert_allclose(whole.table.vals, start.vals, atol=1e-7)
    assert whole.history[0]["recall@20"] == whole.history[1]["recall@20"]
    recipe = replace(small(), ema=0.8, refit=refit)
    whole = fit(recipe, split)
    assert whole.history != fit(small(), split).history
    stop_and_resume(recipe, split, 17, tmp_path, monkeypatch, whole)


def test_a_learning_rate_that_falls_is_resumed(
    split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(small(), learning_rate_least=0.1)
    whole = fit(recipe, split)
    constant = fit(small(), split)
    assert whole.history[-1]["recall@20"] != constant.history[-1]["recall@20"]
    stop_and_resume(recipe, split, 17, tmp_path, monkeypatch, whole)


@pytest.mark.parametrize("refit", [False, True])
def test_a_start_over_its_budget_falls_to_it(
    refit: bool, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(small(), start_density=0.4, epochs=8, refit=refit)
    pruned: list[tuple[int, float]] = []

    def spied(table: PackedTable, density: float, *rest: Any) -> Any:
        pruned.append((trainers[-1].step, density))
        return magnitude_prune(table, density, *rest)

    trainers: list[Trainer] = []

    def spied_trainer(*args: Any) -> tuple[Trainer, int]:
        trainer, steps = trainer_of(*args)
        trainers.append(trainer)
        return trainer, steps

    monkeypatch.setattr("pipeline.fit.magnitude_prune", spied)
    monkeypatch.setattr("pipeline.fit.trainer_of", spied_trainer)
    seen: list[float] = []

    def observe(trainer: Trainer) -> dict[str, float]:
        seen.append(trainer.table.density)
        return {}

    whole = fit(recipe, split, observe=observe)
    monkeypatch.undo()
    steps = math.ceil(len(split.train) / 128)
    begin, end = int(0.8 * steps), 4 * steps
    # 7 steps a window, and three after an update: what that has grown is not 0 any more.
    selecting = [step for step, _ in pruned[: len(pruned) // (1 + refit)]]
    assert selecting == [*(step for step in range(begin + 1, end) if step % 7 == 3), end]
    left = [(end - step) / (end - begin) for step in selecting]
    densities = [density for _, density in pruned[: len(selecting)]]
    np.testing.assert_allclose(densities, 0.1 + 0.3 * np.array(left) ** 3)
    assert seen == sorted(seen, reverse=True)
    assert seen[0] > 0.2
    np.testing.assert_allclose(seen[4:], 0.1, rtol=1e-3)
    # Over its budget it is no answer, and so its start is none.
    assert [entry["epoch"] for entry in whole.history] == list(range(1, 9))
    assert whole.best_epoch >= 4
    assert whole.table.nnz == round(0.1 * whole.table.num_rows * 32)
    assert whole.history[-1]["exchanged"] > 0
    stop_and_resume(recipe, split, 20, tmp_path, monkeypatch, whole)


@pytest.mark.parametrize("stop_at", [10, 35])  # while PEP searches, and as it trains again
def test_pep_is_resumed(
    stop_at: int, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small("pep")
    whole = fit(recipe, split)
    assert whole.history[0]["left"] > 0.9
    assert whole.history[-1]["left"] == pytest.approx(0.1, abs=1e-4)
    stop_and_resume(recipe, split, stop_at, tmp_path, monkeypatch, whole)


def stop_and_resume(
    recipe: Recipe,
    split: Split,
    stop_at: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    uninterrupted: Fitted,
) -> None:
    run_step, done = Trainer.run_step, [0]

    def stopping(self: Trainer) -> float:
        loss = run_step(self)
        done[0] += 1
        if done[0] == stop_at:
            signal.raise_signal(signal.SIGINT)
        return loss

    monkeypatch.setattr(Trainer, "run_step", stopping)
    checkpoint = tmp_path / "checkpoint.safetensors"
    with pytest.raises(KeyboardInterrupt):
        fit(recipe, split, checkpoint)
    monkeypatch.undo()
    assert_same(fit(recipe, split, checkpoint), uninterrupted)
    assert not list(tmp_path.glob("*.part"))


def test_a_finished_run_is_not_trained_again(
    split: Split, uninterrupted: Fitted, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    fit(small(), split, checkpoint)
    before = checkpoint.read_bytes()
    assert_same(fit(small(), split, checkpoint), uninterrupted)
    assert checkpoint.read_bytes() == before


def test_a_resumed_run_makes_no_start_anew(
    split: Split, uninterrupted: Fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    fit(small(), split, checkpoint)
    monkeypatch.setattr("pipeline.fit.initial_table", lambda *args, **more: pytest.fail("a start"))
    assert_same(fit(small(), split, checkpoint), uninterrupted)
    with pytest.raises(SparseRecError, match="another recipe"):
        fit(replace(small(), seed=2), split, checkpoint)


def test_a_run_shorter_than_a_window_is_pruned_all_the_same(split: Split) -> None:
    for epochs in (1, 3):
        recipe = replace(small("magnitude"), window=10_000, epochs=epochs)
        assert fit(recipe, split).table.density == pytest.approx(0.1, abs=1e-3)


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_a_run_of_a_few_steps_is_pruned_to_its_density(steps: int, split: Split) -> None:
    recipe = small("magnitude")
    step = replace(recipe.step, batch_size=len(split.train))
    fitted = fit(replace(recipe, step=step, epochs=steps), split)
    assert fitted.table.density == pytest.approx(0.1, abs=1e-3)


def test_a_table_of_a_few_entries_keeps_to_its_budget_in_whole_ones() -> None:
    few = temporal_split(generate(8, 13, 80, seed=3))
    # 42.5 of 168 entries; 43 are density .256.
    recipe = replace(small("static"), dim=8, density=43 / 168 - 0.49 / 168, epochs=1)
    assert fit(recipe, few).table.nnz == 43


def test_dsl_moves_its_mask_in_a_run_of_the_default_length(split: Split) -> None:
    recipe = RECIPES["dsl"]()
    recipe = replace(recipe, dim=32, step=replace(recipe.step, batch_size=256))
    assert fit(recipe, split).history[-1]["exchanged"] > 0


@pytest.mark.parametrize("method", ["sparserec", "static"])
@pytest.mark.parametrize("epochs", [1, 4])
def test_a_run_that_diverges_ends(method: str, epochs: int, split: Split) -> None:
    recipe = small(method)
    # One step an epoch: at the end of the first the loss is finite, and the table is not.
    step = replace(recipe.step, batch_size=len(split.train), learning_rate=1e38, optimizer="sgd")
    recipe = replace(recipe, step=step, epochs=epochs, value_scale=1e3)
    with pytest.raises(SparseRecError, match=r"diverged in epoch \d: .*\n.*lower --learning-rate"):
        fit(recipe, split)


def test_fewer_columns_start_at_random_whatever_the_start(split: Split) -> None:
    recipe = replace(small("small"), start="nmf", epochs=1)
    assert [entry["epoch"] for entry in fit(recipe, split).history] == [1]


def test_without_validation_nothing_is_trained(split: Split) -> None:
    nothing = Pairs(split.valid.users[:0], split.valid.items[:0], None)
    with pytest.raises(SparseRecError, match="hold one out for validation"):
        fit(small(), replace(split, valid=nothing))


def test_a_damaged_or_foreign_checkpoint_is_refused(split: Split, tmp_path: Path) -> None:
    trainer, _ = trainer_of(small(), split, initial_table(small(), split))
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, "one", trainer, Progress())
    with pytest.raises(SparseRecError, match="another recipe"):
        load_checkpoint(path, "two", trainer)
    whole = path.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"{}" * 100):
        path.write_bytes(damaged)
        with pytest.raises(SparseRecError, match=r"checkpoint\.safetensors: damaged"):
            load_checkpoint(path, "one", trainer)


def test_a_checkpoint_with_a_flipped_bit_is_refused(
    split: Split, uninterrupted: Fitted, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoint.safetensors"
    fit(small(), split, path)
    whole = path.read_bytes()
    with safe_open(path, framework="numpy") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for name, values in tensors.items():
        if values.size:
            changed = tensors | {name: values.copy()}
            changed[name].view(np.uint8).reshape(-1)[0] ^= 1
            path.write_bytes(save(changed, metadata=metadata))
            with pytest.raises(SparseRecError, match=r"damaged checkpoint .*SHA-256"):
                fit(small(), split, path)
    path.write_bytes(whole.replace(b'\\"step\\": ', b'\\"step\\":1'))
    with pytest.raises(SparseRecError, match=r"damaged checkpoint .*SHA-256"):
        fit(small(), split, path)
    # One from before there was a checksum.
    scalars = json.loads(metadata["run"])
    del scalars["sha256"]
    path.write_bytes(save(tensors, metadata={"run": json.dumps(scalars)}))
    assert_same(fit(small(), split, path), uninterrupted)


def test_a_run_is_read_back_as_it_was_written(
    split: Split, uninterrupted: Fitted, tmp_path: Path
) -> None:
    save_run(tmp_path, "synthetic", "0" * 64, small(), split, uninterrupted)
    run = load_run(tmp_path)
    assert run.recipe == small()
    np.testing.assert_array_equal(run.table.vals, uninterrupted.table.vals)
    np.testing.assert_array_equal(run.split.later.items, split.later.items)
    assert run.split.user_ids == split.user_ids
    assert run.split.item_ids == split.item_ids
    assert run.metrics["recall@20"] == uninterrupted.test.recall[20]
    whole = (tmp_path / "table.safetensors").read_bytes()
    (tmp_path / "table.safetensors").write_bytes(whole[:-1] + bytes([whole[-1] ^ 4]))
    with pytest.raises(SparseRecError, match=r"table\.safetensors: .*SHA-256"):
        load_run(tmp_path)
    (tmp_path / "table.safetensors").write_bytes(b"short")
    with pytest.raises(SparseRecError, match=r"table\.safetensors"):
        load_run(tmp_path)
    with pytest.raises(SparseRecError, match=r"nowhere/run\.json"):
        load_run(tmp_path / "nowhere")


def test_a_run_written_over_another_is_one_or_the_other_or_none(
    split: Split, uninterrupted: Fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_run(tmp_path, "first", "0" * 64, small(), split, uninterrupted)

    def killed(path: Path, tensors: dict[str, np.ndarray]) -> None:
        if path.name == "split.safetensors":
            raise KeyboardInterrupt
        write_tensors(path, tensors)

    monkeypatch.setattr("pipeline.run.write_tensors", killed)
    with pytest.raises(KeyboardInterrupt):
        save_run(tmp_path, "second", "1" * 64, small(), split, uninterrupted)
    with pytest.raises(SparseRecError, match=r"run\.json: No such file"):
        load_run(tmp_path)
    monkeypatch.undo()
    save_run(tmp_path, "second", "1" * 64, small(), split, uninterrupted)
    assert load_run(tmp_path).dataset == "second"


def test_a_run_of_fewer_columns_is_read_back_with_them(split: Split, tmp_path: Path) -> None:
    recipe = replace(small("small"), dim=32, density=0.25, epochs=1)
    recipe = replace(recipe, step=replace(recipe.step, model="neumf"))
    save_run(tmp_path, "synthetic", "0" * 64, recipe, split, fit(recipe, split))
    assert load_run(tmp_path).table.dim == 8
    ids, _ = SparseRec.load(tmp_path).recommend(0)
    assert len(ids) == 10


def test_a_run_that_would_be_refused_today_is_read_all_the_same(
    split: Split, uninterrupted: Fitted, tmp_path: Path
) -> None:
    sparse = replace(small("dense"), density=0.1)
    save_run(tmp_path, "synthetic", "0" * 64, sparse, split, uninterrupted)
    model = SparseRec.load(tmp_path)
    assert model.recipe == sparse
    assert len(model.recommend(0)[0]) == 10


def test_ctrl_c_in_the_command_saves_and_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    command = [sys.executable, "-c", "from sparserec.cli import main; main()"]
    write_csv(generate(200, 500, 10_000, seed=3), log)
    train = [*command, "train", str(log), "--dim", "32", "--epochs", "30", "--out"]
    subprocess.run([*train, str(tmp_path / "whole")], check=True, capture_output=True)

    cut = tmp_path / "cut"
    process = subprocess.Popen([*train, str(cut)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 60
    while not (cut / "checkpoint.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    output = process.communicate(timeout=60)[0].decode()
    assert process.returncode == 130, output
    assert "goes on from" in output
    assert not (cut / "run.json").exists()
    subprocess.run([*train, str(cut)], check=True, capture_output=True)
    for name in ("table.safetensors", "split.safetensors"):
        assert (cut / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize("method", ["sparserec", "dense"])
def test_a_refit_trains_on_all_of_the_past_for_the_chosen_epochs(
    method: str, split: Split, tmp_path: Path
) -> None:
    recipe = replace(small(method), refit=True)
    told: list[tuple[int, int | None]] = []
    chosen = fit(replace(recipe, refit=False), split)
    found = fit(recipe, split, progress=lambda what, done, total: told.append((done, total)))
    assert all(total is None or done <= total for done, total in told)
    assert (found.best_epoch, found.history) == (chosen.best_epoch, chosen.history)
    whole = replace(split, train=join(split.train, split.valid))
    trainer, steps = trainer_of(recipe, whole, initial_table(recipe, whole))
    for _ in range(found.best_epoch * steps):
        trainer.run_step()
    np.testing.assert_array_equal(found.table.cols, trainer.table.cols)
    np.testing.assert_array_equal(found.table.vals, trainer.table.vals)
    assert (found.table.vals != chosen.table.vals).any()
    expected = evaluate(found.recommender, held_out(split), whole.train, split.known_items)
    assert found.test.recall == expected.recall

    def stop(text: str, done: int, total: int | None) -> None:
        if text.endswith("refit"):
            raise KeyboardInterrupt

    checkpoint = tmp_path / "checkpoint.safetensors"
    with pytest.raises(KeyboardInterrupt):
        fit(recipe, split, checkpoint, stop)
    assert_same(fit(recipe, split, checkpoint), found)


def test_a_refit_starts_from_given_factors_and_all_of_the_past(split: Split) -> None:
    recipe = replace(small(), refit=True, epochs=1)
    rows = np.random.default_rng(0).random((split.known_users + split.known_items, recipe.dim))
    factors = Factors(rows.astype(np.float32), split.known_users)
    start = initial_table(recipe, split, factors=factors)
    found = fit(recipe, split, start=start, factors=factors)
    whole = replace(split, train=join(split.train, split.valid))
    trainer, steps = trainer_of(recipe, whole, initial_table(recipe, whole, factors=factors))
    for _ in range(steps):
        trainer.run_step()
    np.testing.assert_array_equal(found.table.vals, trainer.table.vals)


def test_a_refit_never_looks_at_the_test_part(split: Split) -> None:
    recipe = replace(small("dense"), refit=True)
    order = np.random.default_rng(0).permutation(len(split.log))
    moved = Pairs(split.log.users, split.log.items[order], None)
    one, other = fit(recipe, split), fit(recipe, replace(split, log=moved))
    assert one.test.recall != other.test.recall
    np.testing.assert_array_equal(one.table.vals, other.table.vals)


def test_a_refit_takes_no_validation_pair_for_a_negative(split: Split) -> None:
    """Though keys that were made beforehand are those of the train part alone."""
    recipe = replace(small("static"), refit=True, epochs=1)
    keys = np.sort(pair_keys(split.train.users, split.train.items, split.known_items))
    plain, keyed = fit(recipe, split), fit(recipe, replace(split, train_keys=keys))
    np.testing.assert_array_equal(plain.table.vals, keyed.table.vals)


def test_pairs_with_a_newcomer_on_either_side_are_left_out(split: Split) -> None:
    users, items = split.known_users, split.known_items
    pairs = Pairs(np.int32([0, users, 0, users]), np.int32([0, 0, items, items]), None)
    left = known_only(pairs, split)
    assert (left.users.tolist(), left.items.tolist()) == ([0], [0])


@pytest.mark.parametrize("method", ["static", "pep"])
def test_layers_are_drawn_by_the_recipes_seed(method: str, split: Split) -> None:
    recipe = replace(small(method), seed=7)
    recipe = replace(recipe, step=replace(recipe.step, model="neumf"))
    start = initial_table(recipe, split)
    before = start.vals.copy()
    trainer, _ = trainer_of(recipe, split, start)
    trainer.run_step()
    np.testing.assert_array_equal(start.vals, before)
    if isinstance(trainer, PepTrainer):
        trainer.fix_mask(recipe.density)
    else:
        trainer, _ = trainer_of(recipe, split, start)
    for name, values in MODELS["neumf"].initial(32, 7).items():
        np.testing.assert_array_equal(trainer.dense[name], values)


@pytest.mark.parametrize("rate", [0.0, 0.03])
def test_the_history_is_what_steps_and_evaluation_give(rate: float, split: Split) -> None:
    recipe = layered(rate)
    found = fit(recipe, split)
    trainer, steps = trainer_of(recipe, split, initial_table(recipe, split))
    users = validation_users(recipe, split)
    assert len(np.intersect1d(users, split.valid.users)) == len(users) == 20
    np.testing.assert_array_equal(users, validation_users(replace(recipe, seed=9), split))
    recalls, kept = [], []
    for entry in found.history:
        assert entry["loss"] == pytest.approx(np.mean([trainer.run_step() for _ in range(steps)]))
        current = Recommender(trainer.table, "neumf", trainer.dense)
        quality = evaluate(current, split.valid, split.train, split.known_items, users)
        assert entry["recall@20"] == quality.recall[20]
        recalls.append(quality.recall[20])
        kept.append(np.concatenate([trainer.table.vals, *map(np.ravel, trainer.dense.values())]))
    best = int(np.argmax(recalls))  # of equal epochs the first
    assert found.best_epoch == best + 1 < 3
    dense = found.recommender.dense.values()
    np.testing.assert_array_equal(
        np.concatenate([found.table.vals, *map(np.ravel, dense)]), kept[best]
    )


def test_an_epoch_whose_loss_or_layers_are_not_finite_is_refused(split: Split) -> None:
    recipe = small("static")
    recipe = replace(recipe, step=replace(recipe.step, model="neumf"))
    trainer, steps = trainer_of(recipe, split, initial_table(recipe, split))
    with pytest.raises(SparseRecError, match="diverged in epoch 1"):
        end_epoch(trainer, Progress(loss_sum=math.inf), None, steps, within=True)
    trainer.dense["output.gmf"][3] = np.nan
    with pytest.raises(SparseRecError, match="diverged in epoch 1"):
        end_epoch(trainer, Progress(), None, steps, within=True)


def test_a_checkpoint_is_of_one_recipe_and_of_one_past(split: Split) -> None:
    def turned(part: Pairs) -> list[Pairs]:
        users, items = part.users[::-1], part.items[::-1]
        return [Pairs(users, part.items, None), Pairs(part.users, items, None)]

    others = [replace(split, train=part) for part in turned(split.train)]
    others += [replace(split, valid=part) for part in turned(split.valid)]
    prints = [fingerprint_of(small(), each) for each in (split, *others)]
    prints.append(fingerprint_of(replace(small(), seed=2), split))
    assert len(set(prints)) == 6
    assert fingerprint_of(small(), replace(split, log=split.valid)) == prints[0]


def test_gradual_pruning_ends_half_way(split: Split) -> None:
    seen = fit(small("magnitude"), split, observe=lambda of: {"density": of.table.density})
    first, *rest = (entry["density"] for entry in seen.history)
    assert first > 0.2
    assert rest == pytest.approx([0.1] * 3, abs=1e-3)


@pytest.mark.parametrize(
    ("options", "searches"),
    [(PepOptions(search=0.75), 2), (PepOptions(search=0.25), 0), (PepOptions(start=0.0), 0)],
)
def test_pep_searches_for_its_part_or_until_its_thresholds_leave_few_enough(
    options: PepOptions, searches: int, split: Split
) -> None:
    history = fit(replace(small("pep"), pep=options), split).history
    left = [entry["left"] for entry in history]
    assert min(left[:searches], default=1) > 0.9
    assert left[searches:] == pytest.approx([0.1] * (4 - searches), abs=1e-3)


def test_sides_share_the_budget_or_compete_for_it(split: Split) -> None:
    users, dim = split.known_users, small().dim
    for sides in ("joint", "each"):
        table = initial_table(replace(small(), sides=sides), split)
        assert table.nnz == round(0.1 * table.num_rows * dim)
        own_share = int(table.row_ptr[users]) == round(0.1 * users * dim)
        assert own_share == (sides == "each")
