"""Logs from tables: what a night makes of a table that changed is what a first night makes of it as it is."""

import random
import shutil
from datetime import date, datetime
from itertools import count

import pytest

from sparkrec.errors import UserError
from sparkrec.ingest import IngestResult
from sparkrec.pipeline.nightly import Choice, plan_nightly, run_nightly
from sparkrec.settings.config import load_config
from sparkrec.warehouse.tables import EVENTS, QUARANTINE, RUNS
from tests.cuts import PowerCutError, cut_before
from tests.ingest.log_tables import (
    COLUMNS,
    DAY,
    FIRST,
    append,
    assert_as_a_first_night,
    content,
    do,
    form,
    frame,
    items,
    make,
    planned,
    row,
    rows,
    sources,
    take_in,
)

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def first_night(spark, tmp_path_factory):
    """A folder with a Delta table with a feed that a night has taken in, and a copy of it as it is then."""
    folder = tmp_path_factory.mktemp("shop")
    form(folder)
    make(spark, folder / "log", FIRST)
    take_in(spark, folder, folder / "log")
    copy = tmp_path_factory.mktemp("copy") / "shop"
    shutil.copytree(folder, copy)
    return folder, copy


@pytest.fixture
def shop(spark, first_night):
    """That folder, as it was after the night; each test may change it."""
    folder, copy = first_night
    shutil.rmtree(folder)
    shutil.copytree(copy, folder)
    spark._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()
    return folder


def test_a_whole_table_gives_what_its_rows_give_as_parquet(spark, tmp_path):
    form(tmp_path)
    make(spark, tmp_path / "log", FIRST)
    frame(spark, FIRST).write.parquet(str(tmp_path / "files"))
    parquet = {"readers": {"kind": "parquet", "files": "*.parquet"}}
    done = take_in(spark, tmp_path, tmp_path / "log")
    (tmp_path / "beside").mkdir()
    other = take_in(spark, tmp_path, path=tmp_path / "files", fmt=form(tmp_path / "beside", **parquet), warehouse="p")
    assert (done.rows_read, done.rows_kept, done.rows_quarantined, done.rows_duplicate) == (5, 3, 1, 1)
    assert (done.rows_read, done.rows_kept, done.reasons) == (other.rows_read, other.rows_kept, other.reasons)
    assert content(tmp_path) == content(tmp_path, "p")
    assert {name.rsplit("/", 1)[-1] for (name,) in rows(tmp_path, QUARANTINE, "source_file")} == {"log@1"}
    assert take_in(spark, tmp_path, tmp_path / "log") == IngestResult()


def test_what_is_appended_is_read_and_nothing_else(spark, shop):
    append(spark, shop / "log", [row("e"), row("a")])
    append(spark, shop / "log", [row("f")])
    assert planned(spark, shop, shop / "log") == 1
    done = take_in(spark, shop, shop / "log")
    assert (done.files_new, done.rows_read, done.rows_kept, done.rows_duplicate, done.rows_removed) == (1, 3, 2, 1, 0)
    assert sources(shop) == ["log@1", "log@3"]
    assert_as_a_first_night(spark, shop, shop / "log")


def test_rows_that_go_and_change_at_the_source_do_so_in_the_events(spark, shop):
    table = shop / "log"
    do(spark, table, "delete from {} where item = 'b'")
    do(spark, table, "update {} set n = 5 where item = 'd'")
    do(spark, table, "update {} set n = 2 where item = 'c'")  # refused so far
    do(
        spark, table, "merge into {} t using (select 'a' as item, 'v' as user union all select 'x', 'v') s on "
        "t.item = s.item when not matched then insert (user, item, at) values (s.user, s.item, timestamp'2024-01-01')",
    )  # fmt: skip
    done = take_in(spark, shop, table)
    assert (done.rows_read, done.rows_kept, done.rows_quarantined, done.rows_removed) == (3, 3, 0, 3)
    assert items(shop) == ["a", "c", "d", "x"]
    assert_as_a_first_night(spark, shop, table)
    assert take_in(spark, shop, table) == IngestResult()


