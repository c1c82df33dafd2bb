"""The compiled loops of a training step: what they must have in common with PyTorch's operations, and with ranks."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkrec.models.gru import compiled
from sparkrec.models.gru.compiled.items import Numbered
from sparkrec.models.gru.lanes import NO_TARGET, Chunk
from sparkrec.models.gru.step import make_batch
from sparkrec.ranks.sampling import PopularitySampler

ITEMS = 9
items = st.integers(0, ITEMS - 1)


@st.composite
def steps(draw):
    """A chunk of one step, some lanes without an event, additional negatives, and which lanes are this rank's."""
    lanes = draw(st.integers(1, 6))
    inputs = [draw(items) for _ in range(lanes)]
    targets = [draw(st.one_of(st.just(NO_TARGET), items)) for _ in range(lanes)]
    starts = [draw(st.integers(0, 2)) for _ in range(lanes)]
    target = torch.tensor([targets])
    chunk = Chunk(torch.tensor([inputs]), target, torch.tensor([starts]).char(), [int((target != NO_TARGET).sum())])
    return chunk, torch.tensor(draw(st.lists(items, min_size=1, max_size=12))), draw(st.integers(1, lanes))


@pytest.mark.integration
@given(steps())
@settings(max_examples=200, deadline=None)
def test_items_of_a_step_are_those_found_by_sorting(drawn):
    chunk, samples, own = drawn
    seen, places = np.full(ITEMS, -1, np.int32), torch.arange(own)
    found = Numbered.room(len(chunk.target[0]), len(samples), own)
    given = (chunk.input[0], chunk.target[0], chunk.start[0], samples, places)
    compiled.items.number_step(*[part.numpy() for part in given], seen, found)
    assert (seen == -1).all()  # as before, for the next step
    plain = make_batch(chunk, 0, samples, places)
    n_candidates, n_rows, b = found.sizes
    rows, candidates = found.rows[:n_rows], found.rows[:n_candidates]
    assert torch.equal(plain.rows[: len(plain.candidates)], plain.candidates)
    assert sorted(rows) == sorted(plain.rows.tolist()) == sorted(set(plain.rows.tolist()))
    assert sorted(candidates) == plain.candidates.tolist()
    for mine, sorting in (
        (rows[found.input_row[:b]], plain.inputs[plain.input]),
        (rows[found.input_row[:b]], plain.rows[plain.input_row]),
        (candidates[found.target[:b]], plain.candidates[plain.target]),
        (found.n_target[candidates.argsort()], plain.n_target),
        (found.n_sampled[candidates.argsort()], plain.n_sampled),
        (found.lanes[:b], plain.lanes), (found.start[:b], plain.start),
        (found.own[:b], places if plain.own is None else plain.own),
    ):  # fmt: skip
        assert mine.tolist() == sorting.tolist()


@given(st.lists(st.integers(0, 30), min_size=1, max_size=60).filter(any), st.floats(0, 1), st.integers(0, 2**31))
@settings(max_examples=100, deadline=None)
def test_items_drawn_by_popularity_are_those_found_by_searching(counts, alpha, seed):
    sampler = PopularitySampler.from_counts(torch.tensor(counts), alpha)
    found = sampler.draw((500,), torch.Generator().manual_seed(seed))
    u = torch.rand(500, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    place = u * sampler.cumulative[-1]
    assert found.tolist() == torch.searchsorted(sampler.cumulative, place, right=True).clamp_max(sampler.last).tolist()


def mask(lanes, key, width=50, keep=0.75):
    drawn = np.empty((len(lanes), width), np.float32)
    compiled.items.dropout(np.asarray(lanes), np.uint64(key), keep, np.float32(1 / keep), drawn)
    return drawn


def test_a_lanes_dropout_does_not_depend_on_the_lanes_beside_it():
    whole = mask(np.arange(80), 12345)
    assert (whole[[3, 70]] == mask([3, 70], 12345)).all()
    assert (whole != mask(np.arange(80), 12346)).any(axis=1).all()


def test_dropout_keeps_its_share_and_is_independent_of_lane_column_and_key():
    keys = np.random.default_rng(1).integers(0, 2**63, 200)
    kept = np.stack([mask(np.arange(80), key) for key in keys]) > 0  # [200, 80, 50]
    assert kept.mean() == pytest.approx(0.75, abs=4 * math.sqrt(0.75 * 0.25 / kept.size))
    rounding = 6 * math.sqrt(0.75 * 0.25 / (200 * 50))
    assert np.abs(kept.mean(axis=(0, 2)) - 0.75).max() < rounding  # of each lane
    flat = kept.reshape(200, -1) - 0.75
    for one, other in ((flat[:-1], flat[1:]), (flat[:, :-1], flat[:, 1:]), (flat[:, :-50], flat[:, 50:])):
        assert abs((one * other).mean()) < 6 * 0.75 * 0.25 / math.sqrt(one.size)  # keys, columns, lanes
    assert set(np.unique(mask(np.arange(3), 7)).tolist()) == {0.0, np.float32(1 / 0.75)}


def test_a_state_that_is_no_number_stays_none():
    # Training ends where the loss is not finite: the gates must not hide it.
    of_input, of_hidden, h = (np.zeros((3, n), np.float32) for n in (6, 6, 2))
    of_input[0, 0], of_hidden[1, 3], of_input[2, 4] = np.nan, np.nan, np.nan  # reset, update, new of the first unit
    of_hidden[0, 4] = 1.0
    written = [np.zeros((3, 2), np.float32) for _ in range(4)]
    compiled.step.gates(of_input, of_hidden, h, *written)
    assert np.isnan(written[3]).tolist() == [[True, False], [False, True], [True, False]]


def test_exponentials_are_correct_to_the_last_places():
    x = np.concatenate([np.linspace(-20, 20, 100_001), [-200, 200, 1e-8, 0.0]]).astype(np.float32)
    h, zero = np.zeros((1, len(x)), np.float32), np.zeros((1, 3 * len(x)), np.float32)
    reset, update, new, out = (np.empty((1, len(x)), np.float32) for _ in range(4))
    compiled.step.gates(np.tile(x, 3)[None], zero, h, reset, update, new, out)
    exact = x.astype(np.float64)
    assert np.allclose(update[0], 1 / (1 + np.exp(-exact)), rtol=4e-7, atol=1e-37)
    assert np.allclose(new[0], np.tanh(exact), rtol=4e-7, atol=0)
