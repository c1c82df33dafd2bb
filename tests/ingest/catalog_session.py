"""Logs of Iceberg's and of Hive's tables, in a Spark session that has both: a program of ``test_other_catalogs``.

python -m tests.ingest.catalog_session FOLDER ICEBERG_JAR
"""

import sys
from datetime import date
from pathlib import Path

from sparkrec.ingest import IngestResult
from sparkrec.settings.sections import SparkConfig
from sparkrec.spark.session import build_session
from sparkrec.warehouse.catalog import register
from sparkrec.warehouse.location import Warehouse
from sparkrec.warehouse.tables import EVENTS
from tests.ingest.log_tables import (
    COLUMNS,
    FIRST,
    assert_as_a_first_night,
    content,
    form,
    frame,
    items,
    row,
    sources,
    take_in,
)
from tests.quick import LOCAL

SECOND, LATER = date(2024, 1, 2), date(2024, 1, 3)


def session(folder, jar):
    """Iceberg's catalog ``ice``; Hive's metastore, as a database in a folder."""
    conf = {
        **LOCAL,
        "spark.driver.memory": "1g",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.jars": jar,
        "spark.sql.catalog.ice": "org.apache.iceberg.spark.SparkCatalog",
        "spark.sql.catalog.ice.type": "hadoop",
        "spark.sql.catalog.ice.warehouse": str(folder / "ice"),
        "spark.sql.catalogImplementation": "hive",
        "spark.sql.warehouse.dir": str(folder / "hive"),
        "spark.hadoop.javax.jdo.option.ConnectionURL": f"jdbc:derby:;databaseName={folder}/metastore;create=true",
        "spark.hadoop.hive.exec.dynamic.partition.mode": "nonstrict",
    }
    return build_session(SparkConfig(master="local[2]", app_name="catalogs", conf=conf))


def insert(spark, table, rows, columns="*"):
    frame(spark, rows).createOrReplaceTempView("written")
    spark.sql(f"insert into {table} select {columns} from written")


def iceberg_by_day(spark, folder):
    """Days that change are read again, also those that rows were only marked as deleted in; others are not."""
    form(folder)
    marked = "tblproperties ('format-version'='2', 'write.delete.mode'='merge-on-read')"
    spark.sql(f"create table ice.shop.log ({COLUMNS}) using iceberg partitioned by (days(at)) {marked}")
    insert(spark, "ice.shop.log", [*FIRST, row("x", day=2), row("y", day=3)])
    take_in(spark, folder, "ice.shop.log")
    assert sources(folder) == ["at_day=2024-01-01"], "later days wait for their nights"
    done = take_in(spark, folder, "ice.shop.log", run_date=LATER)
    assert (done.files_new, done.rows_read) == (2, 3)
    assert items(folder) == ["a", "b", "d", "x", "y"]
    assert take_in(spark, folder, "ice.shop.log", run_date=LATER) == IngestResult()

    spark.sql("delete from ice.shop.log where item = 'x'")
    files = spark.sql("select content from ice.shop.log.files").collect()
    assert {kind for (kind,) in files} == {0, 1}, "the row is marked, its file stays"
    done = take_in(spark, folder, "ice.shop.log", run_date=LATER)
    assert (done.rows_read, items(folder)) == (1, ["a", "b", "d", "y"])

    insert(spark, "ice.shop.log", [row("z", day=3)])
    spark.sql("alter table ice.shop.log add column note string")
    done = take_in(spark, folder, "ice.shop.log", run_date=LATER)
    assert (done.rows_read, items(folder)) == (2, ["a", "b", "d", "y", "z"])

    spark.sql("delete from ice.shop.log where item = 'd'")
    take_in(spark, folder, "ice.shop.log", run_date=LATER)
    assert (items(folder), len(sources(folder))) == (["a", "b", "y", "z"], 3), "a day may have files and no row left"
    assert_as_a_first_night(spark, folder, "ice.shop.log", LATER)


def iceberg_without_partitions(spark, folder):
    """It is one part, read whole when something changes."""
    form(folder)
    spark.sql(f"create table ice.shop.flat ({COLUMNS}) using iceberg")
    insert(spark, "ice.shop.flat", FIRST)
    assert take_in(spark, folder, "ice.shop.flat").rows_read == 5
    assert take_in(spark, folder, "ice.shop.flat") == IngestResult()
    insert(spark, "ice.shop.flat", [row("e")])
    assert take_in(spark, folder, "ice.shop.flat").rows_read == 6
    assert items(folder) == ["a", "b", "d", "e"]
    assert_as_a_first_night(spark, folder, "ice.shop.flat")


def hive_tables(spark, folder):
    """Parquet, whose files Spark names, and text, whose rows are hashed; partitions by Hive's metastore."""
    spark.sql("create database shop")
    for name, kind in (("files", "stored as parquet"), ("lines", "stored as textfile")):
        there = folder / name
        there.mkdir()
        form(there)
        spark.sql(f"create table shop.{name} ({COLUMNS}) partitioned by (dt string) {kind}")
        days = "*, date_format(at, 'yyyy-MM-dd')"
        insert(spark, f"shop.{name} partition (dt)", [*FIRST, row("x", day=2)], days)
        assert take_in(spark, there, f"shop.{name}").rows_read == 4
        assert sources(there) == ["dt=2024-01-01"]
        insert(spark, f"shop.{name} partition (dt)", [row("e")], days)
        assert take_in(spark, there, f"shop.{name}").rows_read == 5
        assert take_in(spark, there, f"shop.{name}", run_date=SECOND).rows_read == 2
        assert items(there) == ["a", "b", "d", "e", "x"]
        spark.sql(f"alter table shop.{name} drop partition (dt = '2024-01-01')")
        take_in(spark, there, f"shop.{name}", run_date=SECOND)
        assert items(there) == ["d", "x"]
        assert_as_a_first_night(spark, there, f"shop.{name}", SECOND)


def delta_in_hive(spark, folder):
    """A Delta table that Hive's metastore knows is read by version."""
    form(folder)
    spark.sql(f"create table shop.delta ({COLUMNS}) using delta tblproperties ('delta.enableChangeDataFeed'='true')")
    insert(spark, "shop.delta", FIRST)
    assert take_in(spark, folder, "shop.delta").rows_read == 5
    spark.sql("delete from shop.delta where item = 'b'")
    done = take_in(spark, folder, "shop.delta")
    assert (done.rows_read, done.rows_removed, items(folder)) == (0, 1, ["a", "d"]), done
    assert content(folder)[1], "the refused row stays"


def tables_in_hive(spark, folder):
    """A warehouse's tables under names of Hive's metastore; a second time nothing is registered."""
    warehouse = Warehouse(str(folder.parent / "delta_in_hive" / "w"))
    made = register(spark, warehouse, "rec")
    assert EVENTS.name in made
    assert spark.sql("select item_id from rec.events order by 1").toPandas()["item_id"].tolist() == ["a", "d"]
    assert register(spark, warehouse, "rec") == []


def main(folder, jar):
    spark = session(folder, jar)
    for check in (iceberg_by_day, iceberg_without_partitions, hive_tables, delta_in_hive, tables_in_hive):
        own = folder / check.__name__
        own.mkdir()
        check(spark, own)
        print(f"done: {check.__name__}", flush=True)
    spark.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
