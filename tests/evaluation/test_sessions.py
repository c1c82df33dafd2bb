from math import log2

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkrec.errors import InvariantError
from sparkrec.evaluation.session_events import Taken, left_out
from sparkrec.evaluation.sessions import all_session_metrics, popularity_ranks, session_metrics


def test_hand_computed_values(spark):
    ranks = spark.createDataFrame([(1,), (2,), (21,), (20,)], "rank int")
    values = {(v.metric, v.k): v.value for v in session_metrics(ranks, [1, 20])}
    assert values == {
        ("recall", 1): 0.25,
        ("mrr", 1): 0.25,
        ("recall", 20): 0.75,
        ("mrr", 20): pytest.approx((1 + 1 / 2 + 1 / 20) / 4),
        ("ndcg", 1): 0.25,
        ("ndcg", 20): pytest.approx((1 + 1 / log2(3) + 1 / log2(21)) / 4),
    }
    assert {v.n for v in session_metrics(ranks, [5])} == {4}


@pytest.mark.integration
def test_models_are_judged_side_by_side(spark):
    ranks = {"a": spark.createDataFrame([(1,), (3,)], "rank int"), "b": spark.createDataFrame([(2.5,)], "rank double")}
    found = all_session_metrics(ranks, [2, 3])
    assert found == {name: session_metrics(one, [2, 3]) for name, one in ranks.items()}
    assert [v.n for v in found["b"]] == [1] * 6
    with pytest.raises(InvariantError, match="no event"):
        all_session_metrics({**ranks, "none": ranks["a"].limit(0)}, [2])


@pytest.mark.parametrize(("rows", "line"), [([], "no event"), ([(1,), (0,)], "1 of 2"), ([(None,)], "1 of 1")])
def test_ranks_that_cannot_be_are_refused(spark, rows, line):
    with pytest.raises(InvariantError, match=line):
        session_metrics(spark.createDataFrame(rows, "rank int"), [20])


@pytest.mark.integration
@pytest.mark.parametrize(
    ("ties", "expected"), [("conservative", [1, 3, 5, 6]), ("standard", [1, 2, 4, 6]), ("median", [1, 2.5, 4.5, 6])]
)
def test_popularity_counts_ties_against_itself_unless_asked_otherwise(spark, ties, expected):
    scores = np.array([0.0, 5.0, 3.0, 3.0, 0.0, 0.0, 0.0, 0.0, 0.0, 8.0])
    catalogue = np.isin(np.arange(10), [1, 2, 3, 4, 5])  # 9 is not in it
    sessions = spark.createDataFrame([([2, 1, 3],), ([1, 5],), ([4],), ([],), ([1, 77],)], "items array<int>")
    ranks = sorted(row["rank"] for row in popularity_ranks(sessions, scores, catalogue, ties).collect())
    assert ranks == expected


@pytest.mark.integration
def test_popularity_among_what_is_new_to_the_user(spark):
    """By hand: of items 1 to 5, which 5, 3, 3, 0 and 0 took, and 9, which is not ranked."""
    scores = np.array([0.0, 5.0, 3.0, 3.0, 0.0, 0.0, 0.0, 0.0, 0.0, 8.0])
    catalogue = np.isin(np.arange(10), [1, 2, 3, 4, 5])
    rows = [
        ([2, 1, 3], []),  # 1 stands first of 1, 3, 4, 5; 3 first of 3, 4, 5
        ([4, 3], [1, 9]),  # 3 ties with 2, and 1 is had
        ([5, 2, 5, 2], [3]),  # 2 after 1; 5 and 2 come again
        ([3, 1], [1]),  # 1 is had
        ([4, 9, 2], [2, 5]),  # 9 after what is left of all, 1 and 3 (2, 4 and 5 are had)
    ]
    sessions = spark.createDataFrame(rows, "items array<int>, seen array<int>").coalesce(1)
    found = popularity_ranks(sessions, scores, catalogue, "conservative").collect()
    assert [row["new_rank"] for row in found] == [1, 1, 2, 2, None, None, None, 3, None]
    assert [row["rank"] for row in found] == [1, 3, 3, 3, 5, 3, 1, 6, 3]
    standard = popularity_ranks(sessions, scores, catalogue, "standard").collect()
    assert [row["new_rank"] for row in standard] == [1, 1, 1, 2, None, None, None, 3, None]
    counted = left_out(sessions, catalogue)
    assert (counted["events_new"], counted["sessions_new"]) == (4, 3)  # 9 is not judged by models


few_items = st.lists(st.integers(0, 6), max_size=6)


@given(sessions=st.lists(st.tuples(few_items, few_items), max_size=5))
def test_what_is_new_and_what_was_taken_before_is_as_by_sets(sessions):
    flat = np.array([item for items, _ in sessions for item in items], dtype=np.int64)
    lengths = np.array([len(items) for items, _ in sessions], dtype=np.int64)
    theirs = np.array([item for _, taken in sessions for item in taken], dtype=np.int32)
    taken = Taken(theirs, np.array([len(one) for _, one in sessions], dtype=np.int64))
    new, pairs, places = [], [], []
    for number, (items, had) in enumerate(sessions):
        for place, item in enumerate(items):
            before = {*had, *items[:place]}
            new.append(item not in before)
            pairs += [(len(places), one) for one in sorted(before)]
            places.append((number, sum(lengths[:number]), sum(lengths[:number]) + place))
    session, begins, ends = np.array(places, dtype=np.int64).reshape(-1, 3).T
    assert taken.new(flat, lengths).tolist() == new
    assert [*zip(*(one.tolist() for one in taken.before(flat, session, begins, ends)), strict=True)] == pairs
    later = [n for n, (_, begin, end) in zip(new, places, strict=True) if end > begin]
    assert taken.predicted(flat, lengths).sum() == sum(later)
