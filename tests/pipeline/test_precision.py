"""Stored values: rounding is unbiased where it is random, and each row stands for itself."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipeline.draws import ROUNDING, draws
from pipeline.nmf import random_table
from pipeline.precision import Precision, Rounding, decoded, encoded, round_rows


@pytest.mark.parametrize(("precision", "size"), [("float32", 4), ("float16", 2), ("int8", 1)])
def test_what_is_stored_is_read_again(precision: Precision, size: int) -> None:
    table = random_table(20, 30, 8, 0.5, 2, 0.3, seed=1)
    table.vals[table.row_ptr[3] : table.row_ptr[4]] = 0  # a row of zeros
    stored = encoded(table, precision)
    assert stored["vals"].itemsize == size
    found = decoded(table, stored)
    row = np.repeat(np.arange(50), np.diff(table.row_ptr))
    most = np.zeros(50, np.float32)
    np.maximum.at(most, row, np.abs(table.vals))
    bound = {"float32": 0.0, "float16": 2**-11, "int8": 0.5001 / 127}[precision]
    assert np.all(np.abs(found - table.vals) <= bound * most[row])


def test_int8_rounds_up_as_often_as_it_should() -> None:
    table = random_table(1, 1, 4, 1.0, 0, 1.0, seed=1)
    wanted = np.tile(np.array([127.0, 10.25, -3.75, 0.5], np.float32), 2)
    total = np.zeros(8)
    for step in range(4000):
        table.vals = wanted.copy()
        round_rows(table, np.array([0]), "int8", seed=5, step=step)
        total += table.vals
    mean = total / 4000
    np.testing.assert_allclose(mean[:4], wanted[:4], atol=0.03)
    np.testing.assert_array_equal(mean[4:], wanted[4:])  # the other row was not touched


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_int8_follows_the_page_entry_by_entry(rounding: Rounding) -> None:
    table, seed, step = random_table(20, 30, 8, 0.5, 2, 0.3, seed=1), 5, 9
    table.vals[table.row_ptr[3] : table.row_ptr[4]] = 0  # a row of zeros
    before, rows = table.dense(0, 50), [40, 3, 7]
    round_rows(table, np.array(rows), "int8", seed, step, rounding)
    expected = before.copy()
    for row in rows:
        scale = np.abs(before[row]).max() / np.float32(127)
        for col in np.flatnonzero(before[row]).tolist():
            drawn = int(draws(seed, ROUNDING, step, np.array([row * 8 + col]))[0])
            up = (drawn >> 40) * 2.0**-24 if rounding == "stochastic" else 0.5
            level = math.floor(float(before[row, col]) / float(scale) + up)
            expected[row, col] = np.float32(level) * scale
    np.testing.assert_array_equal(table.dense(0, 50), expected)


def test_float16_rounds_to_nearest_and_stays_finite() -> None:
    table = random_table(1, 1, 4, 1.0, 0, 1.0, seed=1)
    table.vals = np.tile(np.float32([1e6, -1e6, 0.1, 1 / 3]), 2)
    expected = np.float32(np.float16([65504, -65504, 0.1, 1 / 3]))
    np.testing.assert_array_equal(decoded(table, encoded(table, "float16")), np.tile(expected, 2))
    round_rows(table, np.array([0]), "float16", seed=1, step=0)
    np.testing.assert_array_equal(table.dense(0, 1)[0], expected)
    assert table.vals[4] == 1e6  # the other row was not touched
