"""Nights on a real HDFS, and what readers without Java find there."""

from datetime import timedelta

import polars as pl
import pytest

from sparkrec.errors import UserError
from sparkrec.pipeline.nightly import Choice, run_nightly
from sparkrec.report import write_report
from sparkrec.settings.config import load_config
from sparkrec.storage import files
from sparkrec.warehouse import query
from sparkrec.warehouse.location import Warehouse
from sparkrec.warehouse.lock import LOCK
from sparkrec.warehouse.rollback import rollback
from tests.nights import assert_same_night, goes_on
from tests.storage.stored import Stored

pytestmark = pytest.mark.slow


def run(spark, place, day, *more):
    return run_nightly(load_config(None, place.settings(*more)), day.isoformat(), Choice(), spark=spark)


@pytest.fixture(scope="module")
def stored(spark, hdfs_server, night):
    place = Stored(night, f"{hdfs_server.root}/rec/a=warehouse")
    assert run(spark, place, place.last) == 0
    return place


def test_the_night_is_the_one_on_a_local_disk(stored, night):
    assert_same_night(stored, night)
    assert not files.exists(f"{stored.uri}/{LOCK}")


def test_readers_find_it_without_java(stored):
    warehouse = Warehouse(stored.uri)
    user = stored.table("topk_als")["user_id"][0]
    assert query.topk(warehouse, "als", user).height == 5
    counted = pl.concat(query.sql(warehouse, "select count(*) n from topk_gru"))
    assert counted["n"].item() == stored.table("topk_gru").height
    page = write_report(warehouse, load_config(None, stored.settings()).report, "latest")
    assert b"</html>" in files.read_bytes(page)


def test_a_path_that_delta_rs_does_not_find_is_refused(stored):
    """It would take the blank for %20, and write elsewhere than Spark reads."""
    with pytest.raises(UserError, match="delta-rs does not find"):
        Warehouse(f"{stored.uri} two")


def test_the_next_night_is_cared_for_and_rolled_back(spark, stored, night, tmp_path):
    place = goes_on(night, tmp_path, 1)
    second = place.last + timedelta(days=1)
    later = stored.at_log(place.log, night.days + 1)
    care = ("maintenance.enabled=true", "maintenance.compact_files=1")
    assert run(spark, later, second, "models=[als]", *care) == 0
    assert stored.table("runs").filter(pl.col("stage") == "maintain")["status"].to_list() == ["done"]
    assert stored.table("current").filter(model="als")["run_date"].to_list() == [second]
    rollback(Warehouse(stored.uri), stored.last.isoformat(), ["als"])
    assert stored.table("current").filter(model="als")["run_date"].to_list() == [stored.last]