def test_of_two_equal_rows_that_one_is_deleted_of_one_stays(spark, shop):
    table = shop / "log"
    do(spark, table, "update {} set title = 'other' where item = 'a'")  # an attribute: both are new rows
    append(spark, table, [row("b", title="second")])
    do(spark, table, "delete from {} where item = 'b' and title = 'second'")
    done = take_in(spark, shop, table)
    assert items(shop) == ["a", "b", "d"]
    assert done.rows_duplicate == 1
    assert_as_a_first_night(spark, shop, table)


def test_an_update_of_what_the_format_does_not_read_reads_nothing(spark, shop):
    do(spark, shop / "log", "update {} set id = 'marked'")
    done = take_in(spark, shop, shop / "log")
    assert (done.rows_kept, done.rows_removed) == (0, 1)  # the refused row, whose text is another one
    assert_as_a_first_night(spark, shop, shop / "log")


def test_a_nights_stage_says_what_went(spark, shop):
    do(spark, shop / "log", "delete from {} where item = 'b'")
    append(spark, shop / "log", [row("e")])
    keys = {"warehouse.path": shop / "w", "logs.table": shop / "log", "logs.format": shop / "form.yaml"}
    config, only = load_config(None, [f"{key}={value}" for key, value in keys.items()]), Choice(only=("ingest",))
    assert plan_nightly(config, DAY.isoformat(), only, spark=spark) == [("ingest", True, "1 new log files")]
    assert run_nightly(config, DAY.isoformat(), only, spark=spark) == 0
    assert plan_nightly(config, DAY.isoformat(), only, spark=spark) == [("ingest", False, "no new log file")]
    columns = ("rows_in", "rows_out", "message")
    assert rows(shop, RUNS, *columns) == [(1, 1, "1 new files, 1 rows removed as the table's went")]


def test_care_of_the_table_reads_nothing(spark, shop):
    table = shop / "log"
    append(spark, table, [row("e")])
    take_in(spark, shop, table)
    before = content(shop)
    do(spark, table, "optimize {}")
    do(spark, table, "alter table {} set tblproperties ('delta.deletedFileRetentionDuration' = 'interval 0 hours')")
    key = "spark.databricks.delta.retentionDurationCheck.enabled"
    spark.conf.set(key, "false")
    try:
        do(spark, table, "vacuum {} retain 0 hours")
    finally:
        spark.conf.unset(key)
    assert planned(spark, shop, table) == 0
    assert take_in(spark, shop, table) == IngestResult()
    assert content(shop) == before
    append(spark, table, [row("f")])
    assert take_in(spark, shop, table).rows_read == 1
    assert_as_a_first_night(spark, shop, table)


def test_rows_appended_and_compacted_since(spark, shop):
    append(spark, shop / "log", [row("e")])
    do(spark, shop / "log", "optimize {}")
    assert take_in(spark, shop, shop / "log").rows_read == 1
    assert_as_a_first_night(spark, shop, shop / "log")


@pytest.mark.parametrize("feed", [False, "since later"])
def test_without_a_feed_rows_that_go_have_the_table_read_whole(spark, tmp_path, feed):
    form(tmp_path)
    table = tmp_path / "log"
    make(spark, table, FIRST, feed=False)
    take_in(spark, tmp_path, table)
    append(spark, table, [row("e")])
    assert take_in(spark, tmp_path, table).rows_read == 1
    do(spark, table, "delete from {} where item = 'b'")
    if feed:
        do(spark, table, "alter table {} set tblproperties ('delta.enableChangeDataFeed' = 'true')")
    done = take_in(spark, tmp_path, table)
    assert (done.files_new, done.rows_read) == (1, 5)
    assert items(tmp_path) == ["a", "d", "e"]
    assert len(sources(tmp_path)) == 1
    assert_as_a_first_night(spark, tmp_path, table)
    assert take_in(spark, tmp_path, table) == IngestResult()


def another_table(spark, table):
    shutil.rmtree(table)
    make(spark, table, [row("z")])
    append(spark, table, [row("y")])


