"""Which nights of a model are published, and which of them is current."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime

from pyspark.sql import functions as F

from sparkrec.models.night import Night
from sparkrec.warehouse import direct, store
from sparkrec.warehouse.cards import ModelCard
from sparkrec.warehouse.pointer import Pointer, pointers_of, published, row_of
from sparkrec.warehouse.tables import CURRENT, MODEL_VERSION, RUN_DATE, RUNS, Table, lists_table

STAND_IN = ".popularity"  # how the version ends of lists that stand in for a model's


def stand_in_version(night: Night) -> str:
    """The version of lists of what is popular, published in place of a model's."""
    return f"{night.run_date.isoformat()}{STAND_IN}"


def published_before(night: Night, model: str) -> list[tuple[date, str]]:
    """The nights before this one that have lists of the model, and the version that made them, the latest first.

    Those that a rollback passed over are left out: neither the gate nor a warm start goes by them.
    """
    lists = store.find(night.spark, night.warehouse, lists_table(model))
    if lists is None:
        return []
    rows = lists.where(F.col(RUN_DATE) < F.lit(night.run_date)).select(RUN_DATE, MODEL_VERSION).distinct().collect()
    pointer = current_lists(night).get(model) if rows else None
    passed_over = pointer.passed_over if pointer else frozenset()
    return sorted(((r[RUN_DATE], r[MODEL_VERSION]) for r in rows if r[RUN_DATE] not in passed_over), reverse=True)


def last_published(night: Night, model: str, pointers: dict[str, Pointer]) -> tuple[date, str] | None:
    """The night before this one whose lists are or were current, and the version of the model that made them.

    None where no model made them: popularity stood in. ``pointers`` are those of ``current_lists``.
    """
    pointer = pointers.get(model)
    if pointer is not None and pointer.run_date < night.run_date:
        last: tuple[date, str] | None = (pointer.run_date, pointer.model_version)
    else:
        last = next(iter(published_before(night, model)), None)
    return None if last is None or last[1].endswith(STAND_IN) else last


def make_current(night: Night, cards: Sequence[ModelCard]) -> dict[str, date]:
    """Points ``current`` to the night's lists, all models' in one transaction.

    A model whose lists of a later night are current keeps these: a backfill changes nothing there. So does one whose
    lists are pinned.

    Returns:
        The models that stay at a pinned night before this one, and which.
    """
    pointers, now = current_lists(night), datetime.now(UTC)
    moved = {card.model: published(pointers.get(card.model), night.run_date, card.model_version, now) for card in cards}
    rows = [row_of(model, new) for model, new in moved.items() if new != pointers.get(model)]
    if rows:
        direct.upsert(rows, night.warehouse, CURRENT)
    return {model: new.run_date for model, new in moved.items() if new.pinned and new.run_date < night.run_date}


def current_lists(night: Night) -> dict[str, Pointer]:
    """For each model what is current."""
    return pointers_of(direct.rows_of(night.warehouse, CURRENT))


def has_rows(night: Night, table: Table) -> bool:
    """Whether a table that is partitioned by night holds rows of this one: maintenance removes old nights."""
    rows = store.find(night.spark, night.warehouse, table)
    return rows is not None and not rows.where(F.col(RUN_DATE) == F.lit(night.run_date)).isEmpty()


def held_back_before(night: Night, model: str) -> date | None:
    """The last night before this one that judged the model, if the gate held it back then."""
    last = next(iter(_verdicts(night, model, 1)), None)
    return last[0] if last and not last[1] else None


def nights_held_back(night: Night, model: str) -> int:
    """How many nights in a row, up to the one before this, judged the model and held it back."""
    nights = 0
    for _, out in _verdicts(night, model):
        if out:
            break
        nights += 1
    return nights


def _verdicts(night: Night, model: str, latest: int | None = None) -> list[tuple[date, bool]]:
    """The nights before this one that judged the model, the latest first, and whether its lists were published.

    A night counts as it ended last. ``latest``: so many runs of the stage are looked at.
    """
    import polars as pl

    judged = (pl.col("stage") == "topk") & pl.col("status").is_in(["done", "held_back"])
    judged &= (pl.col(RUN_DATE) < night.run_date) & pl.col("inputs").str.contains(f'"models/{model}"', literal=True)
    columns = ("stage", "status", RUN_DATE, "inputs", "outputs", "ended_at")
    rows = direct.rows_of(night.warehouse, RUNS, columns, judged)
    rows = sorted(rows, key=lambda row: (row[RUN_DATE], row["ended_at"]), reverse=True)[:latest]
    table = lists_table(model).name
    ended = {row[RUN_DATE]: table in json.loads(row["outputs"]) for row in reversed(rows)}
    return sorted(ended.items(), reverse=True)
