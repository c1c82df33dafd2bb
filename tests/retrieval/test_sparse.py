"""The sparse engine against dense matrices: kernel cases without Spark, then the whole path on Spark."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyspark.errors import PythonException
from pyspark.sql import Observation
from scipy.sparse import csr_matrix

from sparkrec.errors import InvariantError
from sparkrec.models.neighbours.nearest import PairScore
from sparkrec.retrieval import sparse
from sparkrec.retrieval.sparse import SparseMatrix, cuts, in_passes, sparse_matrix, sparse_top_k


@dataclass(frozen=True)
class Overlap:
    """A pair's score that uses all it is given; small integers make it exact in float32 but for the division."""

    def __call__(self, sums, common, own, theirs):
        return sums * common / (own + 2 * theirs)


def naive(queries, matrix, seen, k, pair_score=None):
    """``{row: [(column, score), …]}`` by dense loops and a full sort; queries are lists of ``(index, weight)``."""
    dense = matrix.values.toarray()
    held = np.zeros(dense.shape, bool)
    held[np.repeat(np.arange(dense.shape[0]), np.diff(matrix.values.indptr)), matrix.values.indices] = True
    lists = {}
    for row, entries in enumerate(queries):
        known = [(i, w) for i, w in sorted(entries) if 0 <= i < len(dense)]
        found = []
        for column in range(dense.shape[1]):
            total = np.float64(sum(w * dense[i, column] for i, w in known))
            if pair_score is not None and total:
                common = sum(held[i, column] for i, _ in known)
                total = pair_score(total, common, len(entries), held[:, column].sum())
            allowed = matrix.eligible is None or matrix.eligible[column]
            if allowed and column not in seen[row] and np.float32(total) > 0:
                found.append((column, float(np.float32(total))))
        if found:
            lists[row] = sorted(found, key=lambda pair: (-pair[1], pair[0]))[:k]
    return lists


def search(queries, matrix, seen, k, *, pair_score=None, at_once=None):
    """The engine's kernel without Spark, in the form of ``naive``."""
    index = sparse.Index.build(matrix, k, pair_score)
    if at_once:
        index = sparse.Index(**{**index.__dict__, "at_once": at_once})
    columns = {
        "key": pa.array(range(len(queries)), pa.int32()),
        "indices": pa.array([[i for i, _ in q] for q in queries], pa.list_(pa.int32())),
        "weights": pa.array([[w for _, w in q] for q in queries], pa.list_(pa.float32())),
        "seen": pa.array([list(s) for s in seen], pa.list_(pa.int32())),
    }
    batch = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
    return by_key(row for out in sparse.search_batch(index, batch, ["key"]) for row in out.to_pylist())


def by_key(rows):
    lists = {}
    for row in sorted(rows, key=lambda r: (r["key"], r["rank"])):
        entries = lists.setdefault(row["key"], [])
        assert row["rank"] == len(entries) + 1
        entries.append((row["item_idx"], row["score"]))
    return lists


def random_case(seed, n_rows, n_columns, n_queries, *, density=0.3, eligible_share=0.8, exact=True):
    """Small integers make many ties and sums of 0; with ``exact=False`` any numbers."""
    rng = np.random.default_rng(seed)
    shape = (n_rows, n_columns)
    numbers = rng.integers(-1, 4, shape) if exact else rng.normal(1, 1, shape)
    values = csr_matrix(np.where(rng.random(shape) < density, numbers, 0).astype(np.float64))
    eligible = rng.random(n_columns) < eligible_share if eligible_share < 1 else None
    queries = []
    for _ in range(n_queries):
        taken = rng.permutation(n_rows + 3)[: rng.integers(0, n_rows + 4)] - 1  # some rows that there are not
        weights = rng.integers(-1, 3, len(taken)) if exact else rng.normal(1, 1, len(taken)).astype(np.float32)
        queries.append([(int(i), float(w)) for i, w in zip(taken, weights, strict=True)])
    seen = [np.flatnonzero(rng.random(n_columns + 2) < rng.random() * 0.6).tolist() for _ in range(n_queries)]
    return queries, SparseMatrix(values, eligible), seen


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_rows=st.integers(1, 12),
    n_columns=st.one_of(st.integers(0, 8), st.integers(9, 60)),
    n_queries=st.integers(1, 9),
    k=st.integers(1, 12),
    density=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    eligible_share=st.sampled_from([0.0, 0.2, 0.8, 1.0]),
    at_once=st.sampled_from([None, 1, 7, 100]),
    pair_score=st.sampled_from([None, Overlap()]),
)
def test_kernel_equals_dense_loops(seed, n_rows, n_columns, n_queries, k, density, eligible_share, at_once, pair_score):
    queries, matrix, seen = random_case(
        seed, n_rows, n_columns, n_queries, density=density, eligible_share=eligible_share
    )
    found = search(queries, matrix, seen, k, pair_score=pair_score, at_once=at_once)
    assert found == naive(queries, matrix, seen, k, pair_score)


