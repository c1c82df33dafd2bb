"""Reading of the tables without a JVM: lists, metrics, runs, tables, SQL, and what it refuses."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sparkrec.errors import UserError
from sparkrec.rendering import render
from sparkrec.warehouse import query
from sparkrec.warehouse.location import Warehouse
from sparkrec.warehouse.tables import METRICS, RUNS, topk_table

DAY1, DAY2 = date(2024, 1, 1), date(2024, 1, 2)
ODD_USERS = [
    "it's",
    'say "hi"',
    "'; drop table topk_als; --",
    "../../etc",
    "a\nb",
    "🎧",
    "%",
    "",
    "null",
    "x' or '1'='1",
]
SCORES = [("als", "recall", 20, 0.1), ("als", "rmse", None, 0.9), ("popularity", "recall", 20, 0.05)]
T0 = datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)


def lists(run_date, users, n=3):
    rows = [(run_date, u, r, f"i{r}", 1.0 / r, f"v-{run_date}", "model") for u in users for r in range(n, 0, -1)]
    schema = {"run_date": pl.Date, "user_id": pl.String, "rank": pl.Int32, "item_id": pl.String, "score": pl.Float32,
              "model_version": pl.String, "source": pl.String}  # fmt: skip
    return pl.DataFrame(rows, schema=schema, orient="row")


def write_metrics(path):
    rows = [
        (day, model, "v", metric, k, value, 10, "holdout_users")
        for day in (DAY1, DAY2)
        for model, metric, k, value in SCORES
    ]
    schema = dict(
        zip(
            METRICS.column_names[:8],  # as an earlier version wrote them, without the protocol and the intervals
            [pl.Date, pl.String, pl.String, pl.String, pl.Int32, pl.Float64, pl.Int64, pl.String],
            strict=True,
        )
    )
    write_deltalake(path, pl.DataFrame(rows, schema=schema, orient="row"), partition_by=["run_date"])


def write_runs(path, without=(), config="{}"):
    rows = [
        {
            "run_id": f"r{day}", "run_date": day, "stage": stage, "status": "done",
            "started_at": T0 + timedelta(days=day.day, minutes=i),
            "ended_at": T0 + timedelta(days=day.day, minutes=i, seconds=12.34),
            "inputs": "{}", "outputs": '{"events": 1}', "config_hash": "h", "config": config, "code_version": "0.1.0",
            "rows_in": 10, "rows_out": 8, "rows_quarantined": 1, "rows_duplicate": 1, "message": None,
            "jobs": 3, "seconds": 12.34,
        }
        for day in (DAY2, DAY1)
        for i, stage in enumerate(["ingest", "index"])
    ]  # fmt: skip
    frame = pl.DataFrame(rows, schema_overrides={"message": pl.String}).select(RUNS.column_names).drop(without)
    write_deltalake(path, frame)


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory):
    path = tmp_path_factory.mktemp("100% ware house'; drop #é?")  # a name that is not to be spliced anywhere
    write_deltalake(f"{path}/topk_als", lists(DAY1, ["a", "gone"]), partition_by=["run_date"])
    write_deltalake(f"{path}/topk_als", lists(DAY2, ["a", *ODD_USERS]), mode="append", partition_by=["run_date"])
    gru = lists(DAY2, ["a"]).with_columns(key_type=pl.lit("user"))
    session = lists(DAY2, ["a", "s1"]).with_columns(key_type=pl.lit("session"))
    write_deltalake(f"{path}/topk_gru", pl.concat([session, gru]), partition_by=["run_date"])
    write_deltalake(f"{path}/items", pl.DataFrame({"id": ["i1", "i3", "i9"], "title": ["Red Mug", 'A "B", C', "no"]}))
    write_metrics(f"{path}/metrics")
    write_runs(f"{path}/runs")
    return Warehouse(str(path))


@pytest.fixture
def untouched(warehouse):
    """Fails where a test changed anything below the warehouse's parent folder."""
    top = os.path.dirname(warehouse.path)

    def files():
        return {os.path.join(d, f): os.stat(os.path.join(d, f)).st_mtime_ns for d, _, fs in os.walk(top) for f in fs}

    before = files()
    yield
    assert files() == before


def text(frames, form):
    out = io.StringIO()
    render(frames, form, out)
    return out.getvalue()


