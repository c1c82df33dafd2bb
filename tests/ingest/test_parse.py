"""Rows of real files, read and parsed, without tables."""

import dataclasses
import json
from datetime import date, datetime, timedelta
from functools import reduce

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import functions as F

from sparkrec.errors import UserError
from sparkrec.ingest.attributes import changes, latest, one_per_id, parse_attribute_file
from sparkrec.ingest.hadoop import FileSystem
from sparkrec.ingest.log_files import reader_for
from sparkrec.ingest.parse import parse_rows
from sparkrec.ingest.readers import group_files, read_group
from sparkrec.ingest.typed import _plain
from sparkrec.ingest.values import pick_id, plain
from sparkrec.settings.format_files import load_format
from sparkrec.settings.formats import Attribute, Field
from sparkrec.settings.ids import spelt
from tests.ingest.reading import BOUNDS, parsed


def review(**changed):
    return {"reviewerID": "u", "asin": "i", "overall": 5.0, "unixReviewTime": 1300000000, **changed}


JSON_LINES = [
    (json.dumps(review(reviewText='say "hi"', summary="s")).encode(), None),
    (json.dumps(review(asin='q"uo,te\n😀')).encode(), None),
    (json.dumps(review(asin="emoji😀"), ensure_ascii=False).encode() + b"\r", None),
    (json.dumps(review()).encode()[:30], "malformed JSON"),
    (json.dumps(review()).encode() * 2, "malformed JSON"),
    (b"[" + json.dumps(review()).encode() + b"]", "malformed JSON"),
    (b"12", "malformed JSON"),
    (b"null", "malformed JSON"),
    (b'{"asin": "caf\xe9", "overall": 1}', "not UTF-8"),
    (json.dumps(review(asin=None)).encode(), "missing item"),
    (json.dumps(review(asin="  ")).encode(), "missing item"),
    (json.dumps(review(unixReviewTime=None)).encode(), "missing ts"),
    (json.dumps(review(unixReviewTime="yesterday")).encode(), "bad ts"),
    (json.dumps(review(unixReviewTime=1300000)).encode(), "ts before 1990-01-01 (wrong unit?)"),
    (json.dumps(review(unixReviewTime=1300000000000)).encode(), "ts in the future (wrong unit?)"),
    (json.dumps(review(unixReviewTime=1e300)).encode(), "ts in the future (wrong unit?)"),
    (json.dumps(review(unixReviewTime=1900000000)).encode(), "ts in the future (wrong unit?)"),
    (json.dumps(review(reviewerID="")).encode(), "missing user"),
    (json.dumps(review(overall="good")).encode(), "bad value"),
    (json.dumps(review(overall="NaN")).encode(), "bad value"),
    (json.dumps(review(overall=None)).encode(), "missing value"),
]


def test_json_lines(spark, tmp_path):
    (tmp_path / "log.json").write_bytes(b"\xef\xbb\xbf" + b"\n".join(line for line, _ in JSON_LINES) + b"\n\n \r\n")
    rows = parsed(spark, tmp_path, load_format("reviews"))
    assert [r["reason"] for r in rows] == [reason for _, reason in JSON_LINES]
    assert [r["_raw"] for r in rows if r["reason"]] == [x.decode("latin-1") for x, reason in JSON_LINES if reason]
    first = rows[0]
    assert (first["user_id"], first["item_id"], first["value"], first["text"]) == ("u", "i", 5.0, 's\nsay "hi"')
    assert (first["ts"], first["event_date"]) == (datetime(2011, 3, 13, 7, 6, 40), date(2011, 3, 13))
    assert [r["item_id"] for r in rows[1:3]] == ['q"uo,te\n😀', "emoji😀"]
    assert all(r["_raw"] is None for r in rows[:3])
    assert all(r["ts"] is None and r["item_id"] is None for r in rows[3:])


JSON_IDS = [
    ('"asin": 12345678.0, "reviewerID": 17850.0', None, "12345678", "17850"),
    ('"asin": 12345678, "reviewerID": 17850', None, "12345678", "17850"),
    ('"asin": "12345678", "reviewerID": " 17850\u00a0"', None, "12345678", "17850"),
    ('"asin": "1.0", "reviewerID": "1.5E7"', None, "1.0", "1.5E7"),  # texts are taken as written
    ('"asin": 1.5, "reviewerID": 12345678901234567890', None, "1.5", "12345678901234567890"),
    ('"asin": 12345678901234567.0, "reviewerID": "u"', "id too large for a double", None, None),
    ('"asin": NaN, "reviewerID": "u"', "missing item", None, None),
    *(
        (f'"asin": "i", "reviewerID": "{null}"', "missing user", None, None)
        for null in ("", " ", "NULL", "null", r"\\N", "nan", "NaN", "None")
    ),
]