def test_ties_for_the_last_place_go_to_the_smallest_columns():
    matrix = SparseMatrix(csr_matrix(np.ones((2, 500))))
    found = search([[(1, 2.0)], [(0, 1.0), (1, 1.0)]], matrix, [[0, 2], []], 3)
    assert found == {0: [(1, 2.0), (3, 2.0), (4, 2.0)], 1: [(0, 2.0), (1, 2.0), (2, 2.0)]}


def test_scores_that_are_equal_when_rounded_are_equal():
    close = [1.0, 1.0 + 1e-12, 1.0 + 2e-12, 1.0 + 1e-6]
    found = search([[(0, 1.0)]], SparseMatrix(csr_matrix([close])), [[]], 2)
    assert [column for column, _ in found[0]] == [3, 0]


def test_nothing_depends_on_the_order_of_the_entries_or_on_the_blocks():
    """Large values that cancel each other out make the sums depend on their order."""
    rng = np.random.default_rng(5)
    large, small = rng.normal(size=(30, 300)) * 1e12, rng.random((30, 300))
    matrix = SparseMatrix(csr_matrix(np.concatenate([large, small, -large])))
    queries = []
    for _ in range(20):
        weights = rng.normal(size=30).astype(np.float32)
        taken = [(i, float(w)) for i, w in enumerate(np.concatenate([weights, rng.random(30), weights]))]
        queries.append([taken[i] for i in rng.permutation(90)])
    together = search(queries, matrix, [[]] * 20, 300)
    turned = search([entries[::-1] for entries in queries], matrix, [[]] * 20, 300, at_once=1)
    assert together == turned
    assert sum(map(len, together.values())) > 1000


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 9)), st.integers(1, 20), st.one_of(st.none(), st.integers(1, 4)))
def test_cuts_fill_parts_up_to_the_budget(sizes, budget, most):
    parts = [sizes[run] for run in cuts(np.array(sizes, dtype=np.int64), budget, most)]
    assert [size for part in parts for size in part] == sizes
    for part, after in zip(parts, [*parts[1:], None][: len(parts)], strict=True):
        assert 1 <= len(part) <= (most or len(sizes))
        assert sum(part) <= budget or len(part) == 1
        assert after is None or len(part) == most or sum(part) + after[0] > budget


def test_what_is_no_matrix_or_no_query_is_refused():
    with pytest.raises(InvariantError, match="not finite"):
        SparseMatrix(csr_matrix(np.array([[np.inf]])))
    with pytest.raises(InvariantError, match="CSR of float64"):
        SparseMatrix(csr_matrix(np.ones((1, 1), np.float32)))
    with pytest.raises(InvariantError, match="has shape"):
        SparseMatrix(csr_matrix(np.ones((1, 2))), np.ones(3, bool))
    with pytest.raises(InvariantError, match="factors of 2 columns"):
        SparseMatrix(csr_matrix(np.ones((1, 2)))).times(np.array([1.0, -1.0], np.float32))
    with pytest.raises(InvariantError, match="a query's weight is not finite"):
        search([[(0, np.nan)]], SparseMatrix(csr_matrix(np.ones((1, 2)))), [[]], 1)
    with pytest.raises(InvariantError, match="a score is not finite"):
        search([[(0, 1e30)]], SparseMatrix(csr_matrix(np.full((1, 2), 1e30))), [[]], 1)


def queries_frame(spark, queries, seen=None):
    rows = [(i, [e[0] for e in q], [float(e[1]) for e in q]) for i, q in enumerate(queries)]
    schema = "key int, indices array<int>, weights array<float>"
    if seen is None:
        return spark.createDataFrame(rows, schema)
    return spark.createDataFrame([(*r, s) for r, s in zip(rows, seen, strict=True)], f"{schema}, seen array<int>")


