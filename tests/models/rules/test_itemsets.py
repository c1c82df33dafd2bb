"""Frequent sets: the kernel against counting by hand, the bounds, and what is refused before it starts."""

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from sparkrec.errors import UserError
from sparkrec.models.rules import itemsets
from sparkrec.models.rules.itemsets import (
    Baskets,
    estimated_itemsets,
    grown,
    minimum_baskets,
    most_itemsets,
    prepared,
    refuse_too_many,
    walked,
)
from sparkrec.models.rules.settings import RulesConfig


def frequent(matrix, minimum, longest):
    """``{set of places: baskets}`` by trying all sets of 2 to ``longest``."""
    found = {}
    for size in range(2, longest + 1):
        for places in combinations(range(matrix.shape[1]), size):
            n = int(matrix[:, places].all(axis=1).sum())
            if n >= minimum:
                found[places] = n
    return found


def mined(matrix, minimum, longest, as_matrix=np.asarray):
    found = {}
    for last in range(1, matrix.shape[1]):
        own = as_matrix(matrix[matrix[:, last]][:, :last].astype(np.float64))
        for sets, counts in grown(own, last, minimum, longest):
            for places, n in zip(sets.tolist(), counts.tolist(), strict=True):
                assert tuple(places) not in found
                found[tuple(places)] = n
    return found


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 30), st.integers(1, 8)),
    share=st.sampled_from([0.3, 0.6, 0.95]),
    minimum=st.integers(1, 6),
    longest=st.integers(2, 6),
    large=st.booleans(),
)
def test_the_kernel_finds_the_frequent_sets_and_no_others(seed, shape, share, minimum, longest, large):
    matrix = np.random.default_rng(seed).random(shape) < share
    before, itemsets.DENSE = itemsets.DENSE, 20 if large else itemsets.DENSE  # 20: larger ones stay sparse
    try:
        found = mined(matrix, minimum, longest, sparse.csr_matrix)
    finally:
        itemsets.DENSE = before
    assert found == frequent(matrix, minimum, longest)


def by_size(found, longest):
    return [sum(len(places) == size for places in found) for size in range(2, longest + 1)]


def test_walks_estimate_how_many_sets_there_are():
    matrix = np.random.default_rng(4).random((60, 12)) < 0.55
    expected = by_size(frequent(matrix, 6, 5), 5)
    assert expected[2] > 50  # of four items
    totals = np.zeros(6)
    for last in range(1, 12):
        own = matrix[matrix[:, last]][:, :last].astype(np.float64)
        for size, number in walked(sparse.csr_matrix(own), last, 6, 5, probes=1500):
            totals[size] += number
    assert totals[2] == expected[0]
    assert totals[3:] == pytest.approx(expected[1:], rel=0.1)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), share=st.sampled_from([0.2, 0.6, 0.9]), minimum=st.integers(1, 8))
def test_there_are_never_more_sets_than_the_bound_says(seed, share, minimum):
    matrix = np.random.default_rng(seed).random((25, 7)) < share
    matrix = matrix[:, matrix.sum(axis=0) >= minimum]
    sizes, counts = np.unique(matrix.sum(axis=1), return_counts=True)
    told = dict(zip(sizes.tolist(), counts.tolist(), strict=True))
    baskets = Baskets(None, np.arange(matrix.shape[1]), 25, minimum, told, {})
    bound = most_itemsets(baskets, 5)
    assert all(n <= most for n, most in zip(by_size(frequent(matrix, minimum, 5), 5), bound, strict=True))


