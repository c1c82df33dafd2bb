"""Publishes the night's lists: one transaction a table, replacing this night's rows and no other's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

from pyspark import StorageLevel
from pyspark.sql import Window
from pyspark.sql import functions as F

from sparkrec import store
from sparkrec.errors import UserError
from sparkrec.evaluation.gate import objections
from sparkrec.evaluation.values import MetricValue
from sparkrec.log import warn_event
from sparkrec.pipeline.evaluate_stage import RECENT, SESSIONS_SPLIT, USERS_SPLIT
from sparkrec.pipeline.ledger import StageResult, Versions
from sparkrec.pipeline.models import ModelCard, part_path, read_card
from sparkrec.pipeline.night import Inputs, Night
from sparkrec.pipeline.scorers import seen_pairs, user_scorer
from sparkrec.retrieval.gru_states import output_items, session_states, trained_items
from sparkrec.retrieval.publish import published
from sparkrec.retrieval.topk import ItemMatrix, top_k
from sparkrec.tables import (
    CURRENT,
    ID,
    IDX,
    ITEM_IDX,
    ITEM_INDEX,
    ITEMS,
    KEY_TYPE,
    METRICS,
    MODEL_VERSION,
    RANK,
    RUN_DATE,
    SESSION_ID,
    SESSIONS,
    START_DATE,
    START_TS,
    USER_ID,
    USER_IDX,
    USER_INDEX,
    VALUE,
    topk_table,
)

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


@dataclass(frozen=True)
class Lists:
    """The lists of a model, and the number of users or sessions that should have one."""

    rows: DataFrame
    expected: int


@dataclass(frozen=True)
class Counts:
    """Rows of a model's lists, lists, lists of full length, and the share of the users who have one."""

    rows: int
    lists: int
    full: int
    users_share: float


def run_topk(night: Night, inputs: Inputs) -> StageResult:
    """The top-K of every model of the night that passes the gate."""
    outputs: Versions = {}
    notes, held_back, rows = [], [], 0
    for model in night.config.models:
        table = topk_table(model)
        card = read_card(night.warehouse, model, night.run_date)
        with _judged(night, inputs, card) as (lists, counts, against):
            if against:
                held_back.append(model)
                notes.append(f"{model} held back: {', '.join(against)}")
                warn_event("model held back", model=model, reasons=against)
                continue
            if not counts.rows:
                raise UserError(f"no list for {model}", where=str(night.run_date), fix="see its training's messages")
            outputs[table.name] = store.replace_night(lists, night.warehouse, table, night.run_date)
            make_current(night, card)
        rows += counts.rows
        notes.append(f"{model}: {counts.lists} lists, {counts.full} of them with {night.config.topk.k} items")
    return StageResult(outputs=outputs, rows_out=rows, message="; ".join(notes), held_back=tuple(held_back))


@contextmanager
def _judged(night: Night, inputs: Inputs, card: ModelCard) -> Iterator[tuple[DataFrame, Counts, list[str]]]:
    """A model's lists in the columns of its table, counted and judged before a reader can see them."""
    named = night.spark.createDataFrame([], topk_table(card.model).ddl)
    try:
        lists = _session_lists(night, inputs, card) if card.model == "gru" else _user_lists(night, inputs, card)
        items, table = inputs.read(ITEM_INDEX), topk_table(card.model)
        named = published(lists.rows, None, items, night.run_date, card.model_version, table)
        named = named.persist(StorageLevel.DISK_ONLY)
        counts = _count(named, lists.expected, night.config.topk.k)
        against = objections_to(night, inputs, card, counts.users_share)
    except Exception as error:  # raised by the engine here, or in a worker and wrapped by Spark
        if "is not finite" not in str(error):
            raise
        counts, against = Counts(0, 0, 0, 0.0), ["a score is not a number"]
    try:
        yield named, counts, against
    finally:
        named.unpersist()


def objections_to(night: Night, inputs: Inputs, card: ModelCard, users_share: float) -> list[str]:
    """What the gate has against the night's model, by ``metrics`` and the share of users with a list."""
    if not night.config.gate.enabled:
        return []
    split = SESSIONS_SPLIT if card.model == "gru" else USERS_SPLIT
    rows = inputs.read(METRICS).where(F.col("split") == split).collect() if inputs.has(METRICS) else []

    def values(run_date: date, model: str, version: str) -> list[MetricValue]:
        keys = [(r[RUN_DATE], r["model"], r[MODEL_VERSION]) for r in rows]
        mine = [r for r, key in zip(rows, keys, strict=True) if key == (run_date, model, version)]
        return [MetricValue(r["metric"], r["k"], r[VALUE], r["n"]) for r in mine]

    last = last_published(night, card.model)
    return objections(
        values(night.run_date, card.model, card.model_version),
        values(night.run_date, RECENT, ""),
        values(last[0], card.model, last[1]) if last else None,
        users_share,
        night.config.gate,
    )


