"""Neighbours of items and users: hand-computed cases, and equality with the library ``implicit``."""

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from sparkrec.errors import InvariantError, UserError
from sparkrec.models.neighbours.nearest import (
    item_neighbour_lists,
    item_neighbours,
    load_neighbours,
    matrix_profiles,
    profiles,
    save_neighbours,
    similar,
    user_neighbour_lists,
    user_neighbours,
)
from sparkrec.models.neighbours.settings import ItemNeighboursConfig, UserNeighboursConfig

SCHEMA = "user_idx int, item_idx int, confidence float"
# Three users, items 0 … 2 and 4; nobody took item 3 or is user 3.
TAKEN = [(0, 0, 3.0), (0, 1, 4.0), (1, 1, 1.0), (1, 2, 2.0), (2, 0, 4.0), (2, 1, 2.0), (2, 4, 1.0)]
N_USERS, N_ITEMS = 4, 5


@pytest.fixture(scope="module")
def taken(spark):
    return spark.createDataFrame(TAKEN, SCHEMA).persist()


def as_dict(neighbours):
    return {(row[0], row[1]): row[2] for row in neighbours.collect()}


def lists_of(rows, key="user_idx"):
    lists = {}
    for row in sorted(rows.collect(), key=lambda r: (r[key], r["rank"])):
        entries = lists.setdefault(row[key], [])
        assert row["rank"] == len(entries) + 1
        entries.append((row["item_idx"], row["score"]))
    return lists


def close(expected):
    return {pair: pytest.approx(value, rel=1e-6) for pair, value in expected.items()}


def both_ways(pairs):
    return {**pairs, **{(b, a): value for (a, b), value in pairs.items()}}


def test_cosine_by_hand(taken):
    root = math.sqrt
    found = as_dict(item_neighbours(taken, N_USERS, N_ITEMS, ItemNeighboursConfig(similarity="cosine")))
    pairs = {
        (0, 1): (3 * 4 + 4 * 2) / (5 * root(21)),
        (0, 4): 4 / 5,
        (1, 2): 1 / root(21),
        (1, 4): 2 / root(21),
    }
    assert found == close(both_ways(pairs) | {(i, i): 1.0 for i in (0, 1, 2, 4)})


def test_jaccard_and_shrinkage_by_hand(taken):
    plain = as_dict(item_neighbours(taken, N_USERS, N_ITEMS, ItemNeighboursConfig(similarity="jaccard")))
    pairs = both_ways({(0, 1): 2 / 3, (0, 4): 1 / 2, (1, 2): 1 / 3, (1, 4): 1 / 3})
    assert plain == close(pairs | {(i, i): 1.0 for i in (0, 1, 2, 4)})
    config = ItemNeighboursConfig(similarity="jaccard", shrinkage=2.0)
    shrunk = as_dict(item_neighbours(taken, N_USERS, N_ITEMS, config))
    common = both_ways({(0, 0): 2, (0, 1): 2, (0, 4): 1, (1, 1): 3, (1, 2): 1, (1, 4): 1, (2, 2): 1, (4, 4): 1})
    assert shrunk == close({pair: value * common[pair] / (common[pair] + 2) for pair, value in plain.items()})


