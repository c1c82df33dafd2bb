from datetime import UTC, datetime

import numpy as np
import pytest

from sparkrec.models.popularity.counts import fallback_matrix, popularity_arrays
from sparkrec.retrieval.block_search import ItemMatrix
from sparkrec.retrieval.fallback import ListCounts, count_lists, filled_up

LISTS = "user_idx int, item_idx int, rank int, score float, source string"


def popular(scores):
    """An item matrix of these scores; None for an item that is not eligible."""
    vectors = np.array([[score or 0.0] for score in scores], dtype=np.float32)
    return ItemMatrix(vectors, None, np.array([score is not None for score in scores]))


def rows(frame):
    return sorted(tuple(row) for row in frame.select("user_idx", "rank", "item_idx", "score", "source").collect())


@pytest.mark.integration
def test_short_lists_and_missing_ones_are_filled_up_below_the_models_own(spark):
    lists = spark.createDataFrame(
        [(*row, "model") for row in ((1, 4, 1, 0.9), (1, 2, 2, 0.5), (2, 0, 1, 0.3), (2, 1, 2, 0.2), (2, 3, 3, 0.1))],
        LISTS,
    )
    keys = spark.createDataFrame([(1,), (2,), (3,)], "user_idx int")
    seen = spark.createDataFrame([(1, 0), (3, 1), (3, 0), (9, 9)], "user_idx int, item_idx int")
    items = popular([10.0, 8.0, 6.0, 4.0, 2.0, None])
    filled = filled_up(lists, keys, items, key=["user_idx"], k=3, seen=seen)
    assert rows(filled) == [
        (1, 1, 4, pytest.approx(0.9), "model"),
        (1, 2, 2, pytest.approx(0.5), "model"),
        (1, 3, 1, 8.0, "popularity"),  # the most popular one has been seen
        (2, 1, 0, pytest.approx(0.3), "model"),
        (2, 2, 1, pytest.approx(0.2), "model"),
        (2, 3, 3, pytest.approx(0.1), "model"),
        (3, 1, 2, 6.0, "popularity"),
        (3, 2, 3, 4.0, "popularity"),
        (3, 3, 4, 2.0, "popularity"),
    ]


@pytest.mark.integration
def test_a_list_of_no_key_is_filled_up_too_and_one_stays_short_where_nothing_is_left(spark):
    lists = spark.createDataFrame([(5, 0, 1, 1.0, "model")], LISTS)
    keys = spark.createDataFrame([], "user_idx int")
    filled = filled_up(lists, keys, popular([3.0, 2.0, None]), key=["user_idx"], k=3)
    assert rows(filled) == [(5, 1, 0, 1.0, "model"), (5, 2, 1, 2.0, "popularity")]


def test_lists_are_counted_with_those_that_are_missing_or_short(spark):
    rows = [(1, 4, "model"), (1, 2, "popularity"), (2, 5, "model"), (3, 5, "model"), (3, 6, "model")]
    lists = spark.createDataFrame(rows, "user_idx int, item_idx int, source string")
    keys = spark.createDataFrame([(1,), (2,), (7,)], "user_idx int")  # 3 has a list unasked
    assert count_lists(lists, keys, key=["user_idx"], k=2) == ListCounts(
        rows=5, popular=1, lists=3, whole=2, expected=3, served=2, short=2
    )
    told = spark.createDataFrame([(1, True), (2, False), (7, False)], "user_idx int, due boolean")
    assert count_lists(lists, told, key=["user_idx"], k=2) == ListCounts(
        rows=5, popular=1, lists=3, whole=2, expected=1, served=1, short=2
    )
    none = count_lists(lists.limit(0), keys.limit(0), key=["user_idx"], k=2)
    assert none == ListCounts(rows=0, popular=0, lists=0, whole=0, expected=0, served=0, short=0)


def test_what_was_popular_of_late_comes_before_what_ever_was(spark):
    events = [
        (1, 0, "buy", datetime(2020, 1, 1)), (2, 0, "buy", datetime(2020, 1, 1)), (3, 0, "buy", datetime(2020, 1, 1)),
        (1, 1, "buy", datetime(2020, 1, 30)),
        (1, 2, "buy", datetime(2020, 1, 2)),
        (1, 3, "view", datetime(2020, 1, 30)),
    ]  # fmt: skip
    frame = spark.createDataFrame(events, "user_idx int, item_idx int, event_type string, ts timestamp")
    when = datetime(2020, 1, 31, tzinfo=UTC)
    items = fallback_matrix(*popularity_arrays(frame, {"buy": 1.0}, when, (None, 7.0), 5))
    assert items.vectors[:, 0].tolist() == [0.75, 1.0, 0.25, 0.0, 0.0]
    assert items.eligible.tolist() == [True, True, True, False, False]