def last_published(night: Night, model: str) -> tuple[date, str] | None:
    """The night before this one whose lists are or were current, and the version of the model that made them."""
    pointer = _pointer(night, model)
    if pointer is not None and pointer[0] < night.run_date:
        return pointer
    table = topk_table(model)
    if not store.exists(night.spark, night.warehouse, table):
        return None
    earlier = store.read(night.spark, night.warehouse, table).where(F.col(RUN_DATE) < F.lit(night.run_date))
    newest = earlier.agg(F.max(RUN_DATE)).head()
    if newest is None or newest[0] is None:
        return None
    row = earlier.where(F.col(RUN_DATE) == F.lit(newest[0])).select(MODEL_VERSION).head()
    return (newest[0], row[0]) if row else None


def make_current(night: Night, card: ModelCard) -> None:
    """Points ``current`` to the night's lists, unless a later night's are current: a backfill changes nothing there."""
    pointer = _pointer(night, card.model)
    if pointer is None or pointer[0] <= night.run_date:
        values = [(card.model, night.run_date, card.model_version, datetime.now(UTC))]
        store.upsert(night.spark.createDataFrame(values, CURRENT.ddl).coalesce(1), night.warehouse, CURRENT)


def _pointer(night: Night, model: str) -> tuple[date, str] | None:
    if not store.exists(night.spark, night.warehouse, CURRENT):
        return None
    rows = store.read(night.spark, night.warehouse, CURRENT).where(F.col("model") == model)
    row = rows.select(RUN_DATE, MODEL_VERSION).head()
    return (row[0], row[1]) if row else None


def _count(lists: DataFrame, expected: int, k: int) -> Counts:
    counted = lists.agg(F.count("*"), F.count_if(F.col(RANK) == 1), F.count_if(F.col(RANK) == k)).head()
    assert counted is not None  # an aggregate without groups has one row
    rows, n_lists, full = (int(n) for n in counted)
    return Counts(rows, n_lists, full, n_lists / expected if expected else 0.0)


def _user_lists(night: Night, inputs: Inputs, card: ModelCard) -> Lists:
    """``(user_idx, user_id, item_idx, rank, score)`` for every user that the model knows."""
    scorer = user_scorer(night, inputs, card, card.served_part, night.as_of)
    queries = scorer.queries.join(_user_ids(inputs), USER_IDX, "inner")
    seen = seen_pairs(night, inputs, night.as_of)
    settings = night.config.topk
    rows = top_k(queries, scorer.items, key=[USER_IDX, USER_ID], k=settings.k,
                 seen=None if night.fmt.recommend_seen else seen, block_mb=settings.block_mb)  # fmt: skip
    return Lists(rows, seen.select(USER_IDX).distinct().count())


def _session_lists(night: Night, inputs: Inputs, card: ModelCard) -> Lists:
    """``(user_id, key_type, item_idx, rank, score)`` for users' last sessions and the day's anonymous ones."""
    path = part_path(night.warehouse, card.model, night.run_date, card.served_part)
    walked = inputs.read(SESSIONS)
    current = current_sessions(night, walked).persist(StorageLevel.MEMORY_AND_DISK)
    states = session_states(current, path, walked.join(current, SESSION_ID, "left_anti"))
    named = states.join(_user_ids(inputs), USER_IDX, "left").select(
        USER_IDX,
        F.coalesce(USER_ID, SESSION_ID).alias(USER_ID),
        F.when(F.col(USER_IDX).isNull(), "session").otherwise("user").alias(KEY_TYPE),
        "vector",
    )
    settings = night.config.topk
    seen = None if night.fmt.recommend_seen else _seen_by(night, inputs, current)
    items = ItemMatrix(*output_items(path), trained_items(path))
    rows = top_k(named, items, key=[USER_ID, KEY_TYPE], k=settings.k, seen=seen, block_mb=settings.block_mb)
    return Lists(rows, current.count())


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
