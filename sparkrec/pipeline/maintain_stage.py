"""The last stage of a night: the care of the tables, and the nights that are no longer kept.

What is due is found first, so that a dry run can say it and a night without any of it skips the stage. No step changes
what a later stage or a rerun reads; see ``store.version``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial

from pyspark import inheritable_thread_target
from pyspark.sql import functions as F

from sparkrec.log import log_event, warn_event
from sparkrec.models import MODELS
from sparkrec.models.night import Inputs, Night
from sparkrec.models.publication import current_lists
from sparkrec.report import PAGE, reports_folder
from sparkrec.spark.session import named_jobs
from sparkrec.storage import files
from sparkrec.warehouse import care, direct, store
from sparkrec.warehouse import old_nights as kept
from sparkrec.warehouse.care import State
from sparkrec.warehouse.ledger import StageResult
from sparkrec.warehouse.tables import (
    RULES,
    RUN_DATE,
    RUNS,
    TABLES,
    USER_GROUP_PROFILES,
    USER_GROUPS,
    Table,
    list_tables,
)

HOUR = timedelta(hours=1)
LEFTOVERS = ("_staging", "_checkpoints", "_search")  # what attempts and searches empty when they end


@dataclass(frozen=True)
class Step:
    """Something that is due: what, and how it is done; doing it says what came of it."""

    what: str
    do: Callable[[], str]


def run_maintain(night: Night, _: Inputs) -> StageResult:
    """Does what is due, in the order of ``plan_maintain``."""
    steps = plan_maintain(night)
    notes = []
    for step in steps:
        night.warehouse.fence()
        with named_jobs(night.spark, step.what):
            notes.append(step.do())
        log_event("maintain", done=notes[-1])
    return StageResult(message="; ".join(notes) or "nothing is due", skipped=not steps)


def maintenance_due(night: Night) -> tuple[bool, str]:
    """Whether anything is due, and what; see ``Stage.plan``."""
    due = [step.what for step in plan_maintain(night)]
    return bool(due), "; ".join(due) or "nothing is due"


def plan_maintain(night: Night) -> list[Step]:
    """What is due: checks and properties, nights to remove, small files, superseded files, leftovers."""
    present = [table for table in TABLES.values() if store.exists(night.spark, night.warehouse, table)]
    with ThreadPoolExecutor(4) as pool:
        state = inheritable_thread_target(night.spark)(care.state)
        found = pool.map(lambda table: state(night.spark, night.warehouse, table), present)
        states = dict(zip(present, found, strict=True))
    hours = retention(night) if RUNS in states else 0
    return [
        *_declared(night, states, hours),
        *_old_nights(night, states),
        *_small_files(night, states),
        *_superseded_files(night, states, hours),
        *_leftovers(night),
    ]


def retention(night: Night) -> int:
    """Hours that superseded files stay. What is configured is raised where the longest attempt so far needs more."""
    settings = night.config.maintenance
    spans: dict[str, tuple[datetime, datetime]] = {}
    for row in direct.rows_of(night.warehouse, RUNS, ["run_id", "started_at", "ended_at"]):
        began, ended = spans.get(row["run_id"], (row["started_at"], row["ended_at"]))
        spans[row["run_id"]] = (min(began, row["started_at"]), max(ended, row["ended_at"]))
    longest = max([timedelta(0), *(ended - began for began, ended in spans.values())]) / HOUR
    hours = kept.retention_hours(settings.retention_hours, longest, settings.margin_hours)
    if longest + settings.margin_hours > settings.retention_hours:
        warn_event(
            "superseded files are kept longer than configured", hours=hours, longest_night_hours=longest,
            **{"maintenance.retention_hours": settings.retention_hours,
               "maintenance.margin_hours": settings.margin_hours},
        )  # fmt: skip
    return hours


def _declared(night: Night, states: dict[Table, State], hours: int) -> Iterator[Step]:
    """The checks and properties that a table made by an earlier version of the package, or other settings, lacks."""
    wanted = care.wanted_properties(hours, night.config.maintenance.log_retention_days)
    for table, state in states.items():
        names = care.missing_checks(table, state.properties)
        if names:
            yield Step(f"add {', '.join(names)} to {table.name}", partial(_add_checks, night, table, names, state))
        other = care.other_properties(state.properties, wanted)
        if other:
            what = f"set {', '.join(other)} of {table.name}"
            yield Step(what, partial(_set_properties, night, table, other, what))


def _add_checks(night: Night, table: Table, names: list[str], state: State) -> str:
    refused = [
        name for name in names if not care.add_check(night.spark, night.warehouse, table, name, state.properties)
    ]
    added = [name for name in names if name not in refused]
    if refused:
        conditions = ", ".join(f"{name} ({table.checks[name]})" for name in refused)
        warn_event("rows do not fulfil a declared check, so it is not on", table=table.name, checks=conditions)
    notes = [f"added {', '.join(added)} to {table.name}"] if added else []
    notes += [f"rows of {table.name} do not fulfil {', '.join(refused)}"] if refused else []
    return "; ".join(notes)


def _set_properties(night: Night, table: Table, properties: dict[str, str], what: str) -> str:
    care.set_properties(night.spark, night.warehouse, table, properties)
    return what


def _old_nights(night: Night, states: dict[Table, State]) -> Iterator[Step]:
    """Models, snapshots, lists, rules, groups and pages of nights that are no longer kept.

    The night's own stay, the current one's, the latest ones', and the models that kept nights began with.
    """
    settings, warehouse = night.config.maintenance, night.warehouse
    pointers = current_lists(night)
    for model in MODELS:
        stay = {night.run_date} | ({pointers[model].run_date} if model in pointers else set())
        present = kept.nights_in(warehouse.models_path(model))
        models = kept.kept_nights(present, settings.keep_nights, stay)
        if set(present) - models:
            models |= kept.begun_with(warehouse, model, models)
        gone = [day for day in present if day not in models]
        if gone:
            yield Step(f"remove {_named(gone)} of {model}", partial(_remove_models, night, model, gone))
        snapshots = kept.nights_in(warehouse.snapshots_path(model))
        gone = sorted(set(snapshots) - kept.kept_nights(snapshots, settings.keep_nights, stay))
        if gone:
            yield Step(f"remove {_named(gone, 'snapshot')} of {model}", partial(_remove_snapshots, night, model, gone))
        for table in (*list_tables(model), RULES) if model == "rules" else list_tables(model):
            yield from _old_rows(night, states, table, stay | models)
    for table in (USER_GROUPS, USER_GROUP_PROFILES):
        yield from _old_rows(night, states, table, {night.run_date})
    yield from _old_pages(night, {night.run_date} | {pointer.run_date for pointer in pointers.values()})


def _old_rows(night: Night, states: dict[Table, State], table: Table, stay: set[date]) -> Iterator[Step]:
    """The nights that a table's rows are no longer kept of."""
    keep = night.config.maintenance.keep_list_nights
    if table not in states or not keep:
        return
    found = care.partitions(night.spark, night.warehouse, table)
    days = [date.fromisoformat(partition.value) for partition in found if partition.value]
    gone = sorted(set(days) - kept.kept_nights(days, keep, stay))
    if gone:
        yield Step(f"remove {_named(gone, 'night')} of {table.name}", partial(_remove_lists, night, table, gone))


