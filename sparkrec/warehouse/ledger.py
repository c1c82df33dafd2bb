"""The ledger: one row in ``runs`` for each stage that ended, and the question whether a stage must run."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

from sparkrec.warehouse import store
from sparkrec.warehouse.store import Warehouse
from sparkrec.warehouse.tables import RUNS

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROLLBACK = "rollback"  # a row that is no stage's
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
    jobs: int | None = None  # Spark jobs that it started
    seconds: float | None = None


@dataclass(frozen=True)
class PastRun:
    """An earlier row of a stage and night."""

    status: str
    inputs: Versions
    outputs: Versions
    config_hash: str
    code_version: str


class Ledger:
    """What ``runs`` says of a night, read once, and the rows that this attempt adds to it."""

    def __init__(self, spark: SparkSession, warehouse: Warehouse, run_date: date) -> None:
        self._spark, self._warehouse = spark, warehouse
        self._waiting: list[RunRow] = []
        self._outputs: list[Versions] = []  # of the rows of this attempt
        self._past = _past(spark, warehouse, run_date)

    def last_run(self, stage: str) -> PastRun | None:
        """The newest run of a stage of this night, however it ended; None where there is none."""
        runs = self._past.get(stage)
        return runs[-1] if runs else None

    def done(self, stage: str, *, inputs: Versions, config_hash: str, code_version: str) -> list[Versions]:
        """The outputs of the finished runs of this stage with these very inputs, settings and code, the newest first.

        By the clock, which may have jumped: what counts is whether the outputs are still what the tables hold.
        """
        wanted = ("done", inputs, config_hash, code_version)
        runs = reversed(self._past.get(stage, []))
        return [r.outputs for r in runs if (r.status, r.inputs, r.config_hash, r.code_version) == wanted]

    def has_written(self, table: str, version: int | str) -> bool:
        """Whether this night wrote this version of a table, or found it as it would have written it."""
        past = (run.outputs for runs in self._past.values() for run in runs)
        return any(outputs.get(table) == version for outputs in (*past, *self._outputs))

    def night_that_wrote(self, table: str, version: int | str) -> date | None:
        """The night that wrote a version of a table last, as all of ``runs`` says; None where it says nothing."""
        from pyspark.sql import functions as F

        runs = store.find(self._spark, self._warehouse, RUNS)
        if runs is None:
            return None
        named = runs.where(F.col("outputs").contains(f'"{table}": {json.dumps(version)}'))
        rows = named.select("run_date", "outputs", "ended_at").orderBy(F.col("ended_at").desc()).collect()
        return next((row[0] for row in rows if json.loads(row[1]).get(table) == version), None)

    def record(self, row: RunRow, *, wait: bool = False) -> None:
        """Appends a row to ``runs``; one that can wait is written with the next that cannot, or by ``flush``."""
        self._waiting.append(row)
        self._outputs.append(row.result.outputs)
        if not wait:
            self.flush()

    def flush(self) -> None:
        """Appends the rows that have waited."""
        rows, self._waiting = self._waiting, []
        if rows:
            values = self._spark.createDataFrame([_values(row) for row in rows], RUNS.ddl)
            store.append(values.coalesce(1), self._warehouse, RUNS)


def _past(spark: SparkSession, warehouse: Warehouse, run_date: date) -> dict[str, list[PastRun]]:
    """The night's runs by stage, the newest last; a few rows for each attempt."""
    from pyspark.sql import functions as F

    runs = store.find(spark, warehouse, RUNS)
    if runs is None:
        return {}
    columns = ("stage", "status", "inputs", "outputs", "config_hash", "code_version")
    found: dict[str, list[PastRun]] = {}
    rows = runs.where(F.col("run_date") == F.lit(run_date)).select(*columns, "ended_at").collect()
    for row in sorted(rows, key=lambda r: r["ended_at"]):
        run = PastRun(row[1], json.loads(row[2]), json.loads(row[3]), row[4], row[5])
        found.setdefault(row[0], []).append(run)
    return found


def _values(row: RunRow) -> tuple[object, ...]:
    """A row in the columns of ``runs``."""
    result = row.result
    return (
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
        row.jobs,
        row.seconds,
    )


def new_run_id(run_date: date) -> str:
    """A unique, sortable id of an attempt."""
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    return f"{run_date.isoformat()}-{now}-{secrets.token_hex(3)}"
