"""Rows of shapes of their own: fields within fields, elements of rows, places in files, equal rows, other events."""

import json
from datetime import date

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from sparkrec.errors import UserError
from sparkrec.ingest import ingest
from sparkrec.settings.config import Config
from sparkrec.settings.format_files import load_format
from sparkrec.settings.sections import IngestConfig, LogsConfig, WarehouseConfig
from tests.ingest.reading import parsed

DAY = date(2024, 1, 1)
AT = 1704067200  # its first second
TYPED = [{"kind": "jsonl", "files": "*.json"}, {"kind": "parquet", "files": "*.parquet"}]
PLAIN = {
    "readers": [*TYPED, {"kind": "csv"}],
    "user": {"columns": "user", "required": False},
    "item": {"columns": "item"},
    "ts": {"columns": "at", "unit": "s"},
    "event_type": {"default": "click"},
    "event_weights": {"click": 1.0},
}


def form(folder, **changes):
    """A format of its own, as the path of its file."""
    path = folder / "form.yaml"
    path.write_text(yaml.safe_dump({**PLAIN, **changes}))
    return str(path)


def take_in(spark, folder, fmt, run_date=DAY, **settings):
    settings = {"max_quarantine_share": 1.0, **settings}
    config = Config(
        logs=LogsConfig(str(folder / "logs"), fmt),
        warehouse=WarehouseConfig(path=str(folder / "warehouse")),
        ingest=IngestConfig(**settings),
    )
    done = ingest(spark, config, load_format(fmt), "attempt", run_date)
    assert done.rows_read == done.rows_kept + done.rows_quarantined + done.rows_duplicate
    return done


def table(folder, name, *columns):
    return sorted(pl.read_delta(str(folder / "warehouse" / name)).select(columns).rows(), key=repr)


def log(folder, name, lines):
    (folder / "logs").mkdir(exist_ok=True)
    (folder / "logs" / name).write_text("\n".join(lines) + "\n")


def found(rows, *names):
    return [(row["reason"], *(row[name] for name in names)) for row in rows]


SESSIONS = [
    {"session": 7, "events": [{"aid": 5, "ts": AT, "kind": {"name": "click"}}, {"aid": 6.0, "ts": AT + 1}]},
    {"session": "8", "events": [{"ts": AT}, {"aid": 12345678901234567.0, "ts": AT}]},
    {"session": 9, "events": []},
    {"session": 9},
    {"session": 9, "events": "none"},
]
BY_SESSION = {
    "readers": TYPED,
    "user": {"columns": "session"},
    "item": {"columns": "events.aid"},
    "ts": {"columns": "events.ts", "unit": "s"},
    "event_type": {"default": "cart", "columns": "events.kind.name"},
    "event_weights": {"click": 1, "cart": 2},
    "explode": {"column": "events"},
    "order": "events.position",
}


def test_the_elements_of_an_array_of_structs_are_rows(spark, tmp_path):
    lines = [json.dumps(line) for line in SESSIONS]
    (tmp_path / "a.json").write_text("\n".join([*lines, "{broken"]))
    rows = parsed(spark, tmp_path / "a.json", load_format(form(tmp_path, **BY_SESSION)))
    assert found(rows, "user_id", "item_id", "event_type", "event_order") == [
        (None, "7", "5", "click", 0),
        (None, "7", "6", "cart", 1),
        ("missing item", None, None, "cart", None),
        ("id too large for a double", None, None, "cart", None),
        *[("empty events", None, None, "cart", None)] * 3,
        ("malformed JSON", None, None, "cart", None),
    ]
    assert rows[2]["_raw"] == f"{AT}\t{lines[1]}"
    assert [row["_raw"] for row in rows[4:]] == [*lines[2:], "{broken"]
    schema = pa.schema(
        [
            ("session", pa.int64()),
            (
                "events",
                pa.list_(pa.struct({"aid": pa.float64(), "ts": pa.int64(), "kind": pa.struct({"name": pa.string()})})),
            ),
        ]
    )
    typed = [{"session": int(line["session"]), "events": line.get("events")} for line in SESSIONS[:4]]
    pq.write_table(pa.Table.from_pylist(typed, schema=schema), tmp_path / "a.parquet")
    again = parsed(spark, tmp_path / "a.parquet", load_format(form(tmp_path, **BY_SESSION)))
    names = ("user_id", "item_id", "event_type", "event_order", "ts")
    assert found(again, *names) == found(rows[:6], *names)
    wrong = load_format(form(tmp_path, **{**BY_SESSION, "explode": {"column": "events", "kind": "text"}}))
    with pytest.raises(UserError, match=r"column events is not of the kind text: .*a\.parquet .*array<struct"):
        parsed(spark, tmp_path / "a.parquet", wrong)