def an_older_copy(spark, table):
    shutil.rmtree(table)
    shutil.copytree(table.parent / "copy", table)
    do(spark, table, "delete from {} where item = 'a'")
    append(spark, table, [row("y")])


def an_older_version(spark, table):
    do(spark, table, "restore table {} to version as of 1")


def no_history(spark, table):
    append(spark, table, [row("y")])
    for version in range(3):
        (table / "_delta_log" / f"{version:020d}.json").unlink()


def no_files_of_changes(spark, table):
    do(spark, table, "update {} set n = 3 where item = 'b'")
    shutil.rmtree(table / "_change_data")


CHANGES = (another_table, an_older_copy, an_older_version, no_history, no_files_of_changes)


@pytest.mark.parametrize(
    "change",
    CHANGES,
    ids=lambda f: f.__name__,
)
def test_a_table_that_is_not_what_it_was(spark, tmp_path, change):
    form(tmp_path)
    table = tmp_path / "log"
    make(spark, table, FIRST)
    shutil.copytree(table, tmp_path / "copy")
    append(spark, table, [row("e")])
    take_in(spark, tmp_path, table)
    if change is no_history:  # which needs a checkpoint
        do(spark, table, "alter table {} set tblproperties ('delta.checkpointInterval' = '1')")
    change(spark, table)
    assert take_in(spark, tmp_path, table).files_new == 1
    assert_as_a_first_night(spark, tmp_path, table)


def test_another_format_and_the_users_word_read_the_table_whole(spark, shop):
    table = shop / "log"
    form(shop, checks=[])
    assert take_in(spark, shop, table).rows_read == 5
    assert items(shop) == ["a", "b", "c", "d"]
    assert_as_a_first_night(spark, shop, table)
    assert take_in(spark, shop, table, again=[str(table)]).rows_read == 5
    with pytest.raises(UserError, match="no such file to read again: gone"):
        take_in(spark, shop, table, again=["gone"])


@pytest.mark.slow
@pytest.mark.parametrize("change", ["append", "delete", "whole"])
def test_a_rerun_after_kills_at_every_write(spark, tmp_path, monkeypatch, change):
    form(tmp_path, duplicates="keep")
    table = tmp_path / "log"
    make(spark, table, FIRST, feed=change != "whole")
    take_in(spark, tmp_path, table)
    append(spark, table, [row("e")] if change == "append" else [row("a"), row("e")])
    if change != "append":
        do(spark, table, "delete from {} where item in ('b', 'c')")
    for step in count():
        with monkeypatch.context() as patch:
            cut_before(patch, step)
            try:
                take_in(spark, tmp_path, table)
                break
            except PowerCutError:
                continue
    assert step >= 2
    assert_as_a_first_night(spark, tmp_path, table)
    assert take_in(spark, tmp_path, table) == IngestResult()


def operation(spark, table, draw):
    """One random change of the table."""
    some = [row(draw.choice("abc"), draw.choice([-1.0, 1.0, 2.0]), day=draw.choice([1, 2]), id_=draw.choice("12"))
            for _ in range(draw.choice([1, 2, 4]))]  # fmt: skip
    item = draw.choice("abc")
    kind = draw.choice(["append", "append", "delete", "update", "merge", "optimize", "restore"])
    if kind == "append":
        append(spark, table, some)
    elif kind == "delete":
        do(spark, table, f"delete from {{}} where item = '{item}' and n > 0 and id = '{draw.choice('12')}'")
    elif kind == "update":
        do(spark, table, f"update {{}} set n = n + 1 where item = '{item}'")
    elif kind == "merge":
        values = f"select '{item}' as item, 3.0D as n"
        do(spark, table, f"merge into {{}} t using ({values}) s on t.item = s.item and t.n = 1 "
           "when matched then update set t.n = s.n when not matched then "
           "insert (item, at, n) values (s.item, timestamp'2024-01-01 01:00:00', s.n)")  # fmt: skip
    elif kind == "optimize":
        do(spark, table, "optimize {}")
    else:
        do(spark, table, "restore table {} to version as of 1")
    return kind