def test_numbers_as_ids_of_json_lines(spark, tmp_path):
    lines = [f'{{{ids}, "overall": 5, "unixReviewTime": 1300000000}}' for ids, *_ in JSON_IDS]
    (tmp_path / "log.json").write_text("\n".join(lines))
    (tmp_path / "reviewerID=a%2Fb+c").mkdir()  # written a/b+c by whoever made the folder
    (tmp_path / "reviewerID=a%2Fb+c" / "x.json").write_text('{"asin": "i", "overall": 5, "unixReviewTime": 1300000000}')
    rows = parsed(spark, tmp_path, load_format("reviews"))
    found = [(r["reason"], r["item_id"], r["user_id"]) for r in rows]
    assert found == [*(tuple(expected) for _, *expected in JSON_IDS), (None, "i", "a/b+c")]


SPELLINGS = [
    " A\u00a0", "a", "ß", "e\u0301t\u00e9", "17850.0", "17850.00", "-5.0", "1.785E4", "1.7e+16", "1.78501E4",
    "1.78501E3", "1e+5", "7E15", "1.5", "17850.0x", "١.0", "9.9999999999999999E15", "1.2345678901234567e+17",
    "\u200bx ", "İ", "",
]  # fmt: skip


@pytest.mark.parametrize("steps", [("trim",), ("integer",), ("trim", "upper"), ("nfc", "lower"), ("trim", "integer")])
def test_readers_without_spark_spell_ids_as_ingest_does(spark, steps):
    raw = spark.createDataFrame([(n, text) for n, text in enumerate(SPELLINGS)], "n int, id string").coalesce(1)
    found = raw.select("n", pick_id(raw, Field(("id",), normalize=steps), ()).alias("id")).orderBy("n").collect()
    assert [row["id"] for row in found] == [spelt(text, steps) or None for text in SPELLINGS]


HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"
DAY = "2011-01-01 10:00:00"
INVOICES = [
    (f"1,A,lamp,2,{DAY},1.5,17850.0,France", None),
    (f'1,"A ""1"",\n😀","lamp, red",2,{DAY},1.5,,France', None),
    (f"C2,a ,lamp,-2,{DAY},1.5,17850.0,France", None),
    (f"3,A,lamp,-2,{DAY},1.5,17850.0,France", "quantity not above 0"),
    (f"3,A,lamp,99999,{DAY},1.5,17850.0,France", "quantity out of range"),
    (f"C3,A,lamp,-99999,{DAY},1.5,17850.0,France", "quantity out of range"),
    (f"3,A,lamp,two,{DAY},1.5,17850.0,France", "bad quantity"),
    (f"3,A,lamp,,{DAY},1.5,17850.0,France", "missing quantity"),
    (f"3,A,lamp,2,{DAY},0,17850.0,France", "price not above 0"),
    (f"3,A,lamp,2,{DAY},Infinity,17850.0,France", "bad price"),
    (f"3,,lamp,2,{DAY},1.5,17850.0,France", "missing item"),
    ("3,A,lamp,2,2011-13-01 10:00:00,1.5,17850.0,France", "bad ts"),
    ("3,A,lamp,2,1970-01-01 10:00:00,1.5,17850.0,France", "ts before 1990-01-01 (wrong unit?)"),
    (f",A,lamp,2,{DAY},1.5,17850.0,France", "missing basket_id"),
    (f"3,A,caf\xe9,2,{DAY},1.5,17850.0,France", "not UTF-8"),
    (f"3,A,lamp,2,{DAY},1.5,17850.0", "wrong number of fields"),
    (f"3,A,lamp,red,2,{DAY},1.5,17850.0,France", "wrong number of fields"),
    (f'3,A,"lamp,2\n4,B,bed\n5,C,door",2,{DAY},1.5,17850.0,France', "a record of more than 2 lines (stray quote?)"),
    ('3,"A,lamp\n4,B,lamp', "wrong number of fields over several lines (unclosed quote?)"),
]


