"""A model's lists for its users or sessions, before they are judged and named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import TYPE_CHECKING

import numpy as np
from pyspark.sql import Window
from pyspark.sql import functions as F

from sparkrec.errors import InvariantError
from sparkrec.log import log_event, warn_event
from sparkrec.models.model import Lists
from sparkrec.models.night import Inputs, Night
from sparkrec.models.parts import index_size
from sparkrec.models.program import program, required
from sparkrec.models.scorer import NO_ITEMS, DenseScorer, KnowsBeside, SessionModel, Wanted
from sparkrec.models.scorers import seen_pairs, timeless_scorer, user_scorer
from sparkrec.prepare.cut import day_of
from sparkrec.retrieval.approximate import SAMPLE
from sparkrec.retrieval.best import best
from sparkrec.retrieval.block_search import IntArray, ItemMatrix
from sparkrec.retrieval.fallback import DUE
from sparkrec.retrieval.lsh import lsh_nearest, lsh_recall
from sparkrec.retrieval.similar import nearest
from sparkrec.retrieval.topk import SEEN, VECTOR, item_matrix
from sparkrec.warehouse.cards import ModelCard, part_path
from sparkrec.warehouse.tables import (
    BASKET_ID,
    COPURCHASE,
    END_TS,
    ID,
    IDX,
    ITEM_IDX,
    ITEMS,
    KEY_TYPE,
    QUERY_IDX,
    RANK,
    SCORE,
    SESSION_ID,
    SESSIONS,
    START_TS,
    TS,
    USER_ID,
    USER_IDX,
    USER_INDEX,
    USER_ITEM,
    Table,
)

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_NAMED = {SESSIONS.name: (SESSION_ID, START_TS), COPURCHASE.name: (BASKET_ID, TS)}  # its own id, and when it began


@dataclass(frozen=True)
class ModelLists:
    """The lists of a model.

    Attributes:
        rows: ``(key…, item_idx, rank, score)``.
        keys: ``(key…)``: the users or sessions that should have a list, a row each; of users ``due bool``, too: false
            where ``prepare.support`` leaves all of a user's events out, so that no model can know the user.
        key: The columns that tell lists apart.
        seen: ``(key columns or some of them, item_idx)`` of what no list may hold; None where it may hold all.
        event_weights: Weight of each event type where items are counted.
        note: How the search went, where there is something to say.
    """

    rows: DataFrame
    keys: DataFrame
    key: tuple[str, ...]
    seen: DataFrame | None
    event_weights: Mapping[str, float]
    note: str = ""


def user_lists(night: Night, inputs: Inputs, card: ModelCard, excluded: IntArray) -> ModelLists:
    """``(user_idx, user_id, item_idx, rank, score)`` for every user that the model knows."""
    scorer = user_scorer(night, inputs, card, card.served_part, night.as_of)
    everyone, key, note = _everyone(night, inputs), (USER_IDX, USER_ID), ""
    users = everyone.drop(DUE, SEEN) if night.fmt.recommend_seen else everyone.drop(DUE)
    if isinstance(scorer, DenseScorer):
        items = scorer.items.without(excluded)
        rows, note = best(scorer.of(users), items, night.config.topk, key, card.model)
    else:
        rows = scorer.best(users, Wanted(key, night.config.topk.k, night.config.topk, None, excluded))
    return replace(_users(night, inputs), rows=rows, note=note)


def standing_in(night: Night, inputs: Inputs, kind: Lists) -> ModelLists:
    """Empty lists of those that a model of this kind would have lists for: to be filled up from popularity."""
    if kind is Lists.USERS:
        return _users(night, inputs)
    if kind is Lists.SESSIONS:
        return _sessions(night, inputs)
    if kind is Lists.BASKETS:
        return _baskets(night, inputs)
    return _empty(night.spark.createDataFrame([], f"{QUERY_IDX} int"), (QUERY_IDX,), None, {})


def _users(night: Night, inputs: Inputs) -> ModelLists:
    """No rows yet for the users who took something."""
    taken, key = _everyone(night, inputs).where(F.col(SEEN).isNotNull()), (USER_IDX, USER_ID)
    return _empty(taken.select(*key, DUE), key, _seen(night, taken, [USER_IDX]), night.fmt.event_weights)


def _sessions(night: Night, inputs: Inputs) -> ModelLists:
    """No rows yet for the current sessions."""
    current, key = _current(night, inputs, SESSIONS), (USER_ID, KEY_TYPE)
    weights = dict.fromkeys(night.fmt.session_events, 1.0)
    return _empty(current.select(*key), key, _seen(night, current, key), weights)


def _baskets(night: Night, inputs: Inputs) -> ModelLists:
    """No rows yet for the current baskets."""
    current, key = _current(night, inputs, COPURCHASE), (USER_ID, KEY_TYPE)
    weights = dict.fromkeys(night.fmt.purchase_events, 1.0)
    return _empty(current.select(*key), key, _seen(night, current, key), weights)


def _empty(keys: DataFrame, key: tuple[str, ...], seen: DataFrame | None, weights: Mapping[str, float]) -> ModelLists:
    columns = {ITEM_IDX: "int", RANK: "int", SCORE: "float"}
    nothing = [F.lit(None).cast(kind).alias(name) for name, kind in columns.items()]
    return ModelLists(keys.where(F.lit(False)).select(*key, *nothing), keys, key, seen, weights)


def _everyone(night: Night, inputs: Inputs) -> DataFrame:
    """``(user_idx, user_id, seen array<int>, due bool)``: all users and what they took, null for nothing.

    Due are lists for the users of whom ``prepare.support`` has kept an event. Kept by the stage.
    """

    def joined() -> DataFrame:
        taken = seen_pairs(night, inputs, night.as_of).withColumn(DUE, F.lit(False))
        kept = inputs.read(USER_ITEM).select(USER_IDX, F.lit(None).cast("int").alias(ITEM_IDX), F.lit(True).alias(DUE))
        both = taken.unionByName(kept).groupBy(USER_IDX)  # a null is in no list: one pass instead of a join
        mine = both.agg(F.collect_list(ITEM_IDX).alias(SEEN), F.bool_or(DUE).alias(DUE))
        return _user_ids(inputs).join(mine, USER_IDX, "left")

    return inputs.found.kept("everyone", joined)


def item_lists(night: Night, inputs: Inputs, card: ModelCard, excluded: IntArray) -> ModelLists:
    """``(query_idx, item_idx, rank, score)``: what goes with each item that the model knows.

    The score is the cosine of the two, or, of what is bought together, σ(x · c): the model's probability that the two
    were taken together and not drawn at random (``models.prod2vec.skipgram``).
    """
    if (partners := program(card.model).partners) is not None:
        rows = partners(night, card, card.served_part, night.config.topk.k, excluded)
        return ModelLists(rows, rows.select(QUERY_IDX).distinct(), (QUERY_IDX,), None, night.fmt.event_weights)
    vectors, contexts = embeddings(night, card, card.served_part)
    numbers = [(int(i),) for i in vectors.positions()]
    keys = night.spark.createDataFrame(numbers, f"{QUERY_IDX} int")
    rows = _nearest(night, card, vectors, excluded, contexts)
    if contexts is not None:
        rows = rows.withColumn(SCORE, (1 / (1 + F.exp(-F.col(SCORE)))).cast("float"))
    return ModelLists(rows, keys, (QUERY_IDX,), None, night.fmt.event_weights)


def beside_lists(night: Night, inputs: Inputs, card: ModelCard, what: str, excluded: IntArray) -> DataFrame:
    """``(query_idx, item_idx, rank, score)``: the items or users beside each, as the users' lists know them."""
    scorer = timeless_scorer(night, inputs, card, card.served_part, night.as_of)
    if isinstance(scorer, KnowsBeside):
        return scorer.beside(night.config.topk.k, excluded if what == "items" else NO_ITEMS)
    if not isinstance(scorer, DenseScorer):
        raise InvariantError(f"{card.model} has nothing beside its {what}")
    if what == "items":
        return _nearest(night, card, scorer.items, excluded)
    users = scorer.queries.select(F.col(USER_IDX).alias(IDX), VECTOR)
    return _nearest(night, card, item_matrix(users, index_size(inputs, USER_INDEX)), None)