def test_an_id_is_found_as_the_log_spells_it(tmp_path):
    """By the format of the night; where that is not known, or spells ids as they come, the nearest is named."""
    beside = lists(DAY2, ["85123A", "é"]).rename({"user_id": "item_id", "item_id": "similar_item_id"}).drop("source")
    write_deltalake(f"{tmp_path}/topk_als_items", beside, partition_by=["run_date"])
    write_deltalake(f"{tmp_path}/topk_als", lists(DAY2, ["17850", "Ann"]), partition_by=["run_date"])
    where = Warehouse(str(tmp_path))

    def refused(*asked):
        with pytest.raises(UserError) as caught:
            query.similar(where, "als", *asked)
        return str(caught.value)

    unknown = "no als list of this item on 2024-01-02: item 85123a (there is one of 85123A)"
    assert refused("85123a") == unknown  # no ledger
    for config in ("{}", '{"logs": {"format": "elsewhere/invoices.yaml"}}', '{"logs": {"format": "reviews"}}'):
        write_runs(f"{tmp_path}/runs", config=config)
        assert refused("85123a") == unknown
        shutil.rmtree(tmp_path / "runs")
    write_runs(f"{tmp_path}/runs", config='{"logs": {"format": "invoices"}}')  # item: trim, upper; user: trim, integer
    for spelt in ("85123a", "85123A", " 85123a "):
        found = query.similar(where, "als", spelt, k=2)
        assert (found["item_id"].unique().to_list(), found["rank"].to_list()) == (["85123A"], [1, 2])
    assert (
        refused("85123")
        == "no als list of this item on 2024-01-02: item 85123 (check the id, or give another --run-date)"
    )
    assert query.topk(where, "als", "17850.0")["user_id"].unique().to_list() == ["17850"]
    with pytest.raises(UserError, match="there is one of Ann"):
        query.topk(where, "als", "ann")


def test_topk_latest_night_best_first_with_titles(warehouse):
    found = query.topk(warehouse, "als", "a")
    assert found.columns == ["run_date", "user_id", "rank", "item_id", "title", "score", "model_version", "source"]
    assert found["run_date"].unique().to_list() == [DAY2]
    assert found["rank"].to_list() == [1, 2, 3]
    assert found["title"].to_list() == ["Red Mug", None, 'A "B", C']
    assert found["score"].to_list() == pytest.approx([1, 1 / 2, 1 / 3])


def test_topk_of_a_night_and_a_length(warehouse):
    found = query.topk(warehouse, "als", "a", run_date="2024-01-01", k=2)
    assert found["model_version"].unique().to_list() == ["v-2024-01-01"]
    assert found["rank"].to_list() == [1, 2]


def test_topk_of_the_gru_keeps_users_and_sessions_apart(warehouse):
    found = query.topk(warehouse, "gru", "a")
    assert set(topk_table("gru").column_names) < set(found.columns)
    assert found.select("key_type", "rank").rows() == [(t, r) for t in ("session", "user") for r in (1, 2, 3)]


def test_topk_without_items_table(tmp_path):
    write_deltalake(tmp_path / "topk_als", lists(DAY1, ["a"]), partition_by=["run_date"])
    assert query.topk(Warehouse(str(tmp_path)), "als", "a").columns == topk_table("als").column_names
    write_deltalake(tmp_path / "items", pl.DataFrame({"id": ["i1"], "price": [1.0]}))
    assert query.topk(Warehouse(str(tmp_path)), "als", "a").columns == topk_table("als").column_names


@pytest.mark.parametrize("user", ODD_USERS)
def test_odd_users_are_plain_values(warehouse, untouched, user):
    found = query.topk(warehouse, "als", user)
    assert found["user_id"].to_list() == [user] * 3


@pytest.mark.parametrize("user", ["A", "a ", "' or true --", "a' --", "*", "i1", "gone", "\ud800"])
def test_unknown_user(warehouse, untouched, user):
    with pytest.raises(UserError, match=r"list of this user|UTF-8"):
        query.topk(warehouse, "als", user)


@pytest.mark.parametrize("model", ["", "ALS", "../topk_als", "als'; --", "als/../topk_als", "nope"])
def test_unknown_model(warehouse, untouched, model):
    with pytest.raises(UserError, match=r"unknown model.*als, content, gru, hybrid"):
        query.topk(warehouse, model, "a")


def test_model_without_a_table(warehouse):
    with pytest.raises(UserError, match=r"no such table yet.*topk_two_tower"):
        query.topk(warehouse, "two_tower", "a")


