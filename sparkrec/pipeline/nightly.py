"""Runs the stages of a night in order, skips what is done and unchanged, and keeps the ledger."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

from sparkrec.errors import InvariantError, UserError
from sparkrec.log import LOGGER, log_event, warn_event
from sparkrec.models.night import Inputs, Night
from sparkrec.models.publication import has_rows
from sparkrec.pipeline.preflight import preflight
from sparkrec.pipeline.stage import Stage
from sparkrec.pipeline.stages import STAGES, stage_names
from sparkrec.pipeline.tune_stage import with_tuned
from sparkrec.prepare.cut import as_of
from sparkrec.report import write_report
from sparkrec.settings.config import Config, config_hash, recorded_config
from sparkrec.settings.format_files import load_format
from sparkrec.spark import sizing
from sparkrec.spark.collected import LIMIT, OUTGROWN, outgrown
from sparkrec.spark.session import build_session, jobs_started, named_jobs
from sparkrec.storage.access import reach, stores_of
from sparkrec.version import code_version
from sparkrec.warehouse import store
from sparkrec.warehouse.cards import published_version
from sparkrec.warehouse.catalog import register
from sparkrec.warehouse.ledger import Ledger, RunRow, StageResult, Versions, new_run_id
from sparkrec.warehouse.location import Warehouse
from sparkrec.warehouse.lock import locked
from sparkrec.warehouse.tables import EVENTS, PREPARED
from sparkrec.zones import yesterday

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

PUBLISHED, HELD_BACK = 0, 3
AS_SET = ("ingest", "index", "prepare", "tune")  # stages that go before what tune has found
_STORAGE_FAULTS = {
    "No space left on device": "no space was left on a device",
    "Disk quota exceeded": "the disk quota was used up",
    "Read-only file system": "a file system became read-only",
}
_RERUN = "mend that and run the night again: what is done is skipped"


@dataclass(frozen=True)
class Choice:
    """Which stages of a night run.

    Attributes:
        only: These stages; empty: all that the configuration's models need.
        first: The first stage to run; those before it are left out. Empty: the first of all.
        force: Run them though nothing has changed.
    """

    only: tuple[str, ...] = ()
    first: str = ""
    force: bool = False

    def stages(self, config: Config) -> list[str]:
        """Their names, in order.

        Raises:
            UserError: An unknown stage, or one that the configuration's models do not need.
        """
        names = stage_names(config)
        unknown = [name for name in (*self.only, *([self.first] if self.first else [])) if name not in STAGES]
        if unknown:
            raise UserError("unknown stage", where=", ".join(unknown), fix=f"one of {', '.join(STAGES)}")
        if self.only:
            return [name for name in dict.fromkeys((*names, *STAGES)) if name in self.only]
        if self.first and self.first not in names:
            fix = f"models={config.models} need {', '.join(names)}"
            raise UserError("the night has no such stage", where=self.first, fix=fix)
        return names[names.index(self.first) :] if self.first else names


def run_nightly(
    config: Config, run_date: str, choice: Choice | None = None, *, spark: SparkSession | None = None
) -> int:
    """Runs a night, or some of its stages.

    Args:
        config: The configuration.
        run_date: The night, ``YYYY-MM-DD`` or ``yesterday``: the last day whose events it uses.
        choice: Which stages; by default all.
        spark: The caller's session; without one a session is built, and stopped at the end.

    Returns:
        The exit code: 0, or 3 where the gate held a model back.

    Raises:
        UserError: Bad input, configuration or environment, or another night is running on the warehouse; every table
            is as it was.
    """
    day, choice = parse_run_date(run_date, config.logs.timezone), choice or Choice()
    names = choice.stages(config)
    with session_for(config, spark) as session:
        preflight(session, config, names, as_of(day, config.logs.timezone))
        night = night_of(session, config, day)
        with locked(night.warehouse.path, night.run_id, config.warehouse.lock_expiry_s) as lock:
            return _run(replace(night, lock=lock), names, choice.force)


def plan_nightly(
    config: Config, run_date: str, choice: Choice | None = None, *, spark: SparkSession | None = None
) -> list[tuple[str, bool, str]]:
    """What ``run_nightly`` would do; nothing is written.

    Returns:
        For each stage: its name, whether it would run, and why.

    Raises:
        UserError: Bad configuration.
    """
    day, choice = parse_run_date(run_date, config.logs.timezone), choice or Choice()
    names = choice.stages(config)
    with session_for(config, spark) as session:
        night, planned, changed = night_of(session, config, day), [], ""
        ledger = Ledger(night.warehouse, day)
        tuned = with_tuned(night)
        for name in names:
            runs, why = (
                (True, f"{changed} runs before it")
                if changed
                else _would_run(night if name in AS_SET else tuned, STAGES[name], choice.force, ledger)
            )
            changed = changed or (name if runs else "")
            planned.append((name, runs, why))
        return planned


@contextmanager
def session_for(config: Config, spark: SparkSession | None) -> Iterator[SparkSession]:
    """The caller's session; or one of the configuration's, which is stopped at the end."""
    if spark is not None:
        yield spark
        return
    reach(config.storage)
    stores = stores_of((config.warehouse.path, *config.logs.places))
    own = build_session(config.spark, _log_mb(config), config.storage, stores)
    try:
        yield own
    finally:
        own.stop()


def _log_mb(config: Config) -> float | None:
    """How much there is to work on, in megabytes of plain text: the log, or what the warehouse holds of earlier ones.

    None where either is not on this machine, or the log is a table of a catalog.
    """
    named = config.logs.table and not config.logs.table_is_path
    log = None if named else sizing.log_mb(*config.logs.places)
    held = sizing.log_mb(Warehouse(config.warehouse.path).table_path(EVENTS)) if config.warehouse.path else 0.0
    return None if log is None or held is None else max(log, held)


def night_of(spark: SparkSession, config: Config, run_date: date) -> Night:
    """An attempt at a night, with a run id of its own."""
    return Night(
        spark=spark,
        config=config,
        fmt=load_format(config.logs.format),
        run_date=run_date,
        run_id=new_run_id(run_date),
        code_version=code_version(),
    )


def parse_run_date(text: str, zone: str | None = None) -> date:
    """``YYYY-MM-DD`` as a date; ``yesterday`` is the last day that is over, for schedulers that know no dates.

    Args:
        text: The date.
        zone: The time zone of yesterday (``logs.timezone``); None: UTC.

    Raises:
        UserError: It is neither.
    """
    if text == "yesterday":
        return yesterday(zone)
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise UserError("run date is not YYYY-MM-DD", where=text, fix="for example 2011-12-09, or yesterday") from error


def _run(night: Night, names: Sequence[str], force: bool) -> int:
    log_event("night begins", run_id=night.run_id, run_date=str(night.run_date), stages=list(names))
    held_back: list[str] = []
    tuned = night
    ledger = Ledger(night.warehouse, night.run_date)
    try:
        for number, name in enumerate(names, 1):
            if _terminal():
                LOGGER.info(f"[{number}/{len(names)}] {name}")
            try:
                if tuned is night and name not in AS_SET:
                    tuned = with_tuned(night)
                held_back += run_stage(tuned, STAGES[name], ledger, force).held_back
            except Exception as error:
                if not STAGES[name].aftercare or len(names) == 1:
                    raise
                warn_event("the night is done, but not its care", stage=name, reason=one_line(error))
    except Exception:
        _report(night)
        raise
    ledger.flush()
    if "topk" in names:
        _register(night)
        _report(night)
    log_event("night done", run_id=night.run_id, run_date=str(night.run_date), held_back=held_back)
    return HELD_BACK if held_back else PUBLISHED


def _register(night: Night) -> None:
    """Registers the tables where the configuration names a catalog; a night does not fail for want of it."""
    if night.config.warehouse.catalog is None:
        return
    try:
        night.warehouse.fence()
        register(night.spark, night.warehouse, night.config.warehouse.catalog)
    except UserError as error:
        warn_event("tables not registered", reason=one_line(error))


def _report(night: Night) -> None:
    """Writes the night's page where the configuration asks for it; a night does not fail for want of its report."""
    if not night.config.report.nightly:
        return
    try:
        night.warehouse.fence()
        path = write_report(night.warehouse, night.config.report, night.run_date.isoformat())
    except Exception as error:
        warn_event("report not written", reason=one_line(error))
    else:
        log_event("report written", path=path)


