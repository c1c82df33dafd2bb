"""What ``sparkrec look`` proposes for logs of many makings; without Spark."""

import io
import json
from datetime import date, datetime, timedelta

import polars as pl
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkrec.errors import UserError
from sparkrec.look import look, shipped
from sparkrec.look.check import check
from sparkrec.look.dialect import dialect_of, encoding_of
from sparkrec.look.facts import last_whole_day
from sparkrec.look.times import chrono, doubtful, times, unit_of
from sparkrec.look.together import recalls
from tests.look import logs


def looked(tmp_path, log):
    """The format and the night that were written, and what was printed."""
    out = io.StringIO()
    look(str(log), str(tmp_path / "out"), out)
    read = [yaml.safe_load((tmp_path / "out" / name).read_text()) for name in ("format.yaml", "night.yaml")]
    return (*read, out.getvalue())


def test_a_german_shops_export(tmp_path):
    fmt, night, said = looked(tmp_path, logs.shop_german(tmp_path / "log").parent)
    assert fmt["readers"] == [{"kind": "csv", "files": ["*.csv"], "separator": ";", "encoding": "windows-1252"}]
    columns = {role: fmt[role]["columns"] for role in ("user", "item", "ts", "quantity", "price", "basket")}
    assert columns == {
        "user": "Kundennummer", "item": "Artikelnummer", "ts": "Bestelldatum", "quantity": "Menge",
        "price": "Einzelpreis", "basket": "Bestellnummer",
    }  # fmt: skip
    assert (fmt["ts"]["unit"], fmt["decimal"]) == ("d.M.yyyy HH:mm", ",")
    assert fmt["title"] == "bezeichnung"
    assert "Überwurf" not in said
    assert night["logs"] == {"path": str(tmp_path / "log"), "format": str(tmp_path / "out" / "format.yaml")}
    assert {"als", "prod2vec"} <= set(night["models"])
    assert "timezone: Europe/London" in said
    assert said.splitlines()[-1] == f"sparkrec nightly --conf {tmp_path / 'out' / 'night.yaml'} --run-date 2024-03-18"


def test_a_clickstream_with_types_and_sessions(tmp_path):
    fmt, night, _ = looked(tmp_path, logs.events_typed(tmp_path / "log"))
    assert fmt["event_weights"] == {"view": 1.0, "cart": 3.0, "purchase": 5.0}
    assert fmt["purchase_events"] == ["purchase"]
    assert fmt["event_type"]["default"] == "view"
    assert (fmt["session"]["columns"], fmt["ts"]["unit"]) == ("user_session", "iso")
    assert {a["name"] for a in fmt["item_attributes"]} == {"category_id", "brand"}
    assert fmt["defaults"]["prepare"]["sessions"] == {"by": "session_id"}
    assert {"gru", "session_neighbours"} <= set(night["models"])


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (logs.headerless, {"user": "c1", "item": "c2", "ts": "c5", "event_type": "c4"}),
        (logs.tabs_rated, {"user": "c1", "item": "c2", "ts": "c4", "value": "c3"}),
        (logs.plays, {"user": "c1", "item": "c5", "ts": "c2"}),
        (logs.impressions, {"user": "c2", "item": "c5", "ts": "c3"}),
        (
            logs.sessions_nested,
            {"session": "session", "item": "events.aid", "ts": "events.ts", "event_type": "events.type"},
        ),
        (logs.day_and_milliseconds, {"user": "customer", "item": "article", "ts": "day", "session": "visit_id"}),
        (logs.pieces, {"user": "customer_id", "item": "article_id", "ts": "t_dat", "price": "price"}),
        (logs.nested_analytics, {"user": "visitor", "item": "attrs.product_id", "ts": "at"}),
        (logs.check_ins, {"user": "c1", "item": "c2", "ts": "c8"}),
        (logs.shelves, {"user": "user_id", "item": "book_id", "ts": "date_added", "value": "rating", "text": None}),
        (logs.page_views, {"user": "userId", "item": "url", "ts": "time", "event_type": None, "session": None}),
        (
            logs.hotels,
            {"user": "user_id", "session": "session_id", "ts": "timestamp", "event_type": "action_type"},
        ),
        (logs.shop_french, {"user": "N° client", "item": "Référence produit", "basket": "N° commande"}),
        (logs.shop_actions, {"item": "product_sku_hash", "event_type": "product_action", "session": "session_id_hash"}),
        (logs.viewing, {"user": "Profile Name", "item": "Title", "ts": "Start Time"}),
        (logs.folders, {"user": "user", "item": "thing", "ts": "at"}),
    ],
)  # fmt: skip
def test_the_columns_of_a_log_get_their_roles(tmp_path, make, expected):
    fmt, _, said = looked(tmp_path, make(tmp_path / "log"))
    assert {role: fmt.get(role, {}).get("columns") for role in expected} == expected
    assert said.splitlines()[-1].startswith("sparkrec nightly --conf ")


