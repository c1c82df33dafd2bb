"""Checks, compaction and vacuum of one table, against real Delta."""

from datetime import date
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable, QueryBuilder
from pyspark.errors import IllegalArgumentException

from sparkrec.warehouse import care, store, tables
from sparkrec.warehouse.care import Commit, Partition
from sparkrec.warehouse.location import Warehouse
from sparkrec.warehouse.tables import TABLES
from tests.aged import age

LISTS = TABLES["topk_als"]
HOUR = 3_600_000


@pytest.fixture
def warehouse(tmp_path):
    return Warehouse(f"{tmp_path}/warehouse")


def lists(spark, day, *rows):
    values = [(date(2024, 1, day), user, rank, "x", float(score), "v1", "model") for user, rank, score in rows]
    return spark.createDataFrame(values, LISTS.ddl).coalesce(1)


def data_files(warehouse, table):
    return sorted(p.relative_to(warehouse.path) for p in Path(warehouse.table_path(table)).rglob("part-*.parquet"))


def in_files(spark, warehouse, table=LISTS, n=3, days=(1, 2)):
    """Several small files a day."""
    for number in range(n):
        for day in days:
            store.append(lists(spark, day, (f"u{number}", 1, 0.5)), warehouse, table)


@pytest.mark.integration
def test_a_row_that_does_not_fulfil_a_check_is_refused(spark, warehouse):
    spark.sparkContext.setLogLevel("OFF")
    store.append(lists(spark, 1, ("u", 1, 0.5)), warehouse, LISTS)
    for rank, score in ((0, 0.5), (1, float("nan")), (1, float("inf")), (1, float("-inf"))):
        with pytest.raises(Exception, match=r"CHECK constraint check_(rank|score)"):
            store.append(lists(spark, 1, ("v", rank, score)), warehouse, LISTS)
    numbers = TABLES["interactions"]
    known = spark.sql("select 1 user_idx, 0 item_idx, 'view' event_type, timestamp'2024-01-01' ts, double(1) value, "
                      "double(1) quantity, double(2) price, 's' log_session_id, 'b' basket_id, "
                      "bigint(3) event_order, 1 event_type_idx")  # fmt: skip
    store.append(
        known.selectExpr("int(null) user_idx", "* except (user_idx, value)", "double(null) value"), warehouse, numbers
    )
    with pytest.raises(Exception, match="check_user_idx"):
        store.append(known.selectExpr("-1 user_idx", "* except (user_idx)"), warehouse, numbers)
    with pytest.raises(Exception, match="check_value"):
        store.append(known.selectExpr("* except (value)", "double('NaN') value"), warehouse, numbers)
    spark.sparkContext.setLogLevel("ERROR")
    assert store.read(spark, warehouse, LISTS).count() == store.read(spark, warehouse, numbers).count() == 1


@pytest.mark.integration
def test_checks_come_to_a_table_of_before_where_its_rows_fulfil_them(spark, tmp_path):
    warehouse = Warehouse(f"{tmp_path}/ware `house` é")  # the path is part of an SQL text here
    values = [(date(2024, 1, 1), "u", 1, "x", float("nan"), "v1", "model")]
    old = spark.createDataFrame(values, LISTS.ddl.replace(" NOT NULL", ""))
    old.write.format("delta").partitionBy("run_date").save(warehouse.table_path(LISTS))
    properties = care.state(spark, warehouse, LISTS).properties
    assert care.missing_checks(LISTS, properties) == ["check_rank", "check_score"]
    before = store.version(spark, warehouse, LISTS)
    assert care.add_check(spark, warehouse, LISTS, "check_rank", properties)
    assert not care.add_check(spark, warehouse, LISTS, "check_score", properties)
    properties = care.state(spark, warehouse, LISTS).properties
    assert care.missing_checks(LISTS, properties) == ["check_score"]  # the other is taken for the declared one
    assert store.version(spark, warehouse, LISTS) == before
    other = {**properties, "delta.constraints.check_rank": "rank >= 0"}
    assert care.missing_checks(LISTS, other) == ["check_rank", "check_score"]
    assert care.add_check(spark, warehouse, LISTS, "check_rank", other)  # in place of the one that is there