def test_bm25_and_tfidf_by_hand(taken):
    """N = 4 items that somebody took; users 0 and 1 have 2 items, user 2 has 3 and so weighs nothing: ln(4 / 4)."""
    idf = math.log(4 / 3)
    config = ItemNeighboursConfig(similarity="bm25", bm25_k1=2.0, bm25_b=0.5)
    found = as_dict(item_neighbours(taken, N_USERS, N_ITEMS, config))
    mean = 17 / 4
    norms = {0: 2 * (0.5 + 0.5 * 7 / mean), 1: 2 * (0.5 + 0.5 * 7 / mean), 2: 2 * (0.5 + 0.5 * 2 / mean)}
    weight = {(u, i): w * 3 / (norms[i] + w) * idf for u, i, w in TAKEN if u < 2}
    pairs = {(a, b): weight[u, a] * weight[u, b] for u in (0, 1) for a in (0, 1, 2) for b in (0, 1, 2)
             if (u, a) in weight and (u, b) in weight}  # fmt: skip
    pairs[1, 1] = weight[0, 1] ** 2 + weight[1, 1] ** 2
    assert found == close(pairs)
    found = as_dict(item_neighbours(taken, N_USERS, N_ITEMS, ItemNeighboursConfig(similarity="tfidf")))
    assert found == close(
        both_ways({(0, 1): math.sqrt(4 / 5), (1, 2): math.sqrt(1 / 5)}) | {(i, i): 1.0 for i in range(3)}
    )


def test_only_the_nearest_are_kept_and_ties_go_to_the_smaller_number(spark):
    same = spark.createDataFrame([(u, i, 1.0) for u in range(3) for i in range(5)], SCHEMA)
    config = ItemNeighboursConfig(similarity="cosine", neighbours=2)
    assert set(as_dict(item_neighbours(same, 3, 5, config))) == {(i, j) for i in range(5) for j in range(2)}


@pytest.mark.integration
def test_users_beside_users_are_items_beside_items_of_the_turned_matrix(taken):
    turned = taken.selectExpr("item_idx AS user_idx", "user_idx AS item_idx", "confidence")
    for similarity in ("bm25", "jaccard"):  # what weighs by both sides, and what only counts
        users = user_neighbours(taken, N_USERS, N_ITEMS, UserNeighboursConfig(similarity=similarity, shrinkage=1.0))
        config = ItemNeighboursConfig(similarity=similarity, shrinkage=1.0, bm25_k1=1.2, bm25_b=0.75)
        assert users.columns == ["user_idx", "neighbour_idx", "score"]
        assert as_dict(users) == as_dict(item_neighbours(turned, N_ITEMS, N_USERS, config))


@pytest.mark.integration
def test_lists_of_item_neighbours_add_up_what_is_near_to_what_was_taken(spark, taken):
    near = spark.createDataFrame(
        [(0, 0, 1.0), (0, 1, 0.5), (0, 2, 0.25), (1, 1, 1.0), (1, 0, 0.5), (4, 2, 0.5), (4, 3, 0.5)],
        "item_idx int, neighbour_idx int, score float",
    )
    mine = spark.createDataFrame([(7, 0, 2.0), (7, 4, 1.0), (8, 1, 1.0), (9, 3, 1.0), (9, 99, 1.0)], SCHEMA)
    queries = matrix_profiles(mine)  # none of them was there at the fit
    assert lists_of(item_neighbour_lists(queries, near, 6, key="user_idx", k=3)) == {
        7: [(0, 2.0), (1, 1.0), (2, 1.0)],  # what was taken itself counts, where it may be shown
        8: [(1, 1.0), (0, 0.5)],
    }
    seen = mine.select("user_idx", "item_idx")
    found = item_neighbour_lists(queries, near, 6, key="user_idx", k=3, seen=seen, without=np.array([1]))
    assert lists_of(found) == {7: [(2, 1.0), (3, 0.5)], 8: [(0, 0.5)]}
    factors = np.array([1, 1, 1, 4, 1, 1], dtype=np.float32)
    found = item_neighbour_lists(queries, near, 6, key="user_idx", k=1, seen=seen, factors=factors)
    assert lists_of(found) == {7: [(3, 2.0)], 8: [(0, 0.5)]}


