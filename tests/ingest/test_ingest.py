"""Whole ingests into real tables. Every refusal must leave the warehouse as it was."""

import bz2
import gzip
import os
import shutil
import zipfile
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path

import polars as pl
import pytest

from sparkrec.errors import InvariantError, UserError
from sparkrec.ingest import IngestResult, ingest
from sparkrec.ingest import run as ingest_run
from sparkrec.ingest import write as ingest_write
from sparkrec.settings.config import Config, conf_dir
from sparkrec.settings.format_files import load_format
from sparkrec.settings.sections import IngestConfig, LogsConfig, WarehouseConfig
from sparkrec.warehouse import store
from sparkrec.warehouse.location import Warehouse
from sparkrec.warehouse.tables import EVENTS, FILES, ITEMS_TABLE, QUARANTINE, USERS_TABLE
from tests.cuts import PowerCutError, cut_before

HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"
DAY1, DAY2, DAY3 = date(2011, 1, 1), date(2011, 1, 2), date(2011, 1, 3)
FIRST = [
    "1,A,lamp,2,2011-01-01 10:00:00,1.5,17850.0,France",
    "1,A,lamp,2,2011-01-01 10:00:00,1.5,17850.0,France",  # twice
    '2,"B ""x"",\n😀",bed,1,2011-01-01 11:00:00,9,,Spain',  # anonymous
    "C3,A,lamp,-1,2011-01-01 12:00:00,1.5,17850.0,France",
    "4,A,lamp,-1,2011-01-01 12:00:00,1.5,17850.0,France",  # invalid
    "5,A,lamp,1,2011-01-02 00:00:00,2.5,13.0,France",  # after the night's day
]
SECOND = [
    "5,A,lamp,1,2011-01-02 00:00:00,2.5,13.0,France",  # in the table already
    "6,D,door,1,2011-01-02 10:00:00,4,13.0,Italy",
    "6,,door,1,2011-01-02 10:00:00,4,13.0,Italy",  # invalid
]


def write(folder, name, lines, header=HEADER):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")


def take_in(spark, logs, warehouse, run_date, fmt="invoices", items_path=None, timezone=None, **settings):
    config = Config(
        logs=LogsConfig(str(logs), fmt, items_path and str(items_path), timezone=timezone),
        warehouse=WarehouseConfig(path=str(warehouse)),
        ingest=IngestConfig(**settings),
    )
    return ingest(spark, config, load_format(fmt), "attempt", run_date)


def rows(warehouse, table, *columns):
    """The table's rows in an order of their own, times in UTC, read without a job of Spark."""
    found = pl.read_delta(str(warehouse / table.name)).select(columns).rows()
    plain = (tuple(v.replace(tzinfo=None) if isinstance(v, datetime) else v for v in row) for row in found)
    return sorted(plain, key=repr)


def as_an_earlier_version_noted(spark, warehouse):
    """Leaves out of the table ``files`` what an earlier version of the package did not have in it."""
    where, older = Warehouse(str(warehouse)), replace(FILES, columns=FILES.columns[:-3])
    noted = store.read(spark, where, FILES).select(*older.column_names).collect()
    shutil.rmtree(warehouse / FILES.name)
    store.append(spark.createDataFrame(noted, older.ddl), where, older)


def tree(folder):
    """Every file below a folder with its size and time of change."""
    return {str(p.relative_to(folder)): (p.stat().st_size, p.stat().st_mtime_ns) for p in Path(folder).rglob("*")}


@pytest.fixture(scope="module")
def first_night(spark, tmp_path_factory):
    """Logs and warehouse after the first night, and its account. Not to be changed."""
    base = tmp_path_factory.mktemp("night")
    write(base / "logs", "2011-01-01.csv", FIRST)
    write(base / "logs", "2011-01-02.csv", SECOND)
    (base / "logs" / "README.md").write_text("not a log")
    (base / "logs" / ".hidden.csv").write_text("not a log either")
    result = take_in(spark, base / "logs", base / "warehouse", DAY1)
    return base, result


