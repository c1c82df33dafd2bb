"""Times and numbers as logs write them."""

from dataclasses import replace
from datetime import date, datetime, timedelta

import pytest
from pyspark.sql import functions as F

from sparkrec.errors import UserError
from sparkrec.ingest.times import span_micros
from sparkrec.ingest.values import PLAIN, Notation, number
from sparkrec.settings.format_files import load_format
from sparkrec.settings.formats import Cumulative, Span
from sparkrec.warehouse.tables import EVENTS
from tests.ingest.test_ingest import DAY1, DAY2, rows, take_in
from tests.ingest.test_parse import parsed

NOTATIONS = {
    Notation(",", "."): {"1.299,50": 1299.5, "1299,5": 1299.5, "-12,": -12, ",5": 0.5, "1.234.567": 1234567,
                         " 7\u00a0": 7,
                         "12.99": None, "1.29,9": None, "1,2,3": None, "1.299.50": None, "": None, ",": None},
    Notation(".", ","): {"1,299.50": 1299.5, "1,29,900": 129900, "12,99": None, "1.5e3": 1500, "1,2345": None},
    Notation(",", " "): {"1 299,5": 1299.5, "1\u202f299": 1299, "1\u00a0299\u00a0000,25": 1299000.25, "1  299": None},
    Notation(",", ""): {"12,99": 12.99, "12.99": None, "1.299,5": None, "NaN": None, "1e400": None, "+3": 3},
    Notation(".", "'"): {"1'299.95": 1299.95},
}  # fmt: skip
CLOCKS = {
    "HHMM": {"1631": 16 * 60 + 31, "930": 9 * 60 + 30, "45": 45, "5": 5, "0": 0, "2400": None, "1260": None, "a": None},
    "HH:mm": {"09:30": 570, "9:30": 570, "24:00": None, "09:30:00": None},
    "HH:mm:ss": {"00:01:30": 1.5, "09:30": None},
    "min": {"1.5": 1.5}, "h": {"2": 120}, "day": {"0.5": 720, "x": None}, "ms": {"90000": 1.5}, "us": {"60000000": 1},
}  # fmt: skip


def test_numbers_and_spans(spark):
    """All of them as columns of one row: each a job of its own would take minutes."""
    expected, columns = [], []
    for notation, cases in NOTATIONS.items():
        columns += [number(F.lit(text), notation) for text in cases]
        expected += cases.values()
    for unit, cases in CLOCKS.items():
        columns += [span_micros(F.lit(text), unit, PLAIN) / 60e6 for text in cases]
        expected += cases.values()
    (found,) = spark.range(1).select(*[c.alias(str(i)) for i, c in enumerate(columns)]).collect()
    assert list(found) == expected


def of(fmt, **ts):
    return replace(fmt, ts=replace(fmt.ts, **ts))


ISO = [
    ("2014-04-07T10:51:09.277Z", "2014-04-07 10:51:09.277000"),
    ("2014-04-07 10:51:09,2771234567", "2014-04-07 08:51:09.277123"),
    ("2014-04-07", "2014-04-06 22:00:00.000000"),
    ("2014-04-07 10:51", "2014-04-07 08:51:00.000000"),
    ("2014-04-07t10:51:09-03:30", "2014-04-07 14:21:09.000000"),
    ("2014-04-07 10:51:09.5 +0530", "2014-04-07 05:21:09.500000"),
    ("2014-04-07 10:51:09 UTC", "2014-04-07 10:51:09.000000"),
    ("2014-04-07 10:51:09+02", "2014-04-07 08:51:09.000000"),
    ("07.04.2014 10:51", "2014-04-07 08:51:00.000000"),  # the second unit
    ("1396860669.277", "2014-04-07 08:51:09.277000"),  # the third
    *((text, None) for text in ("2014-04-31", "2014-04-07T25:00", "2014-04-07T10:51:09+25:00", "7.4.2014", "2014-04")),
]


def test_units_tried_in_turn(spark, tmp_path):
    lines = ["item_id;ts", *(f"i;{text}" for text, _ in ISO)]
    (tmp_path / "x.csv").write_text("\n".join(lines))
    fmt = of(load_format("sessions"), unit=("iso", "dd.MM.yyyy HH:mm", "s"))
    fmt = replace(fmt, timezone="Europe/Berlin", readers=(replace(fmt.readers[1], separator=";"),))
    found = parsed(spark, tmp_path, fmt)
    assert [r["ts"] and f"{r['ts']:%F %T.%f}" for r in found] == [expected for _, expected in ISO]
    refused = [text for text, expected in ISO if not expected]
    assert [(r["reason"], r["_ts_text"]) for r in found if r["reason"]] == [("bad ts", text) for text in refused]


