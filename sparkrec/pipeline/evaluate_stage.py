"""Judges the night's hold-out models, and popularity beside them, on what came after the cutoff."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
from pyspark import StorageLevel
from pyspark.sql import functions as F

from sparkrec import store
from sparkrec.errors import UserError
from sparkrec.evaluation.ranking import ALL, Lists, ranking_metrics
from sparkrec.evaluation.ratings import rating_metrics
from sparkrec.evaluation.sessions import popularity_ranks, session_metrics
from sparkrec.evaluation.split import holdout_users, known_items_only
from sparkrec.evaluation.values import RATINGS_SPLIT, RECENT, SESSIONS_SPLIT, USERS_SPLIT, MetricValue
from sparkrec.log import log_event
from sparkrec.models.als import load_als
from sparkrec.models.popularity import popularity, popularity_matrix, popularity_queries
from sparkrec.pipeline.ledger import StageResult
from sparkrec.pipeline.models import HOLDOUT, ModelCard, part_path, read_card
from sparkrec.pipeline.night import Inputs, Night
from sparkrec.pipeline.scorers import USER_MODELS, Scorer, seen_pairs, user_scorer
from sparkrec.prepare.cut import utc
from sparkrec.prepare.sessions import sessions
from sparkrec.prepare.user_item import user_item
from sparkrec.prepare.weights import counted
from sparkrec.retrieval.gru_states import left_out, next_item_ranks, trained_items
from sparkrec.retrieval.topk import SEEN, VECTOR, top_k
from sparkrec.tables import INTERACTIONS, ITEM_IDX, METRICS, RATING, START_TS, TS, USER_IDX

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

Judged = tuple[str, str, str, MetricValue]  # model, model version, split, value


def run_evaluate(night: Night, inputs: Inputs) -> StageResult:
    """Metrics of every model and of popularity into ``metrics``, in one transaction."""
    cards = {model: read_card(night.warehouse, model, night.run_date) for model in night.config.models}
    judged: list[Judged] = []
    user_cards = [cards[model] for model in USER_MODELS if model in cards]
    if user_cards:
        judged += judge_users(night, inputs, user_cards)
    if "als" in cards and night.config.als.feedback == "explicit":
        judged += _judge_ratings(night, inputs, cards["als"])
    if "gru" in cards:
        judged += judge_sessions(night, inputs, cards["gru"])
    rows = [
        (night.run_date, model, version, value.metric, value.k, float(value.value), value.n, split)
        for model, version, split, value in judged
    ]
    frame = night.spark.createDataFrame(rows, METRICS.ddl).coalesce(1)
    version = store.replace_night(frame, night.warehouse, METRICS, night.run_date)
    return StageResult(outputs={METRICS.name: version}, rows_out=len(rows), message=_summary(judged))


def judge_users(night: Night, inputs: Inputs, cards: list[ModelCard], with_baselines: bool = True) -> list[Judged]:
    """Metrics of user models, and of popularity beside them, on what each user first took from the cutoff on.

    Raises:
        UserError: Nothing was held out.
    """
    cutoff, ks = cards[0].cutoff, night.config.evaluation.k
    cold_below = night.config.evaluation.cold_below
    truth = holdout_users(inputs.read(INTERACTIONS), cutoff, night.as_of, night.fmt.event_weights, cold_below)
    users = truth.select(USER_IDX).distinct()
    taken = seen_pairs(night, inputs, cutoff).groupBy(USER_IDX).agg(F.collect_list(ITEM_IDX).alias(SEEN))
    users = users.join(taken, USER_IDX, "left").persist(StorageLevel.MEMORY_AND_DISK)
    if users.isEmpty():
        raise _nothing_held_out(cutoff)
    scorers = [(c.model, c.model_version, user_scorer(night, inputs, c, HOLDOUT, cutoff)) for c in cards]
    popular = _popularity(night, inputs, users.select(USER_IDX), cutoff, cards[0].n_items) if with_baselines else []
    baselines = [(name, "", scorer) for name, scorer in popular]
    lists = {}
    for model, _, scorer in [*scorers, *baselines]:
        queries = scorer.queries.select(USER_IDX, VECTOR).join(users, USER_IDX, "inner")
        best = top_k(queries, scorer.items, key=USER_IDX, k=max(ks), block_mb=night.config.topk.block_mb)
        lists[model] = Lists(best, int(scorer.items.positions().size))
    found = ranking_metrics(lists, truth, ks)
    users.unpersist()
    truth.unpersist()
    return [
        (model, version, USERS_SPLIT if segment == ALL else segment, value)
        for model, version, _ in [*scorers, *baselines]
        for segment, values in found[model].items()
        for value in values
    ]


def _popularity(
    night: Night, inputs: Inputs, users: DataFrame, cutoff: datetime, n_items: int
) -> list[tuple[str, Scorer]]:
    """Popularity over all time and over the recent window, as scorers over the items seen before the cutoff."""
    rows, weights = inputs.read(INTERACTIONS), night.fmt.event_weights
    catalogue = counted(rows, weights).where(F.col(TS) < utc(cutoff)).select(ITEM_IDX).distinct()
    queries = popularity_queries(users)
    return [
        (name, Scorer(queries, popularity_matrix(popularity(rows, weights, cutoff, days), n_items, catalogue)))
        for name, days in _windows(night).items()
    ]


def _judge_ratings(night: Night, inputs: Inputs, card: ModelCard) -> list[Judged]:
    """Errors of the predicted ratings of what was rated from the cutoff on; a cold pair is predicted by the mean."""
    settings, weights, rows = night.config.prepare.user_item, night.fmt.event_weights, inputs.read(INTERACTIONS)
    earlier, later = rows.where(F.col(TS) < utc(card.cutoff)), rows.where(F.col(TS) >= utc(card.cutoff))
    held_out = user_item(later, settings, weights, night.as_of)
    mean = user_item(earlier, settings, weights, card.cutoff).agg(F.avg(RATING)).head()
    model = load_als(night.spark, part_path(night.warehouse, card.model, night.run_date, HOLDOUT))
    values = rating_metrics(held_out, model.user_factors, model.item_factors, float(mean[0]))  # type: ignore[index]
    return [(card.model, card.model_version, RATINGS_SPLIT, value) for value in values]


def judge_sessions(night: Night, inputs: Inputs, card: ModelCard, with_baselines: bool = True) -> list[Judged]:
    """Next-item prediction in the sessions that start at or after the cutoff, over the items trained on.

    Raises:
        UserError: Nothing was held out.
    """
    ks, ties = night.config.evaluation.k, night.config.evaluation.ties
    cutoff, rows = card.cutoff, inputs.read(INTERACTIONS)
    path = part_path(night.warehouse, card.model, night.run_date, HOLDOUT)
    trained = trained_items(path)
    catalogue = night.spark.createDataFrame([(int(i),) for i in np.flatnonzero(trained)], f"{ITEM_IDX} int")
    later = sessions(rows, night.config.prepare.sessions, night.fmt.session_events)
    later = later.where(F.col(START_TS) >= utc(cutoff)).persist(StorageLevel.MEMORY_AND_DISK)
    skipped = left_out(later, trained)
    log_event("holdout_sessions", cutoff=cutoff.isoformat(), **skipped)
    if skipped["sessions"] == skipped["sessions_short"]:
        raise _nothing_held_out(cutoff)
    earlier = sessions(rows.where(F.col(TS) < utc(cutoff)), night.config.prepare.sessions, night.fmt.session_events)
    values = session_metrics(next_item_ranks(later, path, ties=ties, history=earlier), ks)
    judged = [(card.model, card.model_version, SESSIONS_SPLIT, value) for value in values]
    known, weights = known_items_only(later, catalogue), dict.fromkeys(night.fmt.session_events, 1.0)
    for name, days in _windows(night).items() if with_baselines else ():
        scores = popularity(rows, weights, cutoff, days, by="events")
        ranks = popularity_ranks(known, scores.join(catalogue, ITEM_IDX, "left_semi"), catalogue, ties)
        judged += [(name, "", SESSIONS_SPLIT, v) for v in session_metrics(ranks, ks)]
    later.unpersist()
    return judged


def _windows(night: Night) -> dict[str, float | None]:
    """The popularity baselines: name → days before the cutoff, None for all time."""
    return {"popularity": None, RECENT: night.config.evaluation.recent_days}


def _nothing_held_out(cutoff: datetime) -> UserError:
    return UserError(
        "nothing is left to judge the models on",
        where=f"hold-out from {cutoff.isoformat()}",
        fix="set evaluation.holdout_days, evaluation.holdout_quantile or evaluation.cutoff so that it holds known ids",
    )


def _summary(judged: list[Judged]) -> str:
    """Recall at the largest k of each model, for the ledger's message."""
    whole = (USERS_SPLIT, SESSIONS_SPLIT)
    recalls = [(split, model, v) for model, _, split, v in judged if v.metric == "recall" and split in whole]
    largest = max((v.k or 0 for _, _, v in recalls), default=0)
    return ", ".join(f"{model} recall@{v.k} {v.value:.4f} ({split})" for split, model, v in recalls if v.k == largest)