def test_what_a_log_needs_besides_its_columns(tmp_path):
    fmt, _, _ = looked(tmp_path / "1", logs.impressions(tmp_path / "log"))
    assert fmt["explode"] == {"column": "c5", "kind": "text", "separator": " ", "suffix": "-([01])$"}
    assert fmt["event_weights"] == {"impression": 0.0, "click": 1.0}
    assert fmt["impression_events"] == ["impression"]
    fmt, _, _ = looked(tmp_path / "2", logs.day_and_milliseconds(tmp_path / "log2"))
    assert fmt["ts"]["plus"] == [{"columns": "timeframe", "unit": "ms"}]
    assert "NA" in fmt["nulls"]
    fmt, _, said = looked(tmp_path / "3", logs.pieces(tmp_path / "log3"))
    assert fmt["duplicates"] == "keep"
    assert "times are days" in said


def test_what_is_rated_within_a_day_is_neither_a_session_nor_a_basket(tmp_path):
    proposed = {
        make: set(looked(tmp_path / make.__name__, make(tmp_path / f"log-{make.__name__}"))[1]["models"])
        for make in (logs.reviews_of_days, logs.tabs_rated, logs.pieces)
    }
    assert proposed[logs.reviews_of_days] == {"als", "two_tower", "item_neighbours"}
    assert {"prod2vec", "gru"} <= proposed[logs.tabs_rated]
    assert "rules" not in proposed[logs.tabs_rated]
    assert {"prod2vec", "rules"} <= proposed[logs.pieces]  # of a day, but bought
    assert "gru" not in proposed[logs.pieces]


def test_sessions_that_tell_nothing_of_the_next_item_propose_no_model(tmp_path):
    found = [looked(tmp_path / f"{told}", logs.threes(tmp_path / f"log-{told}", told)) for told in (False, True)]
    assert [{"gru", "session_neighbours"} & set(night["models"]) for _, night, _ in found] == [
        set(),
        {"gru", "session_neighbours"},
    ]
    assert "als" in found[0][1]["models"]
    assert "the next of sessions, recall@20: " in found[0][2]


def test_pairs_and_popularity_are_asked_of_the_last_fifth_by_hand():
    """Behind each a stands its b; of 24 pairs 20 popular items hold 20 of the 24 b, or fewer where a is as frequent."""
    start = datetime(2024, 1, 1)
    rows = [
        {"group": n, "item": f"{kind}{n % 24}", "ts": start + timedelta(hours=n, minutes=place)}
        for n in range(2400)
        for place, kind in enumerate("ab")
    ]
    found = recalls(pl.DataFrame(rows))
    assert found.together == 1.0
    assert 0 < found.popular < 0.9
    backwards = [row | {"item": f"{row['item']}-{row['group'] >= 1920}"} for row in rows]  # what is asked is all new
    assert recalls(pl.DataFrame(backwards)) == (0.0, 0.0)
    assert recalls(pl.DataFrame(rows[:500])) is None


def test_searches_and_filters_weigh_nothing_and_nanoseconds_are_times(tmp_path):
    fmt, _, _ = looked(tmp_path, logs.hotels(tmp_path / "log"))
    weights = fmt["event_weights"]
    assert (weights["search for destination"], weights["filter selection"], weights["clickout item"]) == (0.0, 0.0, 1.0)
    assert fmt["ts"]["unit"] == "ns"