TEXTS = {
    "item": {"columns": "shown"},
    "event_type": {
        "default": "impression",
        "rules": [{"type": "click", "column": "shown.suffix", "equals": "1"}],
    },
    "impression_events": "impression",
    "explode": {"column": "shown", "kind": "text", "suffix": "-([01])$"},
    "order": "shown.position",
}
OF_TEXTS = [
    (None, "N1", "click", 0),
    (None, "N-2", "impression", 1),
    (None, "N3", "impression", 2),
    ("empty shown", None, "impression", None),
]


def test_the_elements_of_a_text_are_rows_and_their_suffix_is_a_column(spark, tmp_path):
    (tmp_path / "a.csv").write_text(f"user,at,shown\nu,{AT},N1-1  N-2-0 N3\nu,{AT}, \n")
    fmt = load_format(form(tmp_path, **TEXTS))
    assert found(parsed(spark, tmp_path / "a.csv", fmt), "item_id", "event_type", "event_order") == OF_TEXTS
    shown = pa.array([["N1-1", "N-2-0", "N3"], []])
    pq.write_table(pa.table({"user": ["u", "u"], "at": [AT, AT], "shown": shown}), tmp_path / "a.parquet")
    both = {**TEXTS, "readers": TYPED, "explode": {**TEXTS["explode"], "kind": "array"}}
    (tmp_path / "a.json").write_text(json.dumps({"user": "u", "at": AT, "shown": ["N1-1", "N-2-0", "N3"]}))
    fmt = load_format(form(tmp_path, **both))
    for name, expected in (("a.parquet", OF_TEXTS), ("a.json", OF_TEXTS[:3])):
        assert found(parsed(spark, tmp_path / name, fmt), "item_id", "event_type", "event_order") == expected
    (tmp_path / "b.csv").write_text(f"user,at\nu,{AT}\n")
    with pytest.raises(UserError, match=r"lacks column shown: .*b\.csv"):
        parsed(spark, tmp_path / "b.csv", load_format(form(tmp_path, **TEXTS)))


def test_a_name_with_a_dot_goes_into_objects_and_structs_where_no_column_has_it(spark, tmp_path):
    fmt = load_format(form(tmp_path, item={"columns": ["p.id", "p"]}, event_type={"default": "click"}))
    lines = [
        {"at": AT, "p.id": "whole", "p": {"id": "within"}},
        {"at": AT, "p": {"id": 12.0}},
        {"at": AT, "p": "alone"},
        {"at": AT, "p": {"id": 12345678901234567.0}},
    ]
    (tmp_path / "a.json").write_text("\n".join(json.dumps(line) for line in lines))
    rows = parsed(spark, tmp_path / "a.json", fmt)
    assert found(rows, "item_id")[:3] == [(None, "whole"), (None, "12"), (None, "alone")]
    fmt = load_format(form(tmp_path, item={"columns": "p.id"}, user={"columns": "p.who.name"}))
    (tmp_path / "b.json").write_text(json.dumps({"at": AT, "p": {"id": 12345678901234567.0, "who": {"name": "u"}}}))
    assert found(parsed(spark, tmp_path / "b.json", fmt), "user_id") == [("id too large for a double", None)]
    within = [{"id": 1.0, "who": {"name": "u"}}, {"id": None, "who": {"name": "v"}}]
    pq.write_table(pa.table({"at": [AT, AT], "p": within}), tmp_path / "a.parquet")
    rows = parsed(spark, tmp_path / "a.parquet", fmt)
    assert found(rows, "user_id", "item_id") == [(None, "u", "1"), ("missing item", None, None)]
    pq.write_table(pa.table({"at": [AT], "p": within[:1], "p.id": ["whole"]}), tmp_path / "b.parquet")
    assert found(parsed(spark, tmp_path / "b.parquet", fmt), "user_id", "item_id") == [(None, "u", "whole")]