@pytest.mark.slow
@pytest.mark.parametrize("equal", ["drop", "keep", "add"])
def test_any_changes_give_what_a_first_night_gives(spark, tmp_path, equal):
    seed = {"drop": 1, "keep": 2, "add": 3}[equal]
    draw, table = random.Random(seed), tmp_path / "log"
    form(tmp_path, duplicates=equal)
    make(spark, table, [row("a", id_="1"), row("a", id_="1"), row("b", id_="2"), row("c", n=-1.0, id_="1")])
    take_in(spark, tmp_path, table)
    for _ in range(2):
        done = [operation(spark, table, draw) for _ in range(3)]
        take_in(spark, tmp_path, table, allow_empty_day=True)
        shutil.rmtree(tmp_path / "scratch", ignore_errors=True)
        take_in(spark, tmp_path, table, warehouse="scratch", allow_empty_day=True)
        assert content(tmp_path) == content(tmp_path, "scratch"), done


def test_an_update_of_a_row_with_an_id(spark, tmp_path):
    form(tmp_path, event_id={"columns": "id"})
    table = tmp_path / "log"
    make(spark, table, [row("a", id_="1"), row("b", id_="1", day=2), row("c", id_="2")])
    take_in(spark, tmp_path, table)
    do(spark, table, "update {} set item = 'x' where item = 'c'")
    do(spark, table, "delete from {} where item = 'a'")
    done = take_in(spark, tmp_path, table)
    assert (items(tmp_path), done.rows_removed) == (["b", "x"], 2)
    assert_as_a_first_night(spark, tmp_path, table)


def test_a_table_that_files_were_before(spark, tmp_path):
    """Their events stay; the table's are duplicates, and count as often as the one has most of them."""
    frame(spark, FIRST).write.parquet(str(tmp_path / "files"))
    keep = {"duplicates": "keep"}
    fmt = form(tmp_path, readers={"kind": "parquet", "files": "*.parquet"}, **keep)
    take_in(spark, tmp_path, path=tmp_path / "files", fmt=fmt)
    form(tmp_path, **keep)
    table = tmp_path / "log"
    make(spark, table, [*FIRST, row("e")])
    done = take_in(spark, tmp_path, table)
    assert (done.rows_kept, done.rows_duplicate) == (1, 4)
    append(spark, table, [row("a"), row("b")])
    do(spark, table, "delete from {} where item in ('d', 'e')")
    take_in(spark, tmp_path, table)
    assert items(tmp_path) == ["a", "a", "a", "b", "b", "d"]


def test_times_without_a_zone_are_on_the_clocks_of_the_log(spark, tmp_path):
    """London's clocks are set forward on 31 March: what was 01:00 in UTC is 02:00 there."""
    fmt = {"timezone": "Europe/London"}
    form(tmp_path, **fmt)
    local = spark.sql("select 'u' as user, 'a' as item, timestamp_ntz'2024-03-30 12:00:00' as at, 1.0D as n, 't' title "
                      "union all select 'u', 'a', timestamp_ntz'2024-03-31 12:00:00', 1.0D, 't'")  # fmt: skip
    table, day = tmp_path / "log", date(2024, 3, 31)
    local.write.format("delta").option("delta.enableChangeDataFeed", "true").save(str(table))
    take_in(spark, tmp_path, table, run_date=day)
    times = [at.replace(tzinfo=None) for (at,) in rows(tmp_path, EVENTS, "ts")]
    assert times == [datetime(2024, 3, 30, 12), datetime(2024, 3, 31, 11)]
    do(spark, table, "update {} set item = 'b' where at > timestamp_ntz'2024-03-31 00:00:00'")
    done = take_in(spark, tmp_path, table, run_date=day)
    assert (items(tmp_path), done.rows_removed, done.rows_kept) == (["a", "b"], 1, 1)


@pytest.fixture
def schema(spark, tmp_path):
    """A schema of the session's catalog."""
    spark.sql(f"create schema shop location '{tmp_path / 'catalog'}'")
    yield "shop"
    spark.sql("drop schema shop cascade")


