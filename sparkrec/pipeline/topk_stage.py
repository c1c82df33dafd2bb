"""Publishes the night's lists: one transaction a table, replacing this night's rows and no other's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark import StorageLevel
from pyspark.sql import Observation, Window
from pyspark.sql import functions as F

from sparkrec import store
from sparkrec.errors import UserError
from sparkrec.pipeline.ledger import StageResult, Versions
from sparkrec.pipeline.models import ModelCard, part_path, read_card
from sparkrec.pipeline.night import Inputs, Night
from sparkrec.pipeline.scorers import seen_pairs, user_scorer
from sparkrec.retrieval.gru_states import output_items, session_states, trained_items
from sparkrec.retrieval.publish import published
from sparkrec.retrieval.topk import ItemMatrix, top_k
from sparkrec.tables import (
    ID,
    IDX,
    ITEM_IDX,
    ITEM_INDEX,
    ITEMS,
    KEY_TYPE,
    SESSION_ID,
    SESSIONS,
    START_DATE,
    START_TS,
    USER_ID,
    USER_IDX,
    USER_INDEX,
    topk_table,
)

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def run_topk(night: Night, inputs: Inputs) -> StageResult:
    """The top-K of every model of the night."""
    outputs: Versions = {}
    notes, rows = [], 0
    for model in night.config.models:
        card = read_card(night.warehouse, model, night.run_date)
        counts = Observation(f"topk_{model}")
        lists = (
            _session_lists(night, inputs, card, counts) if model == "gru" else _user_lists(night, inputs, card, counts)
        )
        table = topk_table(model)
        named = published(lists, None, inputs.read(ITEM_INDEX), night.run_date, card.model_version, table)
        outputs[table.name] = store.replace_night(named, night.warehouse, table, night.run_date)
        seen = counts.get
        if not seen["rows"]:
            raise UserError(f"no list for {model}", where=str(night.run_date), fix="see the messages of its training")
        rows += seen["rows"]
        notes.append(f"{model}: {seen['lists']} lists, {seen['full_lists']} of them with {night.config.topk.k} items")
    return StageResult(outputs=outputs, rows_out=rows, message="; ".join(notes))


def _user_lists(night: Night, inputs: Inputs, card: ModelCard, counts: Observation) -> DataFrame:
    """``(user_idx, user_id, item_idx, rank, score)`` for every user that the model knows."""
    scorer = user_scorer(night, inputs, card, card.served_part, night.as_of)
    queries = scorer.queries.join(_user_ids(inputs), USER_IDX, "inner")
    seen = None if night.fmt.recommend_seen else seen_pairs(night, inputs, night.as_of)
    settings = night.config.topk
    return top_k(queries, scorer.items, key=[USER_IDX, USER_ID], k=settings.k, seen=seen,
                 block_mb=settings.block_mb, observation=counts)  # fmt: skip


def _session_lists(night: Night, inputs: Inputs, card: ModelCard, counts: Observation) -> DataFrame:
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
    return top_k(named, items, key=[USER_ID, KEY_TYPE], k=settings.k, seen=seen,
                 block_mb=settings.block_mb, observation=counts)  # fmt: skip


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
