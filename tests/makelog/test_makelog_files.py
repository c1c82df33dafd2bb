"""What the generator writes: the declared formats, exact counts, the same bytes for the same options."""

import csv
import gzip
import hashlib
import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime
from itertools import pairwise

import pyarrow.parquet as pq
import pytest

from sparkrec.errors import UserError
from sparkrec.makelog import LogOptions, make_log
from sparkrec.makelog.generate import plan_windows
from sparkrec.settings.format_files import load_format

FORMATS = ("reviews", "invoices", "sessions", "ratings")
SMALL = {f: LogOptions(f, 3000, users=100, items=300, days=5) for f in FORMATS}

EVERY_KIND = pytest.mark.parametrize(
    "options",
    [*SMALL.values(), replace(SMALL["sessions"], file_type="csv")],
    ids=lambda options: f"{options.format}-{options.written_as}",
)


def digest(folder):
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def read_rows(path):
    """The rows of a day file as dictionaries of text, read with the standard library alone."""
    if path.suffix == ".parquet":
        return [{k: "" if v is None else str(v) for k, v in r.items()} for r in pq.read_table(path).to_pylist()]
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()
    if ".json" in path.name:
        return [json.loads(line) for line in text.splitlines()]
    if ".dat" in path.name:
        return [
            dict(zip(("user", "item", "rating", "ts"), line.split("::"), strict=True)) for line in text.splitlines()
        ]
    rows = csv.DictReader(text.splitlines(), strict=True)
    return list(rows)


def read_log(made):
    return {p.name: read_rows(p) for p in sorted(made.log_path.iterdir())}


@EVERY_KIND
def test_same_options_same_bytes(tmp_path, options):
    options = replace(options, bad_rows=0.02, duplicates=0.03)
    first, second, third = (tmp_path / n for n in "abc")
    make_log(options, first)
    make_log(options, second)
    make_log(replace(options, seed=2), third)
    assert digest(first) == digest(second)
    assert digest(first) != digest(third)


def test_gzip_is_reproducible_and_holds_the_same_bytes(tmp_path):
    plain, one, two = (
        make_log(replace(SMALL["invoices"], gzip=z), tmp_path / n) for z, n in ((0, "p"), (1, "a"), (1, "b"))
    )
    assert digest(one.log_path) == digest(two.log_path)
    for path in one.log_path.iterdir():
        assert gzip.decompress(path.read_bytes()) == (plain.log_path / path.stem).read_bytes()


@EVERY_KIND
def test_one_file_holds_what_the_daily_files_hold(tmp_path, options):
    daily, one = (make_log(replace(options, one_file=o), tmp_path / str(o)) for o in (False, True))
    assert (daily.files, one.files, one.events) == (5, 1, 3000)
    ((name, rows),) = read_log(one).items()
    assert name == f"{options.format}.{sorted(daily.log_path.iterdir())[0].suffix[1:]}"
    assert rows == [row for day in read_log(daily).values() for row in day]


@pytest.mark.parametrize("name", FORMATS)
def test_exact_number_of_distinct_events_in_daily_files(tmp_path, name):
    made = make_log(SMALL[name], tmp_path)
    log = read_log(made)
    rows = [json.dumps(row) for rows in log.values() for row in rows]
    assert len(rows) == len(set(rows)) == made.events == 3000
    assert made.files == len(log) == 5
    assert [n for n in log if "2024-01-01" in n or "2024-01-05" in n] == [sorted(log)[0], sorted(log)[-1]]


