"""The engine against a plain sort: kernel cases without Spark, then the whole path on Spark."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyspark.sql import Observation

from sparkrec.errors import InvariantError
from sparkrec.retrieval import topk
from sparkrec.retrieval.block_search import ItemIndex, ItemMatrix, select
from sparkrec.retrieval.topk import in_passes, item_matrix, top_k


def naive(queries, items, seen, k):
    """``{row: [(item, score), …]}`` by a full sort on (-score, item)."""
    scores = queries.astype(np.float64) @ items.vectors.T.astype(np.float64)
    if items.bias is not None:
        scores = scores + items.bias
    allowed = np.ones(len(items.vectors), bool) if items.eligible is None else items.eligible
    lists = {}
    for row in range(len(queries)):
        left = [i for i in range(len(items.vectors)) if allowed[i] and i not in seen[row]]
        best = sorted(left, key=lambda i: (-scores[row, i], i))[:k]
        if best:
            lists[row] = [(i, float(scores[row, i])) for i in best]
    return lists


def search(queries, items, seen, k, *, block_mb=1, tile=None):
    """The engine's kernel without Spark, in the form of ``naive``."""
    index = ItemIndex.build(items, k, block_mb)
    if tile:
        index = ItemIndex.of_tiles(items, k, 3, tile)
    vectors = pa.array([list(q) for q in queries], pa.list_(pa.float32()))
    batch = pa.RecordBatch.from_arrays(
        [pa.array(range(len(queries)), pa.int32()), vectors, pa.array([list(s) for s in seen], pa.list_(pa.int32()))],
        names=["key", "vector", "seen"],
    )
    return by_key(row for out in topk._search_batch(index, batch, ["key"], index.scratch()) for row in out.to_pylist())


def by_key(rows):
    lists = {}
    for row in sorted(rows, key=lambda r: (r["key"], r["rank"])):
        entries = lists.setdefault(row["key"], [])
        assert row["rank"] == len(entries) + 1
        entries.append((row["item_idx"], row["score"]))
    return lists


def random_case(seed, n_items, n_queries, dim, *, spread=2, seen_share=0.3, eligible_share=0.8, bias=True):
    """Vectors of small integers: many ties, and every sum exact."""
    rng = np.random.default_rng(seed)
    items = ItemMatrix(
        rng.integers(-spread, spread + 1, (n_items, dim)).astype(np.float32),
        rng.integers(-1, 2, n_items).astype(np.float32) if bias else None,
        rng.random(n_items) < eligible_share if eligible_share < 1 else None,
    )
    queries = rng.integers(-spread, spread + 1, (n_queries, dim)).astype(np.float32)
    seen = [np.flatnonzero(rng.random(n_items) < rng.random() * 2 * seen_share).tolist() for _ in range(n_queries)]
    return items, queries, seen


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_items=st.one_of(st.integers(0, 40), st.integers(41, 700)),
    n_queries=st.integers(1, 12),
    dim=st.integers(0, 3),
    k=st.integers(1, 12),
    tile=st.sampled_from([None, 1, 7, 64, 130]),
    bias=st.booleans(),
    eligible_share=st.sampled_from([0.0, 0.05, 0.8, 1.0]),
    seen_share=st.sampled_from([0.0, 0.3, 0.9]),
)
def test_kernel_equals_a_plain_sort(seed, n_items, n_queries, dim, k, tile, bias, eligible_share, seen_share):
    items, queries, seen = random_case(
        seed, n_items, n_queries, dim, bias=bias, eligible_share=eligible_share, seen_share=seen_share
    )
    assert search(queries, items, seen, k, tile=tile) == naive(queries, items, seen, k)


def test_second_level_is_used():
    items, *_ = random_case(0, 700, 1, 2, eligible_share=1.0)
    assert ItemIndex.build(items, 5, 1).tiles[0].width > 1


def test_ties_at_the_boundary_go_to_the_smallest_items():
    items = ItemMatrix(np.ones((1000, 1), np.float32))
    got = search(np.ones((2, 1), np.float32), items, [[0, 2], []], 3)
    assert [i for i, _ in got[0]] == [1, 3, 4]
    assert [i for i, _ in got[1]] == [0, 1, 2]


def test_scores_do_not_depend_on_the_block():
    """Equal items score equal, bit for bit, whatever block a query is computed in."""
    rng = np.random.default_rng(3)
    items = ItemMatrix(np.repeat(rng.normal(size=(7, 37)), 143, axis=0).astype(np.float32))
    queries = rng.normal(size=(70, 37)).astype(np.float32)
    together = search(queries, items, [[]] * 70, 150)
    alone = [search(queries[i : i + 1], items, [[]], 150)[0] for i in range(70)]
    assert [together[i] for i in range(70)] == alone
    first = together[0]
    assert len({score for _, score in first[:143]}) == 1
    assert [i for i, _ in first[:143]] == sorted(i for i, _ in first[:143])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_refused(bad):
    with pytest.raises(InvariantError):
        ItemMatrix(np.array([[1.0], [bad]], np.float32))
    with pytest.raises(InvariantError):
        search(np.array([[bad]], np.float32), ItemMatrix(np.ones((3, 1), np.float32)), [[]], 1)
    scores = np.zeros((2, 50), np.float32)
    scores[1, 7] = bad
    with pytest.raises(InvariantError, match="not finite"):
        select(scores, 3)


def test_an_overflowing_product_is_refused():
    items = ItemMatrix(np.array([[1e30, 1e30], [1.0, 1.0]], np.float32))
    with pytest.raises(InvariantError), np.errstate(all="ignore"):
        search(np.array([[1e30, -1e30]], np.float32), items, [[]], 1)


