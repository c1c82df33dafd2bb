"""From sequences to pairs: every pair within the window once, none across sequences, the same for any slicing."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkrec.errors import InvariantError
from sparkrec.models.prod2vec.pairs import Sequences, keep_probability, walk

ALL = np.ones(1000)


def sequences_of(*items):
    ids = np.repeat(np.arange(len(items)) * 7, [len(i) for i in items])
    flat = [x for i in items for x in i]
    return Sequences.of(ids, np.array(flat, dtype=np.int32), len([i for i in items if i]))


def all_pairs(found):
    return list(zip(*(side.tolist() for side in found.pairs(slice(0, found.n_pairs))), strict=True))


def test_a_window_of_one_pairs_the_neighbours_of_each_sequence():
    found = walk(sequences_of([1, 2, 3], [4], [5, 6]), ALL, 1, (1,))
    assert Counter(all_pairs(found)) == Counter([(1, 2), (2, 1), (2, 3), (3, 2), (5, 6), (6, 5)])
    assert found.n_pairs == 6


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(st.integers(0, 999), min_size=1, max_size=9), min_size=1, max_size=6),
    st.integers(1, 12),
    st.integers(0, 99),
)
def test_pairs_are_those_of_the_drawn_windows_whatever_the_slices(items, window, seed):
    numbered = [[10 * n + place for place in range(len(some))] for n, some in enumerate(items)]  # tells places apart
    found = walk(sequences_of(*numbered), ALL, window, (seed,))
    pairs = all_pairs(found)
    assert len(set(pairs)) == len(pairs)
    assert all(a // 10 == b // 10 and 0 < abs(a - b) <= window for a, b in pairs)
    contexts = {}
    for a, b in pairs:
        contexts.setdefault(a, []).append(b)
    for some in numbered:
        for a in some:
            reach = max((abs(a - b) for b in contexts.get(a, [])), default=0)
            expected = [b for b in some if 0 < abs(a - b) <= reach]
            assert contexts.get(a, []) == expected  # both sides, in order
            assert reach >= min(1, len(some) - 1)
    cuts = sorted({0, found.n_pairs, *(found.n_pairs * k // 5 for k in range(5))})
    parts = [found.pairs(slice(a, b)) for a, b in itertools.pairwise(cuts)]
    assert pairs == [p for part in parts for p in zip(*(side.tolist() for side in part), strict=True)]


def test_the_reach_of_a_window_is_uniform():
    found = walk(sequences_of(list(range(900))), ALL, 3, (1,))
    lengths = np.bincount(np.diff(np.concatenate([[0], found.ends])), minlength=7)
    assert abs(lengths[[2, 4, 6]] - 300).max() < 50
    assert lengths[[2, 4, 6]].sum() > 890  # all but those at the ends


def test_centres_come_in_another_order_in_each_epoch():
    sequences = sequences_of(list(range(50)))
    epochs = [walk(sequences, ALL, 1, (1, epoch, 0)) for epoch in (1, 2, 1)]
    assert all_pairs(epochs[0]) == all_pairs(epochs[2]) != all_pairs(epochs[1])
    assert Counter(all_pairs(epochs[0])) == Counter(all_pairs(epochs[1]))
    assert all_pairs(epochs[0]) != sorted(all_pairs(epochs[0]))


def test_events_that_are_left_out_close_the_gap():
    keep = np.ones(10)
    keep[[2, 3]] = 0
    found = walk(sequences_of([1, 2, 3, 4], [2, 3], [5, 2]), keep, 1, (1,))
    assert Counter(all_pairs(found)) == Counter([(1, 4), (4, 1)])


def test_sub_sampling_keeps_what_word2vec_keeps():
    counts = np.array([10_000, 1000, 100, 10, 0])
    found = keep_probability(counts, 1e-3)
    # f / t with t = 11.11: 900.1, 90.01, 9.001, 0.9001; (√ratio + 1) / ratio where that is below 1
    assert found == pytest.approx([31.002 / 900.1, 10.487 / 90.01, 4.0002 / 9.001, 1, 1], rel=1e-3)
    assert keep_probability(counts, 0).tolist() == [1] * 5
    sequences = sequences_of(*[[0, 1, 2]] * 4000)
    kept = walk(sequences, np.array([0.25, 1.0, 0.5]), 1, (3,)).item
    assert np.bincount(kept) == pytest.approx([1000, 4000, 2000], rel=0.1)


def test_sequences_in_pieces_are_an_error():
    with pytest.raises(InvariantError, match="2 sequences stand in 3 pieces"):
        Sequences.of(np.array([1, 1, 2, 1]), np.zeros(4), 2)


def test_nothing_gives_nothing():
    found = walk(Sequences.of(np.zeros(0, np.int64), np.zeros(0, np.int32), 0), ALL, 3, (1,))
    assert found.n_pairs == 0
    assert all_pairs(found) == []