def run_stage(night: Night, stage: Stage, ledger: Ledger, force: bool = False) -> StageResult:
    """Runs one stage unless an equal run is on record, and records it, also where it refuses or fails.

    Raises:
        UserError: The stage refuses, storage failed, or the warehouse's lock is lost.
    """
    night.warehouse.fence()
    with named_jobs(night.spark, stage.name):
        return _run_stage(night, stage, ledger, force)


def _run_stage(night: Night, stage: Stage, ledger: Ledger, force: bool) -> StageResult:
    started, versions, settings = _Started(_now(), time.monotonic(), jobs_started(night.spark)), Versions(), ""
    try:
        versions = pin(night, stage, ledger)
        settings = config_hash(*stage.settings(night))
        done = None if stage.plan is not None or force else _done(night, stage, ledger, versions, settings)
        if done is not None:
            result = StageResult(outputs=done, skipped=True, message="inputs, settings and code unchanged")
            ledger.record(_row(night, stage, "skipped", started, versions, settings, result), wait=True)
            log_event("stage skipped", stage=stage.name, reason=result.message)
            return result
        log_event("stage begins", stage=stage.name)
        result = stage.run(night, Inputs(night, versions, settings=settings))
    except Exception as error:
        _record_failure(night, stage, ledger, started, versions, settings, error)
        if isinstance(error, UserError):
            raise
        if outgrown(error):
            fix = f"raise {LIMIT} and the driver's memory"
            raise UserError(OUTGROWN, where=f"stage {stage.name}", fix=fix) from error
        fault = storage_fault(str(error))
        if fault:
            raise UserError(f"{fault} while stage {stage.name} ran", where=night.warehouse.path, fix=_RERUN) from error
        raise
    row = _row(night, stage, result.status, started, versions, settings, result)
    ledger.record(row, wait=result.skipped)
    log_event(
        f"stage {result.status}",
        stage=stage.name,
        seconds=row.seconds,
        jobs=row.jobs,
        rows_in=result.rows_in,
        rows_out=result.rows_out,
        message=result.message,
    )
    return result


