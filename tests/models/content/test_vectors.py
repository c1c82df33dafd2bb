"""Content-based lists, by hand."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from sparkrec.errors import InvariantError, UserError
from sparkrec.models.content import vectors as content
from sparkrec.models.content.vectors import content_matrix, profiles
from sparkrec.prepare.counts import Counts
from sparkrec.retrieval.block_search import ItemMatrix
from sparkrec.retrieval.topk import top_k

NOW = datetime(2020, 1, 1, tzinfo=UTC)
VECTORS = [
    (0, "text", [1.0, 0.0]),
    (1, "text", [0.0, 1.0]),
    (2, "text", [0.6, 0.8]),  # nobody took it
    (0, "image", [1.0, 0.0, 0.0]),
    (3, "image", [3.0, 0.0, 4.0]),  # not of length 1
    (4, "image", [0.0, 0.0, 0.0]),
]
TAKEN = [  # user, item, type, days ago
    (0, 0, "buy", 1), (0, 1, "buy", 31), (0, 5, "buy", 2),
    (1, 0, "look", 5), (1, 1, "buy", 5), (1, 1, "look", 5),
    (2, 5, "buy", 1),
    (3, 0, "hover", 1),
    (None, 0, "buy", 1),
    (0, 1, "buy", 0),  # as_of itself is too late
]  # fmt: skip
WEIGHTS = {"buy": 1.0, "look": 0.5}
N_ITEMS = 6


@pytest.fixture(scope="module")
def vectors(spark):
    return spark.createDataFrame(VECTORS, "item_idx int, name string, vector array<float>").persist()


@pytest.fixture(scope="module")
def interactions(spark):
    rows = [(u, i, kind, NOW - timedelta(days=days)) for u, i, kind, days in TAKEN]
    return spark.createDataFrame(rows, "user_idx int, item_idx int, event_type string, ts timestamp").persist()


def test_vectors_stand_side_by_side_each_of_length_one(vectors):
    items = content_matrix(vectors, ["text", "image"], N_ITEMS)
    assert items.vectors == pytest.approx(
        np.array(
            [
                [1, 0, 1, 0, 0],
                [0, 1, 0, 0, 0],
                [0.6, 0.8, 0, 0, 0],
                [0, 0, 0.6, 0, 0.8],
                [0, 0, 0, 0, 0],
                [0, 0, 0, 0, 0],
            ]
        )
    )
    assert items.eligible.tolist() == [True, True, True, True, False, False]
    assert content_matrix(vectors, [], N_ITEMS).vectors.tolist() == np.roll(items.vectors, 3, axis=1).tolist()
    assert content_matrix(vectors, ["image"], N_ITEMS).eligible.tolist() == [True, False, False, True, False, False]


@pytest.mark.integration
def test_profiles_are_weighted_means_and_users_without_vectors_are_counted(interactions, vectors):
    items, counts = content_matrix(vectors, ["text"], N_ITEMS), Counts()
    found = {row[0]: row[1] for row in profiles(interactions, items, 30.0, WEIGHTS, NOW, counts).collect()}
    faded = 2.0**-1  # 30 days after the other
    expected = {0: [1 / (1 + faded), faded / (1 + faded)], 1: [0.5 / 2, 1.5 / 2]}
    assert found == {user: pytest.approx(vector) for user, vector in expected.items()}
    assert counts.get() == {"users": 3, "users_without_vector": 1}
    found = {row[0]: row[1] for row in profiles(interactions, items, None, WEIGHTS, NOW).collect()}
    assert found[0] == pytest.approx([0.5, 0.5])


def test_products_never_bought_are_on_the_lists(interactions, vectors):
    items = content_matrix(vectors, ["text"], N_ITEMS)
    queries = profiles(interactions, items, None, WEIGHTS, NOW)
    seen = interactions.select("user_idx", "item_idx")
    rows = top_k(queries, items, key="user_idx", k=5, seen=seen, partitions=1).collect()
    assert {(r["user_idx"], r["item_idx"]): r["score"] for r in rows} == {
        (0, 2): pytest.approx(0.5 * 0.6 + 0.5 * 0.8),
        (1, 2): pytest.approx(0.25 * 0.6 + 0.75 * 0.8),
    }


def test_means_do_not_depend_on_the_parts():
    from scipy.sparse import random as random_matrix

    rng = np.random.default_rng(2)
    entries = random_matrix(40, 30, 0.3, format="csr", random_state=2)
    entries.sort_indices()
    dense = rng.normal(size=(30, 7)).astype(np.float32)
    has = (rng.random(30) < 0.7).astype(float)
    dense[has == 0] = 0
    whole, total = content.weighted_means(entries, dense, has)
    alone = [content.weighted_means(entries[i : i + 1], dense, has) for i in range(40)]
    assert np.array_equal(whole, np.concatenate([part for part, _ in alone]))
    weights = entries.toarray()
    assert total == pytest.approx(weights @ has)
    assert whole == pytest.approx(weights @ dense / (weights @ has)[:, None], rel=1e-5, abs=1e-6)


def test_users_keep_their_vectors_where_a_batch_is_cut(monkeypatch):
    items = ItemMatrix(np.eye(3, dtype=np.float32), None, np.array([True, True, False]))
    batch = pa.RecordBatch.from_arrays(
        [pa.array([7, 8, 9], pa.int32()), pa.array([[0, 1], [2], [1]], pa.list_(pa.int32())),
         pa.array([[1.0, 3.0], [1.0], [2.0]], pa.list_(pa.float64()))],
        names=["user_idx", "indices", "weights"],
    )  # fmt: skip
    for at_once in (100, 1):
        monkeypatch.setattr(content, "ENTRIES_AT_ONCE", at_once)
        parts = content._averager(SimpleNamespace(value=items))([batch])
        rows = [row for part in parts for row in part.to_pylist()]
        assert {row["user_idx"]: row["vector"] for row in rows} == {7: [0.25, 0.75, 0.0], 8: None, 9: [0.0, 1.0, 0.0]}


def test_vectors_that_are_not_there_or_do_not_fit_are_refused(spark, vectors):
    with pytest.raises(UserError, match=r"no item vectors of this name.*content.vectors=\['sound'\]"):
        content_matrix(vectors, ["sound"], N_ITEMS)
    with pytest.raises(UserError, match="no item vectors"):
        content_matrix(vectors.where("false"), [], N_ITEMS)
    with pytest.raises(InvariantError, match="not one for each item of 3"):
        content_matrix(vectors, ["image"], 3)
    with pytest.raises(InvariantError, match="not one for each item"):
        content_matrix(vectors.unionAll(vectors), ["text"], N_ITEMS)
    odd = vectors.unionAll(spark.createDataFrame([(5, "text", [1.0])], vectors.schema))
    with pytest.raises(InvariantError, match="1 to 2 elements"):
        content_matrix(odd, ["text"], N_ITEMS)
