"""Publishes the night's lists: one transaction a table, replacing this night's rows and no other's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

import numpy as np
from pyspark import StorageLevel
from pyspark.sql import functions as F

from sparkrec import store
from sparkrec.config_checks import excluded_attributes
from sparkrec.errors import UserError
from sparkrec.evaluation.gate import objections
from sparkrec.evaluation.values import RECENT, MetricValue, split_of
from sparkrec.log import warn_event
from sparkrec.models.popularity import fallback_matrix
from sparkrec.pipeline.ledger import StageResult, Versions
from sparkrec.pipeline.lists import Lists, session_lists, user_lists
from sparkrec.pipeline.models import ModelCard, read_card
from sparkrec.pipeline.night import Inputs, Night
from sparkrec.pipeline.publication import last_published, make_current
from sparkrec.pipeline.scorers import USER_MODELS, timeless_scorer
from sparkrec.pipeline.train_stages import index_size
from sparkrec.retrieval.fallback import FROM_MODEL, Counts, count_lists, filled_up
from sparkrec.retrieval.publish import published, published_similar
from sparkrec.retrieval.similar import nearest
from sparkrec.retrieval.topk import VECTOR, IntArray, ItemMatrix, item_matrix
from sparkrec.tables import (
    ID,
    IDX,
    INTERACTIONS,
    ITEM_INDEX,
    ITEMS_TABLE,
    METRICS,
    MODEL_VERSION,
    RUN_DATE,
    SOURCE,
    USER_IDX,
    USER_INDEX,
    VALUE,
    Table,
    similar_items_table,
    similar_users_table,
    topk_table,
)

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def run_topk(night: Night, inputs: Inputs) -> StageResult:
    """The top-K of every model of the night that passes the gate."""
    outputs: Versions = {}
    notes, held_back, published_cards, rows = [], [], [], 0
    excluded = excluded_items(night, inputs)
    for model in night.config.models:
        table = topk_table(model)
        card = read_card(night.warehouse, model, night.run_date)
        with _judged(night, inputs, card, excluded) as (lists, counts, against, about):
            if against:
                held_back.append(model)
                notes.append(f"{model} held back: {', '.join(against)}")
                warn_event("model held back", model=model, reasons=against)
                continue
            if not counts.rows:
                raise UserError(f"no list for {model}", where=str(night.run_date), fix="see its training's messages")
            outputs[table.name] = store.replace_night(lists, night.warehouse, table, night.run_date)
            if model in USER_MODELS:
                outputs |= _publish_similar(night, inputs, card, excluded)
            published_cards.append(card)
        rows += counts.rows
        note = f"{model}: {counts.lists} lists, {counts.whole} of them with {night.config.topk.k} items"
        note = f"{note}, {counts.popular} rows from popularity" if counts.popular else note
        notes.append(f"{note}, {about}" if about else note)
    make_current(night, published_cards)
    return StageResult(outputs=outputs, rows_out=rows, message="; ".join(notes), held_back=tuple(held_back))


@contextmanager
def _judged(
    night: Night, inputs: Inputs, card: ModelCard, excluded: IntArray
) -> Iterator[tuple[DataFrame, Counts, list[str], str]]:
    """A model's lists in the columns of its table, counted and judged before a reader can see them, and a note."""
    table, settings = topk_table(card.model), night.config.topk
    named = night.spark.createDataFrame([], table.ddl)
    counts, against, note = Counts(0, 0, 0, 0, 0, 0), ["a score is not a number"], ""
    with ExitStack() as kept:
        try:
            make = session_lists if card.model == "gru" else user_lists
            lists = make(night, inputs, card, excluded)
            note = lists.note
            rows = _persisted(lists.rows.withColumn(SOURCE, F.lit(FROM_MODEL)), kept)
            counts = count_lists(rows, lists.keys, key=lists.key, k=settings.k)
            against = objections_to(night, inputs, card, counts) if night.config.gate.enabled else []
            if settings.fallback and counts.rows and counts.short and not against:
                rows = _persisted(_filled(night, inputs, card, replace(lists, rows=rows), excluded), kept)
                counts = count_lists(rows, lists.keys, key=lists.key, k=settings.k)
            named = published(rows, None, inputs.read(ITEM_INDEX), night.run_date, card.model_version, table)
        except Exception as error:  # raised by the engine here, or in a worker and wrapped by Spark
            if "is not finite" not in str(error):
                raise
        yield named, counts, against, note


