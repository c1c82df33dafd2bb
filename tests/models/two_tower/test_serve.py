"""Serving of the two towers: states by hand, and vectors equal to those of the training side."""

from datetime import datetime

import numpy as np
import pandas as pd
import pytest
import torch

from sparkrec.models.two_tower.batches import DAY_S, last_arrays, sequences
from sparkrec.models.two_tower.clock import new_clock
from sparkrec.models.two_tower.network import Feature
from sparkrec.models.two_tower.serve import (
    item_momentum,
    item_vectors,
    known_items,
    load_served,
    user_states,
    user_vectors,
)
from sparkrec.models.two_tower.settings import TwoTowerConfig
from sparkrec.models.two_tower.step import new_towers, user_batch
from sparkrec.models.two_tower.train import save_towers, tower_shape
from sparkrec.ranks.comm import SingleProcess

USER_FEATURES, ITEM_FEATURES = (Feature("town", 3, 2),), (Feature("genre", 4, 1),)
CONFIG = TwoTowerConfig(dim=8, hidden=[5], history_length=3, temperature=0.3, windows_days=[1.0, 3.0])
AS_OF = datetime(1970, 1, 6)
EVENTS = [  # user, item, seconds
    (0, 1, 10), (0, 2, 2 * DAY_S), (0, 3, 2 * DAY_S), (0, 1, 4 * DAY_S + 7), (0, 4, 5 * DAY_S - 1),
    (2, 5, 3 * DAY_S), (3, 1, 4 * DAY_S + 1),
]  # fmt: skip
N_USERS, N_ITEMS = 4, 7


@pytest.fixture(scope="module")
def interactions(spark):
    late = [*EVENTS, (0, 6, 5 * DAY_S)]  # at the night's end: not of the night
    frame = pd.DataFrame(late, columns=["user_idx", "item_idx", "s"]).astype({"user_idx": "int32", "item_idx": "int32"})
    named = spark.createDataFrame(frame).selectExpr(
        "user_idx", "item_idx", "'buy' AS event_type", "timestamp_seconds(s) AS ts", "bigint(null) AS event_order"
    )
    anonymous = spark.sql(
        "SELECT int(null) AS user_idx, 6 AS item_idx, 'buy' AS event_type, timestamp_seconds(5) AS ts, "
        "bigint(null) AS event_order"
    )
    return named.union(anonymous).cache()


@pytest.fixture(scope="module")
def town(spark):
    return spark.sql(
        "SELECT 0 AS user_idx, array(1, 3) AS town UNION ALL SELECT 1, array(2) UNION ALL SELECT 3, array()"
    )


@pytest.fixture
def model(tmp_path):
    shape = tower_shape(CONFIG, N_USERS, N_ITEMS, USER_FEATURES, ITEM_FEATURES)
    towers = new_towers(shape, 5)
    torch.manual_seed(1)
    for parameter in towers.dense.parameters():
        torch.nn.init.normal_(parameter, 0.0, 0.4)
    towers.table.normal_()
    towers.table_squares.fill_(1.0)
    codes = np.array([[n % 5] for n in range(N_ITEMS)], np.int32)
    path = f"{tmp_path}/model"
    save_towers(path, towers, codes, clock().last(), {"model": "two_tower"})
    return path, towers


def training_side():
    user, item, ts = (np.array(c) for c in zip(*EVENTS, strict=True))
    codes = {0: [1, 3], 1: [2, 0]}
    return sequences(user, item, ts, np.ones(len(user)), np.array([codes.get(u, [0, 0]) for u in user]))


def clock():
    return new_clock(SingleProcess(), [training_side()], 5 * DAY_S, N_ITEMS, (1.0, 3.0))


def states(interactions, town):
    return user_states(interactions, town, USER_FEATURES, 3, {"buy": 1.0}, AS_OF)


def test_states_by_hand(interactions, town):
    found = {r["user_idx"]: r for r in states(interactions, town).collect()}
    assert sorted(found) == [0, 1, 2, 3]  # user 1 has features alone
    assert found[0]["history"] == [4, 1, 3]
    placed = interactions.withColumn("event_order", -interactions.item_idx.cast("bigint"))  # the log's order, not ours
    assert states(placed, town).where("user_idx = 0").head()["history"] == [4, 1, 2]
    assert found[0]["history_ts"] == [5 * DAY_S - 1, 4 * DAY_S + 7, 2 * DAY_S]
    assert [found[u]["n_events"] for u in range(4)] == [5, 0, 1, 1]
    assert [found[u]["codes"] for u in range(4)] == [[1, 3], [2, 0], [0, 0], [0, 0]]
    assert found[1]["history"] == []
    assert {r["as_of"] for r in found.values()} == {5 * DAY_S}


