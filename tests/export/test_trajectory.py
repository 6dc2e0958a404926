"""200 steps with regrowth: a device in plain Python and the host's trainer see the same losses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from export import layout
from export.build import build
from pipeline.incremental import Incremental, incremental_trainer
from pipeline.losses import LossName
from pipeline.models import ModelName
from pipeline.optimizers import OptimizerName
from pipeline.precision import Precision, decoded, encoded
from tests.export.conftest import make_run
from tests.export.device import Device

STEPS, TOLERANCE = 200, 1e-4
CASES: tuple[tuple[ModelName, LossName, OptimizerName, Precision, float], ...] = (
    ("mf", "bpr", "momentum", "float16", 0.2),
    ("lightgcn", "softmax", "adam", "float32", 0.01),
    ("neumf", "bce", "adam", "int8", 0.01),
    ("ngcf", "bpr", "adagrad", "float32", 0.03),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case[:4])))
def test_a_device_stays_with_the_host(
    case: tuple[ModelName, LossName, OptimizerName, Precision, float], tmp_path: Path
) -> None:
    model, loss, optimizer, precision, rate = case
    recipe = Incremental(
        model, loss, optimizer, precision, rate, batch_size=8, negatives=6, window=20
    )
    run = make_run(model)
    built = build(run, tmp_path / "bundle", recipe, steps=300)
    manifest, split = built.manifest, run.split
    recipe = replace(recipe, floor=manifest.floor)
    table = layout.with_spare_rows(
        run.table, manifest.num_users, manifest.num_items, manifest.floor
    )
    table.vals = decoded(table, encoded(table, precision))
    past, known = layout.past(split), split.num_items
    trainer = incremental_trainer(table, split.log, past, known, recipe, 300, run.dense)
    device = Device(built.path)
    losses = np.array([(device.run_step(), trainer.run_step()) for _ in range(STEPS)])
    assert sum(device.exchanges) == trainer.exchanged > 0
    assert np.abs(losses[:, 0] - losses[:, 1]).max() <= TOLERANCE
    assert np.ptp(losses[:, 1]) > 100 * TOLERANCE  # so that agreeing means something
