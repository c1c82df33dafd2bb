"""Nights that the gate lets pass or holds back, and what a run says that it would do."""

import shutil
from dataclasses import replace
from datetime import timedelta

import polars as pl
import pytest

from sparkrec.errors import UserError
from sparkrec.pipeline.nightly import Choice, plan_nightly, run_nightly
from sparkrec.settings.config import load_config
from sparkrec.warehouse import query
from sparkrec.warehouse.location import Warehouse
from sparkrec.warehouse.lock import locked
from sparkrec.warehouse.rollback import rollback
from tests.nights import GATED

pytestmark = pytest.mark.slow

TOPK = ("topk",)


def ordered(lists):
    return lists.sort("run_date", "user_id", "rank")


def lists(place):
    return ordered(place.table("topk_als"))


def runs(place, stage):
    return place.table("runs").filter(pl.col("stage") == stage).sort("ended_at")


def newest(place, stage):
    return runs(place, stage).row(-1, named=True)


@pytest.fixture
def place(night, tmp_path):
    """A copy of the shared night, which a test may change."""
    return night.copied_to(tmp_path / "warehouse")


def test_a_night_worse_than_the_last_is_held_back_and_the_last_one_stays_current(night, later):
    assert later.strict == 3
    assert ordered(later.after_strict).equals(lists(night))
    held_back, published = runs(later.place, "topk").filter(pl.col("run_date") == later.second).rows(named=True)[:2]
    assert held_back["status"] == "held_back"
    assert "the last published model's" in held_back["message"]
    assert (later.mild, published["status"]) == (0, "done")  # a plain rerun with a milder gate publishes
    trained = runs(later.place, "train_als").filter(pl.col("run_date") == later.second)
    assert trained["status"].to_list() == ["done", "skipped"]
    after = ordered(later.after_mild)
    assert after["run_date"].unique().to_list() == [later.first, later.second]
    assert after.filter(pl.col("run_date") == later.first).equals(lists(night))


def test_rollback_makes_an_earlier_night_current_and_changes_no_list(spark, later, tmp_path):
    place = later.place.copied_to(tmp_path / "warehouse")
    warehouse, before, user = Warehouse(str(place.warehouse)), lists(place), lists(place)["user_id"][0]

    def current():
        (night,) = query.topk(warehouse, "als", user)["run_date"].unique().to_list()
        return night

    assert current() == later.second
    assert rollback(warehouse, str(later.first))["run_date"].unique().to_list() == [later.first]
    assert current() == later.first
    assert lists(place).equals(before)
    with pytest.raises(UserError, match="no such night"):
        rollback(warehouse, str(later.first - timedelta(days=1)))
    again = {"only": ("prepare", "train_als", "evaluate", "topk"), "force": True}  # each night prepares its tables
    assert place.run(spark, later.second, *GATED, **again) == 0
    assert current() == later.second
    rollback(warehouse, str(later.first), ["als"], pin=True)
    assert place.run(spark, later.second, *GATED, **again) == 0
    assert current() == later.first
    assert f"als stays at {later.first}, which is pinned" in newest(place, "topk")["message"]
    assert newest(place, "rollback")["message"] == f"als: {later.second} -> {later.first}, pinned"


def test_other_reasons_to_hold_back(spark, place):
    before, config = lists(place), load_config(None, place.settings(*GATED))
    limits = replace(config.gate, below_popularity=-50, min_users_share=1.1, patience=1)  # no configuration may say so
    assert run_nightly(replace(config, gate=limits), str(place.last), Choice(TOPK), spark=spark) == 3
    stale = f"FOR 1 NIGHTS IN A ROW (gate.patience=1), its lists are still those of {place.last}"
    for said in ("below recent popularity's", "of the users, less than 110.0%", stale):
        assert said in newest(place, "topk")["message"]
    assert lists(place).equals(before)


def test_who_is_left_out_by_support_is_not_expected_and_another_support_is_not_compared(spark, later, tmp_path):
    place, least = later.place.copied_to(tmp_path / "warehouse"), "prepare.support.min_user_events=60"
    only = ("prepare", "train_als", "evaluate", "topk")
    assert place.run(spark, later.second, *GATED, least, "gate.min_users_share=0.95", only=only) == 0
    mine = lists(place).filter(pl.col("run_date") == later.second)
    of_the_model = mine.filter(pl.col("source") == "model")["user_id"].n_unique()
    assert 0 < of_the_model < 0.5 * mine["user_id"].n_unique()  # the others have what is popular
    otherwise = "prepare.support.min_user_events 1 -> 60"
    assert f"not compared with the model of {later.first}: {otherwise}" in newest(place, "topk")["message"]


def test_a_model_with_scores_that_are_no_numbers_is_held_back(spark, place):
    for part in (place.warehouse / "models" / "als" / str(place.last) / "full" / "user_factors").glob("*.parquet"):
        broken = pl.read_parquet(part).with_columns(pl.col("vector").list.eval(pl.element() * float("nan")))
        broken.write_parquet(part)
        part.with_name(f".{part.name}.crc").unlink(missing_ok=True)
    before = lists(place)
    assert place.run(spark, place.last, *GATED, only=TOPK) == 3
    assert "a score is not a number" in newest(place, "topk")["message"]
    assert lists(place).equals(before)


def test_a_model_that_was_not_judged_is_held_back(spark, place):
    shutil.rmtree(place.warehouse / "metrics")
    assert place.run(spark, place.last, *GATED, only=TOPK) == 3
    assert "recall@10 of the model is missing" in newest(place, "topk")["message"]


def test_a_dry_run_says_what_would_run_and_why_and_writes_nothing(spark, later):
    def plan(night, *more, choice=None):
        return plan_nightly(load_config(None, later.place.settings(*GATED, *more)), str(night), choice, spark=spark)

    before = {p: p.stat().st_mtime_ns for p in later.place.warehouse.rglob("*")}
    assert [(name, runs) for name, runs, _ in plan(later.second)] == [
        (name, False) for name in ("ingest", "index", "prepare", "train_als", "evaluate", "topk")
    ]
    changed = plan(later.second, "als.rank=9")
    assert [(name, why) for name, runs, why in changed if runs] == [
        ("train_als", "settings changed"),
        ("evaluate", "train_als runs before it"),
        ("topk", "train_als runs before it"),
    ]
    assert plan(later.second + timedelta(days=1))[0] == ("ingest", True, "1 new log files")
    forced = plan(later.second, choice=Choice(first="evaluate", force=True))
    assert forced == [("evaluate", True, "forced"), ("topk", True, "evaluate runs before it")]
    assert {p: p.stat().st_mtime_ns for p in later.place.warehouse.rglob("*")} == before


def test_a_second_night_at_once_is_refused(spark, place):
    before = place.versions()
    with locked(str(place.warehouse), "the-other-night", 60), pytest.raises(UserError, match="the-other-night"):
        place.run(spark, place.last, *GATED)
    assert place.versions() == before
