"""What the rows of ``runs`` and ``metrics`` say about a night and those before it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from datetime import date, datetime
from typing import Any

import polars as pl

from sparkrec.evaluation.values import RECENT, split_of
from sparkrec.report.facts import (
    FAILED,
    HELD_BACK,
    PUBLISHED,
    UNFINISHED,
    Head,
    History,
    Ingest,
    MetricRow,
    Model,
    NightValue,
    Stage,
)
from sparkrec.settings.config import config_hash
from sparkrec.settings.sections import GateConfig
from sparkrec.warehouse.ledger import ROLLBACK
from sparkrec.warehouse.tables import PROTOCOL, RUN_DATE, VALUE

Row = dict[str, Any]
_FINISHED = ("done", "held_back")


def rows_of(runs: pl.DataFrame) -> list[Row]:
    """The rows of nights in order of time."""
    return runs.filter(pl.col("stage") != ROLLBACK).sort("started_at", "ended_at").rows(named=True)


def stages(rows: Sequence[Row]) -> tuple[Stage, ...]:
    """A stage of each name, in the order in which they first ran."""
    return tuple(_stage([r for r in rows if r["stage"] == name]) for name in dict.fromkeys(r["stage"] for r in rows))


def _stage(rows: Sequence[Row]) -> Stage:
    worked = [n for n, row in enumerate(rows) if row["status"] != "skipped"]
    at = worked[-1] if worked else len(rows) - 1
    row = rows[at]
    return Stage(
        name=row["stage"],
        status=row["status"],
        seconds=_seconds(row),
        jobs=row["jobs"],
        rows_in=row["rows_in"],
        rows_out=row["rows_out"],
        message=row["message"] or "",
        config_hash=row["config_hash"],
        skipped_since=len(rows) - 1 - at,
    )


def ingest(rows: Sequence[Row]) -> Ingest | None:
    """The accounts of all attempts together; None where none took anything in."""
    mine = [row for row in rows if row["stage"] == "ingest" and row["status"] == "done"]
    names = ("rows_in", "rows_out", "rows_quarantined", "rows_duplicate")
    return Ingest(*(sum(row[name] or 0 for row in mine) for name in names)) if mine else None


def ingest_times(rows: Sequence[Row]) -> list[tuple[datetime, datetime]]:
    """When rows were taken in: beginning and end of each attempt."""
    return [(row["started_at"], row["ended_at"]) for row in rows if row["stage"] == "ingest"]


def outputs(rows: Sequence[Row]) -> dict[str, int | str]:
    """The version of every table and model that the night wrote last."""
    found: dict[str, int | str] = {}
    for row in rows:
        found |= json.loads(row["outputs"])
    return found


def recorded_config(rows: Sequence[Row]) -> dict[str, Any]:
    """The configuration of the night's last stage."""
    config: dict[str, Any] = json.loads(rows[-1]["config"])
    return config


def gate_of(config: dict[str, Any]) -> GateConfig:
    """The gate's settings in a recorded configuration, which may be of an older or newer version."""
    names = {field.name for field in fields(GateConfig)}
    return GateConfig(**{key: value for key, value in config.get("gate", {}).items() if key in names})


def head(run_date: date, rows: Sequence[Row], current: dict[str, date]) -> Head:
    """Which night, and how it ended.

    Args:
        run_date: The night.
        rows: Its rows, in order of time.
        current: For each model the night whose lists are current now.
    """
    last = rows[-1]
    models = _models(rows, current)
    held = [model for model in models if model.state == HELD_BACK]
    ends = [row for row in rows if row["stage"] == "topk" and row["status"] in _FINISHED]
    if last["status"] in ("failed", "refused"):
        state, why = FAILED, f"In stage {last['stage']}: {last['message'] or 'no reason recorded'}"
    elif not ends:
        state, why = UNFINISHED, f"The last stage on record is {last['stage']}; no lists were published"
    elif held:
        state, why = HELD_BACK, "; ".join(f"{model.name}: {model.why}" for model in held)
    else:
        state, why = PUBLISHED, ""
    return Head(
        run_date=run_date,
        state=state,
        why=why,
        run_ids=tuple(dict.fromkeys(row["run_id"] for row in rows)),
        started_at=rows[0]["started_at"],
        ended_at=max(row["ended_at"] for row in rows),
        seconds=sum(_seconds(row) for row in rows),
        config_hash=config_hash(json.loads(last["config"])),
        code_version=last["code_version"],
        models=models,
    )


