"""Judges hold-out models, and popularity beside them, on what came after the cutoff: by users, sessions, baskets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
from pyspark import StorageLevel
from pyspark.sql import functions as F

from sparkrec.errors import UserError
from sparkrec.evaluation.ranking import ALL, ranking_metrics
from sparkrec.evaluation.ranking import Lists as RankedLists
from sparkrec.evaluation.ratings import rating_metrics
from sparkrec.evaluation.session_events import left_out
from sparkrec.evaluation.sessions import popularity_ranks, session_metrics
from sparkrec.evaluation.split import holdout_users, known_items_only
from sparkrec.evaluation.values import BASKETS_SPLIT, RATINGS_SPLIT, RECENT, SESSIONS_SPLIT, USERS_SPLIT, MetricValue
from sparkrec.log import log_event
from sparkrec.model_kinds import KINDS, Lists
from sparkrec.models.als import load_als
from sparkrec.models.popularity import popularity, popularity_matrix, popularity_queries
from sparkrec.pipeline.models import HOLDOUT, ModelCard, part_path
from sparkrec.pipeline.next_items import next_product_metrics, session_model
from sparkrec.pipeline.night import Inputs, Night
from sparkrec.pipeline.scorer import DenseScorer, Scorer, Wanted
from sparkrec.pipeline.scorers import seen_pairs, user_scorer
from sparkrec.prepare.copurchase import copurchase
from sparkrec.prepare.cut import utc
from sparkrec.prepare.sessions import sessions
from sparkrec.prepare.user_item import user_item
from sparkrec.prepare.weights import counted
from sparkrec.retrieval.topk import SEEN
from sparkrec.spark import named_jobs
from sparkrec.tables import (
    BASKET_ID,
    EVENT_TYPE,
    INTERACTIONS,
    ITEM_IDX,
    RATING,
    SESSION_ID,
    START_TS,
    TS,
    USER_IDX,
)

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

Judged = tuple[str, str, str, MetricValue]  # model, model version, split, value


def judge(night: Night, inputs: Inputs, cards: Sequence[ModelCard], with_baselines: bool = True) -> list[Judged]:
    """Metrics of hold-out models, each on the hold-out of what its lists are for, and of popularity beside them.

    Raises:
        UserError: Nothing was held out.
    """
    by = {lists: [card for card in cards if KINDS[card.model].lists is lists] for lists in Lists}
    judged: list[Judged] = []
    if by[Lists.USERS]:
        with named_jobs(night.spark, "judge users"):
            judged += judge_users(night, inputs, by[Lists.USERS], with_baselines)
    for card in by[Lists.USERS]:
        if card.model == "als" and night.config.als.feedback == "explicit":
            with named_jobs(night.spark, "judge ratings"):
                judged += judge_ratings(night, inputs, card)
    if by[Lists.SESSIONS]:
        with named_jobs(night.spark, "judge sessions"):
            judged += judge_sessions(night, inputs, by[Lists.SESSIONS], with_baselines)
    of_baskets = [*by[Lists.ITEMS], *by[Lists.BASKETS]]
    if of_baskets:
        with named_jobs(night.spark, "judge baskets"):
            judged += judge_baskets(night, inputs, of_baskets, with_baselines)
    return judged


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
        best = scorer.best(users, Wanted((USER_IDX,), max(ks), night.config.topk))
        lists[model] = RankedLists(best, scorer.n_items)
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
        (name, DenseScorer(queries, popularity_matrix(popularity(rows, weights, cutoff, days), n_items, catalogue)))
        for name, days in _windows(night).items()
    ]


def judge_ratings(night: Night, inputs: Inputs, card: ModelCard) -> list[Judged]:
    """Errors of the predicted ratings of what was rated from the cutoff on; a cold pair is predicted by the mean."""
    settings, weights, rows = night.config.prepare.user_item, night.fmt.event_weights, inputs.read(INTERACTIONS)
    earlier, later = rows.where(F.col(TS) < utc(card.cutoff)), rows.where(F.col(TS) >= utc(card.cutoff))
    held_out = user_item(later, settings, weights, night.as_of)
    mean = user_item(earlier, settings, weights, card.cutoff).agg(F.avg(RATING)).head()
    model = load_als(night.spark, part_path(night.warehouse, card.model, night.run_date, HOLDOUT))
    values = rating_metrics(held_out, model.user_factors, model.item_factors, float(mean[0]))  # type: ignore[index]
    return [(card.model, card.model_version, RATINGS_SPLIT, value) for value in values]


def judge_sessions(
    night: Night, inputs: Inputs, cards: Sequence[ModelCard], with_baselines: bool = True
) -> list[Judged]:
    """Next-item prediction in the sessions that start at or after the cutoff, over the items trained on.

    Raises:
        UserError: Nothing was held out.
    """
    ks, ties = night.config.evaluation.k, night.config.evaluation.ties
    cutoff, rows = cards[0].cutoff, inputs.read(INTERACTIONS)
    models = [session_model(night, card, HOLDOUT) for card in cards]
    trained = models[0].trained
    catalogue = night.spark.createDataFrame([(int(i),) for i in np.flatnonzero(trained)], f"{ITEM_IDX} int")
    later = sessions(rows, night.config.prepare.sessions, night.fmt.session_events)
    later = later.where(F.col(START_TS) >= utc(cutoff)).persist(StorageLevel.MEMORY_AND_DISK)
    skipped = left_out(later, trained)
    log_event("holdout_sessions", cutoff=cutoff.isoformat(), **skipped)
    if skipped["sessions"] == skipped["sessions_short"]:
        raise _nothing_held_out(cutoff)
    earlier = sessions(rows.where(F.col(TS) < utc(cutoff)), night.config.prepare.sessions, night.fmt.session_events)
    judged: list[Judged] = []
    for card, model in zip(cards, models, strict=True):
        values = session_metrics(model.next_item_ranks(later, earlier, ties), ks)
        judged += [(card.model, card.model_version, SESSIONS_SPLIT, value) for value in values]
    known = known_items_only(later, catalogue)
    baselines = _popularity_of_next(night, inputs, known, catalogue, cutoff, night.fmt.session_events)
    judged += [(name, "", SESSIONS_SPLIT, value) for name, value in (baselines if with_baselines else ())]
    later.unpersist()
    return judged


def judge_baskets(
    night: Night, inputs: Inputs, cards: Sequence[ModelCard], with_baselines: bool = True
) -> list[Judged]:
    """The next product in the baskets from the cutoff on, over the items bought before.

    Models whose lists are for items are asked what goes with the product before it; those for baskets are shown all
    that is in the basket by then. A product that a list does not hold is found at no place.

    Raises:
        UserError: Nothing was held out.
    """
    ks, cutoff, rows = night.config.evaluation.k, cards[0].cutoff, inputs.read(INTERACTIONS)
    bought = rows.where(F.col(EVENT_TYPE).isin(*night.fmt.purchase_events) & (F.col(TS) < utc(cutoff)))
    catalogue = bought.select(ITEM_IDX).distinct().persist(StorageLevel.MEMORY_AND_DISK)
    later = copurchase(rows, night.config.prepare.baskets, night.fmt.purchase_events)
    later = later.where(F.col(TS) >= utc(cutoff)).withColumnRenamed(BASKET_ID, SESSION_ID)
    known = known_items_only(later, catalogue).persist(StorageLevel.MEMORY_AND_DISK)
    if known.isEmpty():
        raise _nothing_held_out(cutoff)
    judged: list[Judged] = []
    for card in cards:
        values = next_product_metrics(night, card, HOLDOUT, known, ks)
        judged += [(card.model, card.model_version, BASKETS_SPLIT, value) for value in values]
    baselines = _popularity_of_next(night, inputs, known, catalogue, cutoff, night.fmt.purchase_events)
    judged += [(name, "", BASKETS_SPLIT, value) for name, value in (baselines if with_baselines else ())]
    for frame in (known, catalogue):
        frame.unpersist()
    return judged


def _popularity_of_next(
    night: Night, inputs: Inputs, known: DataFrame, catalogue: DataFrame, cutoff: datetime, events: Sequence[str]
) -> Iterator[tuple[str, MetricValue]]:
    """Metrics of popularity, over all time and of late, at guessing the next items."""
    rows, weights = inputs.read(INTERACTIONS), dict.fromkeys(events, 1.0)
    for name, days in _windows(night).items():
        scores = popularity(rows, weights, cutoff, days, by="events").join(catalogue, ITEM_IDX, "left_semi")
        ranks = popularity_ranks(known, scores, catalogue, night.config.evaluation.ties)
        yield from ((name, value) for value in session_metrics(ranks, night.config.evaluation.k))


def _windows(night: Night) -> dict[str, float | None]:
    """The popularity baselines: name → days before the cutoff, None for all time."""
    return {"popularity": None, RECENT: night.config.evaluation.recent_days}


def _nothing_held_out(cutoff: datetime) -> UserError:
    return UserError(
        "nothing is left to judge the models on",
        where=f"hold-out from {cutoff.isoformat()}",
        fix="set evaluation.holdout_days, evaluation.holdout_quantile or evaluation.cutoff so that it holds known ids",
    )
