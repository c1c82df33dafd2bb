"""Publishes the night's lists: one transaction a table, replacing this night's rows and no other's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

import numpy as np
from pyspark import StorageLevel
from pyspark.sql import Window
from pyspark.sql import functions as F

from sparkrec import store
from sparkrec.errors import UserError
from sparkrec.evaluation.gate import objections
from sparkrec.evaluation.values import RECENT, MetricValue, split_of
from sparkrec.log import warn_event
from sparkrec.models.popularity import fallback_matrix
from sparkrec.pipeline.ledger import StageResult, Versions
from sparkrec.pipeline.models import ModelCard, part_path, read_card
from sparkrec.pipeline.night import Inputs, Night
from sparkrec.pipeline.publication import last_published, make_current
from sparkrec.pipeline.scorers import USER_MODELS, item_vectors, seen_pairs, user_scorer
from sparkrec.retrieval.fallback import FROM_MODEL, Counts, count_lists, filled_up
from sparkrec.retrieval.gru_states import output_items, session_states, trained_items
from sparkrec.retrieval.publish import published, published_similar
from sparkrec.retrieval.similar import similar_items
from sparkrec.retrieval.topk import IntArray, ItemMatrix, top_k
from sparkrec.tables import (
    ID,
    IDX,
    INTERACTIONS,
    ITEM_IDX,
    ITEM_INDEX,
    ITEMS,
    ITEMS_TABLE,
    KEY_TYPE,
    METRICS,
    MODEL_VERSION,
    RUN_DATE,
    SESSION_ID,
    SESSIONS,
    SOURCE,
    START_DATE,
    START_TS,
    USER_ID,
    USER_IDX,
    USER_INDEX,
    VALUE,
    similar_items_table,
    topk_table,
)

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


@dataclass(frozen=True)
class Lists:
    """The lists of a model.

    Attributes:
        rows: ``(key…, item_idx, rank, score)``.
        keys: ``(key…)``: the users or sessions that should have a list, a row each.
        key: The columns that tell lists apart.
        seen: ``(key columns or some of them, item_idx)`` of what no list may hold; None where it may hold all.
        event_weights: Weight of each event type where items are counted.
    """

    rows: DataFrame
    keys: DataFrame
    key: tuple[str, ...]
    seen: DataFrame | None
    event_weights: Mapping[str, float]


def run_topk(night: Night, inputs: Inputs) -> StageResult:
    """The top-K of every model of the night that passes the gate."""
    outputs: Versions = {}
    notes, held_back, published_cards, rows = [], [], [], 0
    excluded = excluded_items(night, inputs)
    for model in night.config.models:
        table = topk_table(model)
        card = read_card(night.warehouse, model, night.run_date)
        with _judged(night, inputs, card, excluded) as (lists, counts, against):
            if against:
                held_back.append(model)
                notes.append(f"{model} held back: {', '.join(against)}")
                warn_event("model held back", model=model, reasons=against)
                continue
            if not counts.rows:
                raise UserError(f"no list for {model}", where=str(night.run_date), fix="see its training's messages")
            outputs[table.name] = store.replace_night(lists, night.warehouse, table, night.run_date)
            if night.config.topk.similar_items and model in USER_MODELS:
                outputs |= _publish_similar(night, inputs, card, excluded)
            published_cards.append(card)
        rows += counts.rows
        note = f"{model}: {counts.lists} lists, {counts.whole} of them with {night.config.topk.k} items"
        notes.append(f"{note}, {counts.popular} rows from popularity" if counts.popular else note)
    make_current(night, published_cards)
    return StageResult(outputs=outputs, rows_out=rows, message="; ".join(notes), held_back=tuple(held_back))


@contextmanager
def _judged(
    night: Night, inputs: Inputs, card: ModelCard, excluded: IntArray
) -> Iterator[tuple[DataFrame, Counts, list[str]]]:
    """A model's lists in the columns of its table, counted and judged before a reader can see them."""
    table, settings = topk_table(card.model), night.config.topk
    named = night.spark.createDataFrame([], table.ddl)
    counts, against = Counts(0, 0, 0, 0, 0, 0), ["a score is not a number"]
    with ExitStack() as kept:
        try:
            make = _session_lists if card.model == "gru" else _user_lists
            lists = make(night, inputs, card, excluded)
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
        yield named, counts, against


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
    """The items beside each item, by the vectors that the users' lists were made with."""
    table, settings = similar_items_table(card.model), night.config.topk
    items = item_vectors(night, inputs, card, card.served_part, night.as_of)
    lists = similar_items(night.spark, items, k=settings.k, excluded=excluded, block_mb=settings.block_mb)
    named = published_similar(lists, inputs.read(ITEM_INDEX), night.run_date, card.model_version, table)
    return {table.name: store.replace_night(named, night.warehouse, table, night.run_date)}


