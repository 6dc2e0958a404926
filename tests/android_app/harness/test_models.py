"""Every model, loss, optimizer and precision on the device: what the host's trainer makes of it.

Each bundle is exported as ``sparserec export`` does it; the host's side is numpy and PyTorch's
autograd, the device's the exported program and the harness.
"""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from export.build import build
from pipeline.incremental import Incremental
from pipeline.models import MODELS, ModelName
from pipeline.nmf import random_table
from pipeline.optimizers import OptimizerName
from pipeline.recipes import sparserec
from pipeline.run import TrainedRun
from tests.android_app.harness.conftest import Harness
from tests.android_app.harness.reference import unpack
from tests.android_app.harness.reference_models import ModelReference
from tests.android_app.harness.test_kill import kill_in_training
from tests.export.conftest import DIM, make_split

STEPS = 48
KILLS = 8
SMALL: dict[str, Any] = {"batch_size": 24, "window": 8, "negatives": 20, "sampled_fraction": 0.5}
CASES = {
    "neumf-adam": Incremental.of("neumf", optimizer="adam"),
    "neumf-momentum-bce-half": replace(
        Incremental.of("neumf", "bce", "momentum"), precision="float16", learning_rate=0.1
    ),
    "mf-adagrad-softmax-int8": replace(
        Incremental.of("mf", "softmax", "adagrad"), precision="int8"
    ),
    "lightgcn-adagrad": Incremental.of("lightgcn"),
    "lightgcn-adam-shared": replace(Incremental.of("lightgcn", "bpr-shared", "adam"), tile=4),
    "ngcf-adagrad-softmax": replace(Incremental.of("ngcf", "softmax", "adagrad"), fanout=3),
}


def trained(model: ModelName) -> TrainedRun:
    """A table that nobody trained, as if it were of this model."""
    split = make_split()
    recipe = sparserec()
    recipe = replace(recipe, dim=DIM, density=0.4, step=replace(recipe.step, model=model))
    table = random_table(split.known_users, split.known_items, DIM, 0.4, 2, 0.3, seed=3)
    dense = MODELS[model].initial(DIM, 4)
    return TrainedRun("tiny", "0" * 64, recipe, table, dense, split, {"recall@20": 0.5}, [])


@pytest.fixture(scope="module", params=CASES)
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = replace(CASES[request.param], **SMALL)
    folder = tmp_path_factory.mktemp(request.param)
    return build(trained(recipe.model), folder / "bundle", recipe, steps=STEPS).path


def test_a_device_learns_what_the_host_does_and_resumes_it(
    bundle: Path, launcher: Path, tmp_path: Path
) -> None:
    whole = Harness(launcher, bundle, tmp_path / "whole")
    ended = whole.run(checkpoint_every=100)
    assert ended.code == 0, ended.value("error")
    correctness = ended.report["correctness"]
    assert correctness["verdict"] == "passed", correctness
    assert correctness["steps"] > 2 * SMALL["window"]  # past two mask updates
    assert ended.report["metrics"]["exchange_ns"]["count"] == 4
    expected = json.loads((bundle / "golden.json").read_text())["quality_before"]
    assert ended.report["quality"]["before"] == pytest.approx(expected, rel=0, abs=1e-6)

    parts = Harness(launcher, bundle, tmp_path / "parts")
    assert parts.run(steps=19, evaluate="false").code == 0
    resumed = parts.run(checkpoint_every=5)
    assert resumed.report["resumed_from_step"] == 19
    for same in ("losses", "state", "quality"):
        assert resumed.report[same] == ended.report[same]
    files = [of.state / f"gen-{STEPS:010d}.safetensors" for of in (whole, parts)]
    first, second = map(load_file, files)
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


@pytest.mark.parametrize(
    ("model", "tile", "optimizer"),
    [
        ("neumf", 1, "adam"),
        ("neumf", 1, "adagrad"),
        ("ngcf", 4, "adagrad"),
        ("lightgcn", 4, "adam"),
        ("lightgcn", 1, "adagrad"),
    ],
)
def test_a_device_learns_what_the_papers_equations_say(
    model: ModelName, tile: int, optimizer: OptimizerName, launcher: Path, tmp_path: Path
) -> None:
    recipe = replace(
        Incremental.of(model, optimizer=optimizer), **SMALL, exchange_stop=1.0, tile=tile
    )
    path = build(trained(model), tmp_path / "bundle", recipe, steps=20).path
    harness = Harness(launcher, path, tmp_path / "device")
    ended = harness.run(evaluate="false")
    assert ended.code == 0, ended.value("error")
    assert ended.report["metrics"]["exchange_ns"]["count"] == 2
    reference = ModelReference(path)
    reference.run(20)
    np.testing.assert_allclose(ended.report["losses"], reference.losses, atol=1e-4, rtol=0)
    saved = harness.state / "gen-0000000020.safetensors"
    values, mask = unpack(saved, DIM)
    np.testing.assert_array_equal(mask, reference.mask)
    np.testing.assert_allclose(values, reference.table, atol=1e-3, rtol=0)
    if recipe.model != "lightgcn":
        np.testing.assert_allclose(load_file(saved)["dense"], reference.dense, atol=1e-3, rtol=0)


def test_kills_lose_no_optimizer_state_nor_dense_parameters(launcher: Path, tmp_path: Path) -> None:
    recipe = replace(CASES["neumf-adam"], **SMALL, precision="int8")
    bundle = build(trained("neumf"), tmp_path / "bundle", recipe, steps=2000).path
    undisturbed = Harness(launcher, bundle, tmp_path / "undisturbed")
    whole = undisturbed.run(evaluate="false", checkpoint_every=2000)
    assert whole.code == 0, whole.value("error")
    harness = Harness(launcher, bundle, tmp_path / "killed")
    delays = random.Random(5)
    for _ in range(KILLS):
        kill_in_training(harness, delays.uniform(0, 0.1), evaluate="false", checkpoint_every=2)
        assert harness.report()["warnings"] == []  # no checkpoint was damaged
    ended = harness.run(evaluate="false", checkpoint_every=2)
    assert ended.code == 0, ended.value("error")
    assert ended.report["resumed_from_step"] > 0
    assert ended.report["losses"] == whole.report["losses"]
    assert ended.report["state"] == whole.report["state"]
    first, second = (
        load_file(of.state / "gen-0000002000.safetensors") for of in (undisturbed, harness)
    )
    assert {"state_m", "state_v", "dense", "dense_m", "dense_v", "scales"} < first.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
