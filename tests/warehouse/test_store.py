"""Reading and writing of the warehouse's tables, against real Delta."""

from dataclasses import replace
from datetime import date
from itertools import pairwise
from pathlib import Path

import pytest
from deltalake import DeltaTable
from pyspark.errors import PySparkException
from pyspark.sql import functions as F

from sparkrec.errors import InvariantError, UserError
from sparkrec.warehouse import care, store, tables
from sparkrec.warehouse.delta_files import data_files
from sparkrec.warehouse.location import Warehouse
from sparkrec.warehouse.tables import TABLES


@pytest.fixture
def warehouse(tmp_path):
    return Warehouse(f"{tmp_path}/warehouse/")


def index(spark, *rows):
    return spark.createDataFrame(list(rows), "id string, idx int")


def lists(spark, night, *rows):
    values = [(night, user, rank, item, float(score), "v1", "model") for user, rank, item, score in rows]
    return spark.createDataFrame(values, TABLES["topk_als"].ddl)


def rows(df):
    return sorted(tuple(row) for row in df.collect())


def test_places(warehouse):
    assert warehouse.table_path(tables.EVENTS).endswith("/warehouse/events")
    assert warehouse.model_path("gru", date(2011, 12, 9)).endswith("/warehouse/models/gru/2011-12-09")
    assert warehouse.snapshot_path("gru", date(2011, 12, 9)).endswith("/warehouse/snapshots/gru/2011-12-09")


