"""The two towers' examples, labels and features, made of a log on Spark."""

import dataclasses
import math
from datetime import datetime

import pytest

from sparkrec.errors import UserError
from sparkrec.models.two_tower.examples import examples, feature_layout, item_feature_matrix, second_outputs
from sparkrec.models.two_tower.network import Feature
from tests.models.two_tower.cases import CONFIG, NIGHT

SCHEMA = "user_idx int, item_idx int, event_type string, ts timestamp, value double, event_order bigint"


def test_examples_by_hand(spark):
    day = 86_400
    rows = [
        (1, 10, "buy", datetime(1970, 1, 3), None, 7),
        (1, 11, "view", datetime(1970, 1, 2), None, None),
        (2, 10, "buy", datetime(1970, 1, 1, 0, 0, 9), None, None),
        (None, 10, "buy", datetime(1970, 1, 1), None, None),  # anonymous
        (1, 12, "ignored", datetime(1970, 1, 1), None, None),  # no weight
        (1, 12, "unknown", datetime(1970, 1, 1), None, None),
        (1, 12, "buy", datetime(1970, 1, 5), None, None),  # not before the night's end
    ]
    features = spark.createDataFrame(
        [(1, [4, 2, 9], [1]), (3, [7], [])], "user_idx int, town array<int>, group array<int>"
    )
    layout = feature_layout(features, "user_idx", max_width=2)
    assert layout == (Feature("group", 1, 1), Feature("town", 9, 2))
    config = dataclasses.replace(CONFIG, half_life_days=2.0)
    weights = {"buy": 3.0, "view": 1.0, "ignored": 0.0}
    interactions = spark.createDataFrame(rows, SCHEMA)
    found = examples(interactions, features, layout, config, weights, datetime(1970, 1, 5))
    assert found.dtypes[:3] == [("user_idx", "int"), ("item_idx", "int"), ("ts_s", "bigint")]
    assert found.dtypes[3:5] == [("event_order", "bigint"), ("weight", "float")]
    assert all(kind == "int" for _, kind in found.dtypes[5:])
    got = sorted(tuple(r) for r in found.collect())
    halved = 3.0 * 0.5 ** ((4 * day - 9) / (2 * day))
    assert [g[:4] + g[5:] for g in got] == [
        (1, 10, 2 * day, 7, 1, 4, 2), (1, 11, day, -1, 1, 4, 2), (2, 10, 9, -1, 0, 0, 0),
    ]  # fmt: skip
    assert [g[4] for g in got] == pytest.approx([1.5, 0.5 * 2**-0.5, halved])


@pytest.mark.integration
def test_labels_are_the_ratings_or_the_event_types(spark):
    rows = [
        (1, 10, "buy", datetime(1970, 1, 2), 4.5, None),
        (1, 11, "view", datetime(1970, 1, 3), None, None),
        (1, 12, "ignored", datetime(1970, 1, 4), 1.0, None),
    ]
    weights = {"view": 1.0, "buy": 3.0, "ignored": 0.0}
    features, interactions = spark.createDataFrame([(1,)], "user_idx int"), spark.createDataFrame(rows, SCHEMA)

    def labels(head, weights=weights):
        config = dataclasses.replace(CONFIG, second_head=head)
        found = examples(interactions, features, (), config, weights, NIGHT).orderBy("ts_s").collect()
        return second_outputs(config, weights), [row["label"] for row in found]

    outputs, ratings = labels("rating")
    assert (outputs, ratings[0], math.isnan(ratings[1]), len(ratings)) == (1, 4.5, True, 2)
    assert labels("event_type") == (2, [0.0, 1.0])
    with pytest.raises(UserError, match="only one event type counts: buy"):
        labels("event_type", {"buy": 1.0})


def test_item_feature_matrix_by_hand(spark):
    table = spark.createDataFrame([(2, [3, 1]), (0, [])], "item_idx int, genre array<int>")
    layout = feature_layout(table, "item_idx")
    assert layout == (Feature("genre", 3, 2),)
    assert item_feature_matrix(table, layout, 4).tolist() == [[0, 0], [0, 0], [3, 1], [0, 0]]
    bare = table.select("item_idx")
    assert feature_layout(bare, "item_idx") == ()
    assert item_feature_matrix(bare, (), 4).shape == (4, 0)
