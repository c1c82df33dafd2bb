"""Rows that the driver writes itself: into tables like Spark's own, under the same checks, read by Spark as any."""

import json
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest
from delta.tables import DeltaTable as OnSpark
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from sparkrec.errors import InvariantError
from sparkrec.warehouse import direct, store, tables
from sparkrec.warehouse.location import Warehouse

pytestmark = pytest.mark.integration

AT = datetime(2024, 1, 2, 3, tzinfo=UTC)
EIGHTH, NINTH = date(2024, 1, 8), date(2024, 1, 9)


@pytest.fixture
def warehouse(tmp_path):
    return Warehouse(str(tmp_path / "a warehouse"))


def first_commit(warehouse, table):
    log = Path(warehouse.table_path(table)) / "_delta_log" / f"{0:020d}.json"
    actions = {}
    for line in log.read_text().splitlines():
        actions |= json.loads(line)
    return actions


def made_by_spark(spark, warehouse, table):
    """As Delta's own builder makes it."""
    builder = OnSpark.create(spark).location(warehouse.table_path(table)).comment(table.comment)
    for column in table.columns:
        builder = builder.addColumn(column.name, column.type, nullable=column.nullable, comment=column.comment)
    builder = builder.partitionedBy(*table.partition) if table.partition else builder
    checks = {f"delta.constraints.{name}": condition for name, condition in table.checks.items()}
    for key, value in {**direct.PROPERTIES, **checks}.items():
        builder = builder.property(key, value)
    builder.execute()


@pytest.mark.parametrize("table", [tables.SESSIONS, tables.METRICS, tables.CURRENT], ids=lambda t: t.name)
def test_a_table_is_the_one_that_spark_would_make(spark, tmp_path, table):
    ours, theirs = Warehouse(str(tmp_path / "ours")), Warehouse(str(tmp_path / "theirs"))
    assert store.create(spark, ours, table)
    assert not store.create(spark, ours, table)
    made_by_spark(spark, theirs, table)
    mine, other = (first_commit(warehouse, table) for warehouse in (ours, theirs))
    assert json.loads(mine["metaData"]["schemaString"]) == json.loads(other["metaData"]["schemaString"])
    assert mine["metaData"]["partitionColumns"] == other["metaData"]["partitionColumns"]
    assert mine["metaData"]["description"] == other["metaData"]["description"]
    assert mine["protocol"] == other["protocol"]
    mine["metaData"]["configuration"].pop("delta.minWriterVersion", None)
    assert mine["metaData"]["configuration"] == other["metaData"]["configuration"]


def test_what_a_killed_creation_left_is_no_table(spark, warehouse):
    log = Path(warehouse.table_path(tables.USER_INDEX)) / "_delta_log"
    log.mkdir(parents=True)
    (log / f"_commit_{0:020d}.json.tmp").write_text("{")
    assert store.create(spark, warehouse, tables.USER_INDEX)
    rows = spark.createDataFrame([("a", 0)], tables.USER_INDEX.ddl)
    assert store.append(rows, warehouse, tables.USER_INDEX) == 1


def pointer(model, day, passed_over=()):
    return {
        "model": model, "run_date": day, "model_version": "v", "since": AT, "pinned": False,
        "passed_over": list(passed_over),
    }  # fmt: skip


def test_spark_reads_what_the_driver_wrote_and_the_driver_what_spark_did(spark, warehouse):
    assert direct.rows_of(warehouse, tables.CURRENT) == []
    rows = [pointer("als", EIGHTH, [NINTH]), pointer("gru", EIGHTH)]
    assert direct.upsert(rows, warehouse, tables.CURRENT) == 1
    assert direct.rows_of(warehouse, tables.CURRENT) == rows
    read = store.read(spark, warehouse, tables.CURRENT).orderBy("model")
    assert [tuple(row) for row in read.select("model", "run_date", "passed_over").collect()] == [
        ("als", EIGHTH, [NINTH]), ("gru", EIGHTH, []),
    ]  # fmt: skip
    assert store.version(spark, warehouse, tables.CURRENT) == 1
    spark_rows = spark.createDataFrame([("rules", EIGHTH, "v", AT, None, None)], tables.CURRENT.ddl)
    assert store.append(spark_rows, warehouse, tables.CURRENT) == 2
    assert direct.upsert([pointer("als", NINTH)], warehouse, tables.CURRENT) == 3
    now = {row["model"]: row["run_date"] for row in direct.rows_of(warehouse, tables.CURRENT)}
    assert now == {"als": NINTH, "gru": EIGHTH, "rules": EIGHTH}
    wanted = pl.col("run_date") == NINTH
    assert direct.rows_of(warehouse, tables.CURRENT, ["model", "run_date"], wanted) == [
        {"model": "als", "run_date": NINTH}
    ]
    with pytest.raises(InvariantError, match="is not unique"):
        direct.upsert([pointer("als", NINTH), pointer("als", EIGHTH)], warehouse, tables.CURRENT)