def _persisted(rows: DataFrame, kept: ExitStack) -> DataFrame:
    kept.callback(rows.persist(StorageLevel.DISK_ONLY).unpersist)
    return rows


def _filled(night: Night, inputs: Inputs, card: ModelCard, lists: Lists, excluded: IntArray) -> DataFrame:
    """The lists, filled up with what was popular in the window of the recent-popularity baseline."""
    days, settings = night.config.evaluation.recent_days, night.config.topk
    popular = fallback_matrix(inputs.read(INTERACTIONS), lists.event_weights, night.as_of, days, card.n_items)
    return filled_up(
        lists.rows,
        lists.keys,
        popular.without(excluded),
        key=lists.key,
        k=settings.k,
        seen=lists.seen,
        block_mb=settings.block_mb,
    )


def _publish_similar(night: Night, inputs: Inputs, card: ModelCard, excluded: IntArray) -> Versions:
    """What lies beside each item and each user, by the vectors that the users' lists were made with."""
    settings, outputs = night.config.topk, Versions()
    if not (settings.similar_items or settings.similar_users):
        return outputs
    scorer = timeless_scorer(night, inputs, card, card.served_part, night.as_of)

    def publish(table: Table, index: Table, rows: ItemMatrix, without: IntArray | None) -> None:
        lists = nearest(
            night.spark, rows, k=settings.k, excluded=without, block_mb=settings.block_mb, pass_mb=settings.pass_mb
        )
        named = published_similar(lists, inputs.read(index), night.run_date, card.model_version, table)
        outputs[table.name] = store.replace_night(named, night.warehouse, table, night.run_date)

    if settings.similar_items:
        publish(similar_items_table(card.model), ITEM_INDEX, scorer.items, excluded)
    if settings.similar_users:
        users = scorer.queries.select(F.col(USER_IDX).alias(IDX), VECTOR)
        publish(similar_users_table(card.model), USER_INDEX, item_matrix(users, index_size(inputs, USER_INDEX)), None)
    return outputs


def excluded_items(night: Night, inputs: Inputs) -> IntArray:
    """``item_idx`` of the items that ``topk.exclude`` keeps off all lists."""
    wanted = excluded_attributes(night.config.topk)
    if not wanted or not inputs.has(ITEMS_TABLE):
        return np.zeros(0, dtype=np.int64)
    items = inputs.read(ITEMS_TABLE)
    fits = reduce(or_, [items[name].cast("string") == F.lit(value) for name, value in wanted])
    numbered = items.where(fits).select(ID).join(inputs.read(ITEM_INDEX), ID, "inner")
    return numbered.select(IDX).toArrow().column(IDX).to_numpy().astype(np.int64)


def objections_to(night: Night, inputs: Inputs, card: ModelCard, counts: Counts) -> list[str]:
    """What the gate has against the night's model, by ``metrics`` and the share of those expected that have a list."""
    last = last_published(night, card.model)
    nights = [night.run_date, *([last[0]] if last else [])]
    wanted = F.col(RUN_DATE).isin(nights) & (F.col("split") == split_of(card.model))
    rows = inputs.read(METRICS).where(wanted).collect() if inputs.has(METRICS) else []

    def values(*key: object) -> list[MetricValue]:
        mine = [r for r in rows if (r[RUN_DATE], r["model"], r[MODEL_VERSION]) == key]
        return [MetricValue(r["metric"], r["k"], r[VALUE], r["n"]) for r in mine]

    return objections(
        values(night.run_date, card.model, card.model_version),
        values(night.run_date, RECENT, ""),
        values(last[0], card.model, last[1]) if last else None,
        counts.lists / counts.expected if counts.expected else 0.0,
        night.config.gate,
    )