@pytest.mark.integration
def test_lists_of_user_neighbours_add_up_what_the_neighbours_took(spark, taken):
    near = spark.createDataFrame(
        [(0, 0, 1.0), (0, 1, 0.5), (0, 2, 0.25), (2, 1, 0.5)], "user_idx int, neighbour_idx int, score float"
    )
    users = spark.createDataFrame(
        [(0, "a", [0, 1]), (2, "b", []), (3, "new", [])], "user_idx int, user_id string, seen array<int>"
    )
    found = user_neighbour_lists(users, near, taken, N_USERS, N_ITEMS, key=("user_idx", "user_id"), k=2)
    assert lists_of(found, "user_id") == {"a": [(2, 1.0), (4, 0.25)], "b": [(2, 1.0), (1, 0.5)]}
    found = user_neighbour_lists(
        users.drop("seen"), near, taken, N_USERS, N_ITEMS, key="user_id", k=2, without=np.array([0])
    )
    assert lists_of(found, "user_id") == {"a": [(1, 4 + 0.5 + 0.5), (2, 1.0)], "b": [(2, 1.0), (1, 0.5)]}
    factors = np.array([1, 1, 1, 1, 8], dtype=np.float32)
    found = user_neighbour_lists(users, near, taken, N_USERS, N_ITEMS, key="user_id", k=1, factors=factors)
    assert lists_of(found, "user_id") == {"a": [(4, 2.0)], "b": [(2, 1.0)]}


@pytest.mark.integration
def test_a_half_life_lets_recent_events_decide_however_long_ago_they_are(spark):
    """A user took item 0 three times, and item 1 once, 300 days later; another did the same 30 years before."""
    now = datetime(2020, 1, 1, tzinfo=UTC)
    ago = [(0, 301), (0, 302), (0, 303), (1, 1)]
    events = [(5, item, "buy", now - timedelta(days=days)) for item, days in ago]
    events += [(6, item, "buy", now - timedelta(days=days + 10_950)) for item, days in ago]
    events += [(5, 0, "look", now - timedelta(days=1)), (None, 0, "buy", now - timedelta(days=1)), (5, 0, "buy", now)]
    rows = spark.createDataFrame(events, "user_idx int, item_idx int, event_type string, ts timestamp")
    near = spark.createDataFrame([(0, 2, 1.0), (1, 3, 1.0)], "item_idx int, neighbour_idx int, score float")
    found = {}
    for half_life in (None, 30.0):
        queries = profiles(rows, {"buy": 1.0}, now, half_life)
        found[half_life] = lists_of(item_neighbour_lists(queries, near, 4, key="user_idx", k=2))
    assert found[None] == {5: [(2, 3.0), (3, 1.0)], 6: [(2, 3.0), (3, 1.0)]}
    faded = sum(2 ** (-days / 30) for days in (300, 301, 302))
    assert found[30.0] == {user: [(3, 1.0), (2, pytest.approx(faded, rel=1e-6))] for user in (5, 6)}


def test_similar_ones_are_the_kept_neighbours_without_itself(spark):
    near = spark.createDataFrame(
        [(0, 0, 1.0), (0, 2, 0.5), (0, 1, 0.5), (0, 3, 0.75), (1, 1, 1.0), (2, 3, 0.1)],
        "user_idx int, neighbour_idx int, score float",
    )
    assert lists_of(similar(near, 2), "query_idx") == {
        0: [(3, 0.75), (1, 0.5)],
        2: [(3, pytest.approx(0.1))],
    }
    assert lists_of(similar(near, 2, np.array([3, 0])), "query_idx") == {0: [(1, 0.5), (2, 0.5)]}
    assert similar(near, 2).columns == ["query_idx", "item_idx", "rank", "score"]


def test_a_saved_model_is_read_back_and_a_broken_one_is_none(spark, taken, tmp_path):
    neighbours = item_neighbours(taken, N_USERS, N_ITEMS, ItemNeighboursConfig())
    path = str(tmp_path / "model")
    save_neighbours(neighbours, path, {"n_items": N_ITEMS})
    loaded, meta = load_neighbours(spark, path, "item_idx")
    assert meta == {"n_items": N_ITEMS}
    assert as_dict(loaded) == as_dict(neighbours)
    assert [f.simpleString() for f in loaded.schema] == ["item_idx:int", "neighbour_idx:int", "score:float"]
    Path(path, "model.json").unlink()
    with pytest.raises(UserError, match="no model of neighbours"):
        load_neighbours(spark, path, "item_idx")


