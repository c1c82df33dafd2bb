"""Nights that follow one another, and the same night again."""

from dataclasses import replace
from datetime import timedelta

import polars as pl
import pytest

from tests.nights import make_place

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


def test_a_changed_setting_runs_its_stage_and_what_follows_from_it(spark, night, tmp_path):
    place = night.copied_to(tmp_path / "warehouse")
    place.run(spark, place.last, "topk.k=3", "evaluation.k=[5, 20]")  # nothing is trained for how it is judged
    rows = place.table("runs").sort("ended_at").tail(8)
    assert rows.filter(pl.col("status") == "done")["stage"].to_list() == ["evaluate", "topk"]
    assert set(place.table("metrics")["k"].drop_nulls()) == {5, 20}
    assert place.table("topk_als")["rank"].max() == 3


def test_night_after_night(spark, tmp_path):
    place = make_place(tmp_path)
    nights = [place.last - timedelta(days=2), place.last - timedelta(days=1), place.last]
    seen: dict[str, dict[str, int]] = {}
    lists = pl.DataFrame()
    for number, night in enumerate(nights):
        place.run(spark, night, "models=[als]")
        ingest = place.table("runs").filter(pl.col("stage") == "ingest").sort("ended_at").row(-1, named=True)
        events = place.table("events")
        assert events["event_date"].max() == night
        expected_files = place.days - 2 if number == 0 else 1
        assert ingest["message"].startswith(f"{expected_files} new files")
        for index in ("user_index", "item_index"):
            now = dict(place.table(index).iter_rows())
            assert seen.get(index, {}).items() <= now.items()  # no id ever moves
            seen[index] = now
        published = place.table("topk_als")
        if lists.height:
            earlier = published.filter(pl.col("run_date") < night).sort("run_date", "user_id", "rank")
            assert earlier.equals(lists)  # the earlier nights' rows stay as they were
        lists = published.sort("run_date", "user_id", "rank")
        assert sorted(lists["run_date"].unique()) == nights[: number + 1]


def test_a_night_in_the_past_knows_nothing_of_later_days(spark, tmp_path):
    """All days are in one file, so they are all ingested: a backfill must still not see what came later."""
    place = make_place(tmp_path)
    whole = tmp_path / "whole"
    whole.mkdir()
    parts = sorted(place.log.glob("*.csv"))
    header = parts[0].read_text().splitlines(keepends=True)[0]
    (whole / "log.csv").write_text(header + "".join(p.read_text().split("\n", 1)[1] for p in parts))
    past = place.last - timedelta(days=4)
    backfill = replace(place, log=whole, warehouse=tmp_path / "w1")
    backfill.run(spark, past, "models=[als]")
    lived = place.at(tmp_path / "w2")
    lived.run(spark, past, "models=[als]")
    for name in ("user_index", "item_index", "user_item", "sessions", "copurchase", "topk_als"):
        a, b = (p.table(name).drop("model_version", strict=False) for p in (backfill, lived))
        columns = [c for c in a.columns if a.schema[c] not in (pl.List(pl.Int32),) and "ts" not in c]
        assert a.height == b.height, name
        assert a.sort(columns).equals(b.sort(columns)), name
