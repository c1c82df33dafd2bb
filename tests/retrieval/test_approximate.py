"""The approximate index: what it finds is scored exactly, what it misses is measured, no list is short for its sake."""

import numpy as np
import pytest

from sparkrec.errors import InvariantError
from sparkrec.retrieval.approximate import _build, approximate_index, approximate_top_k, measured_recall, search_block
from sparkrec.retrieval.block_search import ItemMatrix
from sparkrec.retrieval.topk import top_k
from sparkrec.settings.sections import TopKConfig

K = 7


def case(n_items=400, n_queries=60, dim=8):
    rng = np.random.default_rng(3)
    items = ItemMatrix(
        rng.normal(size=(n_items, dim)).astype(np.float32),
        rng.normal(size=n_items).astype(np.float32),
        rng.random(n_items) < 0.9,
    )
    return items, rng.normal(size=(n_queries, dim)).astype(np.float32)


def frames(spark, queries):
    table = spark.createDataFrame([(i, q.tolist()) for i, q in enumerate(queries)], "key int, vector array<float>")
    pairs = [(i, item) for i in range(len(queries)) for item in range(i, 400, 9)]
    return table, spark.createDataFrame(pairs, "key int, item_idx int")


def lists_of(frame):
    lists = {}
    for row in sorted(frame.collect(), key=lambda r: (r["key"], r["rank"])):
        lists.setdefault(row["key"], []).append((row["item_idx"], pytest.approx(row["score"], rel=1e-5)))
    return lists


@pytest.mark.integration
@pytest.mark.parametrize(
    "settings",
    [
        TopKConfig(k=K, index="hnsw", hnsw_search=400),
        TopKConfig(k=K, index="ivf", ivf_cells=6, ivf_probes=6),  # all cells
    ],
)
def test_a_thorough_search_finds_the_exact_lists(spark, settings):
    items, queries = case()
    table, seen = frames(spark, queries)
    index = approximate_index(spark, items, settings)
    found = approximate_top_k(table, index, key="key", k=K, seen=seen)
    exact = top_k(table, items, key="key", k=K, seen=seen)
    assert found.schema == exact.schema
    assert lists_of(found) == lists_of(exact)
    assert measured_recall(table, items, index, key="key", settings=settings, seen=seen) == 1.0


@pytest.mark.integration
def test_recall_is_the_share_of_the_exact_lists_and_lists_are_whole(spark):
    items, queries = case()
    table, seen = frames(spark, queries)
    hasty = TopKConfig(k=K, index="ivf", ivf_cells=80, ivf_probes=1)  # a cell has five items: fewer than a list
    found = lists_of(approximate_top_k(table, approximate_index(spark, items, hasty), key="key", k=K, seen=seen))
    exact = lists_of(top_k(table, items, key="key", k=K, seen=seen))
    assert {len(rows) for rows in found.values()} == {K}
    better = TopKConfig(k=K, index="ivf", ivf_cells=20, ivf_probes=3)
    index = approximate_index(spark, items, better)
    found = lists_of(approximate_top_k(table, index, key="key", k=K, seen=seen))
    hits = sum(len({i for i, _ in exact[key]} & {i for i, _ in found[key]}) for key in exact)
    assert K * len(exact) / 2 < hits < K * len(exact)
    recall = measured_recall(table, items, index, key="key", settings=better, seen=seen)
    assert recall == pytest.approx(hits / (K * len(exact)))
    of_some = measured_recall(table, items, index, key="key", settings=better, seen=seen, sample=5)
    assert (of_some * 5 * K) == pytest.approx(round(of_some * 5 * K))


def test_nothing_seen_is_shown_even_to_those_who_have_seen_nearly_all():
    import faiss

    items, queries = case()
    index = _build(items, TopKConfig(k=K, index="hnsw"))
    opened = faiss.deserialize_index(index.stored)
    ones = np.concatenate([queries, np.ones((len(queries), 1), np.float32)], axis=1)
    n = len(index.item_of)
    rows, positions = np.zeros(n - 3, dtype=np.int64), np.arange(3, n)
    scores, found = search_block(opened, index.matrix, ones, rows, positions, K)
    assert set(found[0][scores[0] > -np.inf]) == {0, 1, 2}
    assert (scores[1:] > -np.inf).all()
    assert (np.diff(scores[1:], axis=1) <= 0).all()
    with pytest.raises(InvariantError, match="not finite"):
        search_block(opened, np.full_like(index.matrix, np.nan), ones, rows, positions, K)


@pytest.mark.integration
def test_no_items_no_lists(spark):
    items, queries = case(n_items=0)
    table, _ = frames(spark, queries)
    for kind in ("hnsw", "ivf"):
        index = approximate_index(spark, items, TopKConfig(k=K, index=kind))
        found = approximate_top_k(table, index, key="key", k=K)
        assert found.count() == 0
