"""Next product in a basket: pairs and metrics, computed by hand."""

import math

import pytest

from sparkrec.errors import InvariantError
from sparkrec.evaluation.baskets import COLD_NEXT, basket_metrics, in_segment, next_products
from sparkrec.evaluation.ranking import ALL

LISTS = [(1, 2, 1), (1, 3, 2), (1, 4, 3), (2, 3, 1), (2, 1, 2), (9, 1, 1)]


def baskets_of(spark, *items):
    return spark.createDataFrame([(list(i),) for i in items], "items array<int>")


def pairs_of(spark, *rows):
    return spark.createDataFrame(rows, "query_idx int, item_idx int, n bigint")


def lists_of(spark, rows=LISTS):
    return spark.createDataFrame(rows, "query_idx int, item_idx int, rank int")


def named(values):
    return {(v.metric, v.k): v.value for v in values}


def test_pairs_are_the_neighbours_of_each_basket_counted(spark):
    found = next_products(baskets_of(spark, [1, 2, 3], [5], [], [2, 3], [3, 2]))
    assert dict(found.dtypes) == {"query_idx": "int", "item_idx": "int", "n": "bigint"}
    assert sorted(map(tuple, found.collect())) == [(1, 2, 1), (2, 3, 2), (3, 2, 1)]


def test_metrics_are_those_computed_by_hand(spark):
    # rank 2 three times, rank 1 once, not in the list twice, and a query without a list
    pairs = pairs_of(spark, (1, 3, 3), (2, 3, 1), (2, 4, 2), (7, 1, 2))
    found = basket_metrics(lists_of(spark), pairs, [1, 2])
    assert list(found) == [ALL]
    values = named(found[ALL])
    assert values["recall", 1] == values["hit_rate", 1] == pytest.approx(1 / 8)
    assert values["recall", 2] == values["hit_rate", 2] == pytest.approx(4 / 8)
    assert values["ndcg", 2] == pytest.approx((1 + 3 / math.log2(3)) / 8)
    assert values["mrr", 2] == pytest.approx((1 + 3 / 2) / 8)
    assert values["mrr", 1] == values["ndcg", 1] == pytest.approx(1 / 8)
    assert values["pairs_without_list", None] == 2
    assert {v.n for v in found[ALL]} == {8}


def test_pairs_with_a_cold_next_item_are_judged_apart(spark):
    pairs = pairs_of(spark, (1, 3, 3), (2, 3, 1), (2, 4, 2), (7, 1, 2))
    cold = spark.createDataFrame([(3,), (4,), (4,), (100,)], "item_idx int")
    found = basket_metrics(lists_of(spark), in_segment(pairs, cold), [2])
    assert sorted(found) == sorted([ALL, COLD_NEXT])
    assert named(found[ALL])["recall", 2] == pytest.approx(4 / 8)
    values = named(found[COLD_NEXT])
    assert values["recall", 2] == pytest.approx(4 / 6)
    assert values["mrr", 2] == pytest.approx((1 + 3 / 2) / 6)
    assert values["pairs_without_list", None] == 0
    assert {v.n for v in found[COLD_NEXT]} == {6}


@pytest.mark.integration
def test_segments_add_up(spark):
    pairs = pairs_of(spark, (1, 3, 3), (2, 4, 2))
    some, more = (spark.createDataFrame([(i,)], "item_idx int") for i in (3, 4))
    found = basket_metrics(lists_of(spark), in_segment(in_segment(pairs, some, "a"), more, "b"), [2])
    assert {segment: values[0].n for segment, values in found.items()} == {ALL: 5, "a": 3, "b": 2}


@pytest.mark.integration
@pytest.mark.parametrize(
    ("pairs", "lists", "said"),
    [
        ([], LISTS, "no basket with two items"),
        ([(1, 2, 1), (1, 2, 1)], LISTS, "1 are distinct"),
        ([(1, 2, 0)], LISTS, "1 have no count"),
        ([(1, 2, 1)], [*LISTS, (1, 9, 3)], "1 lists hold an item or a rank twice"),
        ([(1, 2, 1)], [*LISTS, (1, 2, 4)], "1 lists hold an item or a rank twice"),
    ],
)
def test_what_cannot_be_judged_is_said(spark, pairs, lists, said):
    with pytest.raises(InvariantError, match=said):
        basket_metrics(lists_of(spark, lists), pairs_of(spark, *pairs), [5])