@pytest.mark.parametrize("run_date", ["2024-01-03", "yesterday", "2024-01-02' or '1'='1", "2024-13-01", ""])
def test_unknown_night(warehouse, untouched, run_date):
    with pytest.raises(UserError, match=r"no such night|not YYYY-MM-DD"):
        query.topk(warehouse, "als", "a", run_date=run_date)
    with pytest.raises(UserError, match=r"no such night|not YYYY-MM-DD"):
        query.runs(warehouse, run_date=run_date)


def test_metrics(warehouse):
    found = query.metrics(warehouse)
    assert found.height == 6
    assert found["run_date"].is_sorted()
    latest = query.metrics(warehouse, run_date="latest", model="als")
    assert latest.select("run_date", "metric", "k", "value").rows() == [
        (DAY2, "recall", 20, 0.1),
        (DAY2, "rmse", None, 0.9),
    ]
    with pytest.raises(UserError, match=r"unknown model: gru .one of als, popularity"):
        query.metrics(warehouse, model="gru")


def test_metrics_on_a_screen_are_models_by_metrics():
    of = ["run_date", "split", "model", "metric", "k", "value", "n"]
    rows = [
        (DAY2, "holdout_users", model, metric, k, value / k, 36)
        for model, value in (("als", 3.0), ("popularity", 2.0))
        for metric in ("gini", "recall")
        for k in (10, 20)
    ]
    rows += [
        (DAY2, "holdout_users", "als", "users_without_list", None, 4.0, 40),
        (DAY2, "holdout_sessions", "gru", "mrr", 20, 0.123456, 844),
        (DAY2, "holdout_cold_users", "als", "recall", 20, 0.5, 3),
        (DAY2, "holdout_ratings", "als", "rmse", None, 0.98764, 7),
        (DAY1, "holdout_users", "als", "recall", 20, 0.00001234567, 30),
    ]
    shown = query.metrics_short(pl.DataFrame(rows, schema=of, orient="row"))
    assert shown.columns == ["run_date", "split", "k", "model", "n", "recall", "mrr", "gini", "rmse", "users_without_list"]  # fmt: skip  # noqa: E501
    assert shown.rows() == [
        (DAY1, "holdout_users", 20, "als", 30, 0.00001235, None, None, None, None),
        (DAY2, "holdout_ratings", None, "als", 7, None, None, None, 0.9876, None),
        (DAY2, "holdout_sessions", 20, "gru", 844, None, 0.1235, None, None, None),
        (DAY2, "holdout_users", 10, "als", 40, 0.3, None, 0.3, None, 4.0),
        (DAY2, "holdout_users", 10, "popularity", 36, 0.2, None, 0.2, None, None),
        (DAY2, "holdout_users", 20, "als", 40, 0.15, None, 0.15, None, 4.0),
        (DAY2, "holdout_users", 20, "popularity", 36, 0.1, None, 0.1, None, None),
        (DAY2, "holdout_cold_users", 20, "als", 3, 0.5, None, None, None, None),
    ]


def test_runs_in_order_of_time(warehouse):
    found = query.runs(warehouse)
    assert found.columns == RUNS.column_names
    assert found.select("run_date", "stage").rows() == [(d, s) for d in (DAY1, DAY2) for s in ("ingest", "index")]
    one = query.runs(warehouse, run_date="latest", stage="index")
    assert one["run_id"].to_list() == ["r2024-01-02"]
    assert query.runs_short(one)["seconds"].to_list() == [12.3]
    assert query.runs_short(one)["jobs"].to_list() == [3]
    with pytest.raises(UserError, match="unknown stage"):
        query.runs(warehouse, stage="'; drop table runs")


def test_a_ledger_of_an_earlier_version_is_read(tmp_path):
    write_runs(tmp_path / "runs", without=["jobs", "seconds"])
    found = query.runs(Warehouse(str(tmp_path)))
    assert found.columns == RUNS.column_names
    assert found["jobs"].to_list() == [None] * 4
    assert query.runs_short(found)["seconds"].to_list() == [12.3] * 4


def test_tables(warehouse):
    found = {row["name"]: row for row in query.tables(warehouse).to_dicts()}
    assert set(found) == {"topk_als", "topk_gru", "items", "metrics", "runs"}
    als = found["topk_als"]
    assert (als["rows"], als["version"], als["files"]) == (6 + 33, 1, 2)
    assert als["size_bytes"] == sum(
        os.path.getsize(os.path.join(d, f))
        for d, _, fs in os.walk(warehouse.path + "/topk_als")
        for f in fs
        if f.endswith(".parquet")
    )
    assert als["comment"] == topk_table("als").comment


