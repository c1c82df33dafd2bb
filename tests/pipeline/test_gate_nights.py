"""Nights that the gate lets pass or holds back, and what a run says that it would do."""

import shutil
from dataclasses import replace
from datetime import timedelta

import polars as pl
import pytest

from sparkrec import query
from sparkrec.config import load_config
from sparkrec.errors import UserError
from sparkrec.pipeline.lock import locked
from sparkrec.pipeline.nightly import Choice, plan_nightly, run_nightly
from sparkrec.rollback import rollback
from sparkrec.store import Warehouse
from tests.nights import make_place

pytestmark = pytest.mark.slow

LENIENT = ["models=[als]", "gate.enabled=true", "gate.k=10", "gate.below_popularity=1.0", "gate.below_last=1.0",
           "gate.min_users_share=0.5"]  # fmt: skip


def lists(place):
    return place.table("topk_als").sort("run_date", "user_id", "rank")


def newest(place, stage):
    return place.table("runs").filter(pl.col("stage") == stage).sort("ended_at").row(-1, named=True)


@pytest.fixture(scope="module")
def lived(spark, tmp_path_factory):
    """A warehouse with one night that passed the gate."""
    place = make_place(tmp_path_factory.mktemp("gate"))
    assert place.run(spark, place.last - timedelta(days=1), *LENIENT) == 0
    return place


@pytest.fixture
def place(lived, tmp_path):
    return lived.copied_to(tmp_path / "warehouse")


def test_a_night_worse_than_the_last_is_held_back_and_the_last_one_stays_current(spark, place):
    before = lists(place)
    assert place.run(spark, place.last, *LENIENT, "gate.below_last=-50") == 3  # must be fifty times better
    assert lists(place).equals(before)
    run = newest(place, "topk")
    assert run["status"] == "held_back"
    assert "the last published model's" in run["message"]
    assert place.run(spark, place.last, *LENIENT) == 0  # a plain rerun with a milder gate publishes
    assert newest(place, "train_als")["status"] == "skipped"
    after = lists(place)
    assert after["run_date"].unique().to_list() == [place.last - timedelta(days=1), place.last]
    assert after.filter(pl.col("run_date") < place.last).equals(before)


def test_rollback_makes_an_earlier_night_current_and_changes_no_list(spark, place):
    first, warehouse = place.last - timedelta(days=1), Warehouse(str(place.warehouse))
    assert place.run(spark, place.last, *LENIENT) == 0
    before, user = lists(place), lists(place)["user_id"][0]
    assert query.topk(warehouse, "als", user)["run_date"].unique().to_list() == [place.last]
    assert rollback(warehouse, str(first))["run_date"].to_list() == [first]
    assert query.topk(warehouse, "als", user)["run_date"].unique().to_list() == [first]
    assert lists(place).equals(before)
    with pytest.raises(UserError, match="no such night"):
        rollback(warehouse, str(first - timedelta(days=1)))
    config = load_config(None, place.settings(*LENIENT))
    again = Choice(only=("topk",), force=True)
    assert run_nightly(config, str(first), again, spark=spark) == 0
    assert query.topk(warehouse, "als", user)["run_date"].unique().to_list() == [first]
    assert run_nightly(config, str(place.last), again, spark=spark) == 0
    assert query.topk(warehouse, "als", user)["run_date"].unique().to_list() == [place.last]
    run_nightly(config, str(first), again, spark=spark)  # a backfill: the later night stays current
    assert query.topk(warehouse, "als", user)["run_date"].unique().to_list() == [place.last]


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ({"below_popularity": -50}, "below recent popularity's"),
        ({"min_users_share": 1.1}, "of the users, less than 110.0%"),  # no configuration may say so
    ],
)
def test_other_reasons_to_hold_back(spark, place, limit, said):
    before = lists(place)
    config, night = load_config(None, place.settings(*LENIENT)), place.last - timedelta(days=1)
    config = replace(config, gate=replace(config.gate, **limit))
    assert run_nightly(config, night.isoformat(), spark=spark) == 3
    assert said in newest(place, "topk")["message"]
    assert lists(place).equals(before)


def test_a_model_with_scores_that_are_no_numbers_is_held_back(spark, place):
    night = place.last - timedelta(days=1)
    for part in (place.warehouse / "models" / "als" / str(night) / "full" / "user_factors").glob("*.parquet"):
        broken = pl.read_parquet(part).with_columns(pl.col("vector").list.eval(pl.element() * float("nan")))
        broken.write_parquet(part)
        part.with_name(f".{part.name}.crc").unlink(missing_ok=True)
    before = lists(place)
    config = load_config(None, place.settings(*LENIENT))
    assert run_nightly(config, night.isoformat(), Choice(only=("topk",), force=True), spark=spark) == 3
    assert "a score is not a number" in newest(place, "topk")["message"]
    assert lists(place).equals(before)


def test_a_model_that_was_not_judged_is_held_back(spark, place):
    shutil.rmtree(place.warehouse / "metrics")
    config = load_config(None, place.settings(*LENIENT))
    night = place.last - timedelta(days=1)
    assert run_nightly(config, night.isoformat(), Choice(only=("topk",)), spark=spark) == 3
    assert "recall@10 of the model is missing" in newest(place, "topk")["message"]


def plan(spark, place, night, *more, choice=None):
    settings = place.settings(*LENIENT, *more)
    return plan_nightly(load_config(None, settings), night.isoformat(), choice, spark=spark)


def test_a_dry_run_says_what_would_run_and_why_and_writes_nothing(spark, place):
    night = place.last - timedelta(days=1)
    before = {p: p.stat().st_mtime_ns for p in place.warehouse.rglob("*")}
    assert [(name, runs) for name, runs, _ in plan(spark, place, night)] == [
        (name, False) for name in ("ingest", "index", "prepare", "train_als", "evaluate", "topk")
    ]
    changed = plan(spark, place, night, "als.rank=9")
    assert [(name, why) for name, runs, why in changed if runs] == [
        ("train_als", "settings changed"),
        ("evaluate", "train_als runs before it"),
        ("topk", "train_als runs before it"),
    ]
    assert plan(spark, place, place.last)[0] == ("ingest", True, "1 new log files")
    forced = plan(spark, place, night, choice=Choice(first="evaluate", force=True))
    assert forced == [("evaluate", True, "forced"), ("topk", True, "evaluate runs before it")]
    assert {p: p.stat().st_mtime_ns for p in place.warehouse.rglob("*")} == before


def test_a_second_night_at_once_is_refused(spark, place):
    before = place.versions()
    with locked(str(place.warehouse), "the-other-night", 60), pytest.raises(UserError, match="the-other-night"):
        place.run(spark, place.last, *LENIENT)
    assert place.versions() == before