def _nearest(
    night: Night, card: ModelCard, rows: ItemMatrix, excluded: IntArray | None, among: ItemMatrix | None = None
) -> DataFrame:
    """The nearest rows of each: exactly, or by MLlib's hashing where its recall on the exact lists of some is enough.

    The hashing is of angles: products with the vectors of ``among`` are searched exactly.
    """
    settings = night.config.topk

    def exact(only: IntArray | None = None) -> DataFrame:
        memory = {"block_mb": settings.block_mb, "pass_mb": settings.pass_mb}
        return nearest(night.spark, rows, k=settings.k, among=among, excluded=excluded, only=only, **memory)

    if settings.similar_index == "exact":
        return exact()
    if among is not None:
        log_event("lsh_not_used", model=card.model, reason="it finds angles; lists of bought_together are of products")
        return exact()
    found = lsh_nearest(
        night.spark, rows, k=settings.k, hash_tables=settings.lsh_tables, hashes=settings.lsh_hashes, excluded=excluded
    )
    recall = lsh_recall(found, exact(_sample(rows)))
    log_event("lsh", model=card.model, recall=round(recall, 4), k=settings.k)
    if recall >= settings.min_recall:
        return found
    warn_event("lsh_refused", model=card.model, recall=round(recall, 4), min_recall=settings.min_recall)
    return exact()


def _sample(rows: ItemMatrix) -> IntArray:
    """The rows that the recall of an index is measured on: up to ``SAMPLE``, spread evenly."""
    there = rows.positions()
    return there[np.linspace(0, len(there) - 1, min(len(there), SAMPLE)).astype(np.int64)]