def _record_failure(
    night: Night,
    stage: Stage,
    ledger: Ledger,
    started: _Started,
    versions: Versions,
    settings: str,
    error: Exception,
) -> None:
    """Records why a stage was refused or failed; the storage itself may be what failed, and the error goes on."""
    refused = isinstance(error, UserError)
    failure = StageResult(message=str(error)[:500] if refused else one_line(error))
    try:
        ledger.record(_row(night, stage, "refused" if refused else "failed", started, versions, settings, failure))
    except Exception as second:
        warn_event("failure not recorded", stage=stage.name, reason=one_line(second))


def storage_fault(text: str) -> str:
    """What an operating system's error in a message says of the storage; empty where it says nothing of it."""
    return next((said for words, said in _STORAGE_FAULTS.items() if words in text), "")


def one_line(error: Exception) -> str:
    """An exception on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]


def pin(night: Night, stage: Stage, ledger: Ledger) -> Versions:
    """The current versions of everything that the stage reads.

    Raises:
        UserError: A table or a model that it needs does not exist yet, or another night has prepared a table.
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
    _require_own(night, stage, versions, ledger)
    for model in stage.models(night.config):
        versions[f"models/{model}"] = published_version(night.warehouse, model, night.run_date)
    return versions


def _require_own(night: Night, stage: Stage, versions: Versions, ledger: Ledger) -> None:
    """Refuses tables as of another night: lists of this one would know what came later, or miss what came before."""
    for name in (table.name for table in PREPARED if table.name in versions):
        if ledger.has_written(name, versions[name]):
            continue
        other = ledger.night_that_wrote(name, versions[name])
        raise UserError(
            f"stage {stage.name} needs tables of {night.run_date}, but {name} is as of another night",
            where=f"version {versions[name]}, written by the night {other or 'that runs does not name'}",
            fix=f"run sparkrec nightly --run-date {night.run_date}, with --from prepare or whole",
        )


