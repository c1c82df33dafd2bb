"""Publishes the night's lists: one transaction a table, replacing this night's rows and no other's."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from datetime import date
from functools import partial, reduce
from operator import or_
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl
from pyspark import StorageLevel
from pyspark.sql import functions as F

from sparkrec.evaluation.gate import Judgement, Last, Verdict, verdict
from sparkrec.evaluation.protocol import difference
from sparkrec.evaluation.values import RECENT, MetricValue, split_of
from sparkrec.groups.kmeans import group_popularity, group_queries
from sparkrec.log import warn_event
from sparkrec.models import MODELS
from sparkrec.models.model import Lists
from sparkrec.models.night import Inputs, Night
from sparkrec.models.popularity.counts import fallback_matrix
from sparkrec.models.program import program
from sparkrec.models.publication import (
    current_lists,
    has_rows,
    last_published,
    make_current,
    nights_held_back,
    stand_in_version,
)
from sparkrec.models.scorers import item_popularity
from sparkrec.pipeline.judge import unjudged
from sparkrec.pipeline.lists import (
    ModelLists,
    basket_lists,
    beside_lists,
    item_lists,
    session_lists,
    standing_in,
    user_lists,
)
from sparkrec.retrieval.block_search import IntArray
from sparkrec.retrieval.fallback import (
    FROM_GROUP,
    FROM_MODEL,
    FROM_POPULARITY,
    ListCounts,
    count_lists,
    filled_up,
    popularity_queries,
)
from sparkrec.retrieval.publish import published, published_similar
from sparkrec.settings.checks import excluded_attributes
from sparkrec.spark.session import named_jobs
from sparkrec.warehouse import direct, store
from sparkrec.warehouse.cards import ModelCard, read_card
from sparkrec.warehouse.ledger import StageResult, Versions
from sparkrec.warehouse.tables import (
    GROUP_ID,
    HIGH,
    ID,
    IDX,
    INTERACTIONS,
    ITEM_INDEX,
    ITEMS_TABLE,
    LOW,
    METRICS,
    MODEL_VERSION,
    PROTOCOL,
    RUN_DATE,
    SCORE,
    SOURCE,
    USER_GROUPS,
    USER_ID,
    USER_IDX,
    USER_INDEX,
    VALUE,
    lists_table,
    similar_items_table,
    similar_users_table,
)

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def run_topk(night: Night, inputs: Inputs) -> StageResult:
    """The top-K of every model of the night that passes the gate."""
    try:
        return _publish(night, inputs)
    finally:
        inputs.found.release()


def _publish(night: Night, inputs: Inputs) -> StageResult:
    outputs: Versions = {}
    notes, held_back, published_cards, rows = [], [], [], 0
    excluded = excluded_items(night, inputs)
    for model in night.config.models:
        table = lists_table(model)
        card = read_card(night.warehouse, model, night.run_date)
        why, of_the_model = _unjudged(night, inputs, card), True
        if why:
            warn_event("model not judged", model=model, reason=why)
            of_the_model = card.can_list and (not night.config.gate.enabled or night.config.gate.unjudged == "model")
            card = card if of_the_model else replace(card, model_version=stand_in_version(night))
        with ExitStack() as kept:
            lists, counts, said, about = _judged(night, inputs, card, excluded, why, of_the_model, kept)
            if said:
                held_back.append(model)
                against = [*_out_of_patience(night, inputs, model), *said]
                notes.append(f"{model} held back: {', '.join([*against, *about])}")
                warn_event("model held back", model=model, reasons=against)
                continue
            if not counts.rows:  # popularity is to stand in, and there is nobody to list it for
                notes.append(", ".join([f"{model}: no lists", *about]))
                continue
            outputs[table.name] = store.replace_night(lists, night.warehouse, table, night.run_date)
            outputs |= _publish_similar(night, inputs, card, excluded) if of_the_model else {}
            publish = program(model).publish
            outputs |= publish(night, inputs, card) if publish and of_the_model else {}
            published_cards.append(card)
        rows += counts.rows
        note = f"{model}: {counts.lists} lists, {counts.whole} of them with {night.config.topk.k} items"
        note = f"{note}, {counts.popular} rows from popularity" if counts.popular else note
        notes.append(", ".join([note, *about]))
    for model, day in make_current(night, published_cards).items():
        notes.append(f"{model} stays at {day}, which is pinned")
        warn_event("current lists are pinned", model=model, current=str(day))
    return StageResult(outputs=outputs, rows_out=rows, message="; ".join(notes), held_back=tuple(held_back))


_MAKERS = {
    Lists.USERS: user_lists,
    Lists.SESSIONS: session_lists,
    Lists.BASKETS: basket_lists,
    Lists.ITEMS: item_lists,
}


class Judged(NamedTuple):
    """A model's lists before a reader can see them."""

    rows: DataFrame  # the columns of its table
    counts: ListCounts
    against: list[str]  # why they are held back; empty: they are published
    notes: list[str]