def excluded_items(night: Night, inputs: Inputs) -> IntArray:
    """``item_idx`` of the items that ``topk.exclude`` keeps off all lists."""
    wanted = [text.partition("=") for text in night.config.topk.exclude]
    if not wanted or not inputs.has(ITEMS_TABLE):
        return np.zeros(0, dtype=np.int64)
    items = inputs.read(ITEMS_TABLE)
    fits = reduce(or_, [items[name].cast("string") == F.lit(value) for name, _, value in wanted])
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


def _user_lists(night: Night, inputs: Inputs, card: ModelCard, excluded: IntArray) -> Lists:
    """``(user_idx, user_id, item_idx, rank, score)`` for every user that the model knows."""
    scorer = user_scorer(night, inputs, card, card.served_part, night.as_of)
    users, key = _user_ids(inputs), (USER_IDX, USER_ID)
    taken = seen_pairs(night, inputs, night.as_of)
    seen = None if night.fmt.recommend_seen else taken
    settings = night.config.topk
    items = scorer.items.without(excluded)
    rows = top_k(scorer.queries.join(users, USER_IDX, "inner"), items, key=key, k=settings.k, seen=seen,
                 block_mb=settings.block_mb)  # fmt: skip
    keys = taken.select(USER_IDX).distinct().join(users, USER_IDX, "inner")
    return Lists(rows, keys, key, seen, night.fmt.event_weights)


def _session_lists(night: Night, inputs: Inputs, card: ModelCard, excluded: IntArray) -> Lists:
    """``(user_id, key_type, item_idx, rank, score)`` for users' last sessions and the day's anonymous ones."""
    path = part_path(night.warehouse, card.model, night.run_date, card.served_part)
    walked = inputs.read(SESSIONS)
    current = current_sessions(night, walked).persist(StorageLevel.MEMORY_AND_DISK)
    states = session_states(current, path, walked.join(current, SESSION_ID, "left_anti"))
    settings, key = night.config.topk, (USER_ID, KEY_TYPE)
    seen = None if night.fmt.recommend_seen else _seen_by(night, inputs, current)
    items = ItemMatrix(*output_items(path), trained_items(path)).without(excluded)
    rows = top_k(_named(inputs, states, "vector"), items, key=key, k=settings.k, seen=seen, block_mb=settings.block_mb)
    return Lists(rows, _named(inputs, current), key, seen, dict.fromkeys(night.fmt.session_events, 1.0))


def _named(inputs: Inputs, sessions: DataFrame, *columns: str) -> DataFrame:
    """``(user_id, key_type, columns…)`` of sessions: a user's id, or the session's own where it is anonymous."""
    return sessions.join(_user_ids(inputs), USER_IDX, "left").select(
        F.coalesce(USER_ID, SESSION_ID).alias(USER_ID),
        F.when(F.col(USER_IDX).isNull(), "session").otherwise("user").alias(KEY_TYPE),
        *columns,
    )


def current_sessions(night: Night, sessions: DataFrame) -> DataFrame:
    """Every known user's last session, and the anonymous sessions that began on the night's day."""
    newest = Window.partitionBy(USER_IDX).orderBy(F.col(START_TS).desc(), F.col(SESSION_ID).desc())
    known = sessions.where(F.col(USER_IDX).isNotNull()).withColumn("n", F.row_number().over(newest))
    anonymous = sessions.where(F.col(USER_IDX).isNull() & (F.col(START_DATE) == F.lit(night.run_date)))
    return known.where("n = 1").drop("n").unionByName(anonymous)


def _seen_by(night: Night, inputs: Inputs, current: DataFrame) -> DataFrame:
    """``(user_id, key_type, item_idx)``: all that a user has taken; of an anonymous session what is in it."""
    users = seen_pairs(night, inputs, night.as_of).join(_user_ids(inputs), USER_IDX, "inner")
    anonymous = current.where(F.col(USER_IDX).isNull()).withColumn(ITEM_IDX, F.explode(ITEMS))
    of_users = users.select(USER_ID, F.lit("user").alias(KEY_TYPE), ITEM_IDX)
    of_sessions = anonymous.select(F.col(SESSION_ID).alias(USER_ID), F.lit("session").alias(KEY_TYPE), ITEM_IDX)
    return of_users.unionByName(of_sessions)


def _user_ids(inputs: Inputs) -> DataFrame:
    return inputs.read(USER_INDEX).select(F.col(IDX).alias(USER_IDX), F.col(ID).alias(USER_ID))
