"""Lanes: each pair of neighbouring events once, in order, reset at each session's start."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkrec.errors import InvariantError
from sparkrec.models.gru.lanes import NO_TARGET, chunks, lane_table, lanes_of_files, walk_lanes
from sparkrec.ranks.comm import SingleProcess
from tests.models.gru.cases import on_threads

LENGTHS = st.lists(st.integers(1, 9), max_size=30)


def flat(lengths):
    """Sessions numbered out of order, and an item of its own for each event."""
    session = np.repeat([(i * 31) % 1009 for i in range(len(lengths))], lengths).astype(np.int64)
    return session, np.arange(sum(lengths), dtype=np.int32)


def test_two_lanes_by_hand():
    session, item = np.array([5, 5, 5, 3, 3, 9, 8, 8]), np.array([10, 11, 12, 20, 21, 30, 40, 41])
    lanes = walk_lanes(session, item, 2)
    # 5 takes lane 0 for two steps, 3 lane 1 for one; 9 has no pair; 8 takes lane 1, which is free first.
    assert lanes.input.tolist() == [[10, 20], [11, 40]]
    assert lanes.target.tolist() == [[11, 21], [12, 41]]
    assert lanes.start.tolist() == [[1, 1], [0, 1]]


@given(LENGTHS, st.integers(1, 6))
@settings(max_examples=200, deadline=None)
def test_each_pair_once_in_order_with_resets(lengths, n_lanes):
    session, item = flat(lengths)
    lanes = walk_lanes(session, item, n_lanes)
    t, lane = np.nonzero(lanes.target != NO_TARGET)
    pairs = sorted(zip(lanes.input[t, lane].tolist(), lanes.target[t, lane].tolist(), strict=True))
    expected = [(i, i + 1) for i in range(len(item) - 1) if session[i] == session[i + 1]]
    assert pairs == expected
    first = set(np.flatnonzero(np.append(True, session[1:] != session[:-1])).tolist()) if len(item) else set()
    for column in range(n_lanes):
        valid = lanes.target[:, column] != NO_TARGET
        assert (np.diff(valid.astype(int)) <= 0).all()  # a lane never pauses
        inputs, starts = lanes.input[valid, column], lanes.start[valid, column]
        assert (np.diff(inputs) > 0).all()  # sessions in order of their first event, events in order
        assert starts.tolist() == [int(i in first) for i in inputs.tolist()]
    assert not lanes.start[lanes.target == NO_TARGET].any()


@given(LENGTHS, st.integers(1, 6))
@settings(max_examples=100, deadline=None)
def test_the_lane_that_is_free_first_takes_the_next_session(lengths, n_lanes):
    session, item = flat(lengths)
    lanes = walk_lanes(session, item, n_lanes)
    starts = [(t, lane) for t, lane in zip(*np.nonzero(lanes.start), strict=True)]
    order = sorted(starts, key=lambda place: lanes.input[place])
    assert order == starts  # by step, then by lane
    assert len(lanes.target) <= max([1, *lengths]) - 1 + sum(n - 1 for n in lengths) / n_lanes


@given(LENGTHS, st.integers(1, 6), st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_a_drawn_order_has_each_session_once_and_whole(lengths, n_lanes, seed):
    session, item = flat(lengths)
    timed, drawn = walk_lanes(session, item, n_lanes), walk_lanes(session, item, n_lanes, np.random.default_rng(seed))
    for lanes in (timed, drawn):
        pairs = np.stack([m[lanes.target != NO_TARGET] for m in (lanes.input, lanes.target, lanes.start)])
        lanes_pairs = pairs[:, pairs[0].argsort()]
        assert lanes_pairs[0].tolist() == [i for i in range(len(item) - 1) if session[i] == session[i + 1]]
        assert (lanes_pairs[1] == lanes_pairs[0] + 1).all()
        assert lanes_pairs[2].tolist() == [int(i == 0 or session[i] != session[i - 1]) for i in lanes_pairs[0]]
    for column in drawn.input.T:  # within a session in order of time
        for a, b in itertools.pairwise(column):
            assert b == a + 1 or session[a] != session[b] or b == 0


def test_drawn_orders_differ():
    session, item = flat([2] * 30)
    orders = [walk_lanes(session, item, 1, np.random.default_rng(seed)).input[:, 0].tolist() for seed in (1, 2)]
    assert orders[0] != orders[1]
    assert orders[0] != sorted(orders[0])


def test_rows_of_a_session_apart_are_noticed():
    with pytest.raises(InvariantError):
        walk_lanes(np.array([1, 1, 2, 2, 1]), np.arange(5), 2)


@pytest.mark.parametrize(("n_lanes", "rows", "expected"), [
    (80, [5] * 12, [7] * 8 + [6] * 4), (3, [5, 5, 5, 0, 0, 0], [1, 1, 1, 0, 0, 0]), (1, [5, 5], [1, 1]),
])  # fmt: skip
def test_lanes_of_files(n_lanes, rows, expected):
    assert lanes_of_files(n_lanes, rows) == expected


def all_chunks(comm, parts, widths, steps):
    mine = {f: walk_lanes(*parts[f], widths[f]) for f in range(len(parts)) if f % comm.size == comm.rank and widths[f]}
    table = lane_table(mine, widths, comm)
    return table, list(chunks(table, steps, comm))


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_chunks_are_the_same_on_any_number_of_ranks(size):
    rng = np.random.default_rng(0)
    parts = [flat(rng.integers(1, 6, n).tolist()) for n in (9, 3, 0, 7, 1, 4)]
    widths = [2, 1, 0, 3, 1, 2]
    table, expected = all_chunks(SingleProcess(), parts, widths, 4)
    joined = torch.cat([c.target for c in expected])
    assert (joined != NO_TARGET).sum() == table.valid == sum((np.diff(s) == 0).sum() for s, _ in parts)
    places = []
    for other, found in on_threads(size, all_chunks, parts, widths, 4):
        places += other.places.tolist()
        assert other.length == table.length
        for a, b in zip(found, expected, strict=True):
            assert torch.equal(a.input, b.input)
            assert torch.equal(a.target, b.target)
            assert a.n_valid == b.n_valid == (a.target != NO_TARGET).sum(1).tolist()
            assert torch.equal(a.start, b.start)
        column = 0
        for f in sorted(other.lanes):  # the rank's places are its own files' lanes
            for lane in other.lanes[f].target.T:
                here = torch.cat([c.target for c in found])[:, other.places[column]]
                assert here[: len(lane)].tolist() == lane.tolist()
                column += 1
    assert sorted(places) == list(range(sum(widths)))
