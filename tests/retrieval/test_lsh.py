import numpy as np
import pytest

from sparkrec.errors import InvariantError
from sparkrec.retrieval import lsh
from sparkrec.retrieval.block_search import ItemMatrix
from sparkrec.retrieval.lsh import lsh_nearest, lsh_recall, minhash_nearest
from sparkrec.retrieval.similar import nearest


def by_query(lists):
    found = {}
    for row in lists.orderBy("query_idx", "rank").collect():
        entries = found.setdefault(row["query_idx"], [])
        assert row["rank"] == len(entries) + 1
        entries.append((row["item_idx"], row["score"]))
    return found


def clustered(n_clusters, size, dim, noise, seed=0):
    rng = np.random.default_rng(seed)
    centres = np.repeat(rng.normal(size=(n_clusters, dim)), size, axis=0)
    return (centres + noise * rng.normal(size=centres.shape)).astype(np.float32)


@pytest.mark.integration
def test_where_all_but_opposite_rows_share_a_bucket_the_lists_are_the_exact_ones(spark):
    vectors = np.random.default_rng(1).integers(-2, 3, (40, 3)).astype(np.float32)  # many equal angles, and zeros
    rows = ItemMatrix(vectors, None, np.arange(40) % 7 != 0)
    excluded = np.array([1, 2, 99])
    exact = by_query(nearest(spark, rows, k=6, excluded=excluded))
    found = lsh_nearest(spark, rows, k=6, bucket_length=1e6, hash_tables=64, hashes=1, excluded=excluded)
    assert found.schema.simpleString() == "struct<query_idx:int,item_idx:int,rank:int,score:float>"
    lists = by_query(found)
    assert {q: [i for i, _ in entries] for q, entries in lists.items()} == {
        q: [i for i, _ in entries] for q, entries in exact.items()
    }
    assert {1, 2} <= lists.keys()
    for query, entries in lists.items():
        assert [s for _, s in entries] == pytest.approx([s for _, s in exact[query]])


@pytest.mark.integration
def test_near_rows_share_buckets_and_far_ones_seldom(spark, monkeypatch):
    monkeypatch.setattr(lsh, "PAIRS_AT_ONCE", 500)  # so that a batch takes several parts
    rows = ItemMatrix(clustered(60, 8, 32, 0.3))
    exact = nearest(spark, rows, k=7)
    found = lsh_nearest(spark, rows, k=7)
    assert lsh_recall(found, exact) > 0.97
    few = lsh_nearest(spark, rows, k=479, hash_tables=16)
    assert 479 * 0.01 < few.count() / 480 < 479 * 0.1  # of the other rows few are candidates
    assert by_query(lsh_nearest(spark, rows, k=7)) == by_query(found)
    other = lsh_nearest(spark, rows, k=479, hash_tables=16, seed=2)
    assert by_query(other) != by_query(few)


def test_nothing_is_near_nothing(spark):
    assert lsh_nearest(spark, ItemMatrix(np.zeros((3, 2), dtype=np.float32)), k=2).collect() == []
    none = spark.createDataFrame([], "item_idx int, member int")
    assert minhash_nearest(spark, none, k=2).collect() == []


def test_recall_is_the_share_of_the_exact_lists_that_is_found(spark):
    schema = "query_idx int, item_idx int"
    exact = spark.createDataFrame([(0, 1), (0, 2), (1, 0), (2, 0)], schema)
    found = spark.createDataFrame([(0, 2), (0, 3), (1, 0), (5, 6)], schema)
    assert lsh_recall(found, exact) == 0.5
    assert lsh_recall(found, exact.where("false")) == 1.0
    assert lsh_recall(found, exact.where("query_idx > 0")) == 0.5  # of some queries: the others' lists do not count


@pytest.mark.integration
def test_items_beside_items_by_their_sets(spark):
    rng = np.random.default_rng(2)
    kinds = [set(rng.choice(30, 12, replace=False).tolist()) for _ in range(5)]
    sets = {3 + 2 * i: {u for u in kinds[i % 5] if rng.random() < 0.9} for i in range(20)}  # items of gappy numbers
    sets[60] = {98}
    pairs = spark.createDataFrame([(i, u) for i, members in sets.items() for u in members], "item_idx int, member int")
    excluded = np.array([5])
    expected = {}
    for a, mine in sets.items():
        scores = {b: len(mine & theirs) / len(mine | theirs) for b, theirs in sets.items() if b not in (a, 5)}
        order = sorted(scores, key=lambda b: (-scores[b], b))[:3]
        expected[a] = [(b, pytest.approx(scores[b])) for b in order if scores[b] > 0]
    del expected[60]  # has no member in common
    found = minhash_nearest(spark, pairs, k=3, hash_tables=60, hashes=1, excluded=excluded)
    assert by_query(found) == expected
    strict = by_query(minhash_nearest(spark, pairs, k=19, hash_tables=4, hashes=4))
    assert 0 < sum(map(len, strict.values())) < 20 * 19 * 0.6
    with pytest.raises(InvariantError, match="a set holds a member twice"):
        minhash_nearest(spark, pairs.union(pairs), k=3)