@pytest.fixture
def copy(first_night, tmp_path):
    """A copy of that night to go on from."""
    shutil.copytree(first_night[0], tmp_path / "copy", copy_function=shutil.copy2)
    return tmp_path / "copy"


def test_the_rows_account_of_a_night(first_night):
    _, result = first_night
    assert (result.files_new, result.rows_read, result.rows_kept) == (1, 6, 4)
    assert (result.rows_quarantined, result.rows_duplicate) == (1, 1)
    assert result.reasons == {"quantity not above 0": 1}
    assert set(result.outputs) == {"events", "items", "users", "quarantine", "files"}


def test_the_tables_of_a_night(first_night):
    warehouse = first_night[0] / "warehouse"
    columns = ("user_id", "item_id", "event_type", "ts", "quantity", "price", "basket_id", "source", "event_date")
    source = "2011-01-01.csv"
    assert rows(warehouse, EVENTS, *columns) == sorted(
        [
            ("17850", "A", "purchase", datetime(2011, 1, 1, 10), 2.0, 1.5, "1", source, DAY1),
            (None, 'B "X",\n😀', "purchase", datetime(2011, 1, 1, 11), 1.0, 9.0, "2", source, DAY1),
            ("17850", "A", "cancellation", datetime(2011, 1, 1, 12), -1.0, 1.5, "C3", source, DAY1),
            ("13", "A", "purchase", datetime(2011, 1, 2), 1.0, 2.5, "5", source, DAY2),
        ],
        key=repr,
    )
    assert rows(warehouse, QUARANTINE, "raw", "reason", "source_file") == [(FIRST[4], "quantity not above 0", source)]
    items = rows(warehouse, ITEMS_TABLE, "id", "title", "price")
    assert items == [("A", "lamp", 2.5), ('B "X",\n😀', "bed", 9.0)]
    assert rows(warehouse, USERS_TABLE, "id", "country") == [("13", "France"), ("17850", "France")]
    assert [r[0] for r in rows(warehouse, FILES, "source", "sha256")] == [source]
    assert not (warehouse / "_staging").exists()


def test_the_same_night_again_writes_nothing(spark, first_night):
    base, _ = first_night
    before = tree(base)
    assert take_in(spark, base / "logs", base / "warehouse", DAY1) == IngestResult()
    assert tree(base) == before