@pytest.mark.integration
def test_the_place_of_a_row_in_its_file_decides_whatever_parts_it_is_read_in(spark, tmp_path):
    log(tmp_path, "a.csv", ["user,item,at", *(f"u,{n},{AT}" for n in range(5000)), "u,,1", f"u,last,{AT}"])
    log(tmp_path, "b.json", [json.dumps({"user": "v", "item": n, "at": AT}) for n in range(50)])
    kept = {name: spark.conf.get(name) for name in ("spark.sql.files.maxPartitionBytes",)}
    spark.conf.set("spark.sql.files.maxPartitionBytes", "8000")
    try:
        assert take_in(spark, tmp_path, form(tmp_path, order="row")).rows_kept == 5051
    finally:
        for name, value in kept.items():
            spark.conf.set(name, value)
    rows = pl.read_delta(str(tmp_path / "warehouse" / "events")).select("source", "event_order", "item_id").sort("*")
    of_a = rows.filter(pl.col("source") == "a.csv")
    assert of_a["item_id"].to_list() == [*map(str, range(5000)), "last"]
    assert of_a["event_order"].to_list() == [*range(5000), 5001]
    assert rows.filter(pl.col("source") == "b.json")["event_order"].to_list() == list(range(50))


def test_a_place_that_is_no_whole_number_is_refused(spark, tmp_path):
    log(tmp_path, "a.csv", ["item,at,n", f"i,{AT},2", f"i,{AT},", f"i,{AT},1.5", f"i,{AT},x"])
    rows = parsed(spark, tmp_path / "logs", load_format(form(tmp_path, order=["nr", "n"])))
    bad = "bad order: no whole number"
    assert found(rows, "event_order") == [(None, 2), (None, None), (bad, None), (bad, None)]


PIECES = [f"u,i,{AT},1", f"u,i,{AT},1", f"u,i,{AT},3", f"u,j,{AT},", f"v,i,{AT},1"]


@pytest.mark.integration
def test_equal_rows_of_a_file_are_pieces_and_those_of_another_are_the_same_once_more(spark, tmp_path):
    log(tmp_path, "a.csv", ["user,item,at,n", *PIECES])
    fmt = form(tmp_path, quantity={"columns": "n", "required": False}, duplicates="keep")
    assert take_in(spark, tmp_path, fmt).rows_kept == 5
    log(tmp_path, "b.csv", ["user,item,at,n", *PIECES[::-1], PIECES[0]])  # with a third piece
    done = take_in(spark, tmp_path, fmt)
    assert (done.rows_read, done.rows_kept, done.rows_duplicate) == (6, 1, 5)
    first = ("i", 1.0)
    assert table(tmp_path, "events", "item_id", "quantity") == [*[first] * 4, ("i", 3.0), ("j", None)]
    (tmp_path / "logs" / "a.csv").write_text("user,item,at,n\n")  # what it kept is the other's to keep now
    assert take_in(spark, tmp_path, fmt, on_changed_file="replace").files_new == 2
    assert table(tmp_path, "events", "item_id", "quantity") == [*[first] * 4, ("i", 3.0), ("j", None)]
    assert {source for (source,) in table(tmp_path, "events", "source")} == {"b.csv"}


