from datetime import date

import pytest
from pyspark.errors import PySparkException

from sparkrec.errors import InvariantError
from sparkrec.retrieval.publish import published
from sparkrec.warehouse.tables import topk_table

NIGHT = date(2011, 12, 9)
LISTS = "user_idx int, item_idx int, rank int, score float"


@pytest.fixture
def item_index(spark):
    return spark.createDataFrame([("a'b", 0), ("c\n😀", 1)], "id string, idx int")


def test_ids_come_back_in_the_columns_of_the_table(spark, item_index):
    lists = spark.createDataFrame(
        [(7, 1, 1, 0.5, "model"), (7, 0, 2, 0.25, "popularity")],
        f"{LISTS}, source string",
    )
    users = spark.createDataFrame([("u7", 7), ("u8", 8)], "id string, idx int")
    table = topk_table("als")
    frame = published(lists, users, item_index, NIGHT, "v1", table)
    assert frame.columns == table.column_names
    assert [f.dataType.simpleString() for f in frame.schema] == [c.type for c in table.columns]
    assert sorted(tuple(row) for row in frame.collect()) == [
        (NIGHT, "u7", 1, "c\n😀", 0.5, "v1", "model"),
        (NIGHT, "u7", 2, "a'b", 0.25, "v1", "popularity"),
    ]


def test_lists_that_carry_their_keys(spark, item_index):
    lists = spark.createDataFrame(
        [("s1", "session", 1, 1, 0.5, "model")],
        "user_id string, key_type string, item_idx int, rank int, score float, source string",
    )
    rows = published(lists, None, item_index, NIGHT, "v1", topk_table("gru")).collect()
    assert [tuple(row) for row in rows] == [(NIGHT, "s1", "session", 1, "c\n😀", 0.5, "v1", "model")]
    with pytest.raises(InvariantError, match="key_type"):
        published(lists.drop("key_type"), None, item_index, NIGHT, "v1", topk_table("gru"))


@pytest.mark.parametrize(("user", "item", "lost"), [(7, 9, "no item_id for item_idx 9"), (3, 1, "no user_id")])
def test_a_number_without_an_id_fails(spark, item_index, user, item, lost):
    lists = spark.createDataFrame([(user, item, 1, 0.5, "model")], f"{LISTS}, source string")
    users = spark.createDataFrame([("u7", 7)], "id string, idx int")
    with pytest.raises(PySparkException, match=lost):
        published(lists, users, item_index, NIGHT, "v1", topk_table("als")).collect()