@pytest.mark.integration
def test_relative_warehouse_counts_from_the_current_folder(spark, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    relative = Warehouse("some/where")
    store.append(index(spark, ("a", 0)), relative, tables.USER_INDEX)
    monkeypatch.chdir("/")
    assert relative == Warehouse(f"{tmp_path}/some/where")
    assert rows(store.read(spark, relative, tables.USER_INDEX)) == [("a", 0)]
    assert Warehouse("s3a://bucket/where").path == "s3a://bucket/where"
    assert Warehouse("file:/some/where").path == "file:///some/where"
    assert Warehouse("").path == ""


@pytest.mark.integration
def test_a_lock_that_is_lost_while_a_write_is_prepared_stops_it_before_its_commit(spark, tmp_path):
    """Here as soon as the table is made: the rows of an append are not there yet, nor are those of a merge."""
    for write, table in ((store.append, tables.USER_INDEX), (store.upsert, tables.ITEM_INDEX)):

        def fence(path=str(tmp_path / table.name)):
            if DeltaTable.is_deltatable(path):
                raise UserError("the lock was lost")

        with pytest.raises(UserError, match="the lock was lost"):
            write(index(spark, ("a", 0)), Warehouse(str(tmp_path), fence), table)
        assert rows(store.read(spark, Warehouse(str(tmp_path)), table)) == []


def test_missing_table(spark, warehouse):
    assert not store.exists(spark, warehouse, tables.USER_INDEX)
    assert store.version(spark, warehouse, tables.USER_INDEX) is None
    with pytest.raises(UserError, match="no such table"):
        store.read(spark, warehouse, tables.USER_INDEX)


def test_append_keeps_old_rows_and_reads_at_a_version(spark, warehouse):
    first = store.append(index(spark, ("a", 0), ("b", 1)), warehouse, tables.USER_INDEX)
    second = store.append(index(spark, ("c", 2)), warehouse, tables.USER_INDEX)
    assert second > first
    assert rows(store.read(spark, warehouse, tables.USER_INDEX)) == [("a", 0), ("b", 1), ("c", 2)]
    assert rows(store.read(spark, warehouse, tables.USER_INDEX, at=first)) == [("a", 0), ("b", 1)]
    assert store.version(spark, warehouse, tables.USER_INDEX) == second
    written = [store.rows_written(spark, warehouse, tables.USER_INDEX, version) for version in (first, second)]
    assert written == [2, 1]


@pytest.mark.integration
def test_replace_night_replaces_that_night_alone(spark, warehouse):
    table, eighth, ninth = TABLES["topk_als"], date(2011, 12, 8), date(2011, 12, 9)
    store.replace_night(lists(spark, eighth, ("u", 1, "x", 0.5)), warehouse, table, eighth)
    store.replace_night(lists(spark, ninth, ("u", 1, "y", 0.5), ("u", 2, "x", 0.25)), warehouse, table, ninth)
    before = store.replace_night(lists(spark, ninth, ("u", 1, "z", 1.0)), warehouse, table, ninth)
    expected = [(eighth, "u", 1, "x", 0.5, "v1", "model"), (ninth, "u", 1, "z", 1.0, "v1", "model")]
    assert rows(store.read(spark, warehouse, table)) == expected
    with pytest.raises(PySparkException):  # a row of another night is refused, not filed away
        store.replace_night(lists(spark, eighth, ("v", 1, "x", 0.5)), warehouse, table, ninth)
    assert store.version(spark, warehouse, table) == before
    assert rows(store.read(spark, warehouse, table)) == expected


def events_of(spark, days, each):
    """So many events a day, in six tasks that hold them in no order."""
    ids = spark.range(0, days * each, numPartitions=6)
    return ids.selectExpr(
        "'u' AS user_id", "string(id) AS item_id", "'buy' AS event_type",
        f"timestamp_seconds(id * 7 % {days} * 86400) AS ts",
        "double(NULL) AS value", "double(NULL) AS quantity", "double(NULL) AS price",
        "string(NULL) AS text",
        "string(NULL) AS log_session_id", "string(NULL) AS basket_id", "'f' AS source",
        f"date_from_unix_date(int(id * 7 % {days})) AS event_date",
        "bigint(NULL) AS event_order", "string(NULL) AS event_id",
    )  # fmt: skip


def spans(warehouse, table):
    """The first and last day of each data file, by the statistics that every reader has."""
    import polars as pl
    from deltalake import DeltaTable

    files = pl.DataFrame(DeltaTable(warehouse.table_path(table)).get_add_actions(flatten=True))
    return sorted(files.select("min.event_date", "max.event_date").rows())


def test_files_follow_the_rows_and_not_the_days(spark, warehouse, monkeypatch):
    store.append(events_of(spark, days=1000, each=1), warehouse, tables.EVENTS, rows=1000)
    whole = (date(1970, 1, 1), date(1972, 9, 26))
    assert spans(warehouse, tables.EVENTS) == [whole]
    monkeypatch.setattr(store, "ROWS_PER_FILE", 400)
    store.append(events_of(spark, days=1000, each=1), warehouse, tables.EVENTS, rows=1000)
    parts = [span for span in spans(warehouse, tables.EVENTS) if span != whole]
    assert len(parts) == 3
    assert all(end < begin for (_, end), (begin, _) in pairwise(parts))  # a file holds its own days
    assert store.read(spark, warehouse, tables.EVENTS).count() == 2000


def test_a_table_that_is_partitioned_by_day_keeps_a_file_for_a_day(spark, warehouse):
    store.create(spark, warehouse, replace(tables.EVENTS, partition=("event_date",)))  # of an earlier version
    for n in (1, 2):
        store.append(events_of(spark, days=5, each=12), warehouse, tables.EVENTS, rows=60)
        written = list(Path(warehouse.table_path(tables.EVENTS)).glob("event_date=*/*.parquet"))
        assert len(written) == 5 * n
    found = store.read(spark, warehouse, tables.EVENTS)
    assert found.columns == tables.EVENTS.column_names
    assert found.where("event_date = '1970-01-03'").count() == found.where("ts = '1970-01-03'").count() == 24


@pytest.mark.integration
def test_small_tables_are_read_without_a_job_to_find_their_files(spark, tmp_path, warehouse):
    odd = Warehouse(f"{tmp_path}/ware [h]{{o}}*use? é")
    for place in (warehouse, odd):
        day = date(2024, 1, 1)
        for number in (1, 2):
            version = store.replace_night(
                lists(spark, day, ("ü /:%", number, "x", 0.5)), place, TABLES["topk_als"], day
            )
        assert rows(store.read(spark, place, TABLES["topk_als"], at=version))[0][:4] == (day, "ü /:%", 2, "x")
        assert store.read(spark, place, TABLES["topk_als"]).columns == TABLES["topk_als"].column_names
        jobs = spark._jsc.sc().dagScheduler().numTotalJobs()
        assert store.read(spark, place, TABLES["topk_als"], at=version).count() == 1
        assert spark._jsc.sc().dagScheduler().numTotalJobs() - jobs <= 2  # the count itself
        first = store.read(spark, place, TABLES["topk_als"], at=version - 1)
        assert first.select("rank").head()[0] == 1


@pytest.mark.integration
def test_a_checksum_that_is_cut_short_or_missing_is_done_without(spark, warehouse):
    versions = [store.append(index(spark, (name, n)), warehouse, tables.USER_INDEX) for n, name in enumerate("ab")]
    log = Path(warehouse.table_path(tables.USER_INDEX)) / "_delta_log"
    for version, damage in zip(versions, (lambda p: p.write_text(p.read_text()[:99]), Path.unlink), strict=True):
        (log / f".{version:020d}.crc.crc").unlink(missing_ok=True)
        damage(log / f"{version:020d}.crc")
    assert rows(store.read(spark, warehouse, tables.USER_INDEX, at=versions[0])) == [("a", 0)]
    assert rows(store.read(spark, warehouse, tables.USER_INDEX)) == [("a", 0), ("b", 1)]


@pytest.mark.parametrize(
    "other",
    [
        {"numFiles": 2},
        {"protocol": {"minReaderVersion": 3, "readerFeatures": ["deletionVectors"]}},
        {"allFiles": [{"path": "a.parquet", "deletionVector": {"storageType": "u"}}]},
        {"allFiles": [{"path": "s3://bucket/a.parquet"}]},
        {"allFiles": [{"path": "/a.parquet"}]},
        {"allFiles": []},
        {"allFiles": None},
        {"allFiles": [{"path": f"{n}.parquet"} for n in range(33)], "numFiles": 33},
    ],
    ids=str,
)
def test_files_that_plain_parquet_is_not_enough_for(other):
    whole = {
        "allFiles": [{"path": "run_date=2024-01-01/a%20b.parquet"}],
        "numFiles": 1,
        "protocol": {"minReaderVersion": 1},
        "metadata": {"schemaString": "{}"},
    }
    found = data_files(whole)
    assert found is not None
    assert found.paths == ("run_date=2024-01-01/a b.parquet",)
    assert data_files({**whole, **other}) is None


@pytest.mark.integration
def test_a_night_is_as_a_version_held_it_until_it_is_written_again(spark, warehouse):
    table, first, second = TABLES["topk_als"], date(2024, 1, 1), date(2024, 1, 2)
    made = store.replace_night(lists(spark, first, ("u", 1, "a", 3)), warehouse, table, first)
    later = store.replace_night(lists(spark, second, ("u", 1, "b", 3)), warehouse, table, second)
    assert store.night_is_as_of(spark, warehouse, table, made, first)
    assert store.night_is_as_of(spark, warehouse, table, later, second)
    store.replace_night(lists(spark, first, ("u", 1, "c", 3)), warehouse, table, first)
    assert not store.night_is_as_of(spark, warehouse, table, made, first)
    assert store.night_is_as_of(spark, warehouse, table, later, second)
    assert not store.night_is_as_of(spark, warehouse, table, 99, second)  # of a table that was deleted since
    store.append(lists(spark, first, ("v", 1, "c", 3)), warehouse, table)  # whose rows, its commit does not say
    assert not store.night_is_as_of(spark, warehouse, table, later, second)


def test_a_creation_that_was_killed_does_not_stand_in_the_way(spark, warehouse):
    log = Path(warehouse.table_path(tables.USER_INDEX)) / "_delta_log"
    log.mkdir(parents=True)
    (log / ".00000000000000000000.json.1234.tmp").write_text("half")
    assert store.find(spark, warehouse, tables.USER_INDEX) is None
    store.append(index(spark, ("a", 0)), warehouse, tables.USER_INDEX)
    assert rows(store.read(spark, warehouse, tables.USER_INDEX)) == [("a", 0)]


def test_fixed_tables_take_their_columns_only(spark, warehouse):
    extra = index(spark, ("a", 0)).withColumn("more", F.lit(1)).select("more", "idx", "id")
    store.append(extra, warehouse, tables.USER_INDEX)
    assert store.read(spark, warehouse, tables.USER_INDEX).columns == ["id", "idx"]
    with pytest.raises(Exception, match="NOT_NULL_CONSTRAINT_VIOLATED"):
        store.append(index(spark, (None, 1)), warehouse, tables.USER_INDEX)  # id is never null


@pytest.mark.integration
def test_open_tables_grow_columns(spark, warehouse):
    table = tables.ITEMS_TABLE
    store.upsert(spark.createDataFrame([("a", "old"), ("b", "B")], "id string, title string"), warehouse, table)
    newer = spark.createDataFrame([("a", "new", 2.5), ("c", "C", None)], "id string, title string, price double")
    store.upsert(newer, warehouse, table)
    found = store.read(spark, warehouse, table).orderBy("id").collect()
    assert [tuple(r) for r in found] == [("a", "new", 2.5), ("b", "B", None), ("c", "C", None)]
    with pytest.raises(InvariantError, match="not unique"):
        store.upsert(newer.union(newer), warehouse, table)
    assert store.read(spark, warehouse, table).count() == 3
    store.overwrite(spark.createDataFrame([("z", 1)], "id string, size int"), warehouse, table)
    assert store.read(spark, warehouse, table).columns == ["id", "size"]


@pytest.mark.integration
def test_a_table_of_an_earlier_version_gets_the_columns_that_came_since(spark, warehouse):
    table, eighth, ninth = TABLES["topk_als"], date(2011, 12, 8), date(2011, 12, 9)
    older = replace(table, columns=table.columns[:-1])
    store.replace_night(lists(spark, eighth, ("u", 1, "x", 0.5)), warehouse, older, eighth)
    assert store.read(spark, warehouse, older).columns == older.column_names
    column = replace(table.columns[-1], name="since", nullable=True)  # one that may be null is, until there is a write
    newer = store.read(spark, warehouse, replace(table, columns=(*older.columns, column)))
    assert [row["since"] for row in newer.collect()] == [None]
    assert newer.schema["since"].dataType.simpleString() == column.type
    store.replace_night(lists(spark, ninth, ("u", 1, "y", 0.5)), warehouse, table, ninth)
    assert rows(store.read(spark, warehouse, table)) == [
        (eighth, "u", 1, "x", 0.5, "v1", None),
        (ninth, "u", 1, "y", 0.5, "v1", "model"),
    ]


@pytest.mark.integration
def test_delete_where(spark, warehouse):
    store.append(index(spark, ("a", 0), ("b", 1)), warehouse, tables.USER_INDEX)
    store.delete_where(spark, warehouse, tables.USER_INDEX, F.col("id") == "a")
    assert rows(store.read(spark, warehouse, tables.USER_INDEX)) == [("b", 1)]


@pytest.mark.integration
def test_tables_say_what_they_are_and_every_reader_opens_them(spark, warehouse):
    import polars as pl
    from deltalake import QueryBuilder

    night = date(2011, 12, 9)
    for _ in range(2):  # the second write removes rows: no deletion vectors may come of it
        store.replace_night(lists(spark, night, ("u", 1, "x", 0.5)), warehouse, TABLES["topk_als"], night)
    path = warehouse.table_path(TABLES["topk_als"])
    fields = {f.name: f for f in spark.read.format("delta").load(path).schema.fields}
    assert {name: f.metadata["comment"] for name, f in fields.items()} == {
        c.name: c.comment for c in TABLES["topk_als"].columns
    }
    detail = spark.sql(f"DESCRIBE DETAIL delta.`{path}`").head()
    assert detail["description"] == TABLES["topk_als"].comment
    assert detail["partitionColumns"] == ["run_date"]
    assert (detail["minReaderVersion"], detail["tableFeatures"]) == (
        1,
        ["appendOnly", "checkConstraints", "invariants"],
    )
    assert pl.read_delta(path).select("item_id", "rank").rows() == [("x", 1)]
    answer = QueryBuilder().register("lists", DeltaTable(path)).execute("select item_id from lists where rank = 1")
    assert answer.read_all()["item_id"].to_pylist() == ["x"]


def test_every_declared_table_can_be_made(spark, warehouse):
    alike = {(t.columns, t.partition, str(t.checks), t.open): t for t in TABLES.values()}  # one of each kind
    for table in alike.values():
        store.create(spark, warehouse, table)
        made = DeltaTable(warehouse.table_path(table))
        assert [field.name for field in made.schema().fields] == table.column_names
        assert made.metadata().partition_columns == list(table.partition)
        assert care.missing_checks(table, made.metadata().configuration) == []  # Delta takes every condition
    assert all(set(t.key) | set(t.partition) <= set(t.column_names) for t in TABLES.values())
