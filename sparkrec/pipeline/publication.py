"""Which nights of a model are published, and which of them is current."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime

from pyspark.sql import functions as F

from sparkrec import store
from sparkrec.pipeline.models import ModelCard
from sparkrec.pipeline.night import Night
from sparkrec.tables import CURRENT, MODEL_VERSION, RUN_DATE, RUNS, Table, lists_table


def published_before(night: Night, model: str) -> list[tuple[date, str]]:
    """The nights before this one that have lists of the model, and the version that made them, the latest first."""
    lists = store.find(night.spark, night.warehouse, lists_table(model))
    if lists is None:
        return []
    rows = lists.where(F.col(RUN_DATE) < F.lit(night.run_date)).select(RUN_DATE, MODEL_VERSION).distinct().collect()
    return sorted(((row[RUN_DATE], row[MODEL_VERSION]) for row in rows), reverse=True)


def last_published(night: Night, model: str, pointers: dict[str, tuple[date, str]]) -> tuple[date, str] | None:
    """The night before this one whose lists are or were current, and the version of the model that made them.

    ``pointers`` are those of ``current_lists``.
    """
    pointer = pointers.get(model)
    if pointer is not None and pointer[0] < night.run_date:
        return pointer
    return next(iter(published_before(night, model)), None)


def make_current(night: Night, cards: Sequence[ModelCard]) -> None:
    """Points ``current`` to the night's lists, all models' in one transaction.

    A model whose lists of a later night are current keeps these: a backfill changes nothing there.
    """
    pointers, now = current_lists(night), datetime.now(UTC)
    values = [
        (card.model, night.run_date, card.model_version, now)
        for card in cards
        if card.model not in pointers or pointers[card.model][0] <= night.run_date
    ]
    if values:
        whole = set(pointers) <= {value[0] for value in values}  # no pointer stays: then a MERGE has nothing to look up
        write = store.overwrite if whole else store.upsert
        write(night.spark.createDataFrame(values, CURRENT.ddl).coalesce(1), night.warehouse, CURRENT)


def current_lists(night: Night) -> dict[str, tuple[date, str]]:
    """For each model the night whose lists are current, and the version of the model that made them."""
    rows = store.find(night.spark, night.warehouse, CURRENT)
    return {} if rows is None else {row["model"]: (row[RUN_DATE], row[MODEL_VERSION]) for row in rows.collect()}


def has_rows(night: Night, table: Table) -> bool:
    """Whether a table that is partitioned by night holds rows of this one: maintenance removes old nights."""
    rows = store.find(night.spark, night.warehouse, table)
    return rows is not None and not rows.where(F.col(RUN_DATE) == F.lit(night.run_date)).isEmpty()


def held_back_before(night: Night, model: str) -> date | None:
    """The last night before this one that judged the model, if the gate held it back then."""
    runs = store.find(night.spark, night.warehouse, RUNS)
    if runs is None:
        return None
    judged = runs.where((F.col("stage") == "topk") & F.col("status").isin("done", "held_back"))
    judged = judged.where((F.col(RUN_DATE) < F.lit(night.run_date)) & F.col("inputs").contains(f'"models/{model}"'))
    last = judged.orderBy(F.col(RUN_DATE).desc(), F.col("ended_at").desc()).select(RUN_DATE, "outputs").head()
    return last[0] if last and lists_table(model).name not in json.loads(last[1]) else None
