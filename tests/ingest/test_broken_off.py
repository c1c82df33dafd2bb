"""An ingest that is killed at any of its writes, with any one table missing: a plain rerun has every row."""

import os
import shutil
import time
from datetime import UTC, date, datetime
from itertools import count

import pytest

from sparkrec.ingest import IngestResult
from sparkrec.report.data import quarantine as reported
from sparkrec.warehouse.location import Warehouse
from sparkrec.warehouse.tables import EVENTS, FILES, ITEMS_TABLE, QUARANTINE, USERS_TABLE
from tests.cuts import PowerCutError, cut_before
from tests.ingest.test_ingest import DAY1, DAY2, FIRST, SECOND, rows, take_in, write

CONTENT = (
    (EVENTS, ["*"]), (QUARANTINE, ["raw", "reason", "source_file"]), (ITEMS_TABLE, ["*"]), (USERS_TABLE, ["*"]),
    (FILES, ["source", "size", "sha256"]),
)  # fmt: skip
LOST = ("events", "quarantine", "items", "users", "files")


def content(warehouse):
    return [rows(warehouse, table, *columns) for table, columns in CONTENT]


@pytest.fixture(scope="module")
def two_nights(spark, tmp_path_factory):
    """Logs and warehouse after two nights. Not to be changed."""
    base = tmp_path_factory.mktemp("nights")
    write(base / "logs", "2011-01-01.csv", FIRST)
    write(base / "logs", "2011-01-02.csv", SECOND)
    for day in (DAY1, DAY2):
        take_in(spark, base / "logs", base / "warehouse", day)
    return base


@pytest.mark.slow
@pytest.mark.parametrize("lost", [*LOST, "none, but a file has changed"])
def test_a_rerun_after_kills_at_every_write_has_every_row(spark, two_nights, tmp_path, monkeypatch, lost):
    base = tmp_path / "base"
    shutil.copytree(two_nights, base, copy_function=shutil.copy2)
    expected, settings = content(base / "warehouse"), {}
    if lost in LOST:
        shutil.rmtree(base / "warehouse" / lost)
    else:
        os.utime(base / "logs" / "2011-01-01.csv", (1, 1))
        with (base / "logs" / "2011-01-01.csv").open("a") as log:
            log.write(FIRST[0] + "\n")  # once more: a file that has changed, and the same events
        settings = {"on_changed_file": "replace"}
    for step in count():
        with monkeypatch.context() as patch:
            cut_before(patch, step)
            try:
                take_in(spark, base / "logs", base / "warehouse", DAY1, **settings)  # not the night of the second file
                break
            except PowerCutError:
                if lost not in LOST and ("",) in rows(base / "warehouse", FILES, "sha256"):
                    settings = {}  # what broke off is read again whatever the settings say
    assert step > 3
    found = content(base / "warehouse")
    assert found[:4] == expected[:4]
    assert [row[0] for row in found[4]] == [row[0] for row in expected[4]]
    assert all(row[2] for row in found[4])
    assert take_in(spark, base / "logs", base / "warehouse", DAY2) == IngestResult()


@pytest.mark.integration
def test_times_do_not_depend_on_the_zone_of_the_machine(spark, tmp_path, monkeypatch):
    """Nor on its summer time: New York has no 02:30 of the first of these days, and 01:30 of the second twice."""
    times = [f"2011-{day}:30:00" for day in ("03-13 02", "11-06 01", "11-06 05", "11-06 06")]
    spring, autumn = date(2011, 3, 13), date(2011, 11, 6)
    write(tmp_path / "logs", "all.csv", [FIRST[4], *(FIRST[0].replace("2011-01-01 10:00:00", at) for at in times)])
    java_zone = spark._jvm.java.util.TimeZone
    own = java_zone.getDefault()
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    java_zone.setDefault(java_zone.getTimeZone("America/New_York"))
    try:
        begun = datetime.now(UTC)
        take_in(spark, tmp_path / "logs", tmp_path / "warehouse", autumn)
        span = (begun, datetime.now(UTC))
        for table in (QUARANTINE, FILES):
            assert span[0] <= rows(tmp_path / "warehouse", table, "ingested_at")[0][0].replace(tzinfo=UTC) <= span[1]
        (refused,) = reported(Warehouse(str(tmp_path / "warehouse")), [span])
        assert (refused.reason, refused.rows) == ("quantity not above 0", 1)
        found = rows(tmp_path / "warehouse", EVENTS, "ts", "event_date")
        days = (spring, autumn, autumn, autumn)
        assert sorted(found) == [(datetime.fromisoformat(at), day) for at, day in zip(times, days, strict=True)]
    finally:
        java_zone.setDefault(own)
        monkeypatch.undo()
        time.tzset()