def _models(rows: Sequence[Row], current: dict[str, date]) -> tuple[Model, ...]:
    versions, published = outputs(rows), publications(rows)
    names = recorded_config(rows).get("models", [])
    return tuple(_model(name, versions.get(f"models/{name}"), published, current.get(name)) for name in names)


def _model(name: str, version: int | str | None, published: dict[str, dict[date, str]], current: date | None) -> Model:
    verdicts = list(published.get(name, {}).values())
    if not verdicts:
        state, why = UNFINISHED, "its lists were not made" if version else "it was not trained"
    else:
        state, why = (HELD_BACK, verdicts[-1]) if verdicts[-1] else (PUBLISHED, "")
    return Model(name, state, why, str(version) if version else None, current)


def publications(rows: Sequence[Row]) -> dict[str, dict[date, str]]:
    """For each model and night on record what the gate had against it, empty where it was published."""
    found: dict[str, dict[date, str]] = {}
    for row in rows:
        if row["stage"] != "topk" or row["status"] not in _FINISHED:
            continue
        for note in (row["message"] or "").split("; "):
            model, held, reasons = note.partition(" held back: ")
            if held:
                found.setdefault(model, {})[row[RUN_DATE]] = reasons or "no reason recorded"
        for name in json.loads(row["outputs"]):
            found.setdefault(name.removeprefix("topk_"), {})[row[RUN_DATE]] = ""
    return found


def histories(
    metrics: pl.DataFrame, published: dict[str, dict[date, str]], models: Sequence[str], gate: GateConfig
) -> tuple[History, ...]:
    """The gate's metric of each model, night by night.

    Args:
        metrics: Rows of ``metrics`` of the nights to show. The last published model counts by its value or by how many
            times recent popularity that was, whichever is lower, as for the gate, and where it was judged alike.
        published: See ``publications``; of earlier nights, too.
        models: The models.
        gate: Its settings.
    """
    by_split = metrics.filter(pl.col("k") == gate.k).group_by("split").agg("metric").iter_rows()
    named = {split: gate.metric_of(set(names)) for split, names in by_split}
    gated = pl.col("metric") == pl.col("split").replace_strict(named, default=gate.metric, return_dtype=pl.String)
    wanted = metrics.filter(gated & (pl.col("k") == gate.k))
    values = {(r[RUN_DATE], r["model"], r["split"]): r[VALUE] for r in wanted.iter_rows(named=True)}
    how = {(r[RUN_DATE], r["model"], r["split"]): r[PROTOCOL] for r in wanted.iter_rows(named=True)}
    nights = sorted(metrics[RUN_DATE].unique().to_list())
    found = []
    for model in models:
        again, split = (split_of(model, seen) for seen in (True, False))
        split = again if any((night, model, again) in values for night in nights) else split
        points: list[NightValue] = []
        last: tuple[float, float] | None = None  # of the model published last: its metric, and times popularity's
        judged: str | None = None  # how that one was
        for night in nights:
            out = published.get(model, {}).get(night) == ""
            mine, popular = (night, model, split), values.get((night, RECENT, split))
            held = None
            if last is not None and popular is not None and how.get(mine) == judged:
                held = min(last[0], last[1] * popular)
            points.append(NightValue(night, values.get(mine), popular, held, out))
            if out and mine in values:
                last, judged = (values[mine], values[mine] / popular) if popular else None, how[mine]
        name = f"{named.get(split, gate.metric)}@{gate.k}"
        found.append(History(model, name, tuple(points), gate.below_popularity, gate.below_last, gate.enabled))
    return tuple(found)


def metric_rows(metrics: pl.DataFrame) -> tuple[MetricRow, ...]:
    """The metrics of one night by hold-out, length of the lists, and model; those of no length are in each row."""
    found = []
    groups = metrics.sort("split", "model", "k", nulls_last=True).group_by("split", "model", maintain_order=True)
    for (split, model), rows in groups:
        of_any = rows.filter(pl.col("k").is_null())
        for k in rows["k"].drop_nulls().unique().sort().to_list() or [None]:
            mine = of_any if k is None else pl.concat([rows.filter(pl.col("k") == k), of_any])
            values = tuple(mine.select("metric", VALUE).iter_rows())
            found.append(MetricRow(str(split), str(model), k, max(mine["n"].to_list()), values))
    return tuple(sorted(found, key=lambda row: (row.split, row.k or 0, row.model)))


def _seconds(row: Row) -> float:
    """By the clock that cannot jump, where the ledger has it."""
    took = row["seconds"]
    return float((row["ended_at"] - row["started_at"]).total_seconds() if took is None else took)