@pytest.mark.integration
def test_equal_rows_of_a_file_may_be_one_event_of_their_sum(spark, tmp_path):
    log(tmp_path, "a.csv", ["user,item,at,n", *PIECES, PIECES[3]])
    log(tmp_path, "b.csv", ["user,item,at,n", *PIECES[::-1], PIECES[3]])
    done = take_in(spark, tmp_path, form(tmp_path, quantity={"columns": "n", "required": False}, duplicates="add"))
    assert (done.rows_read, done.rows_kept, done.rows_duplicate, done.rows_added) == (12, 3, 9, 6)
    assert table(tmp_path, "events", "item_id", "quantity") == [("i", 1.0), ("i", 5.0), ("j", 2.0)]


@pytest.mark.parametrize(
    ("unit", "more", "expected"),
    [
        ("s", {}, "drop"),
        ("yyyy-MM-dd HH:mm", {}, "drop"),
        ("yyyy-MM-dd", {}, "keep"),
        ("dd.MM.yyyy", {"duplicates": "add"}, "add"),
        ("yyyyMMdd", {"event_id": {"columns": "id"}}, "drop"),
    ],
)
def test_where_times_are_dates_equal_rows_are_pieces(tmp_path, unit, more, expected):
    assert load_format(form(tmp_path, ts={"columns": "at", "unit": unit}, **more)).equal_rows == expected


@pytest.mark.integration
def test_by_its_id_an_event_is_known_across_files_and_nights(spark, tmp_path):
    later = AT + 86400
    fmt = form(tmp_path, event_id={"columns": "id", "required": False})
    first = ["id,user,item,at", f"e1,u,i,{AT}", f"e2,u,i,{AT}", f"e1,u,other,{AT + 5}", f",u,i,{AT}", f",u,i,{AT}"]
    log(tmp_path, "2024-01-01.csv", first)
    done = take_in(spark, tmp_path, fmt)
    assert (done.rows_kept, done.rows_duplicate) == (3, 2)
    log(tmp_path, "2024-01-02.csv", ["id,user,item,at", f"e1,u,i,{later}", f"e3,u,i,{later}", f",u,i,{AT}"])
    done = take_in(spark, tmp_path, fmt, date(2024, 1, 2))
    assert (done.rows_kept, done.rows_duplicate) == (1, 2)
    ids = [("e1", "2024-01-01.csv"), ("e2", "2024-01-01.csv"), ("e3", "2024-01-02.csv"), (None, "2024-01-01.csv")]
    assert table(tmp_path, "events", "event_id", "source") == ids
    log(tmp_path, "2024-01-01.csv", first[:1] + first[2:3])
    done = take_in(spark, tmp_path, fmt, date(2024, 1, 2), on_changed_file="replace")
    assert (done.files_new, done.rows_kept) == (2, 4)  # the second night's e1 and event without an id count now
    ids = [("e1", "2024-01-02.csv"), ("e2", "2024-01-01.csv"), ("e3", "2024-01-02.csv"), (None, "2024-01-02.csv")]
    assert table(tmp_path, "events", "event_id", "source") == ids


@pytest.mark.integration
def test_other_events_are_left_out_and_do_not_count_as_faults(spark, tmp_path):
    lines = [
        {"kind": "view", "at": AT, "items": [{"id": "a"}, {"id": ""}, {"id": "b"}]},
        *[{"kind": "page", "at": AT, "items": []}] * 8,
        {"kind": "view", "at": AT},
        {"kind": "shown", "at": AT, "items": [{"id": "c"}]},
    ]
    shape = {
        "readers": TYPED,
        "item": {"columns": "items.id"},
        "event_type": {"default": "other", "columns": "kind"},
        "event_weights": {"view": 1},
        "impression_events": "shown",
        "explode": {"column": "items"},
    }
    log(tmp_path, "a.json", [json.dumps(line) for line in lines])
    fmt = form(tmp_path, **shape, other_events="leave_out")
    done = take_in(spark, tmp_path, fmt, max_quarantine_share=0.0)
    assert (done.rows_kept, done.rows_impressions) == (3, 1)
    assert done.reasons == {"left out: page": 8, "left out: view": 2}
    assert done.rows_left_out == 10
    broken = [json.dumps(line) for line in lines] + ["{"]
    log(tmp_path, "b.json", broken)
    with pytest.raises(UserError, match=r"1 of 4 rows are invalid, mostly: malformed JSON \(1\)"):
        take_in(spark, tmp_path, fmt, max_quarantine_share=0.05)
    with pytest.raises(UserError, match=r"must be one of view, shown"):
        load_format(form(tmp_path, **shape))