def _done(night: Night, stage: Stage, ledger: Ledger, versions: Versions, settings: str) -> Versions | None:
    """Outputs of an equal earlier run, where they are still what the tables and models hold."""
    for outputs in ledger.done(stage.name, inputs=versions, config_hash=settings, code_version=night.code_version):
        if all(_current(night, name, version) for name, version in outputs.items()):
            return outputs
    return None


def _would_run(night: Night, stage: Stage, force: bool, ledger: Ledger) -> tuple[bool, str]:
    """Whether a stage would run on the tables as they are, and why."""
    if force:
        return True, "forced"
    if stage.plan is not None:
        return stage.plan(night)
    try:
        versions = pin(night, stage, ledger)
    except UserError as error:
        return True, str(error)
    settings = config_hash(*stage.settings(night))
    if _done(night, stage, ledger, versions, settings) is not None:
        return False, "inputs, settings and code unchanged"
    last = ledger.last_run(stage.name)
    if last is None:
        return True, "it has not run for this night"
    moved = [f"{n} {last.inputs.get(n, '-')} -> {v}" for n, v in sorted(versions.items()) if last.inputs.get(n) != v]
    reasons = [f"input {', '.join(moved)}"] if moved else []
    reasons += ["settings changed"] if last.config_hash != settings else []
    reasons += ["code changed"] if last.code_version != night.code_version else []
    reasons += [f"the last attempt ended as {last.status}"] if last.status not in ("done", "skipped") else []
    return True, "; ".join(reasons) or "its output has been changed by another night"


def _current(night: Night, name: str, version: int | str) -> bool:
    from sparkrec.warehouse.tables import TABLES

    if name.startswith("models/"):
        try:
            return published_version(night.warehouse, name.removeprefix("models/"), night.run_date) == version
        except UserError:
            return False
    table = TABLES.get(name)
    if table is None:
        raise InvariantError(f"runs names an unknown table {name}")
    if store.version(night.spark, night.warehouse, table) == version:
        return True
    if "run_date" not in table.partition:
        return False
    untouched = store.night_is_as_of(night.spark, night.warehouse, table, int(version), night.run_date)
    return untouched and has_rows(night, table)  # maintenance removes old nights


@dataclass(frozen=True)
class _Started:
    """When a stage began, in UTC and by the clock that cannot jump, and how many jobs there had been by then."""

    at: datetime
    clock: float
    jobs: int


def _row(
    night: Night, stage: Stage, status: str, started: _Started, inputs: Versions, settings: str, result: StageResult
) -> RunRow:
    return RunRow(
        run_id=night.run_id,
        run_date=night.run_date,
        stage=stage.name,
        status=status,
        started_at=started.at,
        ended_at=_now(),
        inputs=inputs,
        config_hash=settings,
        config=json.dumps(recorded_config(night.config), sort_keys=True),
        code_version=night.code_version,
        result=result,
        jobs=jobs_started(night.spark) - started.jobs,
        seconds=time.monotonic() - started.clock,
    )


def _terminal() -> bool:
    import sys

    return sys.stderr.isatty()


def _now() -> datetime:
    return datetime.now(UTC)