@pytest.mark.integration
@pytest.mark.parametrize("make", [logs.orders_and_lines, logs.orders_of_accounts])
def test_lines_are_joined_with_their_orders(tmp_path, make):
    fmt, night, said = looked(tmp_path, make(tmp_path / "log"))
    joins = [(join["readers"][0]["files"], join["key"]) for join in fmt["join"]]
    if make is logs.orders_and_lines:
        assert joins == [(["orders.csv"], "order_id")]
        assert (fmt["user"]["columns"], fmt["ts"]["columns"]) == ("customer_id", "order_date")
        assert fmt["readers"][0]["files"] == ["order_lines.csv"]
        assert night["logs"]["items_path"] == str(tmp_path / "log" / "products.csv")
        assert "join: orders.csv, by order_id: it has order_date, customer_id" in said
    else:
        assert joins == [(["orders_dataset.csv"], "order_id"), (["customers_dataset.csv"], "customer_id")]
        assert (fmt["user"]["columns"], fmt["ts"]["columns"]) == ("customer_unique_id", "purchase_timestamp")
        assert fmt["duplicates"] == "keep"
    assert {"als", "prod2vec"} <= set(night["models"])


def published():
    """The shipped formats' samples of published logs, as ``(format, files)``."""
    from tests.ingest import test_published_logs, test_shipped

    theirs = [(sample.format, sample.files) for sample in test_shipped.SAMPLES if sample.format != "tags"]
    return theirs + [(name, files[0]) for name, files in test_published_logs.SAMPLES.items() if name != "segment"]


@pytest.mark.integration
@pytest.mark.parametrize(("name", "files"), published(), ids=lambda value: value if isinstance(value, str) else "")
def test_published_logs_are_known(tmp_path, monkeypatch, name, files):
    monkeypatch.setattr(shipped, "ENOUGH", 0.3)  # of three rows one is there to be refused
    for file, content in files.items():
        path = tmp_path / "log" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    _, _, said = looked(tmp_path, tmp_path / "log")
    assert f"format: {name}, as shipped" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        logs.shop_german, logs.events_typed, logs.headerless, logs.plays, logs.impressions, logs.sessions_nested,
        logs.day_and_milliseconds, logs.pieces, logs.nested_analytics, logs.orders_and_lines, logs.orders_of_accounts,
        logs.check_ins, logs.hotels, logs.viewing, logs.folders,
    ],
)  # fmt: skip
def test_what_is_proposed_takes_the_whole_log_in(spark, tmp_path, make):
    log, out = make(tmp_path / "log"), io.StringIO()
    check(str(log), str(tmp_path / "out"), out, spark)
    rows = {logs.impressions: 2400, logs.pieces: 902, logs.orders_of_accounts: 660}.get(make, 600)
    equal = 1 if make in (logs.shop_german, logs.viewing) else 0  # of times without seconds
    kept = f"{rows:,} rows read = {rows - equal:,} kept + 0 refused + {equal} duplicates"
    assert kept in out.getvalue(), out.getvalue()


@pytest.mark.parametrize("ending", ["csv.gz", "csv.bz2", "csv.xz", "csv.zst", "csv.zip"])
def test_packed_files_are_looked_into(tmp_path, ending):
    fmt, _, said = looked(tmp_path, logs.shop_german(tmp_path / "log", "utf-8", ending))
    assert fmt["readers"][0]["files"] == ["*.csv"]
    assert "600 events, 40 users" in said


def test_a_damaged_file_is_one_line(tmp_path):
    path = logs.shop_german(tmp_path / "log", ending="csv.gz")
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match=r"log file cannot be read: .*export\.csv\.gz \(is it damaged"):
        look(str(path), str(tmp_path / "out"), io.StringIO())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a,b\n1,2\n3,4\n", "no column that looks like a time, an item and who took it"),
        ("plain words\nof a letter\n", "no file that a night could read"),
        ('[\n{"a": 1}\n]\n', "no file that a night could read"),
    ],
)
def test_no_log_is_one_line_and_leaves_nothing(tmp_path, text, reason):
    path = logs.write(tmp_path / "log" / "x.csv", text)
    with pytest.raises(UserError, match=reason):
        look(str(path), str(tmp_path / "out"), io.StringIO())
    assert not (tmp_path / "out" / "night.yaml").exists()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("ratings.csv", r"like a time: .*found user=User-ID.*nothing can be learnt of events without a time"),
        ("jester.csv", "a matrix: write a line for each of its cells"),
        ("combined.txt", r"lines such as '\d+:' tell what the lines below are of"),
        ("offsets.tsv", "like a time: .*timestamp has 0, 60, 120: no time"),
        ("months.csv", "time_stamp has 0301, 0302: no time"),
        ("beer.txt", "blocks of lines 'name: value'"),
        ("excel.csv", "Excel's line sep= stands above the header"),
        ("access.log", "a web server's log"),
        ("arrays.jsonl", r"like a time: .*times has \[17"),
        ("first_line_of_an_order.csv", "67% of the rows would be refused: bad ts: .*; fill the columns in"),
        ("log.avro", "Avro: write it as Parquet"),
    ],
)
def test_what_no_format_can_say_is_said_in_one_line(tmp_path, name, reason):
    path = logs.write(tmp_path / "log" / name, logs.no_log(name))
    with pytest.raises(UserError, match=reason):
        look(str(path), str(tmp_path / "out"), io.StringIO())
    assert not (tmp_path / "out" / "night.yaml").exists()


