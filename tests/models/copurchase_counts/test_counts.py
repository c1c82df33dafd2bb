"""Pairs that stand close to each other: counts and scores by hand, and by a count of every pair."""

from collections import Counter
from itertools import combinations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparkrec.models.copurchase_counts.counts import pair_scores
from sparkrec.models.copurchase_counts.settings import CopurchaseCountsConfig

BASKETS = [[1, 2, 3], [1, 2], [2, 1], [4, 5, 6, 1], [7]]


def found(spark, baskets, **settings):
    rows = spark.createDataFrame([(items,) for items in baskets], "items array<int>").coalesce(1)
    return {(a, b): score for a, b, score in pair_scores(rows, CopurchaseCountsConfig(**settings)).collect()}


def test_pairs_within_so_many_places(spark):
    near = {(1, 2): 3, (2, 3): 1, (4, 5): 1, (5, 6): 1, (1, 6): 1}
    assert found(spark, BASKETS, within=1) == near | {(b, a): n for (a, b), n in near.items()}
    wide = near | {(1, 3): 1, (4, 6): 1, (1, 5): 1, (1, 4): 1}
    assert found(spark, BASKETS, within=3) == wide | {(b, a): n for (a, b), n in wide.items()}


@pytest.mark.integration
@pytest.mark.parametrize(
    ("score", "expected"),
    [("cosine", {(1, 2): 3 / (4 * 3) ** 0.5, (2, 3): 1 / 3**0.5}), ("lift", {(1, 2): 5 * 3 / 12, (2, 3): 5 / 3})],
)
def test_scores_by_hand(spark, score, expected):
    scores = found(spark, BASKETS, within=1, score=score)
    for pair, value in expected.items():
        assert scores[pair] == scores[pair[::-1]] == pytest.approx(value)


def test_a_session_counts_a_pair_once_and_nothing_with_itself(spark):
    assert found(spark, [[1, 2, 1, 2, 2]], within=2) == {(1, 2): 1, (2, 1): 1}


def test_seldom_pairs_go_and_the_best_partners_stay(spark):
    assert found(spark, BASKETS, within=3, min_count=2) == {(1, 2): 3, (2, 1): 3}
    assert {b for a, b in found(spark, BASKETS, within=3, neighbours=2) if a == 1} == {
        2,
        3,
    }  # of equal ones the smaller


@pytest.mark.integration
@given(st.lists(st.lists(st.integers(0, 6), max_size=7), min_size=1, max_size=6), st.integers(1, 4))
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_counts_are_those_of_every_pair(spark, baskets, within):
    expected = Counter()
    for items in baskets:
        near = {tuple(sorted((items[i], items[j]))) for i, j in combinations(range(len(items)), 2) if j - i <= within}
        expected.update(pair for pair in near if pair[0] != pair[1])
    assert found(spark, baskets, within=within) == expected | Counter({(b, a): n for (a, b), n in expected.items()})
