"""Nights that follow one another, and the same night again."""

from dataclasses import replace
from datetime import timedelta

import polars as pl
import pytest

pytestmark = pytest.mark.slow


def test_a_second_run_of_the_same_night_changes_nothing(spark, night, tmp_path):
    place = night.copied_to(tmp_path / "warehouse")
    before = place.versions()
    models = {p: p.stat().st_mtime_ns for p in (place.warehouse / "models").rglob("*") if p.is_file()}
    place.run(spark, place.last)
    after = place.versions()
    assert {k: v for k, v in after.items() if k != "runs"} == {k: v for k, v in before.items() if k != "runs"}
    assert {p: p.stat().st_mtime_ns for p in (place.warehouse / "models").rglob("*") if p.is_file()} == models
    rows = place.table("runs").sort("ended_at").tail(8)
    assert rows["status"].unique().to_list() == ["skipped"]


def test_night_after_night(night, later):
    place = later.place
    ingests = place.table("runs").filter(pl.col("stage") == "ingest").sort("ended_at")
    assert ingests["run_date"].to_list()[:2] == [later.first, later.second]
    assert [message.split(",")[0] for message in ingests["message"][:2]] == [f"{night.days} new files", "3 new files"]
    assert place.table("events")["event_date"].max() == later.second
    for index in ("user_index", "item_index"):
        seen, now = (dict(p.table(index).iter_rows()) for p in (night, place))
        assert seen.items() <= now.items()  # no id ever moves
    for model in ("als", "gru", "two_tower"):
        lists = place.table(f"topk_{model}").sort(pl.all().exclude("score"))
        assert sorted(lists["run_date"].unique()) == [later.first, later.second]
        earlier = lists.filter(pl.col("run_date") == later.first)
        assert earlier.equals(night.table(f"topk_{model}").sort(pl.all().exclude("score")))  # it stays as it was
    judged = place.table("metrics").filter(pl.col("run_date") == later.first)
    assert judged.sort(pl.all()).equals(night.table("metrics").sort(pl.all()))


def test_a_night_in_the_past_knows_nothing_of_later_days(spark, night, going_on, tmp_path):
    """All days are in one file, so they are all ingested: a backfill must still not see what came later."""
    whole = tmp_path / "whole"
    whole.mkdir()
    parts = sorted(going_on.log.glob("*.csv"))
    header = parts[0].read_text().splitlines(keepends=True)[0]
    (whole / "log.csv").write_text(header + "".join(p.read_text().split("\n", 1)[1] for p in parts))
    backfill = replace(night, log=whole, warehouse=tmp_path / "w")
    backfill.run(spark, night.last, "models=[als]", only=("ingest", "index", "prepare", "train_als", "topk"))
    assert backfill.table("events")["event_date"].max() == night.last + timedelta(days=4)
    for name in ("user_index", "item_index", "user_item", "sessions", "copurchase", "topk_als"):
        a, b = (p.table(name).drop("model_version", strict=False) for p in (backfill, night))
        columns = [c for c in a.columns if a.schema[c] not in (pl.List(pl.Int32),) and "ts" not in c]
        assert a.height == b.height, name
        assert a.sort(columns).equals(b.sort(columns)), name