def test_attribute_files_beside_a_log_are_found(tmp_path):
    logs.events_typed(tmp_path / "log")
    items = [(1000000 + n, f"Thing {n}", ["a|b", "b"][n % 2]) for n in range(60)]
    logs.write(tmp_path / "log" / "catalog.csv", logs.lines(items, "product_id,title,genres"))
    fmt, night, said = looked(tmp_path, tmp_path / "log")
    assert fmt["readers"][0]["files"] == ["*-Mar.csv"]
    assert fmt["items_file"]["id"] == {"columns": "product_id"}
    assert night["logs"]["items_path"] == str(tmp_path / "log" / "catalog.csv")
    assert (fmt["title"], fmt["item_features"]) == ("title", [{"name": "genres", "kind": "multi", "separator": "|"}])
    assert "items: catalog.csv, by product_id" in said


def test_a_crawler_and_equal_rows_are_named(tmp_path):
    path = logs.events_typed(tmp_path / "log")
    head, *rows = path.read_text().splitlines()
    crawled = [
        f"2024-03-05 0{n // 600}:{n // 10 % 60:02d}:{n % 60:02d} UTC,view,{1000000 + n % 60},1,,1.0,666,s-bot"
        for n in range(900)
    ]
    path.write_text("\n".join([head, *rows, *crawled, rows[0], rows[1]]) + "\n")
    _, _, said = looked(tmp_path, path)
    assert "a crawler? user 666 has 59.9% of the events" in said
    assert "equal rows: 2 (0.1%)" in said


@pytest.mark.parametrize(
    ("texts", "unit", "first"),
    [
        (["2014-04-07T10:51:09.277Z"], "iso", datetime(2014, 4, 7, 10, 51, 9, 277000)),
        (["2019-10-01 00:00:07 UTC"], "iso", datetime(2019, 10, 1, 0, 0, 7)),
        (["2010-12-01 08:26:00+02:00"], "iso", datetime(2010, 12, 1, 6, 26)),
        (["2020-09-20"], "iso", datetime(2020, 9, 20)),
        (["881250949"], "s", datetime(1997, 12, 4, 15, 55, 49)),
        (["1364832000.5"], "s", datetime(2013, 4, 1, 16, 0, 0, 500000)),
        (["1503411243123"], "ms", datetime(2017, 8, 22, 14, 14, 3, 123000)),
        (["31.12.2024 23:59"], "d.M.yyyy HH:mm", datetime(2024, 12, 31, 23, 59)),
        (["11/15/2019 9:05:58 PM"], "M/d/yyyy h:mm:ss a", datetime(2019, 11, 15, 21, 5, 58)),
        (["09 13, 2009"], "MM d, yyyy", datetime(2009, 9, 13)),
        (["20170702"], "yyyyMMdd", datetime(2017, 7, 2)),
        (["1503411243123456789"], "ns", datetime(2017, 8, 22, 14, 14, 3, 123457)),
        (["Tue Apr 03 18:00:09 +0000 2012"], "EEE MMM d HH:mm:ss Z yyyy", datetime(2012, 4, 3, 18, 0, 9)),
        (["Fri, 3 Apr 2012 18:00:09 -0700"], "EEE, d MMM yyyy HH:mm:ss Z", datetime(2012, 4, 4, 1, 0, 9)),
        (["31/Dec/2020:10:00:00 +0100"], "dd/MMM/yyyy:HH:mm:ss Z", datetime(2020, 12, 31, 9)),
        (["3"], None, None),
        (["abc"], None, None),
        (["99999999"], None, None),
    ],
)
def test_times_are_told_by_their_values(texts, unit, first):
    column = pl.Series(texts)
    assert unit_of(column) == unit
    if unit:
        assert times(column, unit).to_list() == [first]


