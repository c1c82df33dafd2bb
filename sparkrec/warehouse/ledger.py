"""The ledger: one row in ``runs`` for each stage that ended, and the question whether a stage must run."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

from sparkrec.warehouse import direct
from sparkrec.warehouse.location import Warehouse
from sparkrec.warehouse.tables import RUNS

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

    def __init__(self, warehouse: Warehouse, run_date: date) -> None:
        self._warehouse = warehouse
        self._waiting: list[RunRow] = []
        self._outputs: list[Versions] = []  # of the rows of this attempt
        self._past = _past(warehouse, run_date)

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
        import polars as pl

        named = pl.col("outputs").str.contains(f'"{table}": {json.dumps(version)}', literal=True)
        rows = direct.rows_of(self._warehouse, RUNS, ["run_date", "outputs", "ended_at"], named)
        rows.sort(key=lambda row: row["ended_at"], reverse=True)
        return next((row["run_date"] for row in rows if json.loads(row["outputs"]).get(table) == version), None)

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
            direct.append([_values(row) for row in rows], self._warehouse, RUNS)


def _past(warehouse: Warehouse, run_date: date) -> dict[str, list[PastRun]]:
    """The night's runs by stage, the newest last; a few rows for each attempt."""
    import polars as pl

    columns = ("stage", "status", "inputs", "outputs", "config_hash", "code_version", "ended_at", "run_date")
    found: dict[str, list[PastRun]] = {}
    rows = direct.rows_of(warehouse, RUNS, columns, pl.col("run_date") == run_date)
    for row in sorted(rows, key=lambda r: r["ended_at"]):
        inputs, outputs = json.loads(row["inputs"]), json.loads(row["outputs"])
        run = PastRun(row["status"], inputs, outputs, row["config_hash"], row["code_version"])
        found.setdefault(row["stage"], []).append(run)
    return found


def _values(row: RunRow) -> dict[str, object]:
    """A row in the columns of ``runs``."""
    result = row.result
    return {
        "run_id": row.run_id,
        "run_date": row.run_date,
        "stage": row.stage,
        "status": row.status,
        "started_at": row.started_at,
        "ended_at": row.ended_at,
        "inputs": json.dumps(row.inputs, sort_keys=True),
        "outputs": json.dumps(result.outputs, sort_keys=True),
        "config_hash": row.config_hash,
        "config": row.config,
        "code_version": row.code_version,
        "rows_in": result.rows_in,
        "rows_out": result.rows_out,
        "rows_quarantined": result.rows_quarantined,
        "rows_duplicate": result.rows_duplicate,
        "message": result.message or None,
        "jobs": row.jobs,
        "seconds": row.seconds,
    }


def new_run_id(run_date: date) -> str:
    """A unique, sortable id of an attempt."""
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    return f"{run_date.isoformat()}-{now}-{secrets.token_hex(3)}"