@pytest.mark.parametrize("path", ["", "nowhere", "file"])
def test_no_warehouse(tmp_path, path):
    (tmp_path / "file").write_text("")
    where = Warehouse(str(tmp_path / path) if path else "")
    for read in (query.tables, query.metrics, query.runs, lambda w: list(query.sql(w, "select 1"))):
        with pytest.raises(UserError, match=r"no warehouse given|no such warehouse"):
            read(where)


def test_empty_warehouse(tmp_path):
    with pytest.raises(UserError, match="no tables"):
        query.tables(Warehouse(str(tmp_path)))
    with pytest.raises(UserError, match="no such table"):
        query.runs(Warehouse(str(tmp_path)))
    with pytest.raises(UserError, match="tables: none"):
        list(query.sql(Warehouse(str(tmp_path)), "select * from runs"))


def test_damaged_tables(tmp_path):
    where = Warehouse(str(tmp_path))
    write_deltalake(tmp_path / "topk_als", lists(DAY1, ["a"]), partition_by=["run_date"])
    for data in (tmp_path / "topk_als").rglob("*.parquet"):
        data.unlink()
    for read in (lambda: query.topk(where, "als", "a"), lambda: list(query.sql(where, "select * from topk_als"))):
        with pytest.raises(UserError):
            read()
    (tmp_path / "topk_als" / "_delta_log" / "00000000000000000000.json").write_text("{ not json")
    for read in (
        lambda: query.topk(where, "als", "a"),
        lambda: query.tables(where),
        lambda: list(query.sql(where, "select * from topk_als")),
    ):
        with pytest.raises(UserError):
            read()


def test_sql_joins_tables(warehouse):
    frames = query.sql(
        warehouse,
        "select t.user_id, t.rank, i.title from topk_als t join items i on t.item_id = i.id "
        "where t.run_date = '2024-01-02' and t.user_id = 'a' order by t.rank",
    )
    assert pl.concat(frames).rows() == [("a", 1, "Red Mug"), ("a", 3, 'A "B", C')]


@pytest.mark.parametrize(
    ("statement", "rows"),
    [
        ("SELECT count(*) n FROM runs", [(4,)]),
        ("  \n with x as (select 1 as a) select a from x;", [(1,)]),
        ("values (1), (2)", [(1,), (2,)]),
        ("-- how many\n(select 1) union all (select 1)", [(1,), (1,)]),
        ("select * from runs where stage = 'nope'", []),
        ("select 'copy x to y; drop table runs' as a", [("copy x to y; drop table runs",)]),
    ],
)
def test_sql_queries(warehouse, untouched, statement, rows):
    assert pl.concat(query.sql(warehouse, statement)).rows() == rows


def test_sql_equal_names_are_told_apart(warehouse):
    frames = list(query.sql(warehouse, "select a.stage, b.stage from runs a join runs b on a.run_id = b.run_id"))
    assert frames[0].columns == ["stage", "stage_2"]


WRITES = [
    "copy topk_als to '{out}'", "copy (select 1) to '{out}'", "COPY runs TO '{out}' STORED AS PARQUET",
    "create external table t stored as csv location '/etc/passwd'", "create table t as select 1",
    "create view v as select 1", "insert into items select * from items", "insert into items values ('x', 'y')",
    "update items set title = 'x'", "delete from items", "drop table items", "drop view items", "truncate table items",
    "set datafusion.execution.batch_size = 1", "alter table items rename to foo", "begin", "commit",
    "merge into items using items on true when matched then delete", "explain select 1", "show tables",
    "describe items", "create function f(int) returns int return 1", "prepare p as select 1", "vacuum items", "", ";",
    "items",     "with x as (select 1 as a) insert into items select a, a from x",
    "with x as (insert into items values (1)) select 1",
    "select 1; copy (select 1) to '{out}'", "select 1; drop table items", "(copy (select 1) to '{out}')",
    "with x as (copy (select 1) to '{out}') select * from x", "select * from (copy (select 1) to '{out}')",
    "/* select */ copy (select 1) to '{out}'", "/* /* */ select 1 */ copy (select 1) to '{out}'",
    "-- select\rcopy (select 1) to '{out}'", "-- \n copy (select 1) to '{out}'", "\ufeffcopy (select 1) to '{out}'",
    "--\u2028select\ncopy (select 1) to '{out}'", "/**/copy (select 1) to '{out}'",
    "explain analyze copy (select 1) to '{out}'",
    "select * from '/etc/passwd'", 'select * from "/etc/passwd"', "select * from read_csv('/etc/passwd')",
    "select * from read_parquet('{out}')", "select * from information_schema.tables", "select * from nope",
    "select nope from items", "selec 1", "select", "select * from items where", "select interval '1 day'",
]  # fmt: skip


