"""Sequences and the plan of the two-tower batches, by hand and against plain loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkrec.models.two_tower.batches import (
    DAY_S,
    Plan,
    dropout_mask,
    lane,
    last_arrays,
    positives,
    sequences,
    user_arrays,
)
from sparkrec.models.two_tower.network import PAD


def make(events):
    """Events: (user, item, ts)."""
    user, item, ts = (np.array(c) for c in zip(*events, strict=True))
    return sequences(user, item, ts, np.ones(len(user)), np.stack([user % 2, user % 3], 1))


EVENTS = [(7, 1, 100), (7, 2, 200), (7, 3, 200), (7, 1, 300), (9, 5, 50), (9, 6, 400)]


def test_history_is_strictly_before_the_event_by_hand():
    seq = make(EVENTS[::-1])  # the order of the feed does not matter
    rows = np.arange(6)
    arrays = user_arrays(seq, rows, seq.ts, 3)
    assert seq.user.tolist() == [7, 7, 7, 7, 9, 9]
    assert seq.item.tolist() == [1, 2, 3, 1, 5, 6]
    # Items 2 and 3 came at the same time: neither is in the other's history.
    assert arrays.history.tolist() == [
        [PAD, PAD, PAD], [1, PAD, PAD], [1, PAD, PAD], [3, 2, 1], [PAD, PAD, PAD], [5, PAD, PAD],
    ]  # fmt: skip
    np.testing.assert_allclose(arrays.history_days[3] * DAY_S, [100, 100, 200], rtol=1e-5)
    np.testing.assert_allclose(arrays.numeric[3], [np.log1p(100 / DAY_S), np.log1p(3), 1], rtol=1e-5)
    assert arrays.numeric[4].tolist() == [0, 0, 0]
    assert arrays.codes.tolist() == [[1, 1]] * 4 + [[1, 0]] * 2


def test_looking_earlier_sees_less():
    seq = make(EVENTS)
    arrays = user_arrays(seq, np.array([3, 5, 5]), np.array([200, 50, -9]), 2)
    assert arrays.history.tolist() == [[1, PAD], [PAD, PAD], [PAD, PAD]]


def test_last_state_sees_all_events():
    arrays = last_arrays(make(EVENTS), 1000, 2)
    assert arrays.user.tolist() == [7, 9]
    assert arrays.history.tolist() == [[1, 3], [6, 5]]
    np.testing.assert_allclose(arrays.numeric[:, 1], np.log1p([4, 2]), rtol=1e-6)


def test_examples_are_first_events_of_a_pair_or_all():
    seq = make(EVENTS)
    assert positives(seq, False).tolist() == [0, 1, 2, 4, 5]
    assert positives(seq, True).tolist() == [0, 1, 2, 3, 4, 5]


EVENT_LISTS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6), st.integers(0, 40)), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(EVENT_LISTS, st.integers(0, 15), st.integers(1, 5))
def test_histories_equal_a_plain_loop(events, lag, length):
    seq = make(events)
    cutoff = seq.ts - lag
    arrays = user_arrays(seq, np.arange(len(seq)), cutoff, length)
    ordered = sorted(events, key=lambda e: (e[0], e[2], e[1]))
    for row, (user, _, ts) in enumerate(ordered):
        before = [i for u, i, t in ordered if u == user and t < ts - lag]
        expected = (before[::-1] + [PAD] * length)[:length]
        assert arrays.history[row].tolist() == expected
        assert arrays.numeric[row, 1] == pytest.approx(np.log1p(len(before)), rel=1e-5)
    seen = set()
    for row, (user, item, _) in enumerate(ordered):
        assert seq.first[row] == ((user, item) not in seen)
        seen.add((user, item))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=12), st.integers(1, 40))
def test_the_slices_of_all_steps_are_the_whole(counts, batch_size):
    plan = Plan.of(counts, batch_size)
    for number, n in enumerate(counts):
        covered = [i for step in range(plan.steps) for i in range(n)[plan.slice(number, step)]]
        assert covered == list(range(n))
    for step in range(plan.steps):
        sizes = [plan.rank_size(rank, 2, step) for rank in range(2)]
        assert sum(sizes) == plan.rank_size(0, 1, step) <= batch_size + len(counts)
        assert plan.width(2, step) == max(sizes)


def test_a_lane_is_a_permutation_within_the_horizon_that_its_seed_decides():
    seq = make([(u, i, 1000 * i) for u in range(5) for i in range(7)])
    rows = positives(seq, False)
    first, again, other = (lane(seq, rows, seed, 0.01) for seed in [(1, 0, 3), (1, 0, 3), (1, 1, 3)])
    assert sorted(first.rows) == list(rows)
    assert (first.rows == again.rows).all()
    assert (first.cutoff == again.cutoff).all()
    assert (first.rows != other.rows).any()
    lag = seq.ts[first.rows] - first.cutoff
    assert lag.min() >= 0
    assert 0 < lag.max() <= 0.01 * DAY_S
    exact = lane(seq, rows, (1,), 0.0)
    assert (exact.cutoff == seq.ts[exact.rows]).all()


def test_dropout_keeps_the_mean():
    mask = dropout_mask((1, 2), 400, 50, 0.3)
    np.testing.assert_allclose(np.unique(mask), [0.0, 1 / 0.7], rtol=1e-6)
    assert mask.mean() == pytest.approx(1.0, abs=0.02)
    assert dropout_mask((1, 2), 400, 50, 0.0) is None
