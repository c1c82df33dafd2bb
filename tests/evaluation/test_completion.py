import math

import pytest

from sparkrec.errors import InvariantError
from sparkrec.evaluation.completion import completion_metrics, prefixes

BASKETS = [("a", [4, 2, 9]), ("b#1", [7]), ("b", [1, 3]), ("c", [])]


def baskets(spark):
    return spark.createDataFrame(BASKETS, "basket_id string, items array<int>")


def lists(spark, rows):
    return spark.createDataFrame(rows, "case string, item_idx int, rank int, score float")


def test_each_next_item_is_a_case_of_the_items_before_it(spark):
    found = {r["case"]: (r["items"], r["next"]) for r in prefixes(baskets(spark)).collect()}
    assert found == {"a#2": ([4], 2), "a#3": ([4, 2], 9), "b#2": ([1], 3)}
    short = {r["case"]: r["items"] for r in prefixes(baskets(spark), longest=1).collect()}
    assert short == {"a#2": [4], "b#2": [1]}
    had = spark.createDataFrame(
        [("a", [4, 2, 9], [2, 7]), ("b", [1, 3], [])], "basket_id string, items array<int>, seen array<int>"
    )
    assert {r["case"]: r["next"] for r in prefixes(had).collect()} == {"a#3": 9, "b#2": 3}


@pytest.mark.integration
def test_hand_computed_metrics_of_completion(spark):
    cases = prefixes(baskets(spark)).persist()
    rows = [("a#2", 5, 1, 0.9), ("a#2", 2, 2, 0.8), ("a#2", 6, 3, 0.7), ("a#3", 8, 1, 0.9), ("a#3", 7, 2, 0.5)]
    found = {(v.metric, v.k): (v.value, v.n) for v in completion_metrics(lists(spark, rows), cases, [1, 3], 10)}
    third = 1 / 3  # one case of three is hit, in the second place; one has no list
    assert found == {
        ("recall", 1): (0.0, 3), ("ndcg", 1): (0.0, 3), ("mrr", 1): (0.0, 3),
        ("recall", 3): (pytest.approx(third), 3), ("ndcg", 3): (pytest.approx(third / math.log2(3)), 3),
        ("mrr", 3): (pytest.approx(third / 2), 3), ("cases_without_list", None): (1.0, 3),
    }  # fmt: skip
    cases.unpersist()


@pytest.mark.integration
def test_lists_and_cases_that_do_not_belong_together_are_a_defect(spark):
    cases = prefixes(baskets(spark)).persist()
    with pytest.raises(InvariantError, match="2 rows of lists are of none"):
        completion_metrics(lists(spark, [("z", 1, 1, 0.5), ("z", 2, 2, 0.5), ("a#2", 2, 1, 0.5)]), cases, [1], 10)
    with pytest.raises(InvariantError, match="of 6 cases 3 are there twice"):
        completion_metrics(lists(spark, []), cases.union(cases), [1], 10)
    with pytest.raises(InvariantError, match="of 0 cases"):
        completion_metrics(lists(spark, []), cases.where("false"), [1], 10)
    with pytest.raises(InvariantError, match="hold an item or a rank twice"):
        completion_metrics(lists(spark, [("a#2", 2, 1, 0.5), ("a#2", 2, 2, 0.5)]), cases, [2], 10)
    cases.unpersist()