def collected(lists):
    return by_key(row.asDict() for row in lists.collect())


def test_spark_equals_dense_loops_however_the_seen_columns_come(spark):
    queries, matrix, seen = random_case(11, 20, 80, 40)
    expected = naive(queries, matrix, seen, 9)
    pairs = [(i, int(column)) for i, row in enumerate(seen) for column in row] + [(None, 1), (0, 5000), (0, -1)]
    table, counts = spark.createDataFrame(pairs, "key int, item_idx int"), Observation()
    as_table = sparse_top_k(
        queries_frame(spark, queries), matrix, key="key", k=9, seen=table, partitions=3, observation=counts
    )
    assert collected(as_table) == expected
    assert counts.get == {
        "rows": sum(map(len, expected.values())),
        "lists": len(expected),
        "full_lists": sum(len(v) == 9 for v in expected.values()),
    }
    as_column = sparse_top_k(queries_frame(spark, queries, seen), matrix, key="key", k=9, partitions=1)
    assert collected(as_column) == expected
    assert [f.simpleString() for f in as_column.schema] == ["key:int", "item_idx:int", "rank:int", "score:float"]


@pytest.mark.integration
def test_passes_and_partitions_change_no_bit(spark):
    queries, matrix, seen = random_case(12, 150, 2000, 12, exact=False, density=0.9)
    assert len(in_passes(matrix, 1)) == 3  # 87,381 entries to the MB
    assert sum(len(part.positions()) for part in in_passes(matrix, 1)) == len(matrix.positions())
    frame = queries_frame(spark, queries, seen)
    at_once = collected(sparse_top_k(frame, matrix, key="key", k=9, partitions=1))
    in_parts = sparse_top_k(frame, matrix, key="key", k=9, partitions=5, pass_mb=1, pair_score=None)
    assert collected(in_parts) == at_once
    assert {key: [i for i, _ in entries] for key, entries in at_once.items()} == {
        key: [i for i, _ in entries] for key, entries in naive(queries, matrix, seen, 9).items()
    }
    shrunk = PairScore(jaccard=False, shrinkage=3.0)
    scored = sparse_top_k(frame, matrix, key="key", k=9, partitions=2, pass_mb=1, pair_score=shrunk)
    whole = sparse_top_k(frame, matrix, key="key", k=9, partitions=1, pair_score=shrunk)
    assert collected(scored) == collected(whole)


def test_excluded_columns_no_queries_and_a_failing_score(spark):
    matrix = SparseMatrix(csr_matrix(np.array([[1.0, 2.0, 3.0]]))).without(np.array([2, 7]))
    one = queries_frame(spark, [[(0, 1.0)]])
    assert collected(sparse_top_k(one, matrix, key="key", k=5, partitions=1)) == {0: [(1, 2.0), (0, 1.0)]}
    nothing = matrix.without(np.arange(3))
    assert sparse_top_k(one, nothing, key="key", k=5, partitions=1).count() == 0
    assert sparse_top_k(one.where("false"), matrix, key="key", k=5, partitions=1).count() == 0
    odd = one.selectExpr("key", "indices", "array(float(1), float(2)) AS weights")
    with pytest.raises(PythonException, match="InvariantError: a query must have as many weights as indices"):
        sparse_top_k(odd, matrix, key="key", k=5, partitions=1).collect()


@pytest.mark.integration
def test_a_matrix_from_rows_has_each_pair_once_and_within(spark):
    rows = spark.createDataFrame([(2, 0, 1.5), (0, 3, 2.0), (0, 1, -1.0)], "u int, i int, w float")
    found = sparse_matrix(rows, "u", "i", "w", (4, 4))
    assert found.toarray().tolist() == [[0, -1, 0, 2], [0] * 4, [1.5, 0, 0, 0], [0] * 4]
    with pytest.raises(InvariantError, match="not within 3 x 3"):
        sparse_matrix(rows, "u", "i", "w", (3, 3))
    with pytest.raises(InvariantError, match="3 pairs of u and i are there more than once"):
        sparse_matrix(rows.unionAll(rows), "u", "i", "w", (4, 4))
    with pytest.raises(InvariantError, match="has no u, i or w"):
        sparse_matrix(rows.selectExpr("u", "i", "if(u = 2, null, w) AS w"), "u", "i", "w", (4, 4))