def session_lists(night: Night, inputs: Inputs, card: ModelCard, excluded: IntArray) -> ModelLists:
    """``(user_id, key_type, item_idx, rank, score)`` for users' last sessions and the day's anonymous ones."""
    current, settings = _current(night, inputs, SESSIONS), night.config.topk
    queries = current.drop(SEEN) if night.fmt.recommend_seen else current
    earlier = inputs.read(SESSIONS).join(current, SESSION_ID, "left_anti")
    wanted = Wanted((USER_ID, KEY_TYPE), settings.k, settings, excluded=excluded)
    rows, note = session_model(night, card, card.served_part).lists(queries, earlier, wanted)
    return replace(_sessions(night, inputs), rows=rows, note=note)


def session_model(night: Night, card: ModelCard, part: str) -> SessionModel:
    """A part of a night's model of sessions."""
    return required(program(card.model).session_model, card.model, "lists for sessions")(night, card, part)


def basket_lists(night: Night, inputs: Inputs, card: ModelCard, excluded: IntArray) -> ModelLists:
    """``(user_id, key_type, item_idx, rank, score)``: what completes users' last baskets and the day's anonymous ones.

    A basket that no rule applies to has no list: none is expected of it.
    """
    key, empty, settings = (USER_ID, KEY_TYPE), _baskets(night, inputs), night.config.topk
    current = _current(night, inputs, COPURCHASE)
    wanted = Wanted(key, settings.k, settings, empty.seen, excluded)
    found = completed(night, card, card.served_part, current.select(*key, ITEMS), wanted)
    rows = inputs.found.kept("completed", lambda: found)
    keys, n = rows.select(*key).distinct(), current.count()
    note = f"{n - keys.count()} of {n} baskets without a rule"
    return replace(empty, rows=rows, keys=keys, note=note)


def completed(night: Night, card: ModelCard, part: str, baskets: DataFrame, wanted: Wanted) -> DataFrame:
    """What a part of a night's model of baskets adds to them; see ``Program.completed``."""
    made = required(program(card.model).completed, card.model, "lists for baskets")
    return made(night, card, part, baskets, wanted)


def embeddings(night: Night, card: ModelCard, part: str) -> tuple[ItemMatrix, ItemMatrix | None]:
    """The vectors of a part of a night's model of items, and those of what goes with them where these are others."""
    made = required(program(card.model).embeddings, card.model, "vectors of items")
    return made(part_path(night.warehouse, card.model, night.run_date, part))


def _current(night: Night, inputs: Inputs, table: Table) -> DataFrame:
    """The current sessions (of ``SESSIONS``) or baskets (of ``COPURCHASE``), named."""

    def found() -> DataFrame:
        latest = current(inputs.read(table), night.run_date, night.config.logs.timezone)
        return _named(night, inputs, latest, _NAMED[table.name][0])

    return inputs.found.kept(f"current {table.name}", found)


def _named(night: Night, inputs: Inputs, current: DataFrame, own: str) -> DataFrame:
    """The current sessions or baskets with ``user_id``, ``key_type`` and ``seen array<int>``.

    A user's id, of an anonymous one its own (``own``); what is in it, and all that the user has taken.
    """
    nobody = F.col(USER_IDX).isNull()
    columns = {
        USER_ID: F.coalesce(USER_ID, own),
        KEY_TYPE: F.when(nobody, own.removesuffix("_id")).otherwise("user"),
        SEEN: F.array_union(F.col(ITEMS), F.coalesce(F.col(SEEN), F.array().cast("array<int>"))),
    }
    return current.join(_everyone(night, inputs).drop(DUE), USER_IDX, "left").withColumns(columns)


def _seen(night: Night, lists: DataFrame, key: Sequence[str]) -> DataFrame | None:
    """``(key…, item_idx)`` of what no list may hold, from the keys' ``seen``; None where it may hold all."""
    return None if night.fmt.recommend_seen else lists.select(*key, F.explode(SEEN).alias(ITEM_IDX))


def current(groups: DataFrame, run_date: date, zone: str | None = None) -> DataFrame:
    """Every known user's last session or basket, and the anonymous ones that went on until the night's day.

    One that crosses midnight is current on both nights, with what each knows of it. The day is one of ``zone``.

    Args:
        groups: Rows of ``tables.SESSIONS`` or ``tables.COPURCHASE``.
        run_date: The night.
        zone: None: UTC.
    """
    own, begin = next(names for names in _NAMED.values() if names[0] in groups.columns)
    newest = Window.partitionBy(USER_IDX).orderBy(F.col(begin).desc(), F.col(own).desc())
    known = groups.where(F.col(USER_IDX).isNotNull()).withColumn("n", F.row_number().over(newest))
    anonymous = groups.where(F.col(USER_IDX).isNull() & (day_of(END_TS, zone) == F.lit(run_date)))
    return known.where("n = 1").drop("n").unionByName(anonymous)


def _user_ids(inputs: Inputs) -> DataFrame:
    return inputs.read(USER_INDEX).select(F.col(IDX).alias(USER_IDX), F.col(ID).alias(USER_ID))