def test_weekdays_before_a_time_and_nanoseconds(spark, tmp_path):
    texts = {
        "Tue Apr 03 18:00:09 +0000 2012": datetime(2012, 4, 3, 18, 0, 9),
        "Tue Apr 3 11:00:09 -0700 2012": datetime(2012, 4, 3, 18, 0, 9),
        "Apr 3 11:00:09 -0700 2012": None,  # its first word is taken for the weekday
        "1503411243123456789": datetime(2017, 8, 22, 14, 14, 3, 123457),
        "Tue": None,
    }
    (tmp_path / "x.csv").write_text("\n".join(["item_id;ts", *(f"i;{text}" for text in texts)]))
    fmt = of(load_format("sessions"), unit=("EEE MMM d HH:mm:ss Z yyyy", "ns"))
    found = parsed(spark, tmp_path, replace(fmt, readers=(replace(fmt.readers[1], separator=";"),)))
    assert [r["ts"] for r in found] == [*texts.values()]


def test_sums_of_columns_are_on_the_clocks_of_the_logs_zone(spark, tmp_path):
    """The 27th of March 2016 has no 02:30 in Berlin; in April a clock there is two hours before UTC."""
    text = "item_id;day;date;clock;ms\n"
    text += "i;86;2016-03-27;230;1500\ni;100;2016-04-10;1631;0\ni;1;2016-01-02;;0\ni;1;2016-01-02;2561;0"
    (tmp_path / "x.csv").write_text(text)
    plus = (Span(("clock",), "HHMM"), Span(("ms",), "ms"))
    fmt = replace(load_format("sessions"), timezone="Europe/Berlin")
    fmt = replace(fmt, readers=(replace(fmt.readers[1], separator=";"),))
    for unit, column in (("day", "day"), ("iso", "date")):
        zero = date(2016, 1, 1) if unit == "day" else None
        found = parsed(spark, tmp_path, of(fmt, columns=(column,), unit=(unit,), day_zero=zero, plus=plus))
        assert [r["ts"] for r in found] == [
            datetime(2016, 3, 27, 1, 30, 1, 500000),
            datetime(2016, 4, 10, 14, 31),
            None,
            None,
        ]
        assert [r["reason"] for r in found] == [None, None, "missing ts", "bad ts"]
    assert found[-1]["_ts_text"] == "2016-01-02 + 2561 + 0"


ORDERS = """order_number,user_id,item_id,days_since,hour
1,u,a,,10
1,u,b,,10
3,u,d,7.0,8
2,u,c,30.0,23
10,u,e,0.0,9
1,v,a,,0
2,v,b,x,0
3,v,c,1.0,0
1,w,a,,5
2,w,b,,5
"""
SINCE = {"unit": ("day",), "columns": ("days_since",), "day_zero": date(2011, 1, 1), "plus": (Span(("hour",), "h"),),
         "cumulative": Cumulative(("user_id",), ("order_number",))}  # fmt: skip


def test_spans_since_the_row_before_are_summed(spark, tmp_path):
    """Rows of one order count once; what follows a span that cannot be read is in no place."""
    (tmp_path / "x.csv").write_text(ORDERS)
    found = parsed(spark, tmp_path, of(load_format("sessions"), **SINCE))
    zero = datetime(2011, 1, 1)
    at = {"a": (0, 10), "b": (0, 10), "c": (30, 23), "d": (37, 8), "e": (37, 9)}
    u = {r["item_id"]: r["ts"] for r in found if r["user_id"] == "u"}
    assert u == {item: zero + timedelta(days=days, hours=hours) for item, (days, hours) in at.items()}
    assert [r["reason"] for r in found if r["user_id"] != "u"].count("bad ts") == 3
    assert {(r["user_id"], r["ts"]) for r in found if r["user_id"] in ("v", "w")} == {
        ("v", zero),
        ("w", zero + timedelta(hours=5)),
    }


@pytest.mark.integration
def test_sums_over_all_files_have_all_files_read_again_with_a_new_one(spark, tmp_path, monkeypatch):
    fmt = of(load_format("sessions"), **SINCE)
    monkeypatch.setattr("tests.ingest.test_ingest.load_format", lambda _: fmt)
    logs, warehouse = tmp_path / "logs", tmp_path / "w"
    logs.mkdir()
    (logs / "a.csv").write_text("order_number,user_id,item_id,days_since,hour\n3,u,d,7.0,8\n2,u,c,30.0,23\n1,v,a,,0\n")
    assert take_in(spark, logs, warehouse, DAY1).rows_kept == 3
    (logs / "b.csv").write_text("user_id,order_number,item_id,days_since,hour\nu,1,a,2.0,10\n")
    (logs / "a.csv").rename(tmp_path / "a.csv")
    with pytest.raises(UserError, match=r"logs are gone that the times .*1 files, e\.g\. a\.csv"):
        take_in(spark, logs, warehouse, DAY2, allow_empty_day=True)
    (tmp_path / "a.csv").rename(logs / "a.csv")
    assert take_in(spark, logs, warehouse, DAY1).files_new == 2
    days = [(item, ts.day - 1 + ts.month * 31 - 31) for item, ts in rows(warehouse, EVENTS, "item_id", "ts")]
    assert days == [("a", 0), ("a", 2), ("c", 32), ("d", 39)]  # all of u's by the two days before its first order
