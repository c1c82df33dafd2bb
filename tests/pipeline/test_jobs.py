"""The jobs that a night starts: what the ledger says of them, and that they do not creep up."""

from dataclasses import replace
from datetime import UTC, date, datetime

import polars as pl
import pytest

from sparkrec.warehouse import store
from sparkrec.warehouse.ledger import Ledger, RunRow, StageResult
from sparkrec.warehouse.location import Warehouse
from sparkrec.warehouse.tables import RUNS

# What the shared night started when this was written, and 15 %: each job is a tenth of a second on a small log.
MOST = {
    "ingest": 9,
    "index": 8,
    "prepare": 29,
    "train_als": 36,
    "train_gru": 12,
    "train_two_tower": 29,
    "evaluate": 26,
    "topk": 26,
}


@pytest.mark.integration
def test_no_stage_starts_more_jobs_than_it_did(night):
    runs = night.table("runs")
    assert dict(runs.select("stage", "jobs").rows()).keys() == MOST.keys()
    assert [row for row in runs.select("stage", "jobs").rows() if not 0 < row[1] <= MOST[row[0]]] == []
    took = (pl.col("ended_at") - pl.col("started_at")).dt.total_milliseconds() / 1000
    assert runs.select((took - pl.col("seconds")).abs().max()).item() < 1


@pytest.mark.integration
def test_a_ledger_of_an_earlier_version_goes_on(spark, tmp_path):
    warehouse, at, day = Warehouse(str(tmp_path)), datetime(2024, 1, 1, tzinfo=UTC), date(2024, 1, 1)
    older = replace(RUNS, columns=RUNS.columns[:-2])
    first = ("r", day, "index", "done", at, at, "{}", "{}", "h", "{}", "c", None, None, None, None, None)
    store.append(spark.createDataFrame([first], older.ddl), warehouse, older)
    ledger = Ledger(warehouse, day)
    assert ledger.last_run("index").status == "done"
    ledger.record(RunRow("r", day, "prepare", "done", at, at, {}, "h", "{}", "c", StageResult(), 3, 1.5))
    rows = store.read(spark, warehouse, RUNS).orderBy("stage").collect()
    assert [(row["stage"], row["jobs"], row["seconds"]) for row in rows] == [
        ("index", None, None),
        ("prepare", 3, 1.5),
    ]