def test_user_vectors_are_those_of_the_training_side(interactions, town, model):
    path, towers = model
    rows = user_vectors(states(interactions, town), path).collect()
    found = {r["user_idx"]: np.array(r["vector"], np.float32) for r in rows}
    arrays = last_arrays(training_side(), 5 * DAY_S, 3)
    with torch.no_grad():
        expected = towers.dense.query(towers.table, user_batch(towers.shape, arrays, None, "cpu")).numpy()
    assert arrays.user.tolist() == [0, 2, 3]
    for who, vector in zip(arrays.user, expected, strict=True):
        np.testing.assert_allclose(found[who], vector, rtol=1e-4, atol=1e-5)
    assert np.isfinite(found[1]).all()


def test_item_vectors_have_momentum_and_new_items_are_known_by_features(model):
    path, _ = model
    vectors = item_vectors(path)
    assert vectors.shape == (N_ITEMS, 8 + 3)
    np.testing.assert_allclose(vectors[:, 8:], clock().last())
    codes = np.array([[n % 5] for n in range(N_ITEMS)] + [[1], [2], [1]], np.int32)
    momentum = np.vstack([clock().last(), np.zeros((3, 3), np.float32)])
    longer = item_vectors(path, codes, momentum)
    np.testing.assert_allclose(longer[:N_ITEMS], vectors, rtol=1e-5)
    assert not np.allclose(longer[N_ITEMS], longer[N_ITEMS + 1])
    np.testing.assert_allclose(longer[N_ITEMS], longer[N_ITEMS + 2])
    np.testing.assert_allclose(np.linalg.norm(vectors[:, :8], axis=1), 1.0, rtol=1e-3)


def test_items_of_which_nothing_was_learnt_are_not_known(tmp_path):
    """Of the items 2 to 5 no example had any; 3 has a genre that others taught, 4 one that nobody did."""
    shape = tower_shape(CONFIG, N_USERS, N_ITEMS, USER_FEATURES, ITEM_FEATURES)
    towers = new_towers(shape, 5)
    learnt = towers.table_squares
    learnt[shape.id_rows("user", torch.arange(N_USERS))] = 1.0
    learnt[shape.id_rows("item", torch.tensor([0, 1, 6]))] = 1.0
    learnt[shape.code_rows("item", torch.tensor([[1], [2]]))[:, 0]] = 1.0
    codes = np.array([[0], [1], [0], [2], [4], [9], [1]], np.int32)  # 0 and 9 are no genre
    path = str(tmp_path)
    save_towers(path, towers, codes, clock().last(), {})
    assert known_items(path).tolist() == [True, True, False, True, False, False, True]
    none = tower_shape(CONFIG, N_USERS, N_ITEMS, (), ())
    towers = new_towers(none, 5)
    towers.table_squares[none.id_rows("item", torch.tensor([4]))] = 1.0
    save_towers(path, towers, np.zeros((N_ITEMS, 0), np.int32), clock().last(), {})
    assert np.flatnonzero(known_items(path)).tolist() == [4]


@pytest.mark.parametrize("windows", [(1.0, 3.0), (0.4, 2.6)])
def test_item_momentum_of_a_night_is_the_clocks(interactions, windows):
    expected = new_clock(SingleProcess(), [training_side()], 5 * DAY_S, N_ITEMS, windows).last()
    found = item_momentum(interactions, windows, N_ITEMS, {"buy": 1.0}, AS_OF)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    fewer = item_momentum(interactions, windows, 3, {"buy": 1.0}, AS_OF)
    np.testing.assert_array_equal(fewer, found[:3])


def test_a_model_is_loaded_once_until_it_changes(model):
    path, towers = model
    first = load_served(path)
    assert load_served(path) is first
    towers.table.mul_(2.0)
    save_towers(path, towers, np.zeros((N_ITEMS, 1), np.int32), clock().last(), {})
    assert load_served(path) is not first
    torch.testing.assert_close(load_served(path).table, towers.table)
