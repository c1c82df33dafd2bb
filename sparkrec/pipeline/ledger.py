"""The ledger: one row in ``runs`` for each stage that ended, and the question whether a stage must run."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import TYPE_CHECKING

from sparkrec import store
from sparkrec.store import Warehouse
from sparkrec.tables import RUNS

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

Versions = dict[str, int | str]  # table → Delta version, models/<model> → model version


@dataclass(frozen=True)
class StageResult:
    """What a stage did."""

    outputs: Versions = field(default_factory=dict)
    rows_in: int | None = None
    rows_out: int | None = None
    rows_quarantined: int | None = None
    rows_duplicate: int | None = None
    message: str = ""
    skipped: bool = False
    held_back: tuple[str, ...] = ()  # models that the gate did not let pass

    @property
    def status(self) -> str:
        """The status in ``runs``."""
        return "skipped" if self.skipped else "held_back" if self.held_back else "done"


@dataclass(frozen=True)
class RunRow:
    """A row of ``runs``."""

    run_id: str
    run_date: date
    stage: str
    status: str
    started_at: datetime
    ended_at: datetime
    inputs: Versions
    config_hash: str
    config: str
    code_version: str
    result: StageResult


def record(spark: SparkSession, warehouse: Warehouse, row: RunRow) -> None:
    """Appends a row to ``runs``."""
    result = row.result
    values = (
        row.run_id,
        row.run_date,
        row.stage,
        row.status,
        row.started_at,
        row.ended_at,
        json.dumps(row.inputs, sort_keys=True),
        json.dumps(result.outputs, sort_keys=True),
        row.config_hash,
        row.config,
        row.code_version,
        result.rows_in,
        result.rows_out,
        result.rows_quarantined,
        result.rows_duplicate,
        result.message or None,
    )
    store.append(spark.createDataFrame([values], RUNS.ddl).coalesce(1), warehouse, RUNS)


@dataclass(frozen=True)
class LastRun:
    """The newest row of a stage and night."""

    status: str
    inputs: Versions
    config_hash: str
    code_version: str


def last_run(spark: SparkSession, warehouse: Warehouse, stage: str, run_date: date) -> LastRun | None:
    """The newest run of a stage of this night, however it ended; None where there is none."""
    from pyspark.sql import functions as F

    rows = _rows(spark, warehouse, stage, run_date)
    if rows is None:
        return None
    newest = rows.orderBy(F.col("ended_at").desc()).select("status", "inputs", "config_hash", "code_version").head()
    return LastRun(newest[0], json.loads(newest[1]), newest[2], newest[3]) if newest else None


def last_done(
    spark: SparkSession, warehouse: Warehouse, stage: str, run_date: date, *, inputs: Versions, config_hash: str,
    code_version: str
) -> Versions | None:  # fmt: skip
    """The outputs of the newest finished run of this stage and night with these very inputs, settings and code."""
    from pyspark.sql import functions as F

    rows = _rows(spark, warehouse, stage, run_date)
    if rows is None:
        return None
    newest = (
        rows.where(F.col("status") == "done")
        .where((F.col("config_hash") == config_hash) & (F.col("code_version") == code_version))
        .where(F.col("inputs") == json.dumps(inputs, sort_keys=True))
        .orderBy(F.col("ended_at").desc())
        .select("outputs")
        .head()
    )
    return json.loads(newest[0]) if newest else None


def _rows(spark: SparkSession, warehouse: Warehouse, stage: str, run_date: date) -> DataFrame | None:
    """The runs of a stage of this night; None where nothing has ever run."""
    from pyspark.sql import functions as F

    runs = store.find(spark, warehouse, RUNS)
    return None if runs is None else runs.where((F.col("run_date") == F.lit(run_date)) & (F.col("stage") == stage))
