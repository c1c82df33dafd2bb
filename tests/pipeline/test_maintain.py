"""The last stage of a night, on a real warehouse."""

from datetime import date
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable, QueryBuilder

from sparkrec.errors import UserError
from sparkrec.models.night import Inputs
from sparkrec.models.publication import has_rows, make_current
from sparkrec.models.warm_start import warm_start_of
from sparkrec.pipeline.maintain_stage import plan_maintain, run_maintain
from sparkrec.pipeline.nightly import Choice, plan_nightly, run_nightly
from sparkrec.settings.config import load_config
from sparkrec.settings.sections import MaintenanceConfig
from sparkrec.warehouse import query, store
from sparkrec.warehouse.cards import read_card
from sparkrec.warehouse.location import Warehouse
from sparkrec.warehouse.old_nights import nights_in
from sparkrec.warehouse.rollback import rollback
from sparkrec.warehouse.tables import RULES, TABLES, USER_GROUP_PROFILES, USER_GROUPS, topk_table
from tests.aged import age
from tests.published import a_night, publish, small_gru, train

CARE = Choice(only=("maintain",))


def newest(place):
    return place.table("runs").sort("ended_at").row(-1, named=True)


def equal(a, b):
    """Whether two tables have the same rows, in whatever order."""
    return sorted(map(repr, a.iter_rows())) == sorted(map(repr, b.iter_rows()))


def data_files(place, name):
    return list((place.warehouse / name).rglob("part-*.parquet"))


@pytest.mark.slow
def test_after_the_care_the_same_night_does_nothing_and_every_table_is_as_it_was(spark, night, tmp_path):
    place = night.copied_to(tmp_path / "warehouse")
    before = {name: place.table(name) for name in place.versions()}
    files = {name: len(data_files(place, name)) for name in before}
    config = load_config(None, place.settings("maintenance.compact_files=4"))
    assert run_nightly(config, place.last.isoformat(), CARE, spark=spark) == 0
    assert f"compacted topk_gru: {files['topk_gru']} files became 1" in newest(place)["message"]
    assert "vacuumed" not in newest(place)["message"]  # nothing is old enough
    for name in ("topk_gru", "topk_als"):
        age(place.warehouse / name, days=8)
    spark._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()
    assert run_nightly(config, place.last.isoformat(), CARE, spark=spark) == 0
    care = newest(place)
    assert (care["stage"], care["status"]) == ("maintain", "done")
    assert {"vacuumed topk_gru to 168 hours", "vacuumed topk_als to 168 hours"} <= set(care["message"].split("; "))
    assert [len(data_files(place, name)) for name in ("topk_gru", "topk_als")] == [1, 1]
    for name, rows in before.items():
        assert name == "runs" or equal(place.table(name), rows), name
    lists = DeltaTable(str(place.warehouse / "topk_als"))
    answer = QueryBuilder().register("lists", lists).execute("select user_id from lists where rank = 1").read_all()
    assert answer.num_rows == before["topk_als"]["user_id"].n_unique()
    described = query.tables(Warehouse(str(place.warehouse)))
    assert dict(described.select("name", "comment").iter_rows()) == {name: TABLES[name].comment for name in before}
    config = load_config(None, place.settings("maintenance.enabled=true"))
    planned = plan_nightly(config, place.last.isoformat(), spark=spark)
    assert [(name, why) for name, runs, why in planned if runs] == []
    assert run_nightly(config, place.last.isoformat(), spark=spark) == 0
    again = place.table("runs").sort("ended_at").tail(9)
    assert again["stage"].to_list()[-1] == "maintain"
    assert again["status"].unique().to_list() == ["skipped"]


@pytest.mark.slow
def test_a_night_whose_care_fails_is_published_all_the_same(spark, night, tmp_path):
    place = night.copied_to(tmp_path / "warehouse")
    last = max((place.warehouse / "copurchase" / "_delta_log").glob("*.json"))  # no stage of a done night reads it
    last.with_name(f".{last.name}.crc").unlink(missing_ok=True)
    last.write_text(last.read_text().splitlines()[0] + "\n{broken\n")
    config = load_config(None, place.settings("maintenance.enabled=true"))
    assert run_nightly(config, place.last.isoformat(), spark=spark) == 0
    runs = place.table("runs").sort("ended_at").tail(9)
    assert runs["status"].to_list() == ["skipped"] * 8 + ["failed"]
    assert runs["message"][-1]
    with pytest.raises(Exception, match=r"(?i)malformed|json"):
        run_nightly(config, place.last.isoformat(), CARE, spark=spark)