LINES = [f"{n % 3},{n}" for n in range(6)]
ORDERS = ["id,who,when", f"0,u,{AT}", f"1, v ,{AT + 60}", "0,older,1", ",w,1"]
BY_ORDER = {
    "readers": [{"kind": "csv", "files": "*.csv"}],
    "user": {"columns": "who", "normalize": "trim"},
    "item": {"columns": "product"},
    "ts": {"columns": "when", "unit": "s"},
    "basket": {"columns": "order"},
    "join": [{"readers": [{"kind": "csv", "files": "orders*.csv"}], "key": "order", "their_key": "id"}],
    "missing_user": "quarantine",
}


@pytest.mark.integration
def test_lines_have_what_their_orders_say(spark, tmp_path):
    log(tmp_path, "lines.csv", ["order,product", *LINES])
    fmt = form(tmp_path, **BY_ORDER)
    with pytest.raises(UserError, match=r"no file to join by order: .*orders\*\.csv"):
        take_in(spark, tmp_path, fmt)
    log(tmp_path, "orders-1.csv", ORDERS)
    done = take_in(spark, tmp_path, fmt)
    assert (done.files_new, done.rows_read, done.rows_kept) == (1, 6, 4)
    assert done.reasons == {"no partner by order": 2}
    events = [("u", "0", "0"), ("u", "3", "0"), ("v", "1", "1"), ("v", "4", "1")]
    assert table(tmp_path, "events", "user_id", "item_id", "basket_id") == events
    refused = [("missing id", "@joined/orders-1.csv"), *[("no partner by order", "lines.csv")] * 2]
    assert table(tmp_path, "quarantine", "reason", "source_file") == refused
    assert take_in(spark, tmp_path, fmt).outputs == {}
    log(tmp_path, "orders-2.csv", ["id,who,when", f"2,x,{AT}"])  # the lines that had no partner have one now
    done = take_in(spark, tmp_path, fmt)
    assert (done.files_new, done.rows_kept, done.reasons) == (1, 6, {})
    assert table(tmp_path, "quarantine", "reason", "source_file") == refused[:1]
    log(tmp_path, "orders-1.csv", [line.replace("v", "V") for line in ORDERS])
    with pytest.raises(UserError, match=r"changed since it was taken in: .*orders-1\.csv"):
        take_in(spark, tmp_path, fmt)
    take_in(spark, tmp_path, fmt, on_changed_file="replace")
    assert [user for (user,) in table(tmp_path, "events", "user_id")] == ["V", "V", "u", "u", "x", "x"]


@pytest.mark.integration
def test_the_row_of_the_last_file_is_the_partner_and_what_a_line_says_counts(spark, tmp_path):
    log(tmp_path, "lines.csv", ["order,product,who", "0,a,", "0,b,me", "2,c,"])
    log(tmp_path, "orders-1.csv", ORDERS)
    log(tmp_path, "orders-2.csv", ["id,who,when,city", f"0,u2,{AT + 5},5", f"2,w,{AT},6"])
    cities = [{"kind": "csv", "files": "cities.csv"}]
    log(tmp_path, "cities.csv", ["city,country", "5,France"])
    join = [*BY_ORDER["join"], {"readers": cities, "key": "city"}]
    country = {"name": "country", "columns": "country"}
    done = take_in(spark, tmp_path, form(tmp_path, **{**BY_ORDER, "join": join, "user_attributes": [country]}))
    assert done.reasons == {"no partner by city": 1}
    assert table(tmp_path, "events", "user_id", "item_id") == [("me", "b"), ("u2", "a")]
    assert table(tmp_path, "users", "id", "country") == [("me", "France"), ("u2", "France")]
