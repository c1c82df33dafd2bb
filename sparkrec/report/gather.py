"""Gathers a night's report from the tables and the models; what is not there is said, not left out."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any, TypeVar

import polars as pl

from sparkrec.errors import UserError
from sparkrec.models import MODELS, models_for
from sparkrec.models.model import Lists
from sparkrec.ranks.checkpoint import MODEL
from sparkrec.report import data, ledger
from sparkrec.report.facts import Absent, Losses, MetricRow, Report, Spread
from sparkrec.report.lists import user_lists
from sparkrec.storage import files
from sparkrec.warehouse.cards import FULL, HOLDOUT, part_path
from sparkrec.warehouse.location import Warehouse
from sparkrec.warehouse.query import runs
from sparkrec.warehouse.reading import LATEST, choose_night, current_nights, open_table, read_rows
from sparkrec.warehouse.tables import COPURCHASE, METRICS, RUN_DATE, RUNS, SESSIONS

T = TypeVar("T")


def gather(warehouse: Warehouse, run_date: str = LATEST, *, nights: int = 30, users: int = 4) -> Report:
    """Everything that the report of a night says.

    Args:
        warehouse: Where the tables are.
        run_date: The night, ``YYYY-MM-DD`` or ``latest``.
        nights: How many nights the metrics go back, this one included.
        users: How many users' lists are shown.

    Raises:
        UserError: No warehouse, nothing has run in it, or not this night.
    """
    past = ledger.rows_of(runs(warehouse))
    night = choose_night(sorted({row[RUN_DATE] for row in past}), RUNS, run_date)
    rows = [row for row in past if row[RUN_DATE] == night]
    versions, config = ledger.outputs(rows), ledger.recorded_config(rows)
    head = ledger.head(night, rows, current_nights(warehouse))
    models = [model.name for model in head.models]
    published = ledger.publications(past)
    listed = [model for model in models if published.get(model, {}).get(night) == ""]
    for_users = [model for model in listed if model not in models_for(Lists.ITEMS)]
    metrics = attempt(lambda: _metrics(warehouse, night, nights))
    return Report(
        head=head,
        stages=ledger.stages(rows),
        ingest=ledger.ingest(rows) or Absent("This night took no new log file in."),
        quarantine=attempt(lambda: data.quarantine(warehouse, ledger.ingest_times(rows))),
        sessions=attempt(lambda: data.lengths(warehouse, SESSIONS, _written(versions, SESSIONS.name))),
        baskets=attempt(lambda: data.lengths(warehouse, COPURCHASE, _written(versions, COPURCHASE.name))),
        losses=tuple(found for model in models for found in _losses(warehouse, model, night)),
        histories=metrics
        if isinstance(metrics, Absent)
        else ledger.histories(metrics, published, models, ledger.gate_of(config)),
        metrics=_metric_rows(metrics, night),
        calibrations=attempt(lambda: data.calibrations(warehouse, models, night)),
        spreads=tuple(_spread(warehouse, model, night, versions, model in listed) for model in models),
        tuned=attempt(lambda: data.tuned(warehouse, models, night)),
        users=attempt(lambda: user_lists(warehouse, for_users, night, versions, config["logs"]["format"], users))
        if for_users
        else Absent("No lists for users were published this night."),
        tables=attempt(lambda: data.sizes(warehouse)),
        written_at=datetime.now(UTC),
    )


def attempt(part: Callable[[], T]) -> T | Absent:
    """A part of the report, or why it cannot be given."""
    try:
        return part()
    except UserError as error:
        return Absent(str(error))


def _written(versions: dict[str, int | str], name: str) -> int:
    version = versions.get(name)
    if not isinstance(version, int):
        raise UserError("the night has not written this table", where=name)
    return version


def _metrics(warehouse: Warehouse, night: date, nights: int) -> pl.DataFrame:
    """The metrics of the last nights up to this one."""
    rows = read_rows(open_table(warehouse, METRICS), METRICS, METRICS.column_names, pl.col(RUN_DATE) <= night)
    return rows.filter(pl.col(RUN_DATE).is_in(rows[RUN_DATE].unique().sort().tail(nights).to_list()))


def _metric_rows(metrics: pl.DataFrame | Absent, night: date) -> tuple[MetricRow, ...] | Absent:
    if isinstance(metrics, Absent):
        return metrics
    mine = metrics.filter(pl.col(RUN_DATE) == night)
    return ledger.metric_rows(mine) if mine.height else Absent("The models of this night have not been judged.")


def _spread(
    warehouse: Warehouse, model: str, night: date, versions: dict[str, int | str], listed: bool
) -> Spread | Absent:
    nothing = Absent(f"{model} has no lists of this night.")
    return attempt(lambda: data.spread(warehouse, model, night, versions) or nothing) if listed else nothing


def _losses(warehouse: Warehouse, model: str, night: date) -> list[Losses | Absent]:
    """The losses of a model's parts, from their ``model.json``."""
    if not MODELS[model].on_ranks:
        return [Absent(f"{model} is not trained by gradients: no loss is recorded.")]
    found: list[Losses | Absent] = []
    for part in (HOLDOUT, FULL):
        where = files.join(part_path(warehouse, model, night, part), MODEL)
        described = attempt(lambda where=where: files.read_json(where) if files.exists(where) else None)  # type: ignore[misc]
        if isinstance(described, Absent):
            found.append(described)
        elif described:
            found.append(_curve(model, part, described))
    return found or [Absent(f"{model} was not trained this night.")]


def _curve(model: str, part: str, described: dict[str, Any]) -> Losses:
    epochs = [epoch for epoch in described.get("history", []) if "loss" in epoch]
    seconds = sum(epoch.get("seconds", 0.0) for epoch in epochs)
    return Losses(model, part, tuple(float(epoch["loss"]) for epoch in epochs), float(seconds))