def _judged(
    night: Night, inputs: Inputs, card: ModelCard, excluded: IntArray, why: str, of_the_model: bool, kept: ExitStack
) -> Judged:
    """A model's lists, made, counted and judged; ``kept`` holds their rows until it is left.

    Where the model was not judged (``why``) they are the model's all the same, or of what is popular.
    """
    kept.enter_context(named_jobs(night.spark, card.model))
    try:
        return _made(night, inputs, card, excluded, why, of_the_model, kept)
    except Exception as error:  # the engine's, here or in a worker: of those Spark passes on the text
        if "is not finite" not in str(error):
            raise
    nothing = night.spark.createDataFrame([], lists_table(card.model).ddl)
    return Judged(nothing, ListCounts(0, 0, 0, 0, 0, 0, 0), ["a score is not a number"], [])


def _made(
    night: Night, inputs: Inputs, card: ModelCard, excluded: IntArray, why: str, of_the_model: bool, kept: ExitStack
) -> Judged:
    table, settings, kind = lists_table(card.model), night.config.topk, MODELS[card.model].lists
    lists = _MAKERS[kind](night, inputs, card, excluded) if of_the_model else standing_in(night, inputs, kind)
    rows = _persisted(lists.rows.withColumn(SOURCE, F.lit(FROM_MODEL)), kept)
    counts = count_lists(rows, lists.keys, key=lists.key, k=settings.k)
    said = _verdict_on(night, inputs, card, counts, why, of_the_model)
    to_fill = counts.rows and counts.short and settings.fallback if of_the_model else True
    if to_fill and kind is not Lists.ITEMS and not said.against:
        rows = _persisted(_filled(night, inputs, card, replace(lists, rows=rows), excluded), kept)
        counts = count_lists(rows, lists.keys, key=lists.key, k=settings.k)
    index, who = inputs.read(ITEM_INDEX), (night.run_date, card.model_version, table)
    named = published_similar(rows, index, *who) if kind is Lists.ITEMS else published(rows, None, index, *who)
    return Judged(named, counts, said.against, [*([lists.note] if lists.note else []), *said.notes])


def _persisted(rows: DataFrame, kept: ExitStack) -> DataFrame:
    kept.callback(rows.persist(StorageLevel.DISK_ONLY).unpersist)
    return rows


def _filled(night: Night, inputs: Inputs, card: ModelCard, lists: ModelLists, excluded: IntArray) -> DataFrame:
    """The lists, filled up with what was popular in the window of the recent-popularity baseline.

    Where users have groups, what is popular in a user's group comes first.
    """
    days, settings = night.config.evaluation.recent_days, night.config.topk
    counted = item_popularity(night, inputs, lists.event_weights, night.as_of, card.n_items)
    popular, source, queries = fallback_matrix(counted.ever, counted.recent), FROM_POPULARITY, popularity_queries
    groups = _groups(night, inputs)
    if groups is not None:
        rows, when = inputs.read(INTERACTIONS), (lists.event_weights, night.as_of, days)
        popular, source = group_popularity(rows, groups, *when, popular), FROM_GROUP
        queries = partial(group_queries, groups=groups, n_groups=popular.vectors.shape[1] - 1, on=USER_ID)
    filled = filled_up(
        lists.rows,
        lists.keys,
        popular.without(excluded),
        key=lists.key,
        k=settings.k,
        seen=lists.seen,
        queries=queries,
        source=source,
        block_mb=settings.block_mb,
    )
    nobody = (F.col(SOURCE) == FROM_GROUP) & (F.col(SCORE) < 1)  # nobody of the group has taken it of late
    return filled.withColumn(SOURCE, F.when(nobody, FROM_POPULARITY).otherwise(F.col(SOURCE)))


def _groups(night: Night, inputs: Inputs) -> DataFrame | None:
    """``(user_idx, user_id, group_id)`` of the night; None without groups."""
    if not night.config.user_groups.enabled or not inputs.has(USER_GROUPS):
        return None
    if not inputs.found.once("groups", lambda: has_rows(night, USER_GROUPS)):  # there were too few users
        return None
    users = inputs.read(USER_INDEX).select(F.col(IDX).alias(USER_IDX), F.col(ID).alias(USER_ID))
    mine = inputs.read(USER_GROUPS).where(F.col(RUN_DATE) == F.lit(night.run_date))
    return mine.join(users, USER_ID, "inner").select(USER_IDX, USER_ID, GROUP_ID)


def _publish_similar(night: Night, inputs: Inputs, card: ModelCard, excluded: IntArray) -> Versions:
    """What lies beside each item and each user, where the model has it and the configuration asks for it."""
    settings, outputs = night.config.topk, Versions()
    wanted = {
        "items": (settings.similar_items, similar_items_table, ITEM_INDEX),
        "users": (settings.similar_users, similar_users_table, USER_INDEX),
    }
    for what in MODELS[card.model].beside:
        asked, table_of, index = wanted[what]
        if asked:
            table, lists = table_of(card.model), beside_lists(night, inputs, card, what, excluded)
            named = published_similar(lists, inputs.read(index), night.run_date, card.model_version, table)
            outputs[table.name] = store.replace_night(named, night.warehouse, table, night.run_date)
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


