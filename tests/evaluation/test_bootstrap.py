"""Confidence intervals over users."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkrec.errors import InvariantError
from sparkrec.evaluation.bootstrap import difference, interval
from sparkrec.evaluation.gains import Gains, GainsBook
from sparkrec.evaluation.values import SESSIONS_AGAIN_SPLIT
from sparkrec.pipeline.judge import _judged_ranks


def test_the_interval_of_a_share_is_about_the_normal_one():
    hits = (np.random.default_rng(3).random(2000) < 0.3).astype(float)
    low, high = interval(hits, np.ones(2000))
    wide = 1.96 * np.sqrt(hits.mean() * (1 - hits.mean()) / 2000)
    assert (low, high) == pytest.approx((hits.mean() - wide, hits.mean() + wide), abs=0.003)


def test_a_users_events_are_not_independent():
    """A hundred users with a hundred equal events each tell no more than a hundred events."""
    hits = (np.random.default_rng(3).random(100) < 0.5).astype(float)
    by_user = interval(hits * 100, np.full(100, 100.0))
    alone = interval(hits, np.ones(100))
    assert by_user == pytest.approx(alone)
    assert by_user[1] - by_user[0] > 0.15


def test_what_two_models_share_cancels_out():
    draw = np.random.default_rng(1)
    first = draw.random(400)
    better, low, high = difference(first + 0.02 + 0.01 * draw.random(400), first, np.ones(400))
    assert low > 0.02
    assert high < 0.03
    assert low < better < high
    assert interval(first, np.ones(400))[1] - interval(first, np.ones(400))[0] > 0.05


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 9)), min_size=1, max_size=30))
@settings(max_examples=30, deadline=None)
def test_intervals_hold_what_they_are_of(users):
    gains, counts = (np.array(column, dtype=float) for column in zip(*users, strict=True))
    gains = gains * counts
    low, high = interval(gains, counts, replicates=200)
    ratios = gains / counts
    assert ratios.min() - 1e-9 <= low <= high <= ratios.max() + 1e-9
    assert interval(gains, counts, replicates=200) == (low, high)  # the same draws each time


def test_gains_are_those_of_the_same_users_or_refused(spark):
    rows = [("a", "u1", 1.0, 2), ("a", "u1", 0.0, 1), ("a", "u2", 1.0, 1), ("b", "u2", 0.0, 1), ("b", "u1", 0.5, 3)]
    book = GainsBook("recall", 20)
    book.add("holdout", spark.createDataFrame(rows, "model string, owner string, gain double, count int"), 2)
    mine, other = book.found["a", "holdout"], book.found["b", "holdout"]
    assert sorted(zip(mine.gains, mine.counts, strict=True)) == [(1.0, 1.0), (1.0, 3.0)]
    assert mine.beyond(other)[0] == pytest.approx((2.0 - 0.5) / 4)
    with pytest.raises(InvariantError, match="different users"):
        mine.beyond(Gains(other.owners[:1], other.gains[:1], other.counts[:1]))


def test_by_session_each_session_counts_alike(spark):
    """A session of three events, two of them found, and one of one event that is not."""
    night = SimpleNamespace(config=SimpleNamespace(evaluation=SimpleNamespace(k=[20])))
    rows = [("s1", 1.0), ("s1", 20.0), ("s1", 21.0), ("s2", 99.0)]
    ranks = {"m": spark.createDataFrame(rows, "session_id string, rank double")}
    sessions = spark.createDataFrame([("s1", 1), ("s2", 2)], "session_id string, user_idx int")
    book = GainsBook("recall", 20, "session")
    found = _judged_ranks(night, ranks, [SESSIONS_AGAIN_SPLIT], sessions, book)
    values = {value.metric: value.value for _, _, value in found}
    assert (values["recall"], values["recall_per_session"]) == pytest.approx((2 / 4, (2 / 3 + 0) / 2))
    mine = book.found["m", SESSIONS_AGAIN_SPLIT]
    assert mine.gains.sum() / mine.counts.sum() == pytest.approx(values["recall_per_session"])
    assert book.is_of(SESSIONS_AGAIN_SPLIT, "recall_per_session", 20)
    assert not book.is_of(SESSIONS_AGAIN_SPLIT, "recall", 20)


def test_of_very_many_users_a_sample_comes_to_the_driver(spark):
    rows = spark.range(1000).selectExpr("'a' AS model", "id AS owner", "1.0D AS gain", "1 AS count")
    book = GainsBook("recall", 20)
    book.add("holdout", rows, 80_000)  # as if they were so many: one in four
    assert 150 < len(book.found["a", "holdout"].owners) < 350