def test_invoices_as_csv(spark, tmp_path):
    lines = [HEADER, "", *(line for line, _ in INVOICES)]
    latin = [line.encode("latin-1") if "\xe9" in line else line.encode() for line in lines]
    (tmp_path / "x.csv").write_bytes(b"\xef\xbb\xbf" + b"\n".join(latin))
    rows = parsed(spark, tmp_path, load_format("invoices"))
    assert [r["reason"] for r in rows] == [reason for _, reason in INVOICES]
    assert [r["_raw"] for r in rows if r["reason"]] == [line for line, reason in INVOICES if reason]
    assert [r["user_id"] for r in rows[:3]] == ["17850", None, "17850"]
    assert [r["event_type"] for r in rows[:3]] == ["purchase", "purchase", "cancellation"]
    assert [r["item_id"] for r in rows[:3]] == ["A", 'A "1",\n😀', "A"]
    assert (rows[1]["item__title"], rows[1]["item__price"], rows[1]["user__country"]) == ("lamp, red", 1.5, "France")
    assert (rows[2]["quantity"], rows[2]["price"], rows[2]["basket_id"]) == (-2.0, 1.5, "C2")


def test_files_with_columns_in_another_order_are_read_together(spark, tmp_path):
    (tmp_path / "a.csv").write_text("user_id,item_id,ts\nu,1.0,1300000000\n")
    (tmp_path / "b.csv").write_text("ts,extra,item_id\r\n1300000000,x,2\r\n")
    rows = parsed(spark, tmp_path, load_format("sessions"))
    found = {(r["user_id"], r["item_id"], r["reason"], r["event_type"]) for r in rows}
    assert found == {("u", "1", None, "click"), (None, "2", None, "click")}


def test_a_custom_separator_without_header_or_quotes(spark, tmp_path):
    lines = ["1::0104257::8::1300000000", '"x::a:b::7.5::1300000000', "1::2::3", "1::2::3::4::5", "1::2::x::1300000000"]
    (tmp_path / "my_ratings.dat").write_text("\ufeff" + "\n".join(lines))
    rows = parsed(spark, tmp_path, load_format("ratings"))
    assert [(r["user_id"], r["item_id"], r["value"]) for r in rows[:2]] == [("1", "0104257", 8.0), ('"x', "a:b", 7.5)]
    assert [r["reason"] for r in rows] == [None, None, *["wrong number of fields"] * 2, "bad value"]


def test_parquet_with_typed_columns(spark, tmp_path):
    good = "(1, 2, timestamp'2011-01-01 10:00:00', 'view'), (null, 3, timestamp'2011-01-01 10:00:00.5', null)"
    bad = "(4, null, timestamp'2011-01-01', 'view'), (4, 5, timestamp'2011-01-01', 'stare')"
    table = spark.sql(f"select * from values {good}, {bad} as t(user_id, song_id, timestamp, event)")
    table.coalesce(1).write.parquet(str(tmp_path / "x"))
    rows = parsed(spark, tmp_path, load_format("sessions"))
    assert [r["reason"] for r in rows] == [None, None, "missing item", "unknown event type"]
    assert [(r["user_id"], r["item_id"], r["event_type"]) for r in rows[:2]] == [
        ("1", "2", "view"),
        (None, "3", "click"),
    ]
    assert rows[1]["ts"] == datetime(2011, 1, 1, 10, 0, 0, 500000)
    assert json.loads(rows[3]["_raw"])["event"] == "stare"


def test_an_id_is_the_same_text_whatever_the_type_that_it_was_stored_as(spark):
    types = ("int", "bigint", "float", "double", "decimal(20,2)", "decimal(38,0)", "string")
    columns = ", ".join(f"cast(n as {t}) as c{i}" for i, t in enumerate(types))
    rows = spark.sql(f"select {columns} from values (12345678), (0), (-17850), (null) as t(n)")
    texts = rows.select(*[plain(F.col(name), type_) for name, type_ in rows.dtypes])
    assert [set(r) for r in texts.collect()] == [{"12345678"}, {"0"}, {"-17850"}, {None}]