def test_invoices_are_written_as_declared(tmp_path):
    made = make_log(SMALL["invoices"], tmp_path)
    fmt, log = load_format("invoices"), read_log(made)
    declared = [fmt.basket, fmt.item, fmt.quantity, fmt.ts, fmt.price, fmt.user]
    for name, rows in log.items():
        assert {f.columns[0] for f in declared} | {"Description", "Country"} == set(rows[0])
        times = [datetime.strptime(r["InvoiceDate"], "%Y-%m-%d %H:%M:%S") for r in rows]
        assert times == sorted(times)
        assert {t.date().isoformat() for t in times} == {name.removesuffix(".csv")}
    rows = [row for rows in log.values() for row in rows]
    assert all(float(r["UnitPrice"]) > 0 and r["UnitPrice"].split(".")[1].isdigit() for r in rows)
    cancelled = [r for r in rows if r["InvoiceNo"].startswith("C")]
    assert all((int(r["Quantity"]) < 0) == r["InvoiceNo"].startswith("C") for r in rows)
    bought = {(r["CustomerID"], r["StockCode"], r["Quantity"]) for r in rows}
    assert 20 < len(cancelled) < 100
    assert all((r["CustomerID"], r["StockCode"], r["Quantity"][1:]) in bought for r in cancelled)
    anonymous = sum(not r["CustomerID"] for r in rows)
    assert 0.1 < anonymous / len(rows) < 0.3
    assert all(r["CustomerID"].endswith(".0") for r in rows if r["CustomerID"])
    baskets = Counter((r["InvoiceNo"], r["StockCode"]) for r in rows)
    assert max(baskets.values()) == 1
    assert any("," in r["Description"] for r in rows)
    assert len({(r["StockCode"], r["Description"], r["UnitPrice"]) for r in rows}) == len(
        {r["StockCode"] for r in rows}
    )


@pytest.mark.parametrize("file_type", ["parquet", "csv"])
def test_sessions_are_written_as_declared(tmp_path, file_type):
    made = make_log(replace(SMALL["sessions"], file_type=file_type), tmp_path)
    fmt, log = load_format("sessions"), read_log(made)
    sessions = {}
    for name, rows in log.items():
        for field in (fmt.session, fmt.user, fmt.item, fmt.ts, fmt.value):
            assert set(field.columns) & set(rows[0])
        times = [int(r["ts"]) for r in rows]
        assert times == sorted(times)
        days = {datetime.fromtimestamp(t, UTC).date().isoformat() for t in times}
        assert days == {name.split(".")[0]}
        for r in rows:
            sessions.setdefault(r["session_id"], []).append((int(r["ts"]), r["user_id"]))
    assert all(len({u for _, u in events}) == 1 for events in sessions.values())
    assert all(a < b for events in sessions.values() for (a, _), (b, _) in pairwise(events))
    assert 0.03 < sum(not e[0][1] for e in sessions.values()) / len(sessions) < 0.2
    with made.items_path.open() as file:
        items = {r["song_id"]: r for r in csv.DictReader(file, strict=True)}
    assert {r["song_id"] for rows in log.values() for r in rows} <= set(items)
    assert len(items) == 300
    assert {a.name for a in fmt.items_file.attributes} <= set(next(iter(items.values())))


def test_sessions_without_session_ids(tmp_path):
    made = make_log(replace(SMALL["sessions"], session_id=False, anonymous=0.0), tmp_path)
    rows = [row for rows in read_log(made).values() for row in rows]
    assert set(rows[0]) == {"user_id", "song_id", "ts", "playtime"}
    assert all(row["user_id"] for row in rows)


def test_reviews_are_written_as_declared(tmp_path):
    made = make_log(SMALL["reviews"], tmp_path)
    fmt, log = load_format("reviews"), read_log(made)
    declared = {f.columns[0] for f in (fmt.user, fmt.item, fmt.ts, fmt.value)} | set(fmt.text.columns)
    for name, rows in log.items():
        assert declared | {"reviewerName", "helpful", "reviewTime"} == set(rows[0])
        day = {datetime.fromtimestamp(r["unixReviewTime"], UTC).date().isoformat() for r in rows}
        assert day == {name.removesuffix(".json")}
        assert all(r["overall"] in (1.0, 2.0, 3.0, 4.0, 5.0) and isinstance(r["overall"], float) for r in rows)
    items = [json.loads(line) for line in made.items_path.read_text().splitlines()]
    assert {r["asin"] for rows in log.values() for r in rows} <= {i["asin"] for i in items}
    assert all(isinstance(i["price"], float) and i["title"] and i["brand"] and i["category"] for i in items)


def test_ratings_are_written_as_declared(tmp_path):
    made = make_log(SMALL["ratings"], tmp_path)
    log = read_log(made)
    rows = [row for rows in log.values() for row in rows]
    assert {int(r["rating"]) for r in rows} <= set(range(1, 11))
    assert len({int(r["rating"]) for r in rows}) >= 6
    items = [line.split("::") for line in made.items_path.read_text().splitlines()]
    assert {r["item"] for r in rows} <= {i[0] for i in items}
    assert all(len(i) == 3 and i[1].endswith(")") and i[2] for i in items)
    assert list(log) == [f"ratings-2024-01-0{d}.dat" for d in range(1, 6)]