def _old_pages(night: Night, stay: set[date]) -> Iterator[Step]:
    """The report's pages of nights whose lists are no longer kept: a page shows lists, too."""
    folder = reports_folder(night.warehouse, night.config.report)
    days = kept.nights_in(folder, PAGE)
    gone = sorted(set(days) - kept.kept_nights(days, night.config.maintenance.keep_list_nights, stay))
    if gone:
        yield Step(f"remove {_named(gone, 'page')} of the report", partial(_remove_pages, folder, gone))


def _remove_pages(folder: str, gone: list[date]) -> str:
    for day in gone:
        files.remove(files.join(folder, f"{day}{PAGE}"))
    return f"removed {_named(gone, 'page')} of the report"


def _remove_models(night: Night, model: str, gone: list[date]) -> str:
    for day in gone:
        kept.remove_model(night.warehouse, model, day)
    return f"removed {_named(gone)} of {model}"


def _remove_snapshots(night: Night, model: str, gone: list[date]) -> str:
    for day in gone:
        files.remove(night.warehouse.snapshot_path(model, day))
    return f"removed {_named(gone, 'snapshot')} of {model}"


def _remove_lists(night: Night, table: Table, gone: list[date]) -> str:
    store.delete_where(night.spark, night.warehouse, table, F.col(RUN_DATE).isin(gone))
    return f"removed {_named(gone, 'night')} of {table.name}"


def _small_files(night: Night, states: dict[Table, State]) -> Iterator[Step]:
    """Tables that would have ``compact_files`` files fewer."""
    settings = night.config.maintenance
    for table, state in states.items():
        if not settings.compact_files or state.n_files <= settings.compact_files:
            continue
        worth, fewer = care.to_compact(
            night.spark, night.warehouse, table, settings.file_mb, settings.compact_files
        )  # fmt: skip
        if worth:
            what = f"compact {table.name}: {fewer} of {state.n_files} files fewer"
            yield Step(what, partial(_compact, night, table, worth))


def _compact(night: Night, table: Table, worth: list[care.Partition]) -> str:
    before, after = care.compact(night.spark, night.warehouse, table, worth, night.config.maintenance.file_mb)
    return f"compacted {table.name}: {before} files became {after}"


def _superseded_files(night: Night, states: dict[Table, State], hours: int) -> Iterator[Step]:
    """Tables with files that were superseded before the retention."""
    before_ms = int((datetime.now(UTC) - hours * HOUR).timestamp() * 1000)
    for table in states:
        if not care.aged(night.spark, night.warehouse, table, before_ms):
            continue  # nothing in it is old enough, and its history need not be read
        if care.vacuum_due(care.history(night.spark, night.warehouse, table), before_ms):
            yield Step(f"vacuum {table.name}", partial(_vacuum, night, table, hours))


def _vacuum(night: Night, table: Table, hours: int) -> str:
    care.vacuum(night.spark, night.warehouse, table, hours)
    return f"vacuumed {table.name} to {hours} hours"


def _leftovers(night: Night) -> Iterator[Step]:
    """Work folders of attempts: the lock says that none but this one is running, which is done with its own."""
    for folder in LEFTOVERS:
        path = files.join(night.warehouse.path, folder)
        names = files.list_names(path)
        if names:
            yield Step(f"remove {len(names)} leftovers in {folder}", partial(_remove_leftovers, path, names))


def _remove_leftovers(path: str, names: list[str]) -> str:
    for name in names:
        files.remove(files.join(path, name))
    return f"removed {len(names)} leftovers in {path.rsplit('/', 1)[-1]}"


def _named(gone: list[date], what: str = "model") -> str:
    """``3 models (2024-01-01 to 2024-01-05)``."""
    span = str(gone[0]) if len(gone) == 1 else f"{gone[0]} to {gone[-1]}"
    return f"{len(gone)} {what}{'s' if len(gone) > 1 else ''} ({span})"