def test_ids_of_columns_of_doubles_and_their_spellings_in_text(spark, tmp_path):
    double = "(12345678D, 17850D, 1300000000D), (double('NaN'), 2D, 1300000000D), (1D, 1e17D, 1300000000D)"
    table = spark.sql(f"select *, double('NaN') as value from values {double} as t(user_id, item_id, ts)")
    table.coalesce(1).write.parquet(str(tmp_path / "a"))
    spelt = ["12345678.0", "1.2345678E7", " 12345678\u00a0", "nan", "NULL", "1e+16", "7E15", "1.5"]
    lines = ["user_id,item_id,ts", *(f"{user},1,1300000000" for user in spelt)]
    (tmp_path / "b.csv").write_text("\n".join(lines))
    fmt = load_format("sessions")
    rows = parsed(spark, tmp_path, fmt)
    found = [(r["user_id"], r["item_id"], r["reason"]) for r in rows]
    assert found[:3] == [("12345678", "17850", None), (None, "2", None), (None, None, "id too large for a double")]
    assert [user for user, *_ in found[3:]] == ["12345678"] * 3 + [None] * 3 + ["7E15", "1.5"]
    assert [reason for *_, reason in found[3:]] == [None] * 5 + ["user_id too large for a double"] + [None] * 2


def test_ids_are_spelt_as_the_format_says(spark, tmp_path):
    spelt = ["Caf\u00e9", "cafe\u0301 ", "\u00a0CAF\u00c9", "\\N", "nul"]
    (tmp_path / "a.csv").write_text("\n".join(["item_id,ts", *(f"{item},1300000000" for item in spelt)]))
    fmt = load_format("sessions")
    fmt = dataclasses.replace(fmt, item=dataclasses.replace(fmt.item, normalize=("nfc", "lower", "trim")))
    assert [r["item_id"] for r in parsed(spark, tmp_path, fmt)] == [*["caf\u00e9"] * 3, None, "nul"]
    assert [r["item_id"] for r in parsed(spark, tmp_path, dataclasses.replace(fmt, id_nulls=("nul",)))][3:] == [
        "\\n",
        None,
    ]


@pytest.mark.parametrize(("unit", "factor"), [("s", 1), ("ms", 1000), ("us", 1_000_000)])
def test_time_units(spark, tmp_path, unit, factor):
    from dataclasses import replace

    fmt = load_format("ratings")
    fmt = replace(fmt, ts=replace(fmt.ts, unit=(unit,)))
    (tmp_path / "ratings.dat").write_text(f"1::2::3::{1300000000 * factor}\n")
    assert parsed(spark, tmp_path, fmt)[0]["ts"] == datetime(2011, 3, 13, 7, 6, 40)


LONDON = [
    ("2011-01-15 12:30", "2011-01-15 12:30"),
    ("2011-07-15 12:30", "2011-07-15 11:30"),
    ("2011-03-27 00:30", "2011-03-27 00:30"),
    ("2011-03-27 01:30", "2011-03-27 01:30"),  # left out: moved to 02:30 of summer time
    ("2011-03-27 02:30", "2011-03-27 01:30"),
    ("2011-10-30 00:30", "2011-10-29 23:30"),
    ("2011-10-30 01:30", "2011-10-30 00:30"),  # there twice: the first
    ("2011-10-30 02:30", "2011-10-30 02:30"),
]


@pytest.mark.integration
def test_local_times_are_read_in_the_time_zone_of_the_format(spark):
    """As text, or of a type without a zone; one that names its offset, or its instant, is what it says."""
    fmt = dataclasses.replace(load_format("sessions"), timezone="Europe/London")
    pattern = dataclasses.replace(fmt, ts=dataclasses.replace(fmt.ts, unit=("yyyy-MM-dd HH:mm[ 'CET']",)))
    offset = dataclasses.replace(fmt, ts=dataclasses.replace(fmt.ts, unit=("yyyy-MM-dd HH:mmXXX",)))
    given = [(f"{n}", local) for n, (local, _) in enumerate(LONDON)]
    rows = spark.createDataFrame(given, "_raw string, ts string").withColumns(
        {"_fault": F.lit(None).cast("string"), "_uri": F.lit(""), "item_id": F.lit("i")}
    )
    forms = {
        "text": (pattern, F.col("ts")),
        "without": (fmt, F.col("ts").cast("timestamp_ntz")),
        "instant": (fmt, F.col("ts").cast("timestamp")),
        "offset": (offset, F.concat("ts", F.lit("+02:00"))),
        "day": (fmt, _plain("day", "date")),
    }
    rows = rows.withColumn("day", F.to_date("ts"))
    parts = [
        parse_rows(rows.withColumn("ts", ts), of, BOUNDS).select(F.lit(name).alias("form"), "ts", F.lit(0).alias("n"))
        for name, (of, ts) in forms.items()
    ]
    found = {name: [] for name in forms}
    for form, ts, _ in reduce(lambda a, b: a.unionByName(b), parts).collect():
        found[form].append(ts.strftime("%Y-%m-%d %H:%M"))
    assert found["text"] == found["without"] == [utc for _, utc in LONDON]
    assert found["instant"] == [local for local, _ in LONDON]
    moved = [datetime.fromisoformat(local) - timedelta(hours=2) for local, _ in LONDON]
    assert found["offset"] == [f"{time:%Y-%m-%d %H:%M}" for time in moved]
    assert found["day"][:2] == ["2011-01-15 00:00", "2011-07-14 23:00"]