@pytest.mark.integration
def test_care_changes_no_row_and_every_reader_goes_on(spark, warehouse):
    in_files(spark, warehouse)
    path = warehouse.table_path(LISTS)
    rows = pl.read_delta(path).sort("run_date", "user_id")
    pinned = store.version(spark, warehouse, LISTS)
    worth, fewer = care.to_compact(spark, warehouse, LISTS, file_mb=1, least=4)
    assert fewer == 4
    assert care.to_compact(spark, warehouse, LISTS, file_mb=1, least=5) == ([], 0)
    assert care.compact(spark, warehouse, LISTS, worth, file_mb=1) == (6, 2)
    with pytest.raises(IllegalArgumentException, match="retention"):
        care.vacuum(spark, warehouse, LISTS, 0)  # Delta's own check is on
    care.set_properties(spark, warehouse, LISTS, care.wanted_properties(0, 30))
    care.vacuum(spark, warehouse, LISTS, 0)
    assert len(data_files(warehouse, LISTS)) == 2
    assert store.version(spark, warehouse, LISTS) == pinned
    read = store.read(spark, warehouse, LISTS, at=pinned).toPandas()  # its own files are gone
    assert pl.from_pandas(read).sort("run_date", "user_id")["user_id"].equals(rows["user_id"])
    assert pl.read_delta(path).sort("run_date", "user_id").equals(rows)
    answer = QueryBuilder().register("lists", DeltaTable(path)).execute("select user_id from lists where rank = 1")
    assert answer.read_all().num_rows == 6
    fields = {f.name: f.metadata["comment"] for f in spark.read.format("delta").load(path).schema.fields}
    assert fields == {column.name: column.comment for column in LISTS.columns}
    assert DeltaTable(path).metadata().description == LISTS.comment
    later = store.append(lists(spark, 3, ("u", 1, 0.5)), warehouse, LISTS)
    assert store.version(spark, warehouse, LISTS) == later
    assert store.read(spark, warehouse, LISTS, at=pinned).count() == 6  # and not the row that came since


@pytest.mark.integration
def test_a_version_before_a_change_is_read_as_it_was(spark, warehouse):
    table = tables.USER_INDEX
    index = spark.createDataFrame([("a", 0)], "id string, idx int")
    first = store.overwrite(index, warehouse, table)
    second = store.overwrite(index.selectExpr("'b' id", "idx"), warehouse, table)
    care.set_properties(spark, warehouse, table, care.wanted_properties(24, 30))
    assert store.version(spark, warehouse, table) == second
    assert store.read(spark, warehouse, table, at=first).head()[0] == "a"
    assert store.read(spark, warehouse, table, at=second).head()[0] == "b"


@pytest.mark.integration
def test_only_what_is_old_enough_is_vacuumed_and_only_once(spark, warehouse):
    in_files(spark, warehouse, n=2, days=(1,))
    care.compact(spark, warehouse, LISTS, [Partition("2024-01-01", 2, 0)], file_mb=1)
    now = care.history(spark, warehouse, LISTS)[-1].at_ms
    assert not care.vacuum_due(care.history(spark, warehouse, LISTS), now - HOUR)
    assert not care.aged(spark, warehouse, LISTS, now - HOUR)
    assert care.aged(spark, warehouse, LISTS, now)
    assert care.vacuum_due(care.history(spark, warehouse, LISTS), now)
    age(Path(warehouse.table_path(LISTS)), days=2)
    spark._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()
    care.set_properties(spark, warehouse, LISTS, care.wanted_properties(24, 30))
    care.vacuum(spark, warehouse, LISTS, 24)
    assert len(data_files(warehouse, LISTS)) == 1
    assert not care.vacuum_due(care.history(spark, warehouse, LISTS), now - 24 * HOUR)


def history(*operations):
    """Commits an hour apart, from hour 1 on; a vacuum is written ``V<retention in hours>``."""
    done = []
    for hour, operation in enumerate(operations, 1):
        if operation.startswith("V"):
            kept = str(int(operation[1:]) * HOUR)
            done.append(Commit(hour * HOUR, "VACUUM START", {"specifiedRetentionMillis": kept}))
            done.append(Commit(hour * HOUR + 1, "VACUUM END", {"status": "COMPLETED"}))
        else:
            name, mode = operation.split() if operation.startswith("WRITE") else (operation, "")
            done.append(Commit(hour * HOUR, name, {"mode": mode}))
    return done


@pytest.mark.parametrize(
    ("operations", "before", "due"),
    [
        (["WRITE Append", "WRITE Append"], 9, False),  # nothing has been superseded
        (["WRITE Append", "WRITE Overwrite"], 2, True),
        (["WRITE Append", "WRITE Overwrite"], 1, False),  # not old enough
        (["OPTIMIZE", "V0"], 9, False),  # done
        (["OPTIMIZE", "V2"], 9, True),  # the vacuum kept it
        (["DELETE", "V0", "MERGE"], 9, True),
        (["DELETE", "V0", "ADD CONSTRAINT", "SET TBLPROPERTIES"], 9, False),
    ],
)
def test_a_vacuum_is_due_when_superseded_files_are_old_enough(operations, before, due):
    assert care.vacuum_due(history(*operations), before * HOUR) is due


def test_a_vacuum_that_broke_off_does_not_count():
    assert care.vacuum_due(history("OPTIMIZE", "V0")[:2], 9 * HOUR)


def test_files_that_fill_their_size_are_left_alone():
    assert Partition(None, 1, 10).fewer(100) == 0
    assert Partition(None, 8, 80).fewer(100) == 7
    assert Partition(None, 8, 8 * 49).fewer(100) == 4


def test_properties_are_set_where_they_differ():
    assert care.other_properties({}, care.wanted_properties(168, 30)) == {}  # Delta's own defaults
    changed = care.other_properties({}, care.wanted_properties(1000, 30))
    assert changed == {care.RETENTION: "interval 1000 hours", care.LOG_RETENTION: "interval 1000 hours"}
    assert care.other_properties(changed, care.wanted_properties(1000, 30)) == {}
