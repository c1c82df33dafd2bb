"""Runs the stages of a night in order, skips what is done and unchanged, and keeps the ledger."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

from sparkrec import store
from sparkrec.config import Config, config_dict, config_hash
from sparkrec.errors import InvariantError, UserError
from sparkrec.formats import load_format
from sparkrec.log import LOGGER, log_event
from sparkrec.pipeline import ledger
from sparkrec.pipeline.ledger import RunRow, StageResult, Versions
from sparkrec.pipeline.models import published_version
from sparkrec.pipeline.night import Inputs, Night, Stage, new_run_id
from sparkrec.pipeline.preflight import preflight
from sparkrec.pipeline.stages import STAGES, stage_names
from sparkrec.pipeline.version import code_version
from sparkrec.prepare.cut import as_of
from sparkrec.spark import build_session

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

PUBLISHED = 0


def run_nightly(
    config: Config, run_date: str, *, only: Sequence[str] | None = None, spark: SparkSession | None = None
) -> int:
    """Runs a night, or some of its stages.

    Args:
        config: The configuration.
        run_date: The night, ``YYYY-MM-DD``: the last day whose events it uses.
        only: Names of the stages to run, or None for all that the configuration's models need.
        spark: The caller's session; without one a session is built, and stopped at the end.

    Returns:
        The exit code: 0.

    Raises:
        UserError: Bad input, configuration or environment; every table is as it was.
    """
    day = parse_run_date(run_date)
    names = list(only) if only else stage_names(config.models)
    unknown = [name for name in names if name not in STAGES]
    if unknown:
        raise UserError("unknown stage", where=", ".join(unknown), fix=f"one of {', '.join(STAGES)}")
    if spark is not None:
        return _run(spark, config, day, names)
    own = build_session(config.spark)
    try:
        return _run(own, config, day, names)
    finally:
        own.stop()


def parse_run_date(text: str) -> date:
    """``YYYY-MM-DD`` as a date.

    Raises:
        UserError: It is not one.
    """
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise UserError("run date is not YYYY-MM-DD", where=text, fix="for example 2011-12-09") from error


def _run(spark: SparkSession, config: Config, run_date: date, names: Sequence[str]) -> int:
    preflight(spark, config, names, as_of(run_date))
    night = Night(
        spark=spark,
        config=config,
        fmt=load_format(config.logs.format),
        run_date=run_date,
        run_id=new_run_id(run_date),
        code_version=code_version(),
    )
    log_event("night begins", run_id=night.run_id, run_date=str(run_date), stages=list(names))
    for number, name in enumerate(names, 1):
        if _terminal():
            LOGGER.info(f"[{number}/{len(names)}] {name}")
        run_stage(night, STAGES[name])
    log_event("night done", run_id=night.run_id, run_date=str(run_date))
    return PUBLISHED


def run_stage(night: Night, stage: Stage) -> StageResult:
    """Runs one stage unless an equal run is on record, and records it.

    A UserError leaves no row; any other failure is recorded before it goes on.
    """
    versions = pin(night, stage)
    settings = config_hash(*stage.settings(night))
    if not stage.always and (done := _done(night, stage, versions, settings)) is not None:
        result = StageResult(outputs=done, skipped=True, message="inputs, settings and code unchanged")
        _record(night, stage, "skipped", _now(), versions, settings, result)
        log_event("stage skipped", stage=stage.name, reason=result.message)
        return result
    started, clock = _now(), time.monotonic()
    try:
        result = stage.run(night, Inputs(night, versions))
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        _record(night, stage, "failed", started, versions, settings, StageResult(message=reason))
        raise
    _record(night, stage, "skipped" if result.skipped else "done", started, versions, settings, result)
    log_event(
        f"stage {'skipped' if result.skipped else 'done'}",
        stage=stage.name,
        seconds=time.monotonic() - clock,
        rows_in=result.rows_in,
        rows_out=result.rows_out,
        message=result.message,
    )
    return result


def pin(night: Night, stage: Stage) -> Versions:
    """The current versions of everything that the stage reads.

    Raises:
        UserError: A table or a model that it needs does not exist yet.
    """
    versions: Versions = {}
    for table in (*stage.inputs, *stage.optional):
        current = store.version(night.spark, night.warehouse, table)
        if current is not None:
            versions[table.name] = current
        elif table in stage.inputs:
            raise UserError(
                f"stage {stage.name} needs table {table.name}, which does not exist",
                where=night.warehouse.path,
                fix="run the earlier stages, or sparkrec nightly",
            )
    if stage.models:
        for model in night.config.models:
            versions[f"models/{model}"] = published_version(night.warehouse, model, night.run_date)
    return versions


def _done(night: Night, stage: Stage, versions: Versions, settings: str) -> Versions | None:
    """Outputs of an equal earlier run, where they are still what the tables and models hold."""
    outputs = ledger.last_done(
        night.spark, night.warehouse, stage.name, night.run_date,
        inputs=versions, config_hash=settings, code_version=night.code_version,
    )  # fmt: skip
    if outputs is None or any(not _current(night, name, version) for name, version in outputs.items()):
        return None
    return outputs


def _current(night: Night, name: str, version: int | str) -> bool:
    from sparkrec.tables import TABLES

    if name.startswith("models/"):
        try:
            return published_version(night.warehouse, name.removeprefix("models/"), night.run_date) == version
        except UserError:
            return False
    table = TABLES.get(name)
    if table is None:
        raise InvariantError(f"runs names an unknown table {name}")
    now = store.version(night.spark, night.warehouse, table)
    # Tables partitioned by night are appended to by other nights: a later version still holds this night's rows.
    return now is not None and (now >= int(version) if "run_date" in table.partition else now == version)


def _record(
    night: Night, stage: Stage, status: str, started: datetime, inputs: Versions, settings: str, result: StageResult
) -> None:
    row = RunRow(
        run_id=night.run_id,
        run_date=night.run_date,
        stage=stage.name,
        status=status,
        started_at=started,
        ended_at=_now(),
        inputs=inputs,
        config_hash=settings,
        config=json.dumps(config_dict(night.config), sort_keys=True),
        code_version=night.code_version,
        result=result,
    )
    ledger.record(night.spark, night.warehouse, row)


def _terminal() -> bool:
    import sys

    return sys.stderr.isatty()


def _now() -> datetime:
    return datetime.now(UTC)
