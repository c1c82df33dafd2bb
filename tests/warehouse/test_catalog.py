"""Tables under names of a catalog."""

import pytest

from sparkrec.errors import UserError
from sparkrec.warehouse import store, tables
from sparkrec.warehouse.catalog import register
from sparkrec.warehouse.location import Warehouse


@pytest.fixture
def schema(spark):
    yield "rec_test"
    spark.sql("DROP SCHEMA IF EXISTS rec_test CASCADE")


def users(spark, *ids):
    return spark.createDataFrame([(name, n) for n, name in enumerate(ids)], "id string, idx int")


@pytest.mark.integration
def test_tables_are_found_by_name_and_stay_where_they_are(spark, tmp_path, schema):
    warehouse = Warehouse(str(tmp_path / "a warehouse"))
    store.append(users(spark, "a"), warehouse, tables.USER_INDEX)
    assert register(spark, warehouse, schema) == ["user_index"]
    store.append(users(spark, "a", "b").where("idx = 1"), warehouse, tables.USER_INDEX)
    store.append(users(spark, "i"), warehouse, tables.ITEM_INDEX)
    assert register(spark, warehouse, f"spark_catalog.{schema}") == ["item_index"]
    assert {row["id"] for row in spark.sql(f"select id from {schema}.user_index").collect()} == {"a", "b"}
    assert spark.catalog.listColumns(f"{schema}.user_index")[0].description
    other = Warehouse(str(tmp_path / "other"))
    store.append(users(spark, "c"), other, tables.USER_INDEX)
    with pytest.raises(UserError, match="another table of this name"):
        register(spark, other, schema)


@pytest.mark.parametrize("name", ["", "a.b.c", "x; drop", "a`b", "ü"])
def test_what_is_no_name_is_refused(spark, tmp_path, name):
    with pytest.raises(UserError, match="no name of a schema"):
        register(spark, Warehouse(str(tmp_path)), name)