def test_vectors_of_another_dimension_are_refused():
    with pytest.raises(InvariantError, match="must have 2 elements"):
        search(np.ones((1, 3), np.float32), ItemMatrix(np.ones((3, 2), np.float32)), [[]], 1)


@pytest.mark.parametrize(
    "matrix",
    [
        lambda: ItemMatrix(np.ones((3, 1))),
        lambda: ItemMatrix(np.ones(3, np.float32)),
        lambda: ItemMatrix(np.ones((3, 1), np.float32), np.ones(2, np.float32)),
        lambda: ItemMatrix(np.ones((3, 1), np.float32), None, np.ones(4, bool)),
    ],
)
def test_a_malformed_item_matrix_is_refused(matrix):
    with pytest.raises(InvariantError):
        matrix()


def queries_frame(spark, queries, seen=None):
    rows = [(i, [float(x) for x in q]) for i, q in enumerate(queries)]
    if seen is None:
        return spark.createDataFrame(rows, "key int, vector array<float>")
    rows = [(*row, [int(i) for i in s]) for row, s in zip(rows, seen, strict=True)]
    return spark.createDataFrame(rows, "key int, vector array<float>, seen array<int>")


def collected(lists):
    return by_key(row.asDict() for row in lists.collect())


def test_spark_equals_a_plain_sort_however_the_seen_items_come(spark):
    items, queries, seen = random_case(11, 300, 40, 3)
    expected = naive(queries, items, seen, 9)
    pairs = [(i, int(item)) for i, row in enumerate(seen) for item in row] + [(None, 1), (0, 5000), (0, -1)]
    table = spark.createDataFrame(pairs, "key int, item_idx int")
    counts = Observation()
    as_table = top_k(queries_frame(spark, queries), items, key="key", k=9, seen=table, partitions=3, observation=counts)
    assert collected(as_table) == expected
    assert counts.get == {
        "rows": sum(map(len, expected.values())),
        "lists": len(expected),
        "full_lists": sum(len(v) == 9 for v in expected.values()),
    }
    as_column = top_k(queries_frame(spark, queries, seen), items, key="key", k=9, partitions=1)
    assert collected(as_column) == expected
    assert [f.simpleString() for f in as_column.schema] == [
        "key:int",
        "item_idx:int",
        "rank:int",
        "score:float",
    ]


def test_passes_over_more_items_than_memory_find_the_same_lists(spark):
    items, queries, seen = random_case(12, 700, 30, 1000)
    assert len(in_passes(items, 1)) == 3  # 262 vectors of 1,001 numbers to the MB
    assert sum(len(part.positions()) for part in in_passes(items, 1)) == len(items.positions())
    at_once = collected(top_k(queries_frame(spark, queries, seen), items, key="key", k=9, partitions=2))
    counts = Observation()
    in_parts = top_k(
        queries_frame(spark, queries, seen), items, key="key", k=9, partitions=2, pass_mb=1, observation=counts
    )
    assert collected(in_parts) == at_once == naive(queries, items, seen, 9)
    assert counts.get["rows"] == sum(map(len, at_once.values()))


def test_two_key_columns_and_a_user_with_many_seen_items(spark):
    items = ItemMatrix(np.arange(60_000, dtype=np.float32)[:, None])
    queries = spark.createDataFrame(
        [(0, "heavy 'user'", [1.0]), (1, "new", [1.0]), (None, "anonymous", [-1.0])],
        "user_idx int, user_id string, vector array<float>",
    )
    seen = spark.range(5, 60_000).selectExpr("0 AS user_idx", "CAST(id AS int) AS item_idx")
    rows = top_k(queries, items, key=("user_idx", "user_id"), k=3, seen=seen, block_mb=1).collect()
    lists = {}
    for row in sorted(rows, key=lambda r: r["rank"]):
        lists.setdefault((row["user_idx"], row["user_id"]), []).append(row["item_idx"])
    assert lists == {
        (0, "heavy 'user'"): [4, 3, 2],
        (1, "new"): [59_999, 59_998, 59_997],
        (None, "anonymous"): [0, 1, 2],
    }


def test_no_queries_no_items_and_a_failing_score(spark):
    from pyspark.errors import PythonException

    items = ItemMatrix(np.ones((3, 2), np.float32))
    empty = queries_frame(spark, np.zeros((0, 2)))
    assert top_k(empty, items, key="key", k=2, partitions=1).count() == 0
    nothing = ItemMatrix(np.zeros((0, 2), np.float32))
    one = queries_frame(spark, np.ones((1, 2)))
    assert top_k(one, nothing, key="key", k=2, partitions=1).count() == 0
    with pytest.raises(PythonException, match="InvariantError: a query vector is not finite"):
        top_k(queries_frame(spark, np.array([[np.nan, 1.0]])), items, key="key", k=2, partitions=1).collect()


def test_seen_both_ways_is_refused(spark):
    table = spark.createDataFrame([(0, 1)], "key int, item_idx int")
    queries, items = queries_frame(spark, np.ones((1, 1)), [[0]]), ItemMatrix(np.ones((3, 1), np.float32))
    with pytest.raises(InvariantError):
        top_k(queries, items, key="key", k=1, seen=table)


def test_item_matrix_from_factors(spark):
    factors = spark.createDataFrame([(3, [1.0, 2.0]), (0, [3.0, 4.0])], "idx int, vector array<float>")
    items = item_matrix(factors, 5)
    assert items.vectors.tolist() == [[3.0, 4.0], [0.0, 0.0], [0.0, 0.0], [1.0, 2.0], [0.0, 0.0]]
    assert items.eligible.tolist() == [True, False, False, True, False]
    with pytest.raises(InvariantError, match="not distinct within"):
        item_matrix(factors, 3)