@pytest.mark.parametrize("statement", WRITES)
def test_sql_reads_only(warehouse, untouched, tmp_path, statement):
    out = tmp_path / "out"
    items = f"{warehouse.path}/items"
    version = DeltaTable(items).version()
    with pytest.raises(UserError) as caught:
        list(query.sql(warehouse, statement.format(out=out)))
    assert "\n" not in str(caught.value)
    assert not out.exists()
    assert DeltaTable(items).version() == version


FRAME = pl.DataFrame(
    {
        "n": [1, None],
        "x": [0.5, float("nan")],
        "f": pl.Series([0.1, float("inf")], dtype=pl.Float32),
        "s": ['a "b",\nc', "\x1b[31m🎧"],
        "d": [DAY1, None],
        "t": [T0, T0.replace(microsecond=7)],
        "l": [[1, 2], None],
        "z": [Decimal("1.20"), None],
        "b": [b"\x00\xff", None],
        "ok": [True, False],
    }
)


def test_json_parses_back():
    first, second = map(json.loads, text([FRAME, FRAME.head(0)], "json").splitlines())
    assert first == {
        "n": 1, "x": 0.5, "f": 0.1, "s": 'a "b",\nc', "d": "2024-01-01", "t": "2024-01-02T03:04:05Z", "l": [1, 2],
        "z": 1.2, "b": "00ff", "ok": True,
    }  # fmt: skip
    assert second["t"] == "2024-01-02T03:04:05.000007Z"
    assert [second[c] for c in ("n", "x", "f", "d", "l")] == [None] * 5
    assert second["s"] == "\x1b[31m🎧"


def test_csv_parses_back():
    header, first, second = csv.reader(io.StringIO(text([FRAME], "csv")), strict=True)
    assert header == FRAME.columns
    assert first[:4] == ["1", "0.5", "0.1", 'a "b",\nc']
    assert json.loads(first[6]) == [1, 2]
    assert second[:2] == ["", ""]


def test_table_is_aligned_and_harmless_to_a_terminal():
    lines = text([FRAME.select("n", "s")], "table").splitlines()
    assert lines[0].split() == ["n", "s"]
    assert lines[2:] == ['1  a "b",\\nc', "   \\x1b[31m🎧"]
    assert len({len(line.rstrip()) for line in lines[1:2]}) == 1


def test_table_shows_the_first_thousand_rows():
    shown = text([pl.DataFrame({"a": range(600)})] * 2, "table").splitlines()
    assert len(shown) == 2 + 1000 + 1
    assert shown[-1].startswith("… only the first 1000")
    assert len(text([pl.DataFrame({"a": range(1000)})], "table").splitlines()) == 2 + 1000


def test_empty_results_keep_their_header(warehouse):
    none = list(query.sql(warehouse, "select stage from runs where false"))
    assert text(none, "json") == ""
    assert text(none, "csv") == "stage\n"
    assert text(none, "table") == "stage\n-----\n"


def test_unknown_format():
    with pytest.raises(UserError, match="table, json, csv"):
        text([FRAME], "xml")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=20))
@example(["\r", "\r0", "a\r\nb"])
def test_any_text_survives_json_and_csv(texts):
    frame = pl.DataFrame({"n": range(len(texts)), "s": texts}, schema={"n": pl.Int64, "s": pl.String})
    assert [json.loads(line)["s"] for line in text([frame], "json").split("\n")[:-1]] == texts
    parsed = list(csv.reader(io.StringIO(text([frame], "csv"), newline=""), strict=True))[1:]
    assert [s for _, s in parsed] == texts


@pytest.mark.integration
def test_spark_and_torch_are_not_imported(warehouse):
    program = (
        "import sys; from sparkrec.warehouse import query; from sparkrec.warehouse.location import Warehouse;"
        "w = Warehouse(sys.argv[1]);"
        "query.topk(w, 'als', 'a'); query.tables(w); list(query.sql(w, 'select 1'));"
        "print([m for m in ('pyspark', 'torch', 'horovod', 'petastorm', 'delta') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program, warehouse.path], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