def test_day_and_month_are_told_apart_or_doubted():
    assert doubtful(pl.Series(["3/4/2020 10:00"]), "M/d/yyyy H:mm") == "d/M/yyyy H:mm"
    assert doubtful(pl.Series(["3/14/2020 10:00"]), "M/d/yyyy H:mm") is None
    assert unit_of(pl.Series(["13/4/2020 10:00"])) == "d/M/yyyy H:mm"


@given(
    st.datetimes(datetime(1995, 1, 1), datetime(2025, 1, 1)),
    st.sampled_from(["iso", "d.M.yyyy HH:mm:ss", "yyyy/MM/dd HH:mm:ss"]),
)
@settings(max_examples=50, deadline=None)
def test_a_pattern_reads_what_it_writes(moment, unit):
    moment = moment.replace(microsecond=0)
    text = moment.isoformat(" ") if unit == "iso" else moment.strftime(chrono(unit))
    assert times(pl.Series([text]), unit).to_list() == [moment]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "windows-1252", "windows-1251"])
def test_encodings_are_told_by_their_bytes(encoding):
    text = "Größe;Überwurf;Straße\n" * 20 if encoding != "windows-1251" else "Цена;Товар;Размер большой\n" * 20
    expected = {"utf-8-sig": "utf-8"}.get(encoding, encoding)
    assert encoding_of(text.encode(encoding)) == expected


@pytest.mark.parametrize("separator", ["\t", ",", ";", "|", "::"])
def test_separators_are_told_by_the_rows(separator):
    rows = "".join(
        separator.join(
            [
                str(n),
                f"Title, of {n}" if separator != "," else f'"Title, of {n}"',
                "a|b" if separator != "|" else "a",
                "5",
            ]
        )
        + "\n"
        for n in range(50)
    )
    found = dialect_of(rows)
    assert (found.separator, found.header, len(found.names)) == (separator, False, 4)
    found = dialect_of(separator.join(["id", "title", "genres", "rating"]) + "\n" + rows)
    assert (found.header, found.names) == (True, ("id", "title", "genres", "rating"))


def test_the_last_whole_day_is_no_stray():
    days = {date(2024, 1, n): 100 for n in range(1, 20)}
    assert last_whole_day(days) == date(2024, 1, 19)
    assert last_whole_day(days | {date(2024, 1, 20): 3}) == date(2024, 1, 19)
    assert last_whole_day(days | {date(2037, 1, 1): 1}) == date(2024, 1, 19)
    assert last_whole_day({}) is None


def test_a_delta_table_and_parquet_are_looked_into(tmp_path):
    rows = pl.DataFrame(
        [{"user_id": u, "item_id": i, "at": t.replace(tzinfo=None), "price": i + 0.5} for u, i, t in logs.clicks()]
    )
    (tmp_path / "p").mkdir()
    rows.write_parquet(tmp_path / "p" / "part-0.parquet")
    rows.write_delta(str(tmp_path / "d"))
    for folder, kind in (("p", "parquet"), ("d", "delta")):
        fmt, _, said = looked(tmp_path / folder, tmp_path / folder)
        assert fmt["readers"][0]["kind"] == kind
        assert (fmt["user"]["columns"], fmt["item"]["columns"]) == ("user_id", "item_id")
        assert fmt["ts"] == {"columns": "at", "unit": "timestamp"}
        assert "600 events, 40 users" in said


def test_nested_properties_are_columns_with_dots(tmp_path):
    path = tmp_path / "log" / "x.json"
    lines = [
        json.dumps({"u": f"u{u}", "p": {"item": {"id": f"i{i}"}}, "ts": int(t.timestamp())})
        for u, i, t in logs.clicks()
    ]
    logs.write(path, "\n".join(lines) + "\n")
    fmt, _, _ = looked(tmp_path, path)
    assert fmt["item"]["columns"] == "p.item.id"
