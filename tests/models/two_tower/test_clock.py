"""Momentum of items at any day: by hand, against a table of all days, and for catalogues of any size."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkrec.errors import InvariantError
from sparkrec.models.two_tower.batches import DAY_S, lane, lane_batch, sequences
from sparkrec.models.two_tower.clock import new_clock
from sparkrec.models.two_tower.settings import TwoTowerConfig
from sparkrec.models.two_tower.step import prepare
from sparkrec.models.two_tower.train import tower_shape
from sparkrec.ranks.comm import SingleProcess


def make(events):
    """Events: (user, item, ts)."""
    user, item, ts = (np.array(c) for c in zip(*events, strict=True))
    return sequences(user, item, ts, np.ones(len(user)), np.zeros((len(user), 0)))


def clock_of(events, n_days, n_items, windows=(1.0, 2.0)):
    return new_clock(SingleProcess(), [make(events)], n_days * DAY_S, n_items, windows)


def whole(clock, n_items):
    """All days' momentum of all items, [days + 1, windows + 1, items]."""
    return clock.momentum(torch.arange(clock.n_days + 1), torch.arange(n_items)).numpy()


def table(events, n_days, n_items, windows):
    """The same by a dense table of the events of each day, counted back from the end of the last one."""
    counts = np.zeros((n_days, n_items), dtype=np.int64)
    for _, item, ts in events:
        counts[ts // DAY_S, item] += 1
    total = np.zeros((n_days + 1, n_items), dtype=np.int64)
    np.cumsum(counts, axis=0, out=total[1:])
    days = np.arange(n_days + 1)
    phi = [np.log1p(total - total[np.maximum(days - round(w), 0)]) for w in windows]
    birth = np.where(total[-1] > 0, np.argmax(total > 0, axis=0) - 1, n_days)
    return np.stack([*phi, np.log1p(np.maximum(days[:, None] - birth[None, :], 0))], axis=1)


def test_momentum_by_hand_counts_only_what_came_before():
    events = [(0, 0, 10), (0, 1, DAY_S + 5), (1, 0, 2 * DAY_S + 1), (1, 0, 3 * DAY_S - 1)]
    clock = clock_of(events, 3, 3)
    found = whole(clock, 3)
    one_day = [[0, 0, 0], [1, 0, 0], [0, 1, 0], [2, 0, 0]]
    two_days = [[0, 0, 0], [1, 0, 0], [1, 1, 0], [2, 1, 0]]
    age = [[0, 0, 0], [1, 0, 0], [2, 1, 0], [3, 2, 0]]
    np.testing.assert_allclose(found, np.log1p(np.stack([one_day, two_days, age], axis=1)), rtol=1e-6)
    assert clock.day_of(np.array([-5, 0, DAY_S - 1, DAY_S, 9 * DAY_S])).tolist() == [0, 0, 0, 1, 3]
    np.testing.assert_array_equal(clock.last(), found[-1].T)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6), st.integers(0, 12 * DAY_S - 1)), min_size=1, max_size=60),
    st.lists(st.integers(0, 12), min_size=1, max_size=5, unique=True),
    st.lists(st.integers(0, 7), min_size=1, max_size=8, unique=True),
)
def test_momentum_equals_a_table_of_all_days(events, days, items):
    """At any days and of any items it is what a table of all of them has."""
    events = [*events, (0, 0, 5)]  # the table begins with the first day
    windows = (1.0, 3.2, 30.0)
    expected = table(events, 12, 8, windows)
    clock = clock_of(events, 12, 8, windows)
    days, items = sorted(days), np.array(items)
    found = clock.momentum(torch.tensor(days), torch.from_numpy(items))
    np.testing.assert_allclose(found.numpy(), expected[days][:, :, items], rtol=1e-6)
    np.testing.assert_allclose(clock.last(), expected[-1].T, rtol=1e-6)


def test_a_day_is_a_day_however_large_the_catalogue():
    """Two items of which one was hot of late and one long ago, among two or among three million."""
    events = [(0, 0, 399 * DAY_S), (1, 0, 390 * DAY_S), (2, 1, 300 * DAY_S), (3, 1, 0)]
    config = TwoTowerConfig(dim=1)
    found = []
    for n_items in (2, 3_000_000):
        shape = tower_shape(config, 4, n_items, (), ())
        codes = np.zeros((n_items, 0), np.int32)
        data = prepare(
            SingleProcess(), {0: make(events)}, 1, shape, config, item_codes=codes, as_of=400 * DAY_S, repeats=True
        )
        days = data.clock.day_of(np.array([395, 398, 400]) * DAY_S)
        found.append(data.clock.momentum(torch.from_numpy(days), torch.tensor([0, 1])).numpy())
    np.testing.assert_array_equal(found[0], found[1])
    assert data.clock.last().shape == (3_000_000, 5)
    counts = np.expm1(found[1]).round().astype(int)  # day → 1, 7, 30, 365 days, age → item
    assert counts[:, :, 0].tolist() == [[0, 1, 1, 1, 5], [0, 0, 1, 1, 8], [1, 1, 2, 2, 10]]
    assert counts[:, :, 1].tolist() == [[0, 0, 0, 1, 395], [0, 0, 0, 1, 398], [0, 0, 0, 1, 400]]


def test_events_outside_of_the_time_or_the_index_are_refused():
    events = [(7, 1, 100), (9, 6, 2 * DAY_S)]
    assert clock_of(events, 3, 7).n_days == 3
    with pytest.raises(InvariantError):
        clock_of(events, 2, 7)
    with pytest.raises(InvariantError):
        clock_of(events, 3, 6)


def test_a_batch_has_the_day_of_its_look():
    seq = make([(0, 0, 10), (0, 1, DAY_S + 5), (0, 2, 2 * DAY_S + 7)])
    clock = new_clock(SingleProcess(), [seq], 3 * DAY_S, 3, (1.0,))
    batch = lane_batch(lane(seq, np.arange(3), (0,), 0.0), slice(0, 3), clock, 2)
    assert dict(zip(batch.item.tolist(), batch.day.tolist(), strict=True)) == {0: 0, 1: 1, 2: 2}


@dataclasses.dataclass
class TwoRanks(SingleProcess):
    """What the ranks send, one call after another; the other rank's is added."""

    others: list

    size = 2

    def allgather(self, tensor):
        return torch.cat([tensor, self.others.pop(0)])


def test_ranks_know_of_each_others_events():
    mine = [(0, 0, 10), (0, 2, DAY_S)]
    theirs = [(1, 0, 20), (1, 1, 0), (1, 2, 2 * DAY_S)]  # their first event is the earlier one
    cells = torch.tensor([[0, 1], [3, 1], [8, 1]])  # item * 3 + day, and how often
    comm = TwoRanks([torch.tensor([0]), torch.tensor([3]), cells])
    found = new_clock(comm, [make(mine)], 3 * DAY_S, 3, (1.0, 2.0))
    alone = clock_of([*mine, *theirs], 3, 3)
    np.testing.assert_array_equal(whole(found, 3), whole(alone, 3))