def test_a_file_that_cannot_be_right_is_refused_by_name_and_one_of_nothing_is_in_no_group(spark, tmp_path):
    fmt, fs = load_format("sessions"), FileSystem(spark)
    (tmp_path / "x.csv").write_text("user_id,ts\n1,1300000000\n")
    with pytest.raises(UserError, match=r"lacks column item_id or song_id.*user_id, ts") as caught:
        parsed(spark, tmp_path, fmt)
    assert "x.csv" in str(caught.value)
    for name, content in (("x.csv", ""), ("y.csv", "\ufeff\n \n"), ("z.parquet", "")):
        (tmp_path / name).write_text(content)
    assert group_files(fs, [(f, reader_for(f.name, fmt.readers)) for f in fs.list_files(str(tmp_path))], []) == []


@pytest.mark.integration
def test_columns_of_other_types_in_other_files_times_of_nanoseconds_and_columns_of_the_path(spark, tmp_path):
    at, utc = datetime(2011, 7, 1, 12), pa.timestamp("us", tz="UTC")
    files = {
        "event=view/dt=2011-07-01/a.parquet": (
            [7, None],
            pa.float64(),
            ["8", "8"],
            pa.string(),
            [at],
            pa.timestamp("ns"),
        ),
        "event=cart/b.parquet": ([7, 7], pa.int64(), [8, 8], pa.int32(), [at], utc),
        "c.parquet": (["7", "7"], pa.string(), [8, 8], pa.float64(), [1309521600], pa.int64()),
        "event=__HIVE_DEFAULT_PARTITION__/d.parquet": (
            [7, 7],
            pa.int64(),
            [8, 8],
            pa.int64(),
            [at],
            pa.timestamp("ns", "UTC"),
        ),
    }
    for name, (users, user_type, items, item_type, times, time_type) in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        columns = {"user_id": pa.array(users, user_type), "item_id": pa.array(items, item_type)}
        pq.write_table(pa.table({**columns, "ts": pa.array(times * 2, time_type)}), tmp_path / name)
    odd = tmp_path / "event=wrong" / "event=pur%63hase" / "e.csv"
    odd.parent.mkdir(parents=True)
    odd.write_text("user_id,item_id,ts\n7,8,1309521600\n")
    rows = parsed(spark, tmp_path, dataclasses.replace(load_format("sessions"), timezone="Europe/London"))
    assert all((r["reason"], r["item_id"]) == (None, "8") and r["user_id"] in ("7", None) for r in rows)
    found = {(r["event_type"], r["user_id"], r["ts"]) for r in rows}
    summer = at - timedelta(hours=1)
    assert found == {
        ("view", "7", summer),
        ("view", None, summer),
        *((e, "7", at) for e in ("cart", "click", "purchase")),
    }


def test_a_column_that_spark_cannot_read_is_named(spark, tmp_path):
    table = pa.table({"item_id": [1], "ts": [1300000000], "noon": pa.array([0], pa.time64("us"))})
    pq.write_table(table, tmp_path / "odd.parquet")
    with pytest.raises(UserError, match=r"cannot be read: .*odd\.parquet .*column noon"):
        parsed(spark, tmp_path, load_format("sessions"))


def test_parquet_files_are_judged_by_their_schema(spark, tmp_path):
    spark.sql("select 1 as user_id, 2L as ts").coalesce(1).write.parquet(str(tmp_path / "a"))
    with pytest.raises(UserError, match="lacks column item_id or song_id"):
        parsed(spark, tmp_path / "a", load_format("sessions"))
    (tmp_path / "b.parquet").write_bytes(b"PAR1 this is not Parquet")
    with pytest.raises(UserError, match=r"cannot be read: .*b\.parquet"):
        parsed(spark, tmp_path / "b.parquet", load_format("sessions"))


