from math import log2

import numpy as np
import pytest

from sparkrec.errors import InvariantError
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


@pytest.mark.parametrize(
    ("ties", "expected"), [("conservative", [1, 3, 5, 6]), ("standard", [1, 2, 4, 6]), ("median", [1, 2.5, 4.5, 6])]
)
def test_popularity_counts_ties_against_itself_unless_asked_otherwise(spark, ties, expected):
    scores = np.array([0.0, 5.0, 3.0, 3.0, 0.0, 0.0, 0.0, 0.0, 0.0, 8.0])
    catalogue = np.isin(np.arange(10), [1, 2, 3, 4, 5])  # 9 is not in it
    sessions = spark.createDataFrame([([2, 1, 3],), ([1, 5],), ([4],), ([],), ([1, 77],)], "items array<int>")
    ranks = sorted(row["rank"] for row in popularity_ranks(sessions, scores, catalogue, ties).collect())
    assert ranks == expected