def metric(day, value, **other):
    return {"run_date": day, "model": "als", "model_version": "v", "metric": "recall", "k": 10, "value": value, "n": 3,
            "split": "holdout_users", **other}  # fmt: skip


def test_a_night_is_replaced_and_the_others_stay(spark, warehouse):
    for day, value in ((EIGHTH, 0.1), (NINTH, 0.2), (EIGHTH, 0.3)):
        version = direct.replace_night([metric(day, value)], warehouse, tables.METRICS, day)
    found = {row["run_date"]: row["value"] for row in direct.rows_of(warehouse, tables.METRICS)}
    assert found == {EIGHTH: 0.3, NINTH: 0.2}
    assert store.night_is_as_of(spark, warehouse, tables.METRICS, version - 1, NINTH)
    assert not store.night_is_as_of(spark, warehouse, tables.METRICS, version - 1, EIGHTH)
    with pytest.raises(InvariantError, match="written for 2024-01-09"):
        direct.replace_night([metric(EIGHTH, 0.1)], warehouse, tables.METRICS, NINTH)
    direct.replace_night([], warehouse, tables.METRICS, NINTH)
    assert [row["run_date"] for row in direct.rows_of(warehouse, tables.METRICS)] == [EIGHTH]


def test_bad_rows_are_refused_whole(warehouse):
    direct.append([metric(EIGHTH, 0.1)], warehouse, tables.METRICS)
    with pytest.raises(DeltaError, match="1 rows failed validation check"):
        direct.append([metric(EIGHTH, 0.1), metric(EIGHTH, 0.2, n=-1)], warehouse, tables.METRICS)
    with pytest.raises(InvariantError, match="metrics: null in value"):
        direct.append([metric(EIGHTH, None)], warehouse, tables.METRICS)
    assert DeltaTable(warehouse.table_path(tables.METRICS)).version() == 1


def test_rows_go_by_texts_of_any_kind(warehouse):
    def file(name):
        said = {"size": 1, "modified_at": datetime(2024, 1, 1), "sha256": "s", "run_id": "r", "ingested_at": AT}
        return {"source": name, **said}

    names = ["a'; drop", 'b"', "c d/é=%20.csv", "d"]
    direct.append([file(name) for name in names], warehouse, tables.FILES)
    assert direct.delete(warehouse, tables.FILES, "source", names[:3]) == 2
    (left,) = direct.rows_of(warehouse, tables.FILES)
    assert (left["source"], left["modified_at"]) == ("d", datetime(2024, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize("write", ["append", "upsert", "replace_night"])
def test_a_table_of_an_earlier_version_gets_the_later_columns(spark, warehouse, write):
    table = tables.METRICS if write == "replace_night" else tables.CURRENT
    row = metric(EIGHTH, 0.1) if write == "replace_night" else pointer("als", EIGHTH)
    older = replace(table, columns=table.columns[:-2])
    direct.append([row], warehouse, older)
    newer = metric(NINTH, 0.2, low=0.1, high=0.3) if write == "replace_night" else pointer("gru", NINTH, [EIGHTH])
    more = (NINTH,) if write == "replace_night" else ()
    getattr(direct, write)([newer], warehouse, table, *more)
    last = [{name: one[name] for name in table.column_names[-2:]} for one in direct.rows_of(warehouse, table)]
    assert sorted(last, key=str) == sorted(
        [dict.fromkeys(last[0]), {name: newer[name] for name in table.column_names[-2:]}], key=str
    )
    assert store.read(spark, warehouse, table).count() == 2