def test_the_latest_attribute_that_is_not_null_counts(spark):
    values = [
        ("i", "2011-01-01", "old", 1.0),
        ("i", "2011-01-03", None, 3.0),
        ("i", "2011-01-02", "tie a", 2.0),
        ("i", "2011-01-02", "tie b", None),
        (None, "2011-01-02", "nobody", 1.0),
        ("j", "2011-01-02", None, None),
    ]
    rows = spark.createDataFrame(values, "item_id string, t string, item__title string, item__price double")
    rows = rows.selectExpr("item_id", "cast(t as timestamp) ts", "item__title", "item__price")
    found = latest(rows, "item_id", "item__", {"title": "string", "price": "double", "brand": "string"}).collect()
    assert sorted(tuple(r) for r in found) == [
        ("i", "tie b", 3.0, None, datetime(2011, 1, 3)),
        ("j", None, None, None, datetime(2011, 1, 2)),
    ]


def test_only_changed_attributes_are_written_and_late_files_do_not_turn_time_back(spark):
    schema = "id string, title string, price double, updated_at timestamp"
    at = datetime(2011, 1, 2)
    known = [("same", "a", 1.0, at), ("newer", "a", None, at), ("older", "a", None, at), ("gone", "a", 1.0, at)]
    new = [
        ("same", None, 1.0, at),
        ("newer", "b", None, datetime(2011, 1, 3)),
        ("older", "b", 9.0, datetime(2011, 1, 1)),
        ("fresh", "c", None, at),
    ]
    existing, incoming = spark.createDataFrame(known, schema), spark.createDataFrame(new, schema)
    found = {tuple(r) for r in changes(existing, incoming, ["title", "price"]).collect()}
    assert found == {  # the last says whether the table knows the id
        ("newer", "b", None, datetime(2011, 1, 3), True),
        ("older", "a", 9.0, at, True),
        ("fresh", "c", None, at, False),
    }


def test_vectors_of_an_attribute_file(spark, tmp_path):
    """An array column, or the same as JSON text; what cannot be read is no vector."""
    listed = spark.createDataFrame([(1, [0.1, -2.5e-7]), (2, None)], "item int, image array<float>").coalesce(1)
    listed.write.parquet(str(tmp_path / "items"))
    (tmp_path / "items" / "more.csv").write_text('item,image\n3,"[1, 2.5]"\n4,dog\n')
    declared = load_format("sessions").items_file
    declared = dataclasses.replace(declared, attributes=(Attribute("image", ("image",), "array<float>"),))
    fs = FileSystem(spark)
    files = [(f, reader_for(f.name, declared.readers)) for f in fs.list_files(str(tmp_path / "items"))]
    groups = group_files(fs, files, [declared.id.columns])
    raws = [read_group(spark, g, [*declared.id.columns, "image"], [declared.id.columns], "") for g in groups]
    found = [r for raw in raws for r in one_per_id(parse_attribute_file(raw, declared, ("",)), ["image"]).collect()]
    expected = {"1": [0.1, -2.5e-7], "2": None, "3": [1.0, 2.5], "4": None}
    assert {r["id"]: r["image"] and pytest.approx(r["image"], rel=1e-6) for r in found} == expected


def test_attribute_files(spark, tmp_path):
    declared = load_format("ratings").items_file
    (tmp_path / "movies.dat").write_text(
        "7::L'été (1999)::Drama|War\n8::No year::Drama\n8::Z\n::Ghost (1990)::X\n8::A (2001)::\n"
    )
    fs = FileSystem(spark)
    files = [(f, declared.readers[0]) for f in fs.list_files(str(tmp_path))]
    raw = read_group(spark, group_files(fs, files, [("item_id",)])[0], ["item_id", "title", "genres"], [], "")
    rows = parse_attribute_file(raw, declared, ("",))
    names = ["title", "year", "genres"]
    merged = one_per_id(rows, names).unionByName(
        rows.where("reason is not null").selectExpr("_raw id", "reason title", "year", "genres", "null updated_at")
    )
    assert sorted(tuple(r)[:4] for r in merged.collect()) == [
        ("7", "L'été (1999)", 1999, "Drama|War"),
        ("8", "No year", 2001, "Drama"),
        ("8::Z", "wrong number of fields", None, None),
        ("::Ghost (1990)::X", "missing id", 1990, "X"),
    ]
