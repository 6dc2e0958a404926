"""Sampled neighbourhoods: lists and transposes agree, and nothing sampled is the whole graph."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.split import Pairs
from pipeline.draws import CHUNK_NEIGHBOURS, NEIGHBOURS, draws
from pipeline.graph import Graph
from pipeline.models import lightgcn
from pipeline.neighbourhood import Chunks, Neighbourhood, Neighbours, Tile

USERS, ITEMS = 30, 40


def _pairs(seed: int, count: int) -> Pairs:
    rng = np.random.default_rng(seed)
    users = rng.integers(0, USERS, count).astype(np.int32)
    return Pairs(users, rng.integers(0, ITEMS, count).astype(np.int32), None)


def _edges(index: np.ndarray, weights: np.ndarray) -> dict[tuple[int, int], float]:
    slot, place = np.nonzero(weights)
    return {
        (int(s), int(index[s, p])): float(weights[s, p]) for s, p in zip(slot, place, strict=True)
    }


def _check(tile: Tile, neighbours: Neighbours) -> None:
    forward = _edges(tile.neighbours, tile.neighbour_weights)
    back = _edges(tile.readers, tile.reader_weights)
    assert forward == {(s, t): weight for (t, s), weight in back.items()}
    assert len(forward) == np.count_nonzero(tile.neighbour_weights)
    for slot, other in forward:
        row = tile.rows[slot]
        known = neighbours.rows[neighbours.ptr[row] : neighbours.ptr[row + 1]]
        assert tile.rows[other] in known


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000),
    count=st.integers(1, 400),
    width=st.integers(1, 6),
    room=st.integers(0, 60),
)
def test_lists_and_transposes_agree(seed: int, count: int, width: int, room: int) -> None:
    neighbours = Neighbours.of(_pairs(seed, count), USERS, ITEMS)
    slots = np.random.default_rng(seed).integers(-1, USERS + ITEMS, 12)  # repeats and padding
    tile = neighbours.tile(slots, 12 + room, width, seed, NEIGHBOURS, 3)
    np.testing.assert_array_equal(tile.rows[:12], slots)
    _check(tile, neighbours)
    again = neighbours.tile(slots, 12 + room, width, seed, NEIGHBOURS, 3)
    np.testing.assert_array_equal(tile.neighbours, again.neighbours)


def test_what_is_sampled_follows_the_page_slot_by_slot() -> None:
    neighbours, width = Neighbours.of(_pairs(2, 600), USERS, ITEMS), 5
    degree = np.diff(neighbours.ptr)
    batch = np.arange(60, 0, -5)
    for tile, stream, step in (
        (Neighbourhood(neighbours, 300, width).tile(batch, 3, 8), NEIGHBOURS, 8),
        (Chunks(neighbours, 12, 300, width, 3).tile(2), CHUNK_NEIGHBOURS, 2),
    ):
        for slot, row in enumerate(tile.rows[:12].tolist()):
            assert degree[row] > width
            chance = Fraction(int(draws(3, stream, step, np.array([slot]))[0]) >> 40, 1 << 24)
            drawn = [math.floor((chance + k) * int(degree[row]) / width) for k in range(width)]
            wanted = neighbours.rows[neighbours.ptr[row] + drawn]
            assert tile.rows[tile.neighbours[slot]].tolist() == wanted.tolist()
            expected = np.sqrt(degree[row] / degree[wanted]) / width
            np.testing.assert_allclose(tile.neighbour_weights[slot], expected, rtol=1e-6)


def test_all_have_their_first_neighbour_before_any_has_its_second() -> None:
    """Three users with four items each, of their own, and room for five."""
    users = np.repeat(np.arange(3, dtype=np.int32), 4)
    neighbours = Neighbours.of(Pairs(users, np.arange(12, dtype=np.int32), None), USERS, ITEMS)
    tile = neighbours.tile(np.arange(3), 8, 4, 1, NEIGHBOURS, 0)
    items = [0, 4, 8, 1, 5]
    assert tile.rows.tolist() == [0, 1, 2, *(USERS + item for item in items)]
    assert tile.neighbours[:3].tolist() == [[3, 6, 0, 0], [4, 7, 0, 0], [5, 0, 0, 0]]
    # Degrees of 4 and 1: the weight is sqrt(4 / 1) over how many are there.
    assert tile.neighbour_weights[:3, 0].tolist() == [1, 1, 2]


def test_neighbours_are_equally_likely_and_never_twice() -> None:
    """Of 23 neighbours 4 are drawn, so each is there in 4 draws of 23, over 20,000 draws."""
    pairs = Pairs(np.zeros(23, np.int32), np.arange(23, dtype=np.int32), None)
    neighbours, width, count = Neighbours.of(pairs, USERS, ITEMS), 4, 20_000
    tile = neighbours.tile(np.zeros(count, np.int64), 5 * count, width, 1, NEIGHBOURS, 0)
    drawn = tile.rows[tile.neighbours[:count]]
    assert (np.diff(np.sort(drawn), axis=1) > 0).all()
    found = np.bincount(drawn.ravel() - USERS, minlength=ITEMS)
    assert (found[23:] == 0).all()
    chance = width / 23
    spread = math.sqrt(count * chance * (1 - chance))
    np.testing.assert_allclose(found[:23], count * chance, atol=5 * spread)


def test_with_room_for_all_it_is_the_graph() -> None:
    """Nothing is sampled then, so LightGCN's vectors are those of the whole graph."""
    pairs = _pairs(1, 150)
    neighbours, graph = Neighbours.of(pairs, USERS, ITEMS), Graph.of(pairs, USERS, ITEMS)
    most = int(np.diff(neighbours.ptr).max())
    rows = torch.randn(USERS + ITEMS, 5)
    wanted = lightgcn.propagate(rows, graph.aggregate, {})
    chunks = Chunks(neighbours, 16, 4 * (USERS + ITEMS), most, seed=1)
    assert chunks.count == 5
    for chunk in range(chunks.count):
        tile = chunks.tile(chunk)
        slots = rows[torch.from_numpy(np.maximum(tile.rows, 0))]
        found = lightgcn.propagate(slots, tile.lists().aggregate, {})[:16]
        real = tile.rows[:16] >= 0
        place = torch.from_numpy(tile.rows[:16][real])
        torch.testing.assert_close(found[torch.from_numpy(real)], wanted[place])
