"""Tables follow the volume and not the calendar; warehouses that were partitioned by day go on as new ones."""

from dataclasses import replace
from datetime import date

import pytest
from deltalake import DeltaTable

from sparkrec.pipeline.nightly import Choice, run_nightly
from sparkrec.settings.config import load_config
from sparkrec.warehouse import store
from sparkrec.warehouse.location import Warehouse
from sparkrec.warehouse.tables import EVENTS, SESSIONS
from tests.nights import DATA_TABLES, make_place

DATA = Choice(only=("ingest", "index", "prepare"))


def run(spark, place, day, *more):
    settings = load_config(None, place.settings("prepare.text.method=none", *more))
    assert run_nightly(settings, day.isoformat(), DATA, spark=spark) == 0


def equal(ours, theirs):
    for name, varies in DATA_TABLES.items():
        rows = [sorted(map(repr, p.table(name).drop(varies).iter_rows())) for p in (ours, theirs)]
        assert rows[0] == rows[1], name
    accounts = [p.table("runs").sort("started_at").select("stage", "^rows.*$", "message") for p in (ours, theirs)]
    assert accounts[0].equals(accounts[1])


@pytest.mark.slow
def test_a_warehouse_that_is_partitioned_by_day_gives_the_same_as_a_new_one(spark, tmp_path):
    new = make_place(tmp_path, days=3, events=400)
    old = new.at(tmp_path / "old")
    where = Warehouse(str(old.warehouse))
    for table in (replace(EVENTS, partition=("event_date",)), replace(SESSIONS, partition=("start_date",))):
        store.create(spark, where, table)  # as an earlier version of the package did
    second, third = (sorted(new.log.iterdir())[n] for n in (1, 2))
    lines, last = second.read_text().splitlines(keepends=True), third.read_text()
    for place in (old, new):
        second.write_text("".join(lines))
        run(spark, place, date(2024, 1, 2))
        second.write_text("".join([*lines[:40], *lines[30:60], "1,,,,,,,\n"]))  # fewer rows, some twice, one invalid
        third.write_text(last + lines[7])  # and one that the second has too
        run(spark, place, date(2024, 1, 3), "ingest.on_changed_file=replace")
    equal(old, new)
    parts = {p: [DeltaTable(str(p.warehouse / t)).metadata().partition_columns for t in ("events", "sessions")]
             for p in (old, new)}  # fmt: skip
    assert parts == {old: [["event_date"], ["start_date"]], new: [[], []]}
    assert len(list((new.warehouse / "events").glob("*.parquet"))) <= 4  # of two nights and a replaced file
