"""A clock that jumps back: all that was recorded lies in the future."""

import os
import shutil
from dataclasses import replace
from datetime import timedelta

import polars as pl
import pytest
from deltalake import write_deltalake

pytestmark = pytest.mark.slow

AHEAD = timedelta(days=2)
ALS = ("models=[als]",)


@pytest.fixture
def place(spark, night, tmp_path):
    """A night that ran while the clock was two days ahead; what comes before its evaluation is copied."""
    place = replace(night.copied_to(tmp_path / "warehouse"), log=tmp_path / "log")
    shutil.copytree(night.log, place.log)
    assert place.run(spark, place.last, *ALS) == 0
    runs = place.table("runs").with_columns(pl.col("started_at", "ended_at") + AHEAD)
    write_deltalake(str(place.warehouse / "runs"), runs, mode="overwrite")
    for path in [*place.warehouse.rglob("*"), *place.log.rglob("*")]:
        later = path.stat().st_mtime + AHEAD.total_seconds()
        os.utime(path, (later, later))
    return place


def statuses(place, before):
    """Stage and status of what the last run recorded, by the order of the stages."""
    new = place.table("runs").filter(~pl.col("run_id").is_in(before))
    return dict(new.sort("ended_at").select("stage", "status").iter_rows())


def run(spark, place, *settings):
    before = place.table("runs")["run_id"].unique().to_list()
    assert place.run(spark, place.last, *ALS, *settings) == 0
    return statuses(place, before)


def test_nights_after_the_clock_jumped_back_do_what_they_should(spark, place):
    assert set(run(spark, place).values()) == {"skipped"}
    assert run(spark, place, "topk.k=3")["topk"] == "done"
    assert place.table("topk_als")["rank"].max() == 3
    assert run(spark, place)["topk"] == "done"  # though the row of an equal run stands later in the ledger
    assert place.table("topk_als")["rank"].max() == 5
