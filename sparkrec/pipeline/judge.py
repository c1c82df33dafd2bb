"""Judges hold-out models, and popularity beside them, on what came after the cutoff: by users, sessions, baskets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import reduce
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark import StorageLevel
from pyspark.sql import functions as F

from sparkrec.evaluation.baskets import basket_metrics, next_products
from sparkrec.evaluation.completion import CASE, completion_metrics, prefixes
from sparkrec.evaluation.gains import COUNT, GAIN, MODEL, OWNER, GainsBook
from sparkrec.evaluation.ranking import ALL, RankedLists, ranking_metrics
from sparkrec.evaluation.ratings import (
    KNOWN,
    PREDICTED,
    Calibrated,
    calibration,
    held_out_at_random,
    rating_bins,
    rating_metrics,
)
from sparkrec.evaluation.session_events import NEW_RANK, left_out
from sparkrec.evaluation.sessions import all_session_metrics, gain, popularity_ranks
from sparkrec.evaluation.split import holdout_users, known_items_only
from sparkrec.evaluation.values import (
    BASKETS_AGAIN_SPLIT,
    BASKETS_SPLIT,
    NOT_JUDGED,
    RATING_BIASES,
    RATING_MEAN,
    RATINGS_SPLIT,
    RECENT,
    SESSIONS_AGAIN_SPLIT,
    SESSIONS_SPLIT,
    USERS_AGAIN_SPLIT,
    USERS_SPLIT,
    MetricValue,
    split_of,
)
from sparkrec.log import log_event
from sparkrec.models import MODELS
from sparkrec.models.model import Lists
from sparkrec.models.night import Inputs, Night
from sparkrec.models.popularity.counts import popularity_arrays, popularity_matrix
from sparkrec.models.program import program
from sparkrec.models.rated import with_ratings
from sparkrec.models.scorer import PopularityScorer, Scorer, Wanted
from sparkrec.models.scorers import item_popularity, seen_pairs, user_scorer
from sparkrec.pipeline.lists import completed, embeddings, session_model
from sparkrec.prepare.copurchase import copurchase
from sparkrec.prepare.cut import utc
from sparkrec.prepare.rating_biases import EXPECTED, ITEM_BIAS, USER_BIAS, rating_biases
from sparkrec.prepare.sessions import sessions
from sparkrec.prepare.user_item import user_item
from sparkrec.prepare.weights import counted
from sparkrec.retrieval.similar import nearest
from sparkrec.retrieval.topk import SEEN
from sparkrec.spark.session import named_jobs
from sparkrec.warehouse.cards import HOLDOUT, RANDOM, ModelCard
from sparkrec.warehouse.tables import (
    BASKET_ID,
    INTERACTIONS,
    ITEM_IDX,
    ITEMS,
    RANK,
    RATING,
    SESSION_ID,
    START_TS,
    TS,
    USER_IDX,
)

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

Judged = tuple[str, str, str, MetricValue]  # model, model version, split, value
Calibrations = list[tuple[str, str, Calibrated]]  # model, model version, a part of the scale


class Held(NamedTuple):
    """How much there is to judge models on: users, sessions or baskets, and what is predicted of them."""

    users: int
    pairs: int

    def too_little(self, night: Night) -> bool:
        """Whether metrics on it would say nothing."""
        least = night.config.evaluation
        return self.users < least.min_users or self.pairs < least.min_pairs


def judge(
    night: Night,
    inputs: Inputs,
    cards: Sequence[ModelCard],
    with_baselines: bool = True,
    gains: GainsBook | None = None,
    calibrations: Calibrations | None = None,
    errors: GainsBook | None = None,
) -> list[Judged]:
    """Metrics of hold-out models, each on the hold-out of what its lists are for, and of popularity beside them.

    A model without a hold-out part, or whose hold-out is too small, has one value in place of all: ``NOT_JUDGED``.
    The metric of ``gains`` comes with its confidence interval, and what each user adds to it is noted there; how
    predicted ratings lie beside the true ones in ``calibrations``, and what each user takes from the squared error (a
    gain below 0) in ``errors``.
    """
    gate = night.config.gate
    book = GainsBook(gate.metric, gate.k, gate.per) if gains is None else gains
    trained = [card for card in cards if HOLDOUT in card.parts]
    by = {lists: [card for card in trained if MODELS[card.model].lists is lists] for lists in Lists}
    judged = _not_judged([card for card in cards if card not in trained], Held(0, 0), night.fmt.recommend_seen)
    of_users: list[Judged] = []
    if by[Lists.USERS]:
        with named_jobs(night.spark, "judge users"):
            of_users = judge_users(night, inputs, by[Lists.USERS], book, with_baselines)
    judged += of_users
    rating = [card for card in by[Lists.USERS] if program(card.model).rates(night.config)]
    if rating:
        with named_jobs(night.spark, "judge ratings"):
            judged += judge_ratings(night, inputs, rating, with_baselines, calibrations, errors)
    if by[Lists.SESSIONS]:
        with named_jobs(night.spark, "judge sessions"):
            judged += judge_sessions(night, inputs, by[Lists.SESSIONS], book, with_baselines)
    of_baskets = [*by[Lists.ITEMS], *by[Lists.BASKETS]]
    if of_baskets:
        with named_jobs(night.spark, "judge baskets"):
            judged += judge_baskets(night, inputs, of_baskets, book, with_baselines)
    return [(name, version, split, _with_interval(name, split, one, book)) for name, version, split, one in judged]


def _with_interval(model: str, split: str, value: MetricValue, book: GainsBook) -> MetricValue:
    """A metric with its confidence interval, where what each user adds to it was noted."""
    mine = book.found.get((model, split))
    if mine is None or not book.is_of(split, value.metric, value.k):
        return value
    low, high = mine.interval()
    return replace(value, low=low, high=high)


def judge_users(
    night: Night, inputs: Inputs, cards: list[ModelCard], book: GainsBook, with_baselines: bool = True
) -> list[Judged]:
    """Metrics of user models, and of popularity beside them, on what each user took from the cutoff on.

    On the items that a user had not taken before, by lists without those; where the format recommends items again, as
    they are published too: by lists that may hold them, on all that was taken (``USERS_AGAIN_SPLIT``).
    """
    cutoff, settings, again = cards[0].cutoff, night.config.evaluation, night.fmt.recommend_seen
    held_out = holdout_users(
        inputs.read(INTERACTIONS), cutoff, night.as_of, night.fmt.event_weights, settings.cold_below, again
    )
    new, wide = Held(held_out.users, held_out.n_pairs), Held(held_out.again_users, held_out.n_again)
    published = wide if again else new
    if published.too_little(night):
        held_out.kept.unpersist()
        return _not_judged(cards, published, again)
    scorers = [(c.model, c.model_version, user_scorer(night, inputs, c, HOLDOUT, cutoff)) for c in cards]
    popular = _popularity(night, inputs, cutoff, cards[0].n_items) if with_baselines else {}
    scorers += [(name, "", scorer) for name, scorer in popular.items()]
    judged: list[Judged] = []
    if not new.too_little(night):
        taken = seen_pairs(night, inputs, cutoff).groupBy(USER_IDX).agg(F.collect_list(ITEM_IDX).alias(SEEN))
        users = held_out.pairs.select(USER_IDX).distinct().join(taken, USER_IDX, "left")
        judged += _judged_lists(night, scorers, users, held_out.pairs, USERS_SPLIT, book)
    if held_out.again is not None:
        users = held_out.again.select(USER_IDX).distinct()
        judged += _judged_lists(night, scorers, users, held_out.again, USERS_AGAIN_SPLIT, book)
    held_out.kept.unpersist()
    return judged


def _judged_lists(
    night: Night,
    scorers: Sequence[tuple[str, str, Scorer]],
    users: DataFrame,
    truth: DataFrame,
    split: str,
    book: GainsBook,
) -> list[Judged]:
    """Metrics of the lists that models ``(name, version, scorer)`` make for users ``(user_idx[, seen])``."""
    ks, kept = night.config.evaluation.k, users.persist(StorageLevel.MEMORY_AND_DISK)
    wanted = Wanted((USER_IDX,), max(ks), night.config.topk)
    lists = {model: RankedLists(scorer.best(kept, wanted), scorer.n_items) for model, _, scorer in scorers}
    found = ranking_metrics(lists, truth, ks, gains=(book, split))
    kept.unpersist()
    return [
        (model, version, split if segment == ALL else segment, value)
        for model, version, _ in scorers
        for segment, values in found[model].items()
        for value in values
    ]


def _popularity(night: Night, inputs: Inputs, cutoff: datetime, n_items: int) -> dict[str, Scorer]:
    """Popularity over all time and over the recent window, as scorers over the items seen before the cutoff."""
    found = item_popularity(night, inputs, night.fmt.event_weights, cutoff, n_items)
    scores = {"popularity": found.ever, RECENT: found.recent}
    return {name: PopularityScorer(popularity_matrix(one, found.ever)) for name, one in scores.items()}


def judge_ratings(
    night: Night,
    inputs: Inputs,
    cards: list[ModelCard],
    with_baselines: bool = True,
    calibrations: Calibrations | None = None,
    errors: GainsBook | None = None,
) -> list[Judged]:
    """Errors of the predicted ratings, and of the mean and the regularised biases beside them.

    Of what was rated from the cutoff on, or of the share that ``evaluation.ratings=random`` holds out. Nothing where
    fewer than ``evaluation.min_pairs`` ratings are. How the predictions lie beside the ratings is noted in
    ``calibrations``, what each user takes from the squared error in ``errors``.
    """
    held_out, part = night.config.evaluation, RANDOM if night.config.evaluation.ratings == "random" else HOLDOUT
    earlier, later = _rated(night, inputs, cards[0].cutoff, part)
    later = later.where(F.col(RATING).isNotNull()).persist(StorageLevel.MEMORY_AND_DISK)
    judged: list[Judged] = []
    if later.count() >= held_out.min_pairs:
        biases = rating_biases(earlier)
        known = F.col(USER_BIAS).isNotNull() & F.col(ITEM_BIAS).isNotNull()
        pairs = biases.of(later).select(USER_IDX, ITEM_IDX, RATING, EXPECTED, known.alias(KNOWN))
        pairs = pairs.persist(StorageLevel.MEMORY_AND_DISK)
        made = [(c.model, c.model_version, with_ratings(night, c, part, pairs)) for c in cards if part in c.parts]
        if errors is not None:
            noted = [_squared(model, one, biases.low, biases.high) for model, _, one in made]
            users = later.select(USER_IDX).distinct().count()
            errors.add(RATINGS_SPLIT, reduce(lambda some, more: some.unionByName(more), noted), users)
        if with_baselines:
            mean = F.lit(biases.mean)
            for name, expected in ((RATING_MEAN, mean), (RATING_BIASES, F.col(EXPECTED))):
                made.append((name, "", pairs.withColumn(PREDICTED, expected)))
        for model, version, predictions in made:
            bins = rating_bins(predictions, biases.low, biases.high)
            judged += [(model, version, RATINGS_SPLIT, value) for value in rating_metrics(bins)]
            if calibrations is not None:
                calibrations += [(model, version, one) for one in calibration(bins)]
        pairs.unpersist()
    later.unpersist()
    return judged


def _squared(model: str, predictions: DataFrame, low: float, high: float) -> DataFrame:
    """What each pair takes from the squared error of a model, as ``GainsBook.add`` has it."""
    cut = F.least(F.greatest(F.col(PREDICTED).cast("double"), F.lit(float(low))), F.lit(float(high)))
    gain = (-F.pow(cut - F.col(RATING), F.lit(2.0))).alias(GAIN)
    return predictions.select(F.lit(model).alias(MODEL), F.col(USER_IDX).alias(OWNER), gain, F.lit(1).alias(COUNT))


def _rated(night: Night, inputs: Inputs, cutoff: datetime, part: str) -> tuple[DataFrame, DataFrame]:
    """What is trained on and what is held out, in the columns of ``tables.USER_ITEM``."""
    settings, weights, rows = night.config.prepare.user_item, night.fmt.event_weights, inputs.read(INTERACTIONS)
    if part == RANDOM:
        pairs, drawn = user_item(rows, settings, weights, night.as_of), held_out_at_random(night.config.evaluation)
        return pairs.where(~drawn), pairs.where(drawn)
    earlier, later = rows.where(F.col(TS) < utc(cutoff)), rows.where(F.col(TS) >= utc(cutoff))
    return user_item(earlier, settings, weights, cutoff), user_item(later, settings, weights, night.as_of)


def judge_sessions(
    night: Night, inputs: Inputs, cards: Sequence[ModelCard], book: GainsBook, with_baselines: bool = True
) -> list[Judged]:
    """Next-item prediction in the sessions that start at or after the cutoff, over the items trained on.

    Of the items that are new to the user, among those that are; where the format recommends items again, of all items
    too (``SESSIONS_AGAIN_SPLIT``).
    """
    ties, events, again = night.config.evaluation.ties, night.fmt.session_events, night.fmt.recommend_seen
    cutoff, rows = cards[0].cutoff, inputs.read(INTERACTIONS)
    models = [session_model(night, card, HOLDOUT) for card in cards]
    trained = models[0].trained
    later = sessions(rows, night.config.prepare.sessions, events)
    later = _with_seen(night, inputs, later.where(F.col(START_TS) >= utc(cutoff)), START_TS)
    later = later.persist(StorageLevel.MEMORY_AND_DISK)
    skipped = left_out(later, trained)
    log_event("holdout_sessions", cutoff=cutoff.isoformat(), **skipped)
    n_sessions = skipped["sessions"] - skipped["sessions_short"]
    wide = Held(n_sessions, skipped["events"] - skipped["events_unseen"] - skipped["events_short"] - n_sessions)
    new = Held(skipped["sessions_new"], skipped["events_new"])
    published = wide if again else new
    if published.too_little(night):
        later.unpersist()
        return _not_judged(cards, published, again)
    earlier = sessions(rows.where(F.col(TS) < utc(cutoff)), night.config.prepare.sessions, events)
    ranks = {c.model: m.next_item_ranks(later, earlier, ties) for c, m in zip(cards, models, strict=True)}
    if with_baselines:
        scores = _times_taken(night, inputs, cutoff, len(trained), events)
        known = known_items_only(later, item_rows(night, trained))
        ranks |= {name: popularity_ranks(known, one, trained, ties) for name, one in scores.items()}
    splits = [] if new.too_little(night) else [SESSIONS_SPLIT]
    values = _judged_ranks(night, ranks, [*splits, SESSIONS_AGAIN_SPLIT] if again else splits, later, book)
    later.unpersist()
    versions = {card.model: card.model_version for card in cards}
    return [(name, versions.get(name, ""), split, value) for name, split, value in values]


def _judged_ranks(
    night: Night, ranks: Mapping[str, DataFrame], splits: Sequence[str], sessions: DataFrame, book: GainsBook
) -> list[tuple[str, str, MetricValue]]:
    """Metrics by name and split, in one pass.

    Args:
        night: The night.
        ranks: Name → ``(rank, new_rank)``.
        splits: On the whole (``…_AGAIN_SPLIT``), or on what is new to the users.
        sessions: The sessions or baskets, ``session_id`` and, where it is known, ``user_idx``.
        book: Where each user's share of its metric is noted.
    """
    kept = (
        {name: one.persist(StorageLevel.MEMORY_AND_DISK) for name, one in ranks.items()} if len(splits) > 1 else ranks
    )
    asked = {
        (name, split): one
        if split in (SESSIONS_AGAIN_SPLIT, BASKETS_AGAIN_SPLIT)
        else one.where(F.col(NEW_RANK).isNotNull()).select(SESSION_ID, F.col(NEW_RANK).alias(RANK))
        for name, one in kept.items()
        for split in splits
    }
    found = all_session_metrics(asked, night.config.evaluation.k)
    owners = sessions.select(SESSION_ID, _owner(sessions).alias(OWNER))
    for split in splits:
        noted = [
            one.select(F.lit(name).alias(MODEL), SESSION_ID, gain(book.metric, book.k).alias(GAIN))
            for (name, of), one in asked.items()
            if of == split
        ]
        if book.per == "session":
            noted = [one.groupBy(MODEL, SESSION_ID).agg(F.avg(GAIN).alias(GAIN)) for one in noted]
            book.by_session.add(split)
        rows = reduce(lambda some, more: some.unionByName(more), noted).join(owners, SESSION_ID, "left")
        most = max(values[0].n for (_, of), values in found.items() if of == split)
        book.add(split, rows.withColumn(COUNT, F.lit(1)), most)
    for one in kept.values():
        one.unpersist()
    return [(name, split, value) for (name, split), values in found.items() for value in values]


def _owner(sessions: DataFrame) -> Column:
    """Whose a session is: a user's, or nobody's, then its own."""
    own = F.concat(F.lit("session "), SESSION_ID)
    return F.coalesce(F.col(USER_IDX).cast("string"), own) if USER_IDX in sessions.columns else own


def _with_seen(night: Night, inputs: Inputs, later: DataFrame, begins: str) -> DataFrame:
    """Sessions or baskets with ``seen array<int>``: what the user had taken before it began; nothing of nobody."""
    known = counted(inputs.read(INTERACTIONS), night.fmt.event_weights).where(F.col(USER_IDX).isNotNull())
    first = known.groupBy(USER_IDX, ITEM_IDX).agg(F.min(TS).alias("first"))
    taken = first.groupBy(USER_IDX).agg(F.collect_list(F.struct("first", ITEM_IDX)).alias("taken"))
    before = F.filter("taken", lambda one: one["first"] < F.col(begins))
    seen = F.coalesce(F.transform(before, lambda one: one[ITEM_IDX]), F.array().cast("array<int>"))
    return later.join(taken, USER_IDX, "left").withColumn(SEEN, seen).drop("taken")


def judge_baskets(
    night: Night, inputs: Inputs, cards: Sequence[ModelCard], book: GainsBook, with_baselines: bool = True
) -> list[Judged]:
    """The next product in the baskets from the cutoff on, over the items bought before.

    Models whose lists are for items are asked what goes with the product before it, whatever the buyer has
    (``BASKETS_AGAIN_SPLIT``). Those for baskets are shown all that is in the basket by then, and judged on the products
    that are new to the user by lists without what the user has; where the format recommends items again, on all
    products by lists that may hold it, too. A product that a list does not hold is found at no place.
    """
    cutoff, events, again = cards[0].cutoff, night.fmt.purchase_events, night.fmt.recommend_seen
    scores = _times_taken(night, inputs, cutoff, cards[0].n_items, events)
    bought = scores["popularity"] > 0
    later = copurchase(inputs.read(INTERACTIONS), night.config.prepare.baskets, events)
    later = _with_seen(night, inputs, later.where(F.col(TS) >= utc(cutoff)), TS).withColumnRenamed(
        BASKET_ID, SESSION_ID
    )
    known = known_items_only(later, item_rows(night, bought)).persist(StorageLevel.MEMORY_AND_DISK)
    pairs = next_products(known).persist(StorageLevel.MEMORY_AND_DISK)
    held, judged = _held_baskets(known), list[Judged]()
    for card in cards:
        published = split_of(card.model, again)
        if held[published].too_little(night):
            judged += _not_judged([card], held[published], again)
            continue
        both = again and MODELS[card.model].lists is Lists.BASKETS
        for split in held if both else (published,):
            if not held[split].too_little(night):
                values = _next_product_metrics(night, card, HOLDOUT, known, pairs, split, book)
                judged += [(card.model, card.model_version, split, value) for value in values]
    splits = dict.fromkeys(split for _, _, split, value in judged if value.metric != NOT_JUDGED)
    if with_baselines and splits:
        ties = night.config.evaluation.ties
        ranks = {name: popularity_ranks(known, one, bought, ties) for name, one in scores.items()}
        judged += [
            (name, "", split, value) for name, split, value in _judged_ranks(night, ranks, [*splits], known, book)
        ]
    for frame in (known, pairs):
        frame.unpersist()
    return judged


def _held_baskets(baskets: DataFrame) -> dict[str, Held]:
    """What there is to judge on by split; baskets ``(items array<int>, seen array<int>)``, of two products or more."""
    following = F.slice(ITEMS, 2, F.size(ITEMS) - 1)
    n, new = F.size(following), F.size(F.array_except(following, F.col(SEEN)))
    counts = [F.count_if(new > 0), F.coalesce(F.sum(new), F.lit(0)), F.count("*"), F.coalesce(F.sum(n), F.lit(0))]
    new_baskets, new_pairs, n_baskets, n_pairs = baskets.agg(*counts).first()  # type: ignore[misc]
    return {BASKETS_SPLIT: Held(new_baskets, new_pairs), BASKETS_AGAIN_SPLIT: Held(n_baskets, n_pairs)}


def _next_product_metrics(
    night: Night, card: ModelCard, part: str, baskets: DataFrame, pairs: DataFrame, split: str, book: GainsBook
) -> list[MetricValue]:
    """Metrics of a model's lists at guessing the next products of baskets.

    Args:
        night: The night.
        card: A model whose lists are for items (asked what goes with the product before) or for baskets (shown all
            that is in the basket by then).
        part: Its part.
        baskets: ``(session_id string, items array<int>, seen array<int>)``, items in order.
        pairs: Their ``next_products``.
        split: Of lists that leave out what a user has, on the products that are new, or of lists that may hold it.
        book: Where each basket's (or item's) share of its metric is noted.
    """
    settings, ks = night.config.topk, night.config.evaluation.k
    if MODELS[card.model].lists is Lists.ITEMS:
        noted = (book, split, card.model)
        if (partners := program(card.model).partners) is not None:
            return basket_metrics(partners(night, card, part, max(ks), None), pairs, ks, noted)[ALL]
        vectors, contexts = embeddings(night, card, part)
        block_mb, pass_mb = settings.block_mb, settings.pass_mb
        lists = nearest(night.spark, vectors, k=max(ks), among=contexts, block_mb=block_mb, pass_mb=pass_mb)
        return basket_metrics(lists, pairs, ks, noted)[ALL]
    named, seen = baskets.withColumnRenamed(SESSION_ID, BASKET_ID), None
    if split == BASKETS_SPLIT:
        seen = named.select(BASKET_ID, F.explode(SEEN).alias(ITEM_IDX))
    cases = prefixes(named if split == BASKETS_SPLIT else named.drop(SEEN)).persist(StorageLevel.MEMORY_AND_DISK)
    lists = completed(night, card, part, cases, Wanted((BASKET_ID, CASE), max(ks), settings, seen))
    lists = lists.persist(StorageLevel.MEMORY_AND_DISK)
    values = completion_metrics(lists, cases, ks, card.n_items, card.model, (book, split))
    for frame in (lists, cases):
        frame.unpersist()
    return values


def _times_taken(
    night: Night, inputs: Inputs, cutoff: datetime, n_items: int, events: Sequence[str]
) -> dict[str, npt.NDArray[np.float64]]:
    """How often each item was taken by such events before the cutoff, float64 ``[n_items]``: ever, and of late."""
    windows = {"popularity": None, RECENT: night.config.evaluation.recent_days}
    weights, rows = dict.fromkeys(events, 1.0), inputs.read(INTERACTIONS)
    found = popularity_arrays(rows, weights, cutoff, list(windows.values()), n_items, by="events")
    return dict(zip(windows, found, strict=True))


def item_rows(night: Night, among: npt.NDArray[np.bool_]) -> DataFrame:
    """``(item_idx int)`` of the items of a mask, bool ``[n_items]``."""
    return night.spark.createDataFrame(pa.table({ITEM_IDX: pa.array(np.flatnonzero(among).astype(np.int32))}))


def unjudged(night: Night, card: ModelCard, values: Iterable[MetricValue]) -> str:
    """Why nothing was said of a model; empty where it was judged.

    Args:
        night: The night.
        card: The model's.
        values: Its metrics.
    """
    few = next((value for value in values if value.metric == NOT_JUDGED), None)
    if few is None:
        return ""
    if HOLDOUT not in card.parts:
        return card.untrained
    whom = {Lists.USERS: "users", Lists.SESSIONS: "sessions"}.get(MODELS[card.model].lists, "baskets")
    least = night.config.evaluation
    return (
        f"{few.n} {whom} with {few.value:.0f} items to foresee are held out, of evaluation.min_users={least.min_users} "
        f"and evaluation.min_pairs={least.min_pairs} at least: a longer hold-out has more"
    )


def _not_judged(cards: Sequence[ModelCard], held: Held, recommend_seen: bool) -> list[Judged]:
    """What stands in ``metrics`` for models that nothing can be said of: how little was held out."""
    value = MetricValue(NOT_JUDGED, None, float(held.pairs), held.users)
    return [(card.model, card.model_version, split_of(card.model, recommend_seen), value) for card in cards]