def test_a_delta_table_of_a_catalog(spark, tmp_path, schema):
    form(tmp_path)
    make(spark, tmp_path / "a table", FIRST)
    spark.catalog.createTable("shop.log", path=str(tmp_path / "a table"), source="delta")
    assert take_in(spark, tmp_path, "shop.log").rows_read == 5
    append(spark, tmp_path / "a table", [row("e")])
    assert take_in(spark, tmp_path, "shop.log").rows_read == 1
    spark.sql("delete from shop.log where item = 'b'")
    assert take_in(spark, tmp_path, "shop.log").rows_removed == 1
    assert sources(tmp_path) == ["shop.log@1", "shop.log@2", "shop.log@3"]
    assert_as_a_first_night(spark, tmp_path, "shop.log")


def test_partitions_of_another_table(spark, tmp_path, schema):
    def write(day, *written):
        frame(spark, written).createOrReplaceTempView("written")
        spark.sql(f"insert overwrite shop.log partition (dt = '{day}') select * from written")

    form(tmp_path)
    where = f"using parquet partitioned by (dt) location '{tmp_path / 'log'}'"
    spark.sql(f"create table shop.log ({COLUMNS}, dt string) {where}")
    for day, written in (
        ("2024-01-01", FIRST),
        ("2023-12-31", [row("a"), row("x")]),
        ("2024-01-02", [row("late", day=2)]),
    ):
        write(day, *written)
    done = take_in(spark, tmp_path, "shop.log")
    assert (done.files_new, done.rows_read) == (2, 7)
    assert sources(tmp_path) == ["dt=2023-12-31", "dt=2024-01-01"]
    assert take_in(spark, tmp_path, "shop.log") == IngestResult()
    write("2024-01-01", row("a"), row("e"))
    done = take_in(spark, tmp_path, "shop.log")
    assert (done.files_new, done.rows_read, items(tmp_path)) == (1, 2, ["a", "e", "x"])
    shutil.rmtree(tmp_path / "log" / "dt=2023-12-31")
    take_in(spark, tmp_path, "shop.log")  # which kept an event that the other has as well
    assert (items(tmp_path), sources(tmp_path)) == (["a", "e"], ["dt=2024-01-01"])
    assert take_in(spark, tmp_path, "shop.log", run_date=date(2024, 1, 2)).rows_read == 1


def test_a_view_is_known_by_its_rows(spark, tmp_path, schema):
    form(tmp_path, readers={"kind": "parquet"})
    make(spark, tmp_path / "log", FIRST)
    spark.sql(f"create view shop.seen as select * from delta.`{tmp_path / 'log'}` where item <> 'd'")
    assert take_in(spark, tmp_path, "shop.seen").rows_read == 4
    append(spark, tmp_path / "log", [row("d")])
    assert take_in(spark, tmp_path, "shop.seen") == IngestResult()
    append(spark, tmp_path / "log", [row("e")])
    assert take_in(spark, tmp_path, "shop.seen").rows_read == 5
    assert items(tmp_path) == ["a", "b", "e"]


def test_bad_input_is_one_line_and_changes_nothing(spark, shop, schema):
    before = content(shop)
    no_rows, no_column = shop / "no rows", shop / "no column"
    make(spark, no_rows, [])
    spark.sql("select 'u' as user, current_timestamp() as at").write.format("delta").save(str(no_column))
    fails = {
        "/no/such/table": "no Delta table: logs.table=/no/such/table",
        str(shop): "no Delta table",
        "shop.none": "no such log table: logs.table=shop.none",
        "shop.no; drop table x": "no such log table",
        str(no_rows): "the log table has no rows",
        str(no_column): "log table lacks column item: .*no column .*the table has user, at",
    }
    for table, line in fails.items():
        with pytest.raises(UserError, match=line) as error:
            take_in(spark, shop, table)
        assert "\n" not in str(error.value)
    for changes in ({"order": "row"}, {"readers": {"kind": "csv"}, "decimal": ","}):
        form(shop, **changes)
        with pytest.raises(UserError, match=r"does not go with logs\.table"):
            take_in(spark, shop, shop / "log")
    assert content(shop) == before
