"""Which night's lists are current, and how publications and rollbacks move that; nothing here needs Spark."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any

from sparkrec.warehouse.tables import MODEL_VERSION, RUN_DATE


@dataclass(frozen=True)
class Pointer:
    """A model's row of ``current``.

    Attributes:
        run_date: The night whose lists are current.
        model_version: The model that made them.
        since: When they became current, UTC.
        pinned: Whether they stay so until they are released, whatever is published.
        passed_over: Nights that have lists which are not to be current: rolled back, or published beside a pinned one.
            No model begins with theirs, and none is compared with them.
    """

    run_date: date
    model_version: str
    since: datetime
    pinned: bool = False
    passed_over: frozenset[date] = frozenset()


def pointers_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, Pointer]:
    """The rows of ``current`` by model; those of an earlier version of the package have fewer columns."""
    return {
        row["model"]: Pointer(
            row[RUN_DATE],
            row[MODEL_VERSION],
            row["since"],
            bool(row.get("pinned")),
            frozenset(row.get("passed_over") or ()),
        )
        for row in rows
    }


def row_of(model: str, pointer: Pointer) -> dict[str, Any]:
    """A pointer as a row of ``current``."""
    return {
        "model": model,
        RUN_DATE: pointer.run_date,
        MODEL_VERSION: pointer.model_version,
        "since": pointer.since,
        "pinned": pointer.pinned,
        "passed_over": sorted(pointer.passed_over),
    }


def published(old: Pointer | None, run_date: date, version: str, now: datetime) -> Pointer:
    """What is current after a publication: the night, unless a later one is current already, or one is pinned."""
    if old is None:
        return Pointer(run_date, version, now)
    if run_date < old.run_date:  # a backfill
        return replace(old, passed_over=old.passed_over - {run_date})
    if old.pinned and run_date > old.run_date:
        return replace(old, passed_over=old.passed_over | {run_date})
    return replace(old, run_date=run_date, model_version=version, since=now, passed_over=old.passed_over - {run_date})


def rolled_back(old: Pointer, to: date, version: str, now: datetime, *, pin: bool, nights: Iterable[date]) -> Pointer:
    """What is current after a rollback to a night; later ones of the nights with lists are passed over from then on.

    One to a later night than the current takes back what was said of those up to it.
    """
    earlier = {night for night in old.passed_over if night < to and to <= old.run_date}
    later = {night for night in (*nights, *old.passed_over) if night > to}
    return Pointer(to, version, now, pin, frozenset(earlier | later))


def released(old: Pointer) -> Pointer:
    """What is current after a release: the same, until the next publication."""
    return replace(old, pinned=False)