def _unjudged(night: Night, inputs: Inputs, card: ModelCard) -> str:
    """Why a model has not been judged, where anything depends on it; empty where it has."""
    if not card.can_list:
        return card.untrained
    if not night.config.gate.enabled:
        return ""
    mine, _ = _judgement(night, inputs, card.model, night.run_date, card.model_version)
    return unjudged(night, card, mine.model)


def _verdict_on(
    night: Night, inputs: Inputs, card: ModelCard, counts: ListCounts, why: str, of_the_model: bool
) -> Verdict:
    """What speaks against the publication of lists: of the model's, or of popularity's in its place.

    Popularity takes the place of no lists that a judged model made: these stay current.
    """
    said = f"NOT JUDGED ({why})"
    if not of_the_model:
        place = "" if MODELS[card.model].lists is Lists.ITEMS else ", recent popularity in its place"
        return Verdict([said]) if _last(night, inputs, card.model) else Verdict(notes=[f"{said}{place}"])
    if not counts.rows:
        return Verdict(["it has no list"])
    if not night.config.gate.enabled:
        return Verdict()
    if not why:
        return verdict_on(night, inputs, card, counts)
    return replace(verdict(None, None, _share(counts), night.config.gate), notes=[said])


def verdict_on(night: Night, inputs: Inputs, card: ModelCard, counts: ListCounts) -> Verdict:
    """What the gate says of the night's model, by ``metrics`` and the share of those expected that have a list."""
    last, before = _last(night, inputs, card.model), None
    mine, how = _judgement(night, inputs, card.model, night.run_date, card.model_version)
    if last is not None:
        theirs, otherwise = _judgement(night, inputs, card.model, *last)
        before = Last(last[0], theirs, difference(otherwise, how) if theirs.model else "")
    return verdict(mine, before, _share(counts), night.config.gate)


def _share(counts: ListCounts) -> float:
    """Share of those expected that have a list."""
    return counts.served / counts.expected if counts.expected else 0.0


def _last(night: Night, inputs: Inputs, model: str) -> tuple[date, str] | None:
    """Night and version of the model that was published before."""
    pointers = inputs.found.once("pointers", lambda: current_lists(night))
    return inputs.found.once(("last", model), lambda: last_published(night, model, pointers))


def _compared(night: Night, inputs: Inputs, model: str) -> set[date]:
    """The nights whose metrics the gate looks at."""
    last = _last(night, inputs, model)
    return {night.run_date, *([last[0]] if last else [])}


def _judgement(night: Night, inputs: Inputs, model: str, day: date, version: str) -> tuple[Judgement, str | None]:
    """What ``metrics`` says of a night's model and of recent popularity beside it, and how they were judged."""
    rows, split = _metrics(inputs, _compared(night, inputs, model)), split_of(model, night.fmt.recommend_seen)

    def values(name: str, of: str) -> list[MetricValue]:
        mine = [r for r in rows if (r[RUN_DATE], r["model"], r[MODEL_VERSION], r["split"]) == (day, name, of, split)]
        return [MetricValue(r["metric"], r["k"], r[VALUE], r["n"], r[LOW], r[HIGH]) for r in mine]

    how = {r[PROTOCOL] for r in rows if (r[RUN_DATE], r["model"], r["split"]) == (day, model, split)}
    return Judgement(values(model, version), values(RECENT, "")), next(iter(how), None)


def _out_of_patience(night: Night, inputs: Inputs, model: str) -> list[str]:
    """What to say first of a model that has been held back for ``gate.patience`` nights, this one among them."""
    patience, nights = night.config.gate.patience, nights_held_back(night, model) + 1
    if not patience or nights < patience:
        return []
    pointer = inputs.found.once("pointers", lambda: current_lists(night)).get(model)
    lists = f"its lists are still those of {pointer.run_date}" if pointer else "it has no lists at all"
    said = f"FOR {nights} NIGHTS IN A ROW (gate.patience={patience}), {lists}"
    warn_event("STALE LISTS", model=model, nights=nights, current=str(pointer.run_date) if pointer else "none")
    return [said]


def _metrics(inputs: Inputs, nights: set[date]) -> list[dict[str, Any]]:
    """The rows of ``metrics`` of some nights; they are the same for most models, and read once."""
    if not inputs.has(METRICS):
        return []
    mine = pl.col(RUN_DATE).is_in(sorted(nights))
    read = partial(direct.rows_of, inputs.night.warehouse, METRICS, wanted=mine)
    return inputs.found.once(("metrics", *sorted(nights)), read)