def test_the_bound_counts_the_sets_of_each_basket():
    baskets = Baskets(None, np.arange(100), 50, 4, {3: 10, 5: 6, 1: 34}, {})
    assert most_itemsets(baskets, 4) == [(10 * 3 + 6 * 10) // 4, (10 * 1 + 6 * 10) // 4, 6 * 5 // 4]
    few = Baskets(None, np.arange(3), 50, 4, {3: 1000}, {})
    assert most_itemsets(few, 4) == [3, 1, 0]


def test_a_share_becomes_the_smallest_number_of_baskets_that_has_it():
    assert minimum_baskets(0.07, 100) == 7  # 0.07 * 100 is above 7 in doubles
    assert minimum_baskets(0.071, 100) == 8
    assert minimum_baskets(0.5, 5) == 3
    assert minimum_baskets(0.0, 1000) == minimum_baskets(0.001, 100) == 2  # one basket is no pattern


def test_long_baskets_keep_their_most_frequent_items_and_what_goes_is_counted(spark):
    rows = [[5, 9, 2, 7], [7, 2, 9], [9, 7, 2], [5, 2], [5, 1], [3], []]
    baskets = spark.createDataFrame([(row,) for row in rows], "items array<int>").repartition(3)
    ready = prepared(baskets, RulesConfig(min_support=0.3, max_basket_items=2))
    assert (ready.n_baskets, ready.minimum) == (7, 3)
    assert ready.frequent.tolist() == [2, 5, 7, 9]  # 2 is in four baskets, the others in three
    kept = sorted(row["items"] for row in ready.rows.collect())
    assert kept == [[], [], [2, 5], [2, 5], [2, 7], [2, 7], [5]]
    assert ready.sizes == {0: 2, 1: 1, 2: 4}
    assert ready.left_out == {"rare_entries": 2, "cut_baskets": 3, "cut_entries": 4}
    ready.rows.unpersist()


def test_a_basket_with_an_item_twice_is_a_defect(spark):
    baskets = spark.createDataFrame([([1, 2],), ([2, 1, 2],)], "items array<int>")
    with pytest.raises(Exception, match="a basket holds an item twice"):
        prepared(baskets, RulesConfig())


def everything(spark, n_items, n_baskets=6):
    """Baskets that all hold all items: each set of items is frequent."""
    return spark.createDataFrame([(list(range(n_items)),)] * n_baskets, "items array<int>")


def refused(spark, baskets, config, miner):
    ready = prepared(baskets, config)
    try:
        with pytest.raises(UserError) as error:
            refuse_too_many(ready, replace(config, miner=miner))
    finally:
        ready.rows.unpersist()
    return str(error.value)


@pytest.mark.integration
def test_what_would_run_away_is_refused_with_the_setting_to_change(spark):
    baskets = everything(spark, 40)  # 2^40 sets: a miner that began would never end
    longer = RulesConfig(min_support=0.5, max_itemset=20, max_rules=50_000)
    line = refused(spark, baskets, longer, "level_wise")
    assert "candidates for rules, more than rules.max_rules: rules.min_support=0.5, 3 of 6 baskets" in line
    assert "(set rules.max_itemset=3, or raise rules.min_support" in line  # 2 · 780 + 3 · 9880 = 31,200
    short = RulesConfig(min_support=0.5, max_itemset=3, max_rules=50_000)
    assert "(set rules.miner=level_wise, " in refused(spark, baskets, short, "fp_growth")
    few = RulesConfig(min_support=0.5, max_itemset=3, max_rules=1000)
    for miner in ("fp_growth", "level_wise"):
        assert "(raise rules.min_support, or lower rules.max_basket_items)" in refused(spark, baskets, few, miner)


@pytest.mark.integration
def test_few_sets_of_long_baskets_are_let_through(spark):
    rng = np.random.default_rng(1)
    rows = [(sorted({0, 1, *rng.choice(np.arange(2, 32), 12, replace=False).tolist()}),) for _ in range(60)]
    baskets = spark.createDataFrame(rows, "items array<int>")
    config = RulesConfig(min_support=0.35, max_itemset=4, max_rules=300)
    ready = prepared(baskets, config)
    bound = most_itemsets(ready, 4)
    assert sum(k * n for k, n in enumerate(bound, 2)) > 300  # which alone would refuse it
    refuse_too_many(ready, config)
    refuse_too_many(ready, replace(config, miner="fp_growth"))
    assert estimated_itemsets(ready, 2)[0] <= math.comb(len(ready.frequent), 2)
    ready.rows.unpersist()