@pytest.mark.integration
def test_pairs_without_weight_do_not_count_and_bad_ones_are_refused(spark, taken):
    config = ItemNeighboursConfig(similarity="jaccard")
    more = taken.unionAll(spark.createDataFrame([(0, 2, 0.0)], SCHEMA))
    assert as_dict(item_neighbours(more, N_USERS, N_ITEMS, config)) == as_dict(
        item_neighbours(taken, N_USERS, N_ITEMS, config)
    )
    with pytest.raises(UserError, match="no interactions to find neighbours by"):
        item_neighbours(taken.where("false"), N_USERS, N_ITEMS, config)
    with pytest.raises(InvariantError, match="negative or not finite"):
        item_neighbours(spark.createDataFrame([(0, 2, -1.0)], SCHEMA), N_USERS, N_ITEMS, config)


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore:Method expects CSR input")
@pytest.mark.parametrize("similarity", ["bm25", "tfidf", "cosine"])
def test_equals_implicit(spark, similarity):
    """Neighbours and users' lists; where scores tie, the other side may choose otherwise."""
    neighbour_models = pytest.importorskip("implicit.nearest_neighbours")
    rng = np.random.default_rng(7)
    n_users, n_items, k = 60, 50, 12
    dense = np.where(rng.random((n_users, n_items)) < 0.15, rng.integers(1, 9, (n_users, n_items)) / 2, 0.0)
    dense[:, 10:14] = 0  # nobody took these
    rows, columns = (a.tolist() for a in np.nonzero(dense))
    frame = spark.createDataFrame(list(zip(rows, columns, dense[rows, columns].tolist(), strict=True)), SCHEMA)
    config = ItemNeighboursConfig(similarity=similarity, neighbours=k, bm25_k1=3.0, bm25_b=0.6)
    near = item_neighbours(frame, n_users, n_items, config)
    ours = np.zeros((n_items, n_items))
    for row in near.collect():
        ours[row[0], row[1]] = row[2]
    items = np.flatnonzero(dense.any(axis=0))
    compact = csr_matrix(dense[:, items])
    peer = {
        "bm25": lambda: neighbour_models.BM25Recommender(K=k, K1=3.0, B=0.6, num_threads=1),
        "tfidf": lambda: neighbour_models.TFIDFRecommender(K=k, num_threads=1),
        "cosine": lambda: neighbour_models.CosineRecommender(K=k, num_threads=1),
    }[similarity]()
    peer.fit(compact, show_progress=False)
    theirs = peer.similarity.toarray()
    np.testing.assert_allclose(np.sort(ours[np.ix_(items, items)], axis=1), np.sort(theirs, axis=1), rtol=1e-6)
    same = np.isclose(ours[np.ix_(items, items)], theirs, rtol=1e-6)
    tied = np.sort(theirs, axis=1)[:, -k][:, None]
    assert (same | np.isclose(np.maximum(ours[np.ix_(items, items)], theirs), tied, rtol=1e-6)).all()
    assert same.mean() > 0.99
    lists = lists_of(item_neighbour_lists(matrix_profiles(frame), near, n_items, key="user_idx", k=5,
                                          seen=frame.select("user_idx", "item_idx")))  # fmt: skip
    found, scores = peer.recommend(np.arange(n_users), compact, N=5)
    equal = [items[found[u]].tolist() == [item for item, _ in lists[u]] for u in range(n_users)]
    assert np.mean(equal) > 0.9
    for u in np.flatnonzero(equal):
        assert [score for _, score in lists[u]] == pytest.approx(scores[u].tolist(), rel=1e-5)
