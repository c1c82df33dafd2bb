from datetime import UTC, datetime

import numpy as np
import pytest

from sparkrec.models.popularity.counts import (
    plus_popularity,
    popularity,
    popularity_arrays,
    popularity_matrix,
    times_popularity,
)
from sparkrec.retrieval.block_search import ItemMatrix
from sparkrec.retrieval.fallback import popularity_queries
from sparkrec.retrieval.topk import top_k

AS_OF = datetime(2020, 1, 31, tzinfo=UTC)
WEIGHTS = {"view": 0.5, "buy": 2.0, "return": 0.0}


def interactions(spark):
    rows = [
        (1, 0, "buy", datetime(2020, 1, 1)),
        (1, 0, "buy", datetime(2020, 1, 2)),
        (2, 0, "view", datetime(2020, 1, 30)),
        (1, 1, "view", datetime(2020, 1, 24)),  # exactly at the start of a window of 7 days
        (1, 2, "return", datetime(2020, 1, 25)),
        (1, 2, "unknown", datetime(2020, 1, 25)),
        (3, 3, "buy", datetime(2020, 1, 31)),  # exactly as of: not yet
        (None, 4, "buy", datetime(2020, 1, 30)),
        (None, 4, "buy", datetime(2020, 1, 30)),
        (5, 4, "buy", datetime(2020, 1, 23, 23, 59, 59)),
    ]
    return spark.createDataFrame(rows, "user_idx int, item_idx int, event_type string, ts timestamp")


def table(frame):
    return {row["item_idx"]: (row["n_events"], row["score"]) for row in frame.collect()}


def test_popularity_by_users_and_by_events_over_all_time_and_a_window(spark):
    rows = interactions(spark)
    assert table(popularity(rows, WEIGHTS, AS_OF, None)) == {0: (3, 2.0), 1: (1, 1.0), 4: (3, 3.0)}
    assert table(popularity(rows, WEIGHTS, AS_OF, 7.0)) == {0: (1, 1.0), 1: (1, 1.0), 4: (2, 2.0)}
    assert table(popularity(rows, WEIGHTS, AS_OF, None, by="events")) == {0: (3, 4.5), 1: (1, 0.5), 4: (3, 6.0)}


def test_windows_are_counted_in_one_pass(spark):
    rows, windows = interactions(spark), (None, 7.0, 1.0)
    found = [a.tolist() for a in popularity_arrays(rows, WEIGHTS, AS_OF, windows, 6)]
    assert found == [[2.0, 1.0, 0.0, 0.0, 3.0, 0.0], [1.0, 1.0, 0.0, 0.0, 2.0, 0.0], [1.0, 0.0, 0.0, 0.0, 2.0, 0.0]]
    found = [a.tolist() for a in popularity_arrays(rows, WEIGHTS, AS_OF, windows[1:], 6, by="events")]
    assert found == [[0.5, 0.5, 0.0, 0.0, 4.0, 0.0], [0.5, 0.0, 0.0, 0.0, 4.0, 0.0]]


def test_popularity_lists_come_from_the_engine(spark):
    scores = np.array([0.0, 5.0, 3.0, 0.0, 3.0, 0.0])
    items = popularity_matrix(scores, scores + np.array([1.0, 0, 0, 0, 0, 0]))
    assert items.eligible.tolist() == [True, True, True, False, True, False]
    assert popularity_matrix(scores).eligible.tolist() == [False, True, True, False, True, False]
    queries = popularity_queries(spark.createDataFrame([(0,), (1,)], "user_idx int"))
    seen = spark.createDataFrame([(1, 1), (1, 0)], "user_idx int, item_idx int")
    lists = top_k(queries, items, key="user_idx", k=4, seen=seen, partitions=1).orderBy("user_idx", "rank").collect()
    assert [(r["user_idx"], r["item_idx"], r["score"]) for r in lists] == [
        (0, 1, 5.0), (0, 2, 3.0), (0, 4, 3.0), (0, 0, 0.0), (1, 2, 3.0), (1, 4, 3.0),
    ]  # fmt: skip


def test_a_prior_multiplies_preferences_and_is_added_to_log_probabilities():
    vectors = np.array([[1.0, 2.0], [3.0, -1.0], [0.5, 0.5]], dtype=np.float32)
    eligible = np.array([True, True, False])
    items = ItemMatrix(vectors, np.array([0.5, 0.0, 1.0], dtype=np.float32), eligible)
    users = np.array([0.0, 3.0, 15.0], dtype=np.float32)
    blended = times_popularity(items, users, 0.5)  # (users + 1) ** 0.5 = 1, 2, 4
    assert blended.vectors.tolist() == [[1.0, 2.0], [6.0, -2.0], [2.0, 2.0]]
    assert blended.bias.tolist() == [0.5, 0.0, 4.0]
    added = plus_popularity(items, users, 0.5)
    assert added.vectors.tolist() == vectors.tolist()
    assert added.bias.tolist() == pytest.approx([0.5, 0.5 * np.log(4), 1.0 + 0.5 * np.log(16)])
    assert plus_popularity(ItemMatrix(vectors), users, 2.0).bias.tolist() == pytest.approx(
        [0.0, np.log(16), np.log(256)]
    )
    assert blended.eligible is eligible
    assert added.eligible is eligible


def test_a_prior_of_no_strength_leaves_scores_alone():
    items = ItemMatrix(np.array([[1.0], [2.0]], dtype=np.float32))
    users = np.array([5.0, 0.0], dtype=np.float32)
    assert times_popularity(items, users, 0.0).vectors.tolist() == [[1.0], [2.0]]
    assert plus_popularity(items, users, 0.0).bias.tolist() == [0.0, 0.0]