@pytest.mark.integration
def test_only_nights_that_nobody_needs_are_removed(spark, tmp_path):
    def on(day, keep=2, lists=3):
        kept = MaintenanceConfig(keep_nights=keep, keep_list_nights=lists, compact_files=0)
        return a_night(spark, tmp_path, small_gru(), date(2024, 1, day), kept)

    def days(folder):
        return [night.day for night in nights_in(f"{tmp_path}/{folder}/gru")]

    begun = {19: {"models/gru/full": "2024-01-18.aa", "models/gru/holdout": "2024-01-10.bb"}}
    for day in (1, 2, 9, 10, 18, 19, 20):
        train(on(day), version=f"2024-01-{day:02d}.v", inputs=begun.get(day))
        (tmp_path / "snapshots/gru" / str(date(2024, 1, day))).mkdir(parents=True)
        publish(on(day), version=f"2024-01-{day:02d}.v")
    (tmp_path / "_staging" / "killed").mkdir(parents=True)
    warehouse = Warehouse(str(tmp_path))
    make_current(on(2), [read_card(warehouse, "gru", date(2024, 1, 2))])
    tonight = on(19)
    before = warm_start_of(tonight, "gru").settings(tonight)
    result = run_maintain(tonight, Inputs(tonight, {}))
    assert "removed 2 models (2024-01-01 to 2024-01-09) of gru" in result.message
    assert days("models") == [2, 10, 18, 19, 20]  # current; what 19 began with; the latest two
    assert days("snapshots") == [2, 19, 20]
    lists = pl.read_delta(f"{tmp_path}/topk_gru")["run_date"].dt.day().sort().to_list()
    assert lists == [2, 10, 18, 19, 20]
    assert not list((tmp_path / "_staging").iterdir())
    assert warm_start_of(tonight, "gru").settings(tonight) == before  # so its training is skipped when it is run again
    assert (has_rows(on(18), topk_table("gru")), has_rows(on(9), topk_table("gru"))) == (True, False)
    assert plan_maintain(tonight) == []
    assert rollback(warehouse, "2024-01-10")["run_date"].to_list() == [date(2024, 1, 10)]
    with pytest.raises(UserError, match="no such night: 2024-01-09 in topk_gru"):
        rollback(warehouse, "2024-01-09")
    due = [step.what for step in plan_maintain(on(19, keep=0, lists=0))]
    assert due == [
        "vacuum current"
    ]  # which the rollback has written; without a ledger nothing needs what it superseded


@pytest.mark.integration
def test_rules_groups_and_pages_go_with_the_lists(spark, tmp_path):
    kept = MaintenanceConfig(keep_nights=1, keep_list_nights=2, compact_files=0)
    tonight, days = (
        a_night(spark, tmp_path, small_gru(), date(2024, 1, 3), kept),
        [date(2024, 1, n) for n in range(1, 6)],
    )
    rows = {
        RULES: [(day, ["a"], "b", 0.5, 0.5, 1.0, 0.0, 9, "v") for day in days],
        USER_GROUPS: [(day, "u", 0, 0.0) for day in days],
        USER_GROUP_PROFILES: [(day, 0, 1, 1.0, 1.0, 1.0, 1.0, ["x"], "all") for day in days],
    }
    for table, values in rows.items():
        store.append(spark.createDataFrame(values, table.ddl).coalesce(1), tonight.warehouse, table)
    pages = tmp_path / "reports"
    pages.mkdir()
    for name in (*(f"{day}.html" for day in days), "2024-01-01.txt", "mine.html"):
        (pages / name).touch()
    result = run_maintain(tonight, Inputs(tonight, {}))
    for table in rows:
        assert f"removed 2 nights (2024-01-01 to 2024-01-02) of {table.name}" in result.message
        left = pl.read_delta(f"{tmp_path}/{table.name}")["run_date"].dt.day().sort().to_list()
        assert left == [3, 4, 5]  # the night's own, and the latest two
    assert "removed 2 pages (2024-01-01 to 2024-01-02) of the report" in result.message
    left = sorted(path.name for path in pages.iterdir())
    assert left == ["2024-01-01.txt", *(f"{day}.html" for day in days[2:]), "mine.html"]
    assert [step.what for step in plan_maintain(tonight)] == [f"vacuum {table.name}" for table in rows]


def test_a_path_with_an_escaped_blank_is_refused_before_anything_is_made(spark, tmp_path):
    folder = tmp_path / "a%20b"
    config = load_config(None, [f"warehouse.path={folder}", "logs.format=invoices", "logs.path=/nowhere"])
    with pytest.raises(UserError, match="%20"):
        run_nightly(config, "2024-01-01", spark=spark)
    assert not folder.exists()
    assert not Path(f"{tmp_path}/a b").exists()