@EVERY_KIND
def test_bad_rows_and_duplicates_come_on_top(tmp_path, options):
    clean, dirty = (tmp_path / n for n in "cd")
    make_log(options, clean)
    made = make_log(replace(options, bad_rows=0.05, duplicates=0.1), dirty)
    assert (made.events, made.bad_rows, made.duplicates) == (3000, 150, 300)
    if options.written_as == "parquet":
        lines = [tuple(r.values()) for rows in read_log(made).values() for r in rows]
        good = Counter(tuple(r.values()) for p in (clean / "log").iterdir() for r in read_rows(p))
    else:
        lines = [line for p in made.log_path.iterdir() for line in p.read_bytes().splitlines()]
        good = Counter(line for p in (clean / "log").iterdir() for line in p.read_bytes().splitlines())
    assert len(lines) == sum(good.values()) + 450
    assert sum(line not in good for line in lines) == 150
    assert set(lines) >= set(good)


def test_bad_rows_leave_the_good_ones_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr("sparkrec.makelog.generate.WINDOW_EVENTS", 150)
    clean, dirty = (make_log(replace(SMALL["ratings"], bad_rows=b), tmp_path / str(b)) for b in (0.0, 0.5))
    good, all_rows = ((p.read_text() for p in sorted(m.log_path.iterdir())) for m in (clean, dirty))
    for few, many in zip(good, all_rows, strict=True):
        assert set(few.splitlines()) < set(many.splitlines())


def test_more_windows_than_one_a_day_keep_order_and_count(tmp_path, monkeypatch):
    monkeypatch.setattr("sparkrec.makelog.generate.WINDOW_EVENTS", 150)
    options = replace(SMALL["sessions"], file_type="csv")
    assert len(plan_windows(options)) > 3 * options.days
    made = make_log(options, tmp_path)
    for name, rows in read_log(made).items():
        times = [int(r["ts"]) for r in rows]
        assert times == sorted(times)
        assert {datetime.fromtimestamp(t, UTC).date().isoformat() for t in times} == {name.split(".")[0]}
    assert made.events == 3000


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(("events", "users", "items", "days"), [(1, 1, 4, 1), (7, 1, 4, 40), (300, 5, 5, 3)])
def test_tiny_logs(tmp_path, name, events, users, items, days):
    made = make_log(LogOptions(name, events, users=users, items=items, days=days), tmp_path)
    assert sum(len(rows) for rows in read_log(made).values()) == events


def test_new_items_and_users_appear_over_time(tmp_path):
    made = make_log(LogOptions("ratings", 40_000, users=800, items=300, days=10), tmp_path)
    log = list(read_log(made).values())
    for column in ("user", "item"):
        early = {r[column] for rows in log[:5] for r in rows}
        late = {r[column] for rows in log[5:] for r in rows}
        assert len(late - early) > 0.05 * len(late)


def test_windows_add_up():
    options = LogOptions("invoices", 1_234_567, days=7, bad_rows=0.0123, duplicates=0.5)
    windows = plan_windows(options)
    assert sum(w.events for w in windows) == 1_234_567
    assert sum(w.bad_rows for w in windows) == int(0.0123 * 1_234_567)
    assert sum(w.duplicates for w in windows) == 617_283
    assert max(w.events for w in windows) <= 200_000


def test_a_log_is_never_overwritten(tmp_path):
    make_log(SMALL["ratings"], tmp_path)
    before = digest(tmp_path)
    with pytest.raises(UserError, match="there is a log already"):
        make_log(SMALL["invoices"], tmp_path)
    assert digest(tmp_path) == before


@pytest.mark.parametrize(
    "wrong",
    [
        {"format": "clicks"}, {"events": 0}, {"events": -5}, {"users": 0}, {"items": 3}, {"days": 0}, {"seed": -1},
        {"bad_rows": 1.5}, {"duplicates": -0.1}, {"anonymous": 0.5}, {"file_type": "csv"}, {"session_id": False},
        {"format": "sessions", "gzip": True}, {"start": date(9999, 12, 30)}, {"users": 2**31},
        {"bad_rows": float("nan")},
    ],
    ids=str,
)  # fmt: skip
def test_wrong_options(wrong):
    with pytest.raises(UserError):
        LogOptions(**{"format": "ratings", "events": 10, **wrong})


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot"):
        make_log(SMALL["ratings"], tmp_path / "file")