def _gzip_cut(folder):
    line = b'{"reviewerID": "u", "asin": "%d", "overall": 5, "unixReviewTime": 1293840000}\n'
    packed = gzip.compress(b"".join(line % (i * 7919) for i in range(20000)))
    (folder / "cut.json.gz").write_bytes(packed[: len(packed) // 2])


def _csv_gzip_cut(folder):
    packed = gzip.compress(_many_lines())
    (folder / "cut.csv.gz").write_bytes(packed[: len(packed) // 2])


def _many_lines():
    return "\n".join([HEADER, *(FIRST[0].replace(",2,", f",{i},") for i in range(1, 9999))]).encode()


def _bz2_damaged(folder):
    packed = bz2.compress(_many_lines())
    (folder / "odd.csv.bz2").write_bytes(packed[:5000] + b"?!" + packed[5002:])


def _bz2_cut(folder):
    (folder / "cut.csv.bz2").write_bytes(bz2.compress(_many_lines())[:-5000])


def _zip_damaged(folder):
    write(folder, "a.csv", FIRST)
    with zipfile.ZipFile(folder / "odd.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.csv", _many_lines())
    packed = (folder / "odd.zip").read_bytes()
    (folder / "odd.zip").write_bytes(packed[:5000] + b"?!" + packed[5002:])


def _wrong_unit(folder):
    (folder / "wrong_ratings.dat").write_text("".join(f"1::{i}::3::1293840000000\n" for i in range(9)))


def _one_file_wrong(folder):
    write(folder, "good.csv", [FIRST[0].replace("1,A", f"{n},A", 1) for n in range(20)])
    write(folder, "wrong.csv", [FIRST[0], *(FIRST[0].replace("2011-01-01", f"0{n}.01.2011") for n in range(1, 7))])


def _no_item(folder):
    (folder / "noitem.json").write_text('{"reviewerID": "u", "overall": 5, "unixReviewTime": 1293840000}\n' * 3)


REFUSALS = {
    "missing path": ("invoices", lambda f: f.rmdir(), DAY1, r"no such log path: .*bad"),
    "no file": ("invoices", lambda f: (f / "LICENSE").write_text("x"), DAY1, None),
    "missing column": (
        "invoices",
        lambda f: write(f, "m.csv", ["1,2"], header="InvoiceNo,Quantity"),
        DAY1,
        r"lacks column CustomerID: .*m\.csv",
    ),
    "truncated gzip": ("reviews", _gzip_cut, DAY1, r"cannot be read: .*cut\.json\.gz"),
    "truncated gzip of CSV": ("invoices", _csv_gzip_cut, DAY1, r"cannot be read: .*cut\.csv\.gz"),
    "no gzip at all": (
        "invoices",
        lambda f: (f / "n.csv.gz").write_text("a,b\n"),
        DAY1,
        r"cannot be read: .*n\.csv\.gz",
    ),
    "damaged bzip2": ("invoices", _bz2_damaged, DAY1, r"cannot be read: .*odd\.csv\.bz2"),
    "truncated bzip2": ("invoices", _bz2_cut, DAY1, r"cannot be read: .*cut\.csv\.bz2"),
    "damaged zip": ("invoices", _zip_damaged, DAY1, r"cannot be read: .*odd\.zip \(it is damaged"),
    "wrong unit": (
        "ratings",
        _wrong_unit,
        DAY1,
        r'9 of 9 rows are invalid, mostly: ts in the future \(wrong unit\?\) \(9\), e\.g\. "1293840000000":',
    ),
    "no row has the field": ("reviews", _no_item, DAY1, r"no row of the log file has asin: .*noitem\.json"),
    "one file wrong": (
        "invoices",
        _one_file_wrong,
        DAY1,
        r'6 of 7 rows of a file .*mostly: bad ts \(6\), e\.g\. "01\.01\.2011 10:00:00", "02.*", "03.*": .*wrong\.csv',
    ),
    "empty day": ("invoices", lambda f: write(f, "a.csv", FIRST), DAY3, r"a day without events: 2011-01-03"),
}


@pytest.mark.integration
@pytest.mark.parametrize("case", REFUSALS)
def test_a_refusal_is_one_line_and_leaves_the_tables_as_they_were(spark, first_night, tmp_path, case):
    fmt, make, day, message = REFUSALS[case]
    (tmp_path / "bad").mkdir()
    make(tmp_path / "bad")
    before = tree(first_night[0] / "warehouse")
    if message is None:  # nothing to take in any more: not an error after the first night
        assert take_in(spark, tmp_path / "bad", first_night[0] / "warehouse", day, fmt=fmt) == IngestResult()
        message, warehouse = "no log file for this night", tmp_path / "none"
    else:
        warehouse = first_night[0] / "warehouse"
    with pytest.raises(UserError, match=message) as caught:
        take_in(spark, tmp_path / "bad", warehouse, day, fmt=fmt)
    assert "\n" not in str(caught.value)
    assert tree(first_night[0] / "warehouse") == before


def test_a_warehouse_that_cannot_be_written(spark, first_night, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="warehouse cannot be written"):
        take_in(spark, first_night[0] / "logs", tmp_path / "file" / "warehouse", DAY1)


def test_a_night_without_events_may_be_allowed(spark, first_night):
    base, _ = first_night
    none = take_in(spark, base / "logs" / "2011-01-01.csv", base / "warehouse", DAY3, allow_empty_day=True)
    assert none.files_new == 0


@pytest.mark.integration
def test_files_without_rows_are_files_all_the_same(spark, tmp_path):
    logs, warehouse = tmp_path / "logs", tmp_path / "warehouse"
    write(logs, "empty.csv", [], header="")
    write(logs, "header.csv", [])
    (logs / "packed.csv.gz").write_bytes(gzip.compress(b""))
    with pytest.raises(UserError, match="a day without events: 2011-01-01"):
        take_in(spark, logs, warehouse, DAY1)
    result = take_in(spark, logs, warehouse, DAY1, allow_empty_day=True)
    assert (result.files_new, result.files_empty, result.rows_read) == (3, 3, 0)
    assert [rows(warehouse, table, "*") for table in (EVENTS, QUARANTINE, ITEMS_TABLE, USERS_TABLE)] == [[]] * 4
    (logs / "packed.csv.gz").unlink()
    (logs / "empty.csv").write_text("")
    assert len(rows(warehouse, FILES, "source")) == 3
    write(logs, "2011-01-02.csv", SECOND)
    assert take_in(spark, logs, warehouse, DAY2, on_changed_file="replace").rows_kept == 2


@pytest.mark.integration
def test_the_day_of_a_night_is_of_the_logs_time_zone(spark, first_night, tmp_path):
    """In Kiritimati the first of January ends at 10:00 UTC, when the first of these events happens."""
    log, there = first_night[0] / "logs" / "2011-01-01.csv", {"timezone": "Pacific/Kiritimati"}
    for warehouse in (tmp_path / "none", first_night[0] / "warehouse"):  # not taken in yet, and taken in
        with pytest.raises(UserError, match="a day without events: 2011-01-01"):
            take_in(spark, log, warehouse, DAY1, **there)
    assert take_in(spark, log, first_night[0] / "warehouse", DAY2, **there) == IngestResult()


@pytest.mark.integration
def test_a_touched_file_is_not_read_again_and_a_changed_one_is_refused_or_replaced(spark, copy):
    log = copy / "logs" / "2011-01-01.csv"
    os.utime(log, (1, 1))
    assert take_in(spark, copy / "logs", copy / "warehouse", DAY1) == IngestResult()
    log.write_text(log.read_text().replace("17850.0", "17851.0"))
    before = tree(copy / "warehouse")
    with pytest.raises(UserError, match=r"changed since it was taken in: .*2011-01-01\.csv"):
        take_in(spark, copy / "logs", copy / "warehouse", DAY1)
    assert tree(copy / "warehouse") == before
    as_an_earlier_version_noted(spark, copy / "warehouse")
    again = take_in(spark, copy / "logs", copy / "warehouse", DAY1, on_changed_file="replace")
    assert (again.files_new, again.rows_read, again.rows_kept, again.rows_duplicate) == (1, 6, 4, 1)
    assert rows(copy / "warehouse", FILES, "source", "rows_refused") == [("2011-01-01.csv", 1)]
    assert [r[0] for r in rows(copy / "warehouse", EVENTS, "user_id")] == ["13", "17851", "17851", None]
    assert len(rows(copy / "warehouse", QUARANTINE, "raw")) == 1
    assert take_in(spark, copy / "logs", copy / "warehouse", DAY1) == IngestResult()


@pytest.mark.integration
def test_refused_rows_are_read_again_when_the_format_is_mended_and_on_demand(spark, copy, monkeypatch):
    source, logs, warehouse = "2011-01-01.csv", copy / "logs", copy / "warehouse"
    shipped = (conf_dir() / "formats" / "invoices.yaml").read_text(encoding="utf-8")
    mended = copy / "mended.yaml"
    mended.write_text(shipped.replace("  - {field: quantity, above: 0, unless: cancellation}\n", ""))
    result = take_in(spark, logs, warehouse, DAY1, fmt=str(mended))
    assert (result.files_new, result.rows_kept, result.rows_quarantined) == (1, 5, 0)
    assert rows(warehouse, QUARANTINE, "raw") == []
    assert rows(warehouse, FILES, "source", "rows_refused") == [(source, 0)]
    before = tree(copy)
    assert take_in(spark, logs, warehouse, DAY1, fmt=str(mended)) == IngestResult()
    with pytest.raises(UserError, match=r"no such file to read again: nowhere\.csv"):
        take_in(spark, logs, warehouse, DAY1, again=["nowhere.csv"])
    assert tree(copy) == before  # the shipped format refuses a row of the file, but nobody asks for it
    again = take_in(spark, logs, warehouse, DAY1, again=[source])
    assert (again.files_new, again.rows_kept, again.reasons) == (1, 4, {"quantity not above 0": 1})
    assert rows(warehouse, FILES, "source", "rows_refused") == [(source, 1)]
    with monkeypatch.context() as patch:
        cut_before(patch, 1)  # the attempt has begun to read the file again
        with pytest.raises(PowerCutError):
            take_in(spark, logs, warehouse, DAY1, again=[source])
    whole = take_in(spark, logs, warehouse, DAY1)  # though nobody asks for it any more
    assert (whole.files_new, whole.rows_kept, len(rows(warehouse, EVENTS, "ts"))) == (1, 4, 4)


@pytest.mark.integration
def test_what_another_file_still_holds_outlives_the_correction_of_the_file_that_kept_it(spark, copy):
    first, second = (copy / "logs" / f"2011-01-0{day}.csv" for day in (1, 2))
    take_in(spark, copy / "logs", copy / "warehouse", DAY2)
    shares = rows(copy / "warehouse", FILES, "source", "shares_with")
    assert shares == [(first.name, []), (second.name, [first.name])]
    write(copy / "logs", first.name, FIRST[:5])  # without what the second has too
    second.rename(copy / "elsewhere.csv")
    before = tree(copy / "warehouse")
    with pytest.raises(UserError, match=r"logs are gone that share events .*1 files, e\.g\. 2011-01-02\.csv"):
        take_in(spark, copy / "logs", copy / "warehouse", DAY1, on_changed_file="replace")
    assert tree(copy / "warehouse") == before
    (copy / "elsewhere.csv").rename(second)
    again = take_in(spark, copy / "logs", copy / "warehouse", DAY1, on_changed_file="replace")
    assert (again.files_new, again.rows_kept, again.rows_quarantined) == (2, 5, 2)
    kept = [("1", first.name), ("2", first.name), ("5", second.name), ("6", second.name), ("C3", first.name)]
    assert rows(copy / "warehouse", EVENTS, "basket_id", "source") == kept
    assert rows(copy / "warehouse", FILES, "source", "shares_with") == [(first.name, []), (second.name, [])]


@pytest.mark.integration
def test_the_next_night_reads_only_the_new_file_wherever_it_broke_off_before(spark, copy, monkeypatch):
    """Broken off before the attributes, run again and broken off before the files are noted, and run a third time."""

    def broken(*_):
        raise OSError("power cut")

    expected = [(b, f"2011-01-0{d}.csv") for b, d in (("1", 1), ("2", 1), ("5", 1), ("6", 2), ("C3", 1))]
    for where, crash in ((ingest_write, "write_attributes"), (ingest_run, "write_files")):
        with monkeypatch.context() as patch:
            patch.setattr(where, crash, broken)
            with pytest.raises(OSError, match="power cut"):
                take_in(spark, copy / "logs", copy / "warehouse", DAY2)
        assert not (copy / "warehouse" / "_staging").exists()
        assert len(rows(copy / "warehouse", QUARANTINE, "raw")) == 2  # the earlier attempt's row is gone
        assert [r[0] for r in rows(copy / "warehouse", FILES, "source")] == ["2011-01-01.csv"]
    assert rows(copy / "warehouse", EVENTS, "basket_id", "source") == expected  # that count when the file is noted
    result = take_in(spark, copy / "logs", copy / "warehouse", DAY2)
    assert (result.files_new, result.rows_read, result.rows_kept) == (1, 3, 1)
    assert (result.rows_quarantined, result.rows_duplicate) == (1, 1)
    assert [r[0] for r in rows(copy / "warehouse", FILES, "source")] == ["2011-01-01.csv", "2011-01-02.csv"]
    assert rows(copy / "warehouse", EVENTS, "basket_id", "source") == expected
    assert len(rows(copy / "warehouse", QUARANTINE, "raw")) == 2
    assert rows(copy / "warehouse", USERS_TABLE, "id", "country") == [("13", "Italy"), ("17850", "France")]


def test_rows_lost_between_reading_and_judging_are_noticed(first_night):
    kept = ingest_run.Kept(None, 3, 1)
    with pytest.raises(InvariantError, match=r"6 rows read, but 3 kept . 1 quarantined . 1 duplicates"):
        ingest_run.account(ingest_run.Staged(None, ("f",), 6), ingest_run.Verdict({}, {"x": 1}, {}), kept, 1)


@pytest.mark.integration
def test_attribute_files_names_with_odd_characters_and_duplicates_across_files(spark, tmp_path):
    logs = tmp_path / "lo gs é%20😀"
    logs.mkdir()
    (logs / "ratings [a]{1}.dat").write_text("1::7::8::1293876000\n2::7::8::1293876000\n")
    (logs / "ratings+b%25 *.dat").write_text("1::7::8::1293876000\n1::7::9::1293876000\n1::7::9::1293876000\n")
    (tmp_path / "movies.dat").write_text("7::Z (1999)::Drama\n9::Never rated (2001)::War\n::x::y\n")
    movies = tmp_path / "movies.dat"
    result = take_in(spark, logs, tmp_path / "w", DAY1, fmt="ratings", items_path=movies)
    assert (result.files_new, result.rows_read, result.rows_kept, result.rows_duplicate) == (2, 5, 3, 2)
    items = rows(tmp_path / "w", ITEMS_TABLE, "id", "title", "year", "genres")
    assert items == [("7", "Z (1999)", 1999, "Drama"), ("9", "Never rated (2001)", 2001, "War")]
    assert rows(tmp_path / "w", QUARANTINE, "raw", "source_file") == [("::x::y", "@items/movies.dat")]
    noted = {name: rest for name, *rest in rows(tmp_path / "w", FILES, "source", "rows_refused", "shares_with")}
    a, b = "ratings [a]{1}.dat", "ratings+b%25 *.dat"
    assert noted == {a: [0, []], b: [0, [a]], "@items/movies.dat": [1, []]}
    sources = {"ratings [a]{1}.dat", "ratings+b%25 *.dat", "@items/movies.dat"}
    assert {r[0] for r in rows(tmp_path / "w", FILES, "source")} == sources
    (tmp_path / "movies.dat").write_text("7::Better (1999)::Drama\n")
    again = take_in(spark, logs, tmp_path / "w", DAY1, fmt="ratings", items_path=movies)
    assert (again.files_new, again.rows_read) == (0, 0)
    assert rows(tmp_path / "w", ITEMS_TABLE, "id", "title")[0] == ("7", "Better (1999)")
    assert rows(tmp_path / "w", QUARANTINE, "raw") == []


@pytest.mark.integration
def test_a_delta_table_as_a_log(spark, tmp_path):
    table = str(tmp_path / "log")
    first = spark.sql("select 1 as user_id, 2 as item_id, 1293876000 as ts, 's' as session_id")
    first.write.format("delta").save(table)
    assert take_in(spark, table, tmp_path / "w", DAY1, fmt="sessions").rows_kept == 1
    first.withColumn("item_id", first.item_id + 1).write.format("delta").mode("append").save(table)
    result = take_in(spark, table, tmp_path / "w", DAY1, fmt="sessions")
    assert (result.files_new, result.rows_read, result.rows_kept) == (1, 1, 1)
    assert rows(tmp_path / "w", EVENTS, "item_id", "log_session_id") == [("2", "s"), ("3", "s")]


@pytest.mark.slow
@pytest.mark.usefixtures("generated_code")
def test_the_real_invoices(spark, real_data, tmp_path):
    result = take_in(spark, real_data / "online_retail", tmp_path / "w", date(2011, 12, 9))
    assert (result.files_new, result.rows_read, result.rows_quarantined) == (305, 541_909, 2_517)
    events = store.read(spark, Warehouse(str(tmp_path / "w")), EVENTS)
    protocol = events.where("user_id is not null and event_type = 'purchase' and event_date < '2011-11-09'")
    counts = protocol.selectExpr("count(*)", "count(distinct user_id)", "count(distinct item_id)").head()
    # 331,431 rows without what occurs again; one pair differs in its description alone, which is no part of an event.
    assert tuple(counts) == (327_560, 4_067, 3_624)
    assert events.select("item_id").distinct().count() == 3_828  # 3,938 as they are written: 110 codes in two cases
